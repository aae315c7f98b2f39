"""Runs image models: prompts and pictures into a latent diffusion model, its latents into pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.diffusion.grid import Grid
from perrin.diffusion.guidance import Guidance
from perrin.diffusion.plan import Plan
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard
from perrin.models.plans import plan_of
from perrin.models.weights import load_network
from perrin.nn import Autoencoder
from perrin.nn.text import text_encoder
from perrin_image.beside import Beside, Told
from perrin_image.between import blend, slerp
from perrin_image.face import ImageParameters, no_transparency
from perrin_image.painting import Canvas, canvas_of
from perrin_image.pictures import Pixels, on, to_pixels, to_tensor
from perrin_image.prompts import read_prompt
from perrin_image.writing import write, write_png

__all__ = ["ImageRuntime"]

NO_FILES: Mapping[str, InputFile] = {}

LEAST_ALPHA = 8
"""A picture that is nowhere more opaque, of 255, is empty."""


class ImageRuntime:
    """A latent text-to-image model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, codec: Autoencoder, network: torch.nn.Module) -> None:
        self.card, self.device = card, device
        self._codec, self._network = codec, network
        self._process = d.process.from_config(card.process)
        self._beside = Beside(network, device, self._process, card.prediction)

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the networks of ``card`` onto ``device``.

        Raises:
            ModelError: the model is not a latent text-to-image model of this kind, or its files are broken.
        """
        if not {"autoencoder", "transformer"} <= card.architecture.keys():
            got = ", ".join(card.architecture)
            raise ModelError(f"model {card.name}: wanted an autoencoder and a transformer, got {got}")
        text_encoder(device)
        codec = cast(Autoencoder, load_network(card, "autoencoder", device))
        return cls(card, device, codec, load_network(card, "transformer", device))

    def start(self, parameters: ImageParameters, inputs: Mapping[str, InputFile] = NO_FILES) -> Run:
        """Encode prompt and picture, choose grid, solver and guidance, and draw the starting noise.

        The latent grid follows the picture's size.
        """
        p = parameters
        if p.seed is None or p.steps is None or p.size is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        canvas = canvas_of(p, inputs)
        grid = d.grid.shifted(self._process, p.steps, **{"shift": 1.0, **self.card.grid})
        rest = grid if canvas is None else grid.tail(cast(float, p.strength))
        latent = None if canvas is None else self._latent(canvas)
        condition, guidance = self._guidance(p, self._told(p, inputs))
        if canvas is not None and latent is not None and canvas.keeps:
            guidance = d.guidance.constrained(guidance, latent, canvas.kept(self._codec.factor).to(self.device))
        side = p.size // self._codec.factor
        shape = (self._codec.latent, side, side)
        seeds = [int(p.item(number)["seed"]) for number in range(p.count)]
        return d.start(
            guidance,
            self._plan(p, grid, rest),
            shape=shape,
            seeds=seeds,
            condition=condition,
            noise=None if p.seed_to is None else slerp(seeds, [p.seed_to] * p.count, p.places, shape),
            initial=latent if len(rest) < len(grid) else None,
            device=self.device,
        )

    def _told(self, p: ImageParameters, inputs: Mapping[str, InputFile]) -> Told:
        """What the request tells the network beside its prompt."""
        side = cast(int, p.size)
        return self._beside.told(p, self.card, inputs, (side, side), self._codec.encode)

    def _guidance(self, p: ImageParameters, told: Told) -> tuple[dict[str, Tensor], Guidance]:
        """The network's condition, and guidance away from the negative prompt; no prompt has nothing to guide to."""
        styles = self.card.conditioners["style"]
        label = torch.tensor([styles.index(p.style or "any")], device=self.device)
        prompt = read_prompt(p.prompt or "")
        others = [p.morph] if p.morph is not None else [text for text, _ in prompt.parts]
        text = text_encoder(self.device)([prompt.text, p.negative, *others])
        condition, null, *rest = (
            told.condition(text.tokens[i : i + 1], text.mask[i : i + 1], label, spoken=i != 1)
            for i in range(2 + len(others))
        )
        scale = cast(float, p.guidance) if p.prompt or p.negative or p.like or p.control else 1.0
        guidance = d.guidance.classifier_free(told.denoiser, scale, null)
        if p.morph is not None:
            tokens, mask = blend(text.tokens[[0, 2]], text.mask[[0, 2]], p.places)
            return told.condition(tokens, mask, label), guidance
        if prompt.parts:
            return condition, d.guidance.weighted(guidance, rest, [weight for _, weight in prompt.parts])
        return condition, guidance

    @torch.inference_mode()
    def _latent(self, canvas: Canvas) -> Tensor:
        """(1, latent, h, w) of the picture, with what is to be painted over."""
        return self._codec.encode(to_tensor(canvas.guide[None]).to(self.device))

    def _plan(self, p: ImageParameters, grid: Grid, rest: Grid) -> Plan:
        try:
            return plan_of(self.card, cast(str, p.sampler), rest)
        except InvalidInput as error:
            if len(rest) == len(grid):
                raise
            left = f"more, or more steps: {len(rest)} of {len(grid)} are left, and {p.sampler} wants {error.wanted}"
            raise InvalidInput("strength", p.strength, left) from None

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """The first item's clean estimate, decoded: the decoder is small enough to be its own preview."""
        return write_png(to_pixels(self._codec.decode(clean[:1]))[0][..., :3])

    @torch.inference_mode()
    def decode(
        self, clean: Tensor, parameters: ImageParameters, inputs: Mapping[str, InputFile] = NO_FILES
    ) -> Sequence[Pixels]:
        """uint8 pictures on the background: (H, W, 3), or (H, W, 4) with straight alpha on a transparent one.

        Where a request paints into a picture, what was to be kept of it is that picture, bit for bit.
        """
        background = parameters.background
        pictures = [on(picture, background) for picture in to_pixels(self._codec.decode(clean))]
        canvas = canvas_of(parameters, inputs)
        if canvas is None or not canvas.keeps:
            return pictures
        return [canvas.composite(picture, background) for picture in pictures]

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
