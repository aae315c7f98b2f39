"""Models that are told a class, or nothing, where others are told a sentence. No torch.

A card whose conditioners have ``class``, a list of names, is of a model that draws one of them; the prompt is its name.
One with neither ``class`` nor ``prompt`` draws what it likes.
"""

from __future__ import annotations

from perrin.errors import InvalidInput
from perrin.models import ModelCard

__all__ = ["class_of"]


def class_of(card: ModelCard, field: str, name: str | None) -> int:
    """The number of the class called ``name``, in any case; without a name that of none, which is the last.

    Raises:
        InvalidInput: names ``field`` and the classes there are.
    """
    names = [str(one).casefold() for one in card.conditioners.get("class", [])]
    if name is None:
        return len(names)
    if name.strip().casefold() not in names:
        known = f"one of {', '.join(names)}" if names else "none"
        raise InvalidInput(field, name, f"{known} for model {card.name}")
    return names.index(name.strip().casefold())
