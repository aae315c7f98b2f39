"""What runs beside a model's network for single requests: LoRA weights, side networks, readers of pictures.

All of it is handed to the network as conditions of a sample, so that requests with and without share network calls.
Files are read once and kept by the hash of their model, those used last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from perrin.diffusion import Denoiser
from perrin.diffusion.process import Process
from perrin.errors import InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.models import ModelCard
from perrin.nn import DiffusionTransformer, SideNetwork
from perrin.nn.lora import PREFIX, Adapted
from perrin.nn.text import text_encoder
from perrin.training.adapters import Adapter, read_adapter, stack
from perrin_image.adapters import LORA, Lora, card_of, weights_of
from perrin_image.control import plane, read_control
from perrin_image.face import ImageParameters
from perrin_image.like import LikeNetwork, read_like
from perrin_image.metrics.features import Features
from perrin_image.sizes import Layout

__all__ = ["Beside", "Condition", "Told"]

Condition = dict[str, Tensor]
"""What one branch hears."""

KEPT = 16
"""Adapters that stay in memory."""

Kept = TypeVar("Kept")


class Steered(nn.Module):
    """The network with adapters by sample, and what a side network adds."""

    fills = Adapted.fills

    def __init__(self, adapted: Adapted, side: SideNetwork) -> None:
        super().__init__()
        self._adapted, self._side = adapted, side

    def forward(self, x: Tensor, t: Tensor, control: Tensor, strength: Tensor, **condition: Any) -> Any:
        """One evaluation; ``strength`` (1 or B,) scales what the control adds."""
        told = {key: condition.get(key) for key in ("context", "context_mask", "label")}
        added = self._side(x, t, control, **told)
        scale = strength.view(-1, *[1] * (added[0].dim() - 1))
        return self._adapted(x, t, residuals=[part * scale for part in added], **condition)


class Told(NamedTuple):
    """What a request tells the network beside its prompt.

    Attributes:
        denoiser: that is asked.
        more: conditions of every branch.
        tokens: (1, n, width) beside those of the prompt, or None.
    """

    denoiser: Denoiser
    more: dict[str, Tensor]
    tokens: Tensor | None

    def condition(self, context: Tensor, mask: Tensor, label: Tensor | None, spoken: bool = True) -> dict[str, Tensor]:
        """The condition of a branch; one that is steered away from hears no picture and sees no control.

        So guidance goes towards them as it goes towards the prompt.
        """
        more = self.more
        if "strength" in more:
            more = {**more, "strength": more["strength"] * spoken}
        if self.tokens is not None:
            heard = self.tokens.to(context).expand(len(context), -1, -1)
            there = torch.full(heard.shape[:2], spoken, device=mask.device)
            context, mask = torch.cat([context, heard * spoken], 1), torch.cat([mask, there], 1)
        style = {} if label is None else {"label": label}
        return {"context": context, "context_mask": mask, **style, **more}


class Beside:
    """The network of one model, alone or with an adapter beside it.

    Attributes:
        denoiser: of the network; requests with no control share it.
        network: the network itself.
    """

    def __init__(self, network: nn.Module, device: str, process: Process, card: ModelCard) -> None:
        self._adapted, self._device, self._card = Adapted(network), device, card
        self._options: dict[str, Any] = {"process": process, "prediction": card.prediction}
        self.network = network
        self.denoiser = Denoiser(self._adapted, **self._options)
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._seen: Features | None = None

    def told(
        self,
        p: ImageParameters,
        card: ModelCard,
        inputs: Mapping[str, InputFile],
        layout: Layout,
    ) -> Told:
        """What a resolved request tells the network.

        Args:
            p: the request.
            card: of the network's model.
            inputs: its files.
            layout: of the picture.

        Raises:
            InvalidInput: a picture cannot be read, or an adapter is not there any more.
            ModelError: an adapter's files are broken.
        """
        more: dict[str, Tensor] = {}
        denoiser, tokens = self.denoiser, None
        for kind in p.control:
            adapter = card_of("control_model", cast(str, p.control_model), card)
            denoiser = self.controlled(adapter)
            found = read_control(kind, inputs[f"control.{kind}"], *layout.sampled)
            planes = plane(kind, tuple(adapter.conditioners["control"]), found)
            more["control"] = torch.from_numpy(planes)[None].to(self._device)
            more["strength"] = torch.tensor([p.control_strength], dtype=torch.float32, device=self._device)
        if p.like is not None:
            adapter = card_of("like_model", cast(str, p.like_model), card)
            picture = read_like(inputs["like"], *adapter.sizes[0])
            with torch.inference_mode():
                heard = self.reader(adapter).heard(self._features().of(picture).to(self._device))
            text = text_encoder(self._device)(heard)
            tokens = text.tokens[:, text.mask[0]]
        return Told(denoiser, {**more, **self.lora(weights_of(p.lora, card))}, tokens)

    def spoken(self, texts: Sequence[str], told: Told, p: ImageParameters) -> list[Condition]:
        """A condition for each text; the second one is that which is steered away from."""
        styles = self._card.conditioners.get("style")
        label = None if styles is None else torch.tensor([styles.index(p.style or "any")], device=self._device)
        text = text_encoder(self._device)(list(texts))
        return [
            told.condition(text.tokens[i : i + 1], text.mask[i : i + 1], label, spoken=i != 1)
            for i in range(len(texts))
        ]

    def scale(self, guidance: float) -> float:
        """By how much the estimates of the branches are taken apart."""
        return guidance

    def tokens(self, sides: tuple[int, int]) -> int:
        """How many the network sees of a picture with these sides, where its times depend on that."""
        return 0

    def lora(self, wanted: Sequence[Lora]) -> dict[str, Tensor]:
        """The conditions that stand for these adapters together.

        Raises:
            ModelError: a file is broken, or of another network.
        """
        if not wanted:
            return {}
        read = [(self._once("lora", card, self._read), weight) for card, weight in wanted]
        return {
            f"{PREFIX}{name}.{role}": tensor[None].to(self._device)
            for name, (down, up) in stack(read).layers.items()
            for role, tensor in (("down", down), ("up", up))
        }

    def controlled(self, card: ModelCard) -> Denoiser:
        """The denoiser with the side network of ``card`` beside it; takes ``control`` and ``strength`` too."""
        return self._once("side", card, self._side)

    def reader(self, card: ModelCard) -> LikeNetwork:
        """The network of ``card`` that reads pictures."""
        return self._once("like", card, self._like)

    def _features(self) -> Features:
        if self._seen is None:
            self._seen = Features()
        return self._seen

    def _once(self, kind: str, card: ModelCard, make: Callable[[ModelCard], Kept]) -> Kept:
        key = (kind, card.sha256)
        if key not in self._kept:
            self._kept[key] = make(card)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        found: Kept = self._kept[key]
        return found

    def _read(self, card: ModelCard) -> Adapter:
        adapter = read_adapter(card.read(LORA), f"{card.name}: {LORA}")
        linear = {name: layer for name, layer in self.network.named_modules() if isinstance(layer, nn.Linear)}
        for name, (down, up) in adapter.layers.items():
            layer = linear.get(name)
            if layer is None or (up.shape[0], down.shape[1]) != layer.weight.shape:
                raise ModelError(f"adapter {card.name}: {name[:80]} is no layer of model {card.base}")
        return adapter

    def _side(self, card: ModelCard) -> Denoiser:
        arguments = _arguments(card, "side")
        own = dict(arguments.pop("own"))
        own.pop("kind", None)
        network = self.network
        assert isinstance(network, DiffusionTransformer)

        def make() -> SideNetwork:
            return SideNetwork(network, **arguments, own=DiffusionTransformer(**own))

        return Denoiser(Steered(self._adapted, _loaded(card, "side", make, self._device)), **self._options)

    def _like(self, card: ModelCard) -> LikeNetwork:
        return _loaded(card, "like", lambda: LikeNetwork(**_arguments(card, "like")), self._device)


def _arguments(card: ModelCard, name: str) -> dict[str, Any]:
    arguments = dict(card.architecture.get(name, {}))
    if arguments.pop("kind", None) != name:
        raise ModelError(f"adapter {card.name}: its card describes no network of kind {name}")
    return arguments


Network = TypeVar("Network", bound=nn.Module)


def _loaded(card: ModelCard, name: str, make: Callable[[], Network], device: str) -> Network:
    data = card.read(f"{name}.safetensors")
    try:
        network = make()
        network.load_state_dict({key: value.float() for key, value in load(data).items()})
    except (SafetensorError, RuntimeError, TypeError, ValueError, KeyError, InvalidInput) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"adapter {card.name}: {name}.safetensors does not fit its card: {reason}") from None
    return network.to(device).eval().requires_grad_(False)
