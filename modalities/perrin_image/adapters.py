"""Adapters by name: which of the installed ones a request means, and what to write down of it. No torch.

An adapter is a model whose card has ``base``, the model that it belongs to. What it does shows in its files and
conditioners: ``adapter.safetensors`` draws differently (LoRA), ``conditioners.control`` reads controls, and
``conditioners.like`` reads pictures. A resolved request names each as ``NAME@HASH``, the first twelve digits of the
model's hash: so the same request is never made with other weights in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from perrin.errors import InvalidInput
from perrin.models import ModelCard, models

__all__ = [
    "LORA",
    "MOST",
    "MOST_WEIGHT",
    "Lora",
    "card_of",
    "check_base",
    "reader_of",
    "resolved_lora",
    "weights_of",
    "written",
]

MOST = 4
"""Adapters of one request; each adds to the work of every row."""

MOST_WEIGHT = 2.0
"""Beyond it, and below its negative, pictures fall apart."""

LORA = "adapter.safetensors"
DIGITS = 12

_LORA = re.compile(r"(?P<name>[^:@]+)(?:@(?P<hash>[0-9a-f]{12}))?(?::(?P<weight>[^:]*))?")
_NAME = re.compile(r"(?P<name>[^:@]+)(?:@(?P<hash>[0-9a-f]{12}))?")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")


class Lora(NamedTuple):
    """One adapter of a request, and how much of it."""

    card: ModelCard
    weight: float


def check_base(card: ModelCard) -> None:
    """Refuse an adapter where a model is wanted.

    Raises:
        InvalidInput: ``card`` is one; says how it is used.
    """
    if card.base:
        how = "lora" if LORA in card.files else next(iter(card.conditioners), "another parameter")
        raise InvalidInput("model", card.name, f"a model of its own: this is an adapter of {card.base}, for {how}")


def resolved_lora(given: Sequence[str], base: ModelCard) -> list[str]:
    """``NAME:WEIGHT`` of each as ``NAME@HASH:WEIGHT``.

    Raises:
        InvalidInput: an unknown name, an adapter of another model, or a weight outside of -2 to 2.
    """
    return [f"{written(lora.card)}:{lora.weight:g}" for lora in weights_of(given, base)]


def weights_of(given: Sequence[str], base: ModelCard) -> list[Lora]:
    """The adapters that ``lora`` names, with their weights; raises as `resolved_lora`."""
    found = []
    for text in given:
        match = _LORA.fullmatch(text)
        weight = match and (match["weight"] if match["weight"] is not None else "1")
        if match is None or not _NUMBER.fullmatch(weight or "") or abs(float(weight or 0)) > MOST_WEIGHT:
            raise InvalidInput("lora", text, f"NAME:WEIGHT, with a weight of {-MOST_WEIGHT:g} to {MOST_WEIGHT:g}")
        card = _card("lora", match["name"], match["hash"], base, lambda card: LORA in card.files)
        found.append(Lora(card, float(weight or 1)))
    return found


def reader_of(field: str, given: str | None, base: ModelCard, what: str, kind: str | None = None) -> ModelCard:
    """The adapter that reads ``what`` (``control`` or ``like``).

    Args:
        field: the parameter that ``given`` is of.
        given: a name, or None for the first that is installed.
        base: the model that it is to belong to.
        what: a key of the adapter's conditioners.
        kind: of control.

    Raises:
        InvalidInput: there is none; lists what there is.
    """

    def reads(card: ModelCard) -> bool:
        return what in card.conditioners and (kind is None or kind in card.conditioners[what])

    if given is not None:
        return card_of(field, given, base, reads)
    cards = _installed(base, lambda card: what in card.conditioners)
    fitting = next((card for card in cards if reads(card)), None)
    if fitting is not None:
        return fitting
    kinds = sorted({name for card in cards for name in card.conditioners[what]}) if kind else []
    there = f"one of {', '.join(kinds)}" if kinds else "an adapter that reads it, see `perrin models add`"
    raise InvalidInput(what, kind or "a picture", f"{there}, for model {base.name}")


def card_of(
    field: str, given: str, base: ModelCard, fits: Callable[[ModelCard], bool] = lambda card: True
) -> ModelCard:
    """The card of ``NAME`` or ``NAME@HASH``.

    Raises:
        InvalidInput: it is not installed, belongs to another model, does something else, or has other weights.
    """
    match = _NAME.fullmatch(given)
    if match is None:
        raise InvalidInput(field, given, "the name of an adapter")
    return _card(field, match["name"], match["hash"], base, fits)


def _installed(base: ModelCard, fits: Callable[[ModelCard], bool]) -> list[ModelCard]:
    return [card for card in models().values() if card.base == base.name and fits(card)]


def _card(field: str, name: str, digits: str | None, base: ModelCard, fits: Callable[[ModelCard], bool]) -> ModelCard:
    known = {card.name: card for card in _installed(base, fits)}
    if name not in known:
        there = ", ".join(known) or "none is installed"
        raise InvalidInput(field, name, f"an adapter for model {base.name}: {there}")
    card = known[name]
    if digits is not None and not card.sha256.startswith(digits):
        now = card.sha256[:DIGITS]
        raise InvalidInput(field, f"{name}@{digits}", f"{name}@{now}, which is what is installed, or no hash")
    return card


def written(card: ModelCard) -> str:
    """``NAME@HASH``."""
    return f"{card.name}@{card.sha256[:DIGITS]}"
