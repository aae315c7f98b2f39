"""Other people's checkpoints as image models: behind the same seams as the models of this package.

A pipeline (`perrin.models.checkpoints.pipelines`) has the parts. Here it becomes a codec, and what stands beside the
network: the prompt as its own encoders hear it, and the adapters of its family.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.diffusion import Denoiser
from perrin.diffusion.process import Process
from perrin.errors import ModelError
from perrin.inputs import InputFile
from perrin.models import ModelCard, models
from perrin.models.checkpoints.loading import load_part, quietly
from perrin.models.checkpoints.pipelines import load_pipeline
from perrin.models.checkpoints.pipelines.pictures import Pictures
from perrin.nn.circular import circular
from perrin.nn.lora import PREFIX, Adapted
from perrin.picture_files import read_picture
from perrin.pictures import CHANNELS, over
from perrin.training.adapters import Adapter, read_adapter, stack
from perrin_image.adapters import LORA, card_of, weights_of
from perrin_image.beside import Condition, Told
from perrin_image.control import read_control
from perrin_image.face import ImageParameters
from perrin_image.painting import Canvas
from perrin_image.sizes import Layout

__all__ = ["BesideCheckpoint", "Coded"]

PREVIEW = 24
"""Places of a latent, along its longer side, that a preview is decoded from."""

KEPT = 16

MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, by colour."""

Kept = TypeVar("Kept")


class Coded(nn.Module):
    """A pipeline's autoencoder as a codec.

    Attributes:
        factor, latent: as of `perrin_image.codecs.Plain`.
    """

    def __init__(self, pipeline: Pictures) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.factor, self.latent = pipeline.factor, pipeline.channels
        self._small: tuple[nn.Module | None] | None = None

    def encode(self, x: Tensor) -> Tensor:
        """Samples of pictures (B, 4, H, W) in [-1, 1]."""
        return self.pipeline.encode(x[:, :3])

    def decode(self, z: Tensor, ring: bool = False) -> Tensor:
        """Pictures (B, 4, H, W), about [-1, 1]."""
        if ring:
            with circular(self.pipeline.part("vae")):
                return _whole(self.pipeline.decode(z))
        return _whole(self.pipeline.decode(z))

    @torch.inference_mode()
    def preview(self, z: Tensor) -> Tensor:
        """About what `decode` gives: by a small autoencoder if one is installed, else of so few places that it costs
        little."""
        if self._small is None:
            adapters = models().values()
            base = self.pipeline.card.name
            found = next((a for a in adapters if a.base == base and "preview" in a.conditioners), None)
            load = None if found is None else load_part(found, "preview", self.pipeline.device, self.pipeline.dtype)
            self._small = (load,)
        small = self._small[0]
        if small is not None:
            return _whole(cast(Any, small).decode(z.to(self.pipeline.dtype)).sample.float())
        part = min(1.0, PREVIEW / max(z.shape[2:]))
        few = F.interpolate(z.float(), scale_factor=part, mode="area") if part < 1 and self.factor > 1 else z
        return self.decode(few)


def _whole(x: Tensor) -> Tensor:
    return x if x.shape[1] == CHANNELS else torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


class Controlled(nn.Module):
    """The network of a checkpoint with what a control network adds to its blocks."""

    fills = Adapted.fills

    def __init__(self, adapted: Adapted, side: nn.Module) -> None:
        super().__init__()
        self._adapted, self._side = adapted, side

    def forward(self, x: Tensor, t: Tensor, control: Tensor, strength: Tensor, **condition: Any) -> Any:
        """One evaluation; ``strength`` (1 or B,) scales what the control adds."""
        kind = next(self._side.parameters()).dtype
        heard: dict[str, Any] = {}
        if "sizes" in condition:
            heard = {"text_embeds": condition["pooled"].to(kind), "time_ids": condition["sizes"].to(kind)}
        down, mid = self._side(
            x.to(kind), t, encoder_hidden_states=condition["context"].to(kind), controlnet_cond=control.to(kind),
            added_cond_kwargs=heard or None, return_dict=False,
        )  # fmt: skip
        scale = strength.to(kind).view(-1, 1, 1, 1)
        return self._adapted(x, t, down=[part * scale for part in down], mid=mid * scale, **condition)


