"""Runs shape models: captions, pictures and parts into latents, these into surfels, and surfels into points."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard
from perrin.models.plans import plan_of_rest
from perrin.models.weights import load_network
from perrin.nn.pictures import PictureNetwork
from perrin.nn.text import text_encoder
from perrin.picture_files import read_picture
from perrin.pictures import over
from perrin_shape.cloud import Cloud, check
from perrin_shape.conditions import Told, part_of, picture_tokens
from perrin_shape.data.draw import picture
from perrin_shape.face import POINTS, ShapeParameters
from perrin_shape.given import Given, given_of, tensors
from perrin_shape.network import LATENTS, ShapeCodec, ShapeTransformer, surfels_from
from perrin_shape.surface import How
from perrin_shape.surfels import Surfels, drawn, levelled
from perrin_shape.writing import exported

__all__ = ["Made", "ShapeRuntime", "framed"]

NO_FILES: Mapping[str, InputFile] = {}

ALIKE = 1e-3
"""Latents of which every cell is as near to the mean as this, in deviations of real ones, are of nothing."""

MOST = 65_536
"""Points of a result."""

MANY = 4
"""Times as many points are drawn as wanted, where some will be left out."""


@dataclass(frozen=True)
class Made:
    """One result: a cloud, and what is to make a mesh of it."""

    cloud: Cloud
    how: How = "auto"


def framed(pixels: NDArray[np.uint8], side: int = 128, share: float = 0.88) -> NDArray[np.uint8]:
    """(side, side, 3): what is not white in ``pixels`` (H, W, 4), in the middle, as large as in training.

    Raises:
        InvalidInput: everything is white.
    """
    flat = np.asarray(over(pixels, "white"))
    rows, columns = np.nonzero((flat < 244).any(-1))
    if not len(rows):
        raise InvalidInput("image", "an empty picture", "something on white, or on nothing")
    cut = Image.fromarray(flat[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    scale = share * side / max(cut.size)
    small = cut.resize([max(1, round(length * scale)) for length in cut.size], Image.Resampling.LANCZOS)
    page = Image.new("RGB", (side, side), "white")
    page.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return np.asarray(page)


def _pixels(file: InputFile) -> NDArray[np.uint8]:
    """The whole picture, (H, W, 4), its longer side 512 pixels at most."""
    try:
        with Image.open(io.BytesIO(file.data)) as opened:
            size = opened.size
    except (OSError, ValueError, Image.DecompressionBombError):
        size = (512, 512)  # reading it says what is wrong
    scale = min(1.0, 512 / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return read_picture("image", file, width, height)


class ShapeRuntime:
    """A shape model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, codec: ShapeCodec, network: nn.Module) -> None:
        self.card, self.device, self.codec = card, device, codec
        self._process = d.process.from_config(card.process)
        self._denoiser = d.Denoiser(network, self._process, card.prediction)
        self._seer: PictureNetwork | None = None

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the networks of ``card`` onto ``device``.

        Raises:
            ModelError: the model is none of shapes, or its files are broken.
        """
        if {"point_e", "shap_e"} & card.architecture.keys():
            from perrin_shape.guests import GuestRuntime

            return cast(Self, GuestRuntime.load(card, device))  # it does all that this does
        if not {"codec", "transformer"} <= card.architecture.keys():
            got = ", ".join(card.architecture) or "nothing"
            raise ModelError(f"model {card.name}: wanted a codec and a transformer of shapes, got {got}")
        text_encoder(device)
        codec = load_network(card, "codec", device, kinds={"codec": ShapeCodec})
        network = load_network(card, "transformer", device, kinds={"transformer": ShapeTransformer})
        return cls(card, device, cast(ShapeCodec, codec), network)

    @torch.inference_mode()
    def start(self, parameters: ShapeParameters, inputs: Mapping[str, InputFile] = NO_FILES) -> Run:
        """Encode caption, picture and shape, choose grid and solver, and draw the starting noise.

        Raises:
            InvalidInput: a file that cannot be read, or has more points than are asked for.
        """
        p = parameters
        if p.seed is None or p.steps is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        given = _given(p, inputs)
        told = Told.of([p.prompt or "", p.negative], self.codec.channels, [p.category], self.device)
        if "image" in inputs:
            told.picture[0] = self._seen(inputs["image"])[0].to(self.device)
        initial = None
        if given is not None:
            cloud = tensors(given.inside, self.device)
            initial = self.codec.encode(*cloud)
            if p.use != "vary":
                told.part[0] = part_of(initial, cloud[0], cloud[1])[0]
        options = {"shift": 1.0, **self.card.grid}
        grid = d.grid.shifted(self._process, p.steps, **options)
        plan, late = plan_of_rest(self.card, p.sampler, grid, None if given is None else p.strength)
        condition, away = ({k: v[i : i + 1] for k, v in told.condition.items()} for i in (0, 1))
        says = p.prompt or p.category or p.negative or "image" in inputs
        scale = p.guidance if says or p.use == "complete" else 1.0
        return d.start(
            d.guidance.classifier_free(self._denoiser, scale, away),
            plan,
            shape=(self.codec.channels, LATENTS, LATENTS, LATENTS),
            seeds=[int(p.item(number)["seed"]) for number in range(p.count)],
            condition=condition,
            initial=initial.expand(p.count, *initial.shape[1:]) if late and initial is not None else None,
            device=self.device,
        )

    def _seen(self, file: InputFile) -> Tensor:
        if self._seer is None:
            self._seer = PictureNetwork()
        return picture_tokens(framed(_pixels(file))[None], self._seer)

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """The first shape as it is believed to be; None while there is nothing to see."""
        surfels = self._surfels(clean[0])
        if not len(surfels.index):
            return None
        stream = io.BytesIO()
        Image.fromarray(picture(drawn(surfels, 4096), side=160)).save(stream, "PNG")
        return stream.getvalue()

    @torch.inference_mode()
    def decode(
        self, clean: Tensor, parameters: ShapeParameters, inputs: Mapping[str, InputFile] = NO_FILES
    ) -> Iterator[Made]:
        """Clouds of as many points as were asked for, one by one.

        Raises:
            Degenerate: the sample has numbers that are not finite, is the same everywhere, or has no surface.
        """
        p = parameters
        given = _given(p, inputs)
        for number, latents in enumerate(clean):
            yield Made(self._cloud(latents, p, given, int(p.item(number)["seed"])), p.mesh)

    def _cloud(self, latents: Tensor, p: ShapeParameters, given: Given | None, seed: int) -> Cloud:
        if not torch.isfinite(latents).all():
            raise Degenerate("the sample has NaN or infinity in it; try another seed, or less guidance")
        if float(latents.flatten(1).std(1).max()) < ALIKE:
            raise Degenerate("the sample is the same everywhere; try another seed, or less guidance")
        surfels = self._surfels(latents)
        if not len(surfels.index):
            raise Degenerate("the shape has no surface; try another seed, prompt, or less guidance")
        count = _points(p, given)
        if given is None:
            return drawn(surfels, count, seed)
        if p.use == "vary":
            return given.back(drawn(surfels, count, seed))
        many = drawn(surfels, MANY * max(count, POINTS), seed)
        made = given.beyond(many) if p.use == "complete" else given.onto(many)
        return given.keeping(made, min(count, len(given.own) + len(made)))

    def _surfels(self, latents: Tensor) -> Surfels:
        return levelled(surfels_from(self.codec, latents[None])[0])

    def check(self, result: Made) -> None:
        """Refuse a cloud without extent, with few places, or with numbers that are not finite."""
        check(result.cloud)

    def export(self, results: Sequence[Made], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One shape with its metadata: points, a mesh of them, or a picture of it."""
        return exported(results[0].cloud, results[0].how, format, metadata)


def _given(p: ShapeParameters, inputs: Mapping[str, InputFile]) -> Given | None:
    given = given_of(inputs, max(256, (p.points or POINTS) // 2))
    if given is not None and p.use != "vary" and _points(p, given) <= len(given.own):
        raise InvalidInput("points", p.points, f"more than the {len(given.own)} that the shape has, and 65536 at most")
    return given


def _points(p: ShapeParameters, given: Given | None) -> int:
    if p.points is not None:
        return p.points
    return POINTS if given is None else min(MOST, 2 * len(given.own))
