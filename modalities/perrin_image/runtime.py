"""Runs image models, of latents or of pixels: prompts and pictures into samples, samples into pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.diffusion.guidance import Guidance, Unguided
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.modality import SEED_LIMIT, Format
from perrin.models import ModelCard, upscaler_of
from perrin.models.grids import grid_of
from perrin.models.plans import plan_of_rest
from perrin.models.weights import load_network
from perrin.nn import Autoencoder
from perrin.nn.circular import Ring
from perrin.nn.text import text_encoder
from perrin.pictures import CHANNELS, Pixels, to_pixels
from perrin_image.beside import Beside, Told
from perrin_image.between import conditions, slerp
from perrin_image.checkpoints import BesideCheckpoint, Coded
from perrin_image.classes import class_of
from perrin_image.codecs import Codec, Latents, Plain
from perrin_image.face import ImageParameters, no_transparency
from perrin_image.finishing import Finish
from perrin_image.painting import canvas_of
from perrin_image.prompts import read_prompt
from perrin_image.sizes import channels_of, layout_of
from perrin_image.tiles import OTHER
from perrin_image.upscaling import Upscaler
from perrin_image.writing import write, write_png

__all__ = ["ImageRuntime"]

NO_FILES: Mapping[str, InputFile] = {}

LEAST_ALPHA = 8
"""A picture that is nowhere more opaque, of 255, is empty."""


class ImageRuntime:
    """An image model on one device: a transformer or a U-Net, of an autoencoder's latents or of pixels.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(
        self,
        card: ModelCard,
        device: str,
        codec: Codec | Coded,
        beside: Beside | BesideCheckpoint,
        upscaler: Upscaler | None = None,
    ) -> None:
        self.card, self.device = card, device
        self._codec, self._network = codec, beside.network
        self._upscaler = upscaler
        self._stage = None if upscaler is None else upscaler.network  # the engine counts a runtime's own networks
        self._process = beside.denoiser.process_of("")
        self._beside = beside
        self._ring = d.Denoiser(Ring(beside.network), self._process, card.prediction)
        self._clear = channels_of(card) == CHANNELS

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the networks of ``card`` onto ``device``.

        Raises:
            ModelError: the model is not one that draws pictures, or its files, or those of its upscaler, are broken.
        """
        process = d.process.from_config(card.process)
        if card.checkpoint is not None:
            hub, coded = BesideCheckpoint.load(card, device, process)
            return cls(card, device, coded, hub)
        kind = next((name for name in ("transformer", "unet") if name in card.architecture), None)
        if kind is None or channels_of(card) not in (3, CHANNELS):
            got = ", ".join(card.architecture) or "nothing"
            wanted = "wanted a transformer or a unet, of latents or of pictures with 3 or 4 channels"
            raise ModelError(f"model {card.name}: {wanted}, got {got} with {channels_of(card)} channels")
        if "prompt" in card.conditioners:
            text_encoder(device)
        codec: Codec = Plain(channels_of(card))
        if "autoencoder" in card.architecture:
            codec = Latents(cast(Autoencoder, load_network(card, "autoencoder", device)), min(card.sizes[0]))
        larger = upscaler_of(card)
        upscaler = None if larger is None else Upscaler.load(larger, device)
        beside = Beside(load_network(card, kind, device), device, process, card)
        return cls(card, device, codec, beside, upscaler)

    @classmethod
    def load_streamed(cls, card: ModelCard, device: str) -> Self | None:
        """As `load`, where memory is short: the weights stay in their files; None of a model that cannot do that."""
        if card.checkpoint is None:
            return None
        hub, coded = BesideCheckpoint.load(card, device, d.process.from_config(card.process), stream=True)
        return cls(card, device, coded, hub)

    def also(self, parameters: ImageParameters) -> dict[str, str]:
        """The upscaler with its hash, for a size that it makes; of a checkpoint, the learnt words."""
        if isinstance(self._beside, BesideCheckpoint):
            return self._beside.also(parameters)
        if self._upscaler is None or layout_of(self.card, parameters.size or 0).factor == 1:
            return {}
        return {self._upscaler.card.name: self._upscaler.card.sha256}

    def start(self, parameters: ImageParameters, inputs: Mapping[str, InputFile] = NO_FILES) -> Run:
        """Encode prompt and picture, choose grid, solver and guidance, and draw the starting noise.

        What is sampled follows from the picture's size; of a tile made of drawings, it is two of them.
        """
        p = parameters
        if p.seed is None or p.steps is None or p.size is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        layout = layout_of(self.card, p.size)
        canvas = canvas_of(p, inputs, layout, self._clear)
        grid = grid_of(self.card, self._process, p.steps, self._beside.tokens(layout.sampled), p.sampler)
        latent = None if canvas is None else self._latent(canvas.sampled(layout))
        told = self._beside.told(p, self.card, inputs, layout)
        if isinstance(self._beside, BesideCheckpoint) and isinstance(self._codec, Coded):
            told = self._beside.around(told, canvas, layout, self._codec)
        if p.seamless and not self.card.sheet:
            told = told._replace(denoiser=self._ring)
        condition, guidance = self._guidance(p, told)
        if canvas is not None and latent is not None and canvas.keeps and "inside" not in told.more:
            kept = canvas.kept(layout, self._codec.factor).to(self.device)
            guidance = d.guidance.constrained(guidance, latent, kept)
        bound = 0.0 if self.card.checkpoint is None else self.card.checkpoint.options.get("clip", 0.0)
        if bound:
            guidance = d.guidance.clipped(guidance, bound, along=p.sampler == "ddpm")
        wide, high = (side // self._codec.factor for side in layout.sampled)
        shape = (self._codec.latent, high, wide)
        seeds = [int(p.item(number)["seed"]) for number in range(p.count)]
        if p.seamless and self.card.sheet:
            seeds += [(seed + OTHER) % SEED_LIMIT for seed in seeds]
        plan, late = plan_of_rest(self.card, p.sampler, grid, None if canvas is None else p.strength)
        return d.start(
            guidance,
            plan,
            shape=shape,
            seeds=seeds,
            condition=condition,
            noise=None if p.seed_to is None else slerp(seeds, [p.seed_to] * p.count, p.places, shape),
            initial=latent if late else None,
            device=self.device,
        )

    def _guidance(self, p: ImageParameters, told: Told) -> tuple[dict[str, Tensor], Guidance]:
        """The network's condition, and guidance away from the negative prompt; no prompt has nothing to guide to."""
        if "prompt" not in self.card.conditioners:
            return self._to_class(told, p)
        prompt = read_prompt(p.prompt or "")
        others = [p.morph] if p.morph is not None else [text for text, _ in prompt.parts]
        condition, null, *rest = self._beside.spoken([prompt.text, p.negative, *others], told, p)
        asked = p.prompt or p.negative or p.like or p.control
        scale = self._beside.scale(cast(float, p.guidance)) if asked else 1.0
        guidance = d.guidance.classifier_free(told.denoiser, scale, null)
        if p.morph is not None:
            return conditions(condition, rest[0], p.places), guidance
        if prompt.parts:
            return condition, d.guidance.weighted(guidance, rest, [weight for _, weight in prompt.parts])
        return condition, guidance

    def _to_class(self, told: Told, p: ImageParameters) -> tuple[dict[str, Tensor], Guidance]:
        """Of a model of classes, the label, and guidance away from the negative one or none; of others, neither."""
        if "class" not in self.card.conditioners:
            return told.more, Unguided(told.denoiser)
        to, away = (
            {"label": torch.tensor([class_of(self.card, field, name or None)], device=self.device), **told.more}
            for field, name in (("prompt", p.prompt), ("negative", p.negative))
        )
        scale = cast(float, p.guidance) if p.prompt or p.negative else 1.0
        return to, d.guidance.classifier_free(told.denoiser, scale, away)

    @torch.inference_mode()
    def _latent(self, picture: Tensor) -> Tensor:
        """(1, latent, h, w) of the picture (1, 4, H, W), with what is to be painted over."""
        return self._codec.encode(picture.to(self.device))

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """The first item's clean estimate, decoded: a decoder that is small enough is its own preview."""
        seen = self._codec.preview if isinstance(self._codec, Coded) else self._codec.decode
        return write_png(to_pixels(seen(clean[:1]))[0][..., :3])

    def decode(
        self, clean: Tensor, parameters: ImageParameters, inputs: Mapping[str, InputFile] = NO_FILES
    ) -> Iterable[Pixels]:
        """uint8 pictures on the background: (H, W, 3), or (H, W, 4) with straight alpha on a transparent one.

        Where a request paints into a picture, what was to be kept of it is that picture, bit for bit. Pictures that
        the upscaler makes come one by one.

        Raises:
            Degenerate: the sample, or what is made of it, has numbers that are not finite.
        """
        p, layout = parameters, layout_of(self.card, parameters.size or 0)
        if layout.factor > 1 and self._upscaler is None:
            raise ModelError(
                f"model {self.card.name} wants {self.card.upscaler} for size {p.size}: it is not installed"
            )
        larger = self._upscaler if layout.factor > 1 else None
        finish = Finish(p, layout, canvas_of(p, inputs, layout, self._clear), larger)
        if larger is not None and p.strength == 0 and not p.expand:
            return finish.given(inputs["image"])
        ring = p.seamless and not self.card.sheet
        decoded = self._decoded(clean, ring)
        if p.seamless and self.card.sheet:
            return finish.tiles(decoded)
        if larger is None:
            return finish.as_sampled(decoded)
        return finish.rings(decoded) if ring else finish.enlarged(decoded)

    @torch.inference_mode()
    def _decoded(self, clean: Tensor, ring: bool) -> Tensor:
        """(B, 4, h, w), about [-1, 1]."""
        decoded = self._codec.decode(clean, ring)
        if not torch.isfinite(decoded).all():
            what = "sample" if not torch.isfinite(clean).all() else "picture"
            raise Degenerate(f"the {what} has NaN or infinity in it; try another seed, or less guidance")
        return decoded

    def check(self, result: Pixels) -> None:
        """Refuse a picture of one colour, and one that is transparent all over."""
        if result.shape[-1] == 4 and result[..., 3].max() < LEAST_ALPHA:
            raise Degenerate("the picture is empty, transparent all over; try another seed, prompt or less guidance")
        flat = result.reshape(-1, result.shape[-1])
        if flat.std(0).max() < 1.0:
            shown = flat.mean(0).round().astype(int).tolist()[:3]
            raise Degenerate(f"the picture is one flat colour, RGB {shown}; try another seed, prompt or less guidance")

    def export(self, results: Sequence[Pixels], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One picture with its metadata.

        Raises:
            InvalidInput: a transparent picture as JPEG, which has no transparency.
        """
        if results[0].shape[-1] == 4 and format.media_type == "image/jpeg":
            raise no_transparency(format)
        return write(results[0], format.media_type, metadata)