class Reader:
    """A network that hears a picture beside the prompt (IP-Adapter): the checkpoint's own weights, and a few more.

    References:
        Ye et al., IP-Adapter: Text Compatible Image Prompt Adapter (2023), section 3.2.
    """

    def __init__(self, card: ModelCard, pipeline: Pictures, options: Mapping[str, Any]) -> None:
        self._encoder = load_part(card, "image_encoder", pipeline.device, pipeline.dtype)
        parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in load(card.read("reader.safetensors")).items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        shared = {id(tensor): tensor for tensor in (*pipeline.core.parameters(), *pipeline.core.buffers())}
        core = copy.deepcopy(pipeline.core, shared)
        try:
            with quietly():
                cast(Any, core)._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelError(f"adapter {card.name}: it does not fit {card.base}: {_line(error)}") from None
        core = core.to(pipeline.device, pipeline.dtype).eval().requires_grad_(False)
        self.network = Adapted(pipeline.asked(core), of=core)
        self.denoiser = Denoiser(self.network, **options)

    @torch.inference_mode()
    def read(self, file: InputFile, device: str) -> Tensor:
        """(1, 1, N): what the encoder makes of the picture."""
        side = int(cast(Any, self._encoder).config.image_size)
        pixels = over(read_picture("like", file, side, side), "white").astype(np.float32) / 255
        seen = (torch.from_numpy(pixels) - torch.tensor(MEAN)) / torch.tensor(SPREAD)
        kind = next(self._encoder.parameters()).dtype
        heard: Tensor = self._encoder(seen.permute(2, 0, 1)[None].to(device, kind)).image_embeds
        return heard[:, None].float()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _words_in(texts: Sequence[str], base: ModelCard) -> list[ModelCard]:
    """The learnt words for ``base`` that occur in ``texts``."""
    known = (card for card in models().values() if card.base == base.name and "words" in card.conditioners)
    return [card for card in known if any(str(card.conditioners["words"]["token"]) in text for text in texts)]


class BesideCheckpoint:
    """The network of a checkpoint, alone or with an adapter beside it; as `perrin_image.beside.Beside`.

    Attributes:
        denoiser: of the network; requests with no control share it.
        network: the network itself.
    """

    def __init__(self, pipeline: Pictures, process: Process, card: ModelCard) -> None:
        self._pipeline, self._card = pipeline, card
        self._options: dict[str, Any] = {"process": process, "prediction": card.prediction}
        self.network: nn.Module = pipeline.network
        self.denoiser = Denoiser(pipeline.network, **self._options)
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._learnt: set[tuple[str, str]] = set()

    @classmethod
    def load(
        cls, card: ModelCard, device: str, process: Process, stream: bool = False
    ) -> tuple[BesideCheckpoint, Coded]:
        """The checkpoint that ``card`` describes, and its codec; with ``stream`` its weights stay in their files."""
        pipeline = load_pipeline(card, device, stream=stream)
        return cls(pipeline, process, card), Coded(pipeline)

    def told(self, p: ImageParameters, card: ModelCard, inputs: Mapping[str, InputFile], layout: Layout) -> Told:
        """As of `perrin_image.beside.Beside`."""
        width, height = layout.sampled
        more = self._pipeline.about(width, height, cast(float, p.guidance))
        denoiser, network = self.denoiser, self._pipeline.network
        if p.like is not None:
            reader = self._once("like", card_of("like_model", cast(str, p.like_model), card), self._reader)
            more["pictures"] = reader.read(inputs["like"], self._pipeline.device)
            denoiser, network = reader.denoiser, reader.network
        for kind in p.control:
            adapter = card_of("control_model", cast(str, p.control_model), card)
            side = self._once("side", adapter, self._side)
            both = partial(self._both, network, side)
            denoiser = self._once(f"beside {id(network)}", adapter, both)
            more["control"] = _seen(kind, inputs[f"control.{kind}"], width, height).to(self._pipeline.device)
            strength = torch.tensor([p.control_strength], dtype=torch.float32, device=self._pipeline.device)
            more["strength"] = strength
        if p.lora:
            more |= self._lora(p)[""]
        return Told(denoiser, more, None)

    def spoken(self, texts: Sequence[str], told: Told, p: ImageParameters) -> list[Condition]:
        """As of `perrin_image.beside.Beside`; what is steered away from sees the control too."""
        encoders = {name: found for name, found in self._lora(p).items() if name and found} if p.lora else {}
        self._learn(texts)
        made = [
            {**words, **told.more}
            for words in self._pipeline.words(texts, encoders, " ".join(p.lora) if encoders else "")
        ]
        made[1] = self._pipeline.away(made[1])
        if "pictures" in told.more:
            made[1]["pictures"] = torch.zeros_like(told.more["pictures"])
        return made

    def also(self, p: ImageParameters) -> dict[str, str]:
        """The learnt words of a request's prompts, with their hashes."""
        texts = [text for text in (p.prompt, p.negative, p.morph) if text]
        return {card.name: card.sha256 for card in _words_in(texts, self._card)}

    def _learn(self, texts: Sequence[str]) -> None:
        """Teach the encoders the words in ``texts`` that were added for this model."""
        for card in _words_in(texts, self._card):
            if ("word", card.sha256) not in self._learnt:
                token = str(card.conditioners["words"]["token"])
                self._pipeline.learn(token, load(card.read("words.safetensors")))
                self._learnt.add(("word", card.sha256))

    def scale(self, guidance: float) -> float:
        """As of `perrin_image.beside.Beside`: 1 where the network answers guided."""
        return 1.0 if self._pipeline.guides_itself else guidance

    def tokens(self, sides: tuple[int, int]) -> int:
        """As of `perrin_image.beside.Beside`."""
        return self._pipeline.tokens(*sides)

    def around(self, told: Told, canvas: Canvas | None, layout: Layout, codec: Coded) -> Told:
        """What a network that paints inside a mask is told of the picture around; of none, that all is free."""
        if not getattr(self._pipeline, "paints_inside", False):
            return told
        width, height = layout.sampled
        if canvas is None:
            picture, kept = torch.zeros(1, 4, height, width), torch.zeros(1, 1, height, width)
        else:
            picture, kept = canvas.sampled(layout), canvas.kept(layout)
        held = codec.encode(picture * (kept > 0.5)).to(self._pipeline.device)
        paint = F.interpolate(1 - (kept > 0.5).float(), held.shape[2:]).to(held)
        return told._replace(more={**told.more, "inside": torch.cat([paint, held], 1)})

    def _lora(self, p: ImageParameters) -> dict[str, dict[str, Tensor]]:
        """The adapters of a request as conditions of the network (under '') and of each encoder.

        Raises:
            ModelError: a file is broken, or of another network.
        """
        read = [(self._once("lora", lora.card, _read), lora.weight) for lora in weights_of(p.lora, self._card)]
        found: dict[str, dict[str, Tensor]] = {"": {}}
        for name, halves in stack(read).layers.items():
            part, _, layer = name.partition(".")
            part, layer = (part, layer) if part.startswith("text_encoder") else ("", name)
            for role, tensor in zip(("down", "up"), halves, strict=True):
                made = tensor[None].to(self._pipeline.device)
                found.setdefault(part, {})[f"{PREFIX}{layer}.{role}"] = made
        return found

    def _side(self, card: ModelCard) -> nn.Module:
        return load_part(card, "control", self._pipeline.device, self._pipeline.dtype)

    def _both(self, network: Adapted, side: nn.Module, card: ModelCard) -> Denoiser:
        return Denoiser(Controlled(network, side), **self._options)

    def _reader(self, card: ModelCard) -> Reader:
        return Reader(card, self._pipeline, self._options)

    def _once(self, kind: str, card: ModelCard, make: Callable[[ModelCard], Kept]) -> Kept:
        key = (kind, card.sha256)
        if key not in self._kept:
            self._kept[key] = make(card)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        found: Kept = self._kept[key]
        return found


def _read(card: ModelCard) -> Adapter:
    return read_adapter(card.read(LORA), f"{card.name}: {LORA}")


def _seen(kind: str, file: InputFile, width: int, height: int) -> Tensor:
    """(1, 3, height, width), 0 to 1: a control as control networks see it."""
    if kind == "picture":
        picture = over(read_picture(f"control.{kind}", file, width, height), "white").astype(np.float32) / 255
        return torch.from_numpy(picture).permute(2, 0, 1)[None]
    return torch.from_numpy(read_control(kind, file, width, height))[None, None].expand(1, 3, -1, -1)
