"""Trains a side network that reads line drawings, or other pictures, beside a frozen text-to-image model.

Lines are the edges of the training pictures. Half of them are made into scribbles first: moved about, thicker, broken,
with parts left out. A folder of somebody's own pictures may come with one of controls instead, such as depth pictures.

References:
    Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models (2023), section 3.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin import diffusion as d
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.modality import Progress
from perrin.nn import Controlled, DiffusionTransformer, SideNetwork
from perrin.nn.text import text_encoder
from perrin.pictures import grid_of, to_pixels
from perrin_image.control import KINDS, LINES, edges, read_control
from perrin_image.training.dataset import Pictures
from perrin_image.training.diffusion import SHIFT, Batch
from perrin_image.training.frozen import Frozen
from perrin_image.training.latents import LENGTH

__all__ = ["ControlTask", "agreement", "scribbled"]

SIDE = 64


class Controls(NamedTuple):
    """A batch of the base model's, and what controls it: (B, kinds, 64, 64), 0 to 1."""

    base: Batch
    control: Tensor


class ControlTask:
    """Options: ``base`` (the model's name), ``kinds`` (what it reads, of `perrin_image.control.KINDS`), ``own``
    (arguments of the side network's transformer), ``emphasis``, ``text_dropout``, ``style_dropout`` (as of
    `perrin_image.training.diffusion.DiffusionTask`), ``gain`` (what it adds is multiplied by this when it is drawn with
    and published, for guidance overdoes the prompt alone), ``samples`` (held-out pictures that are drawn).

    Data: the project's own, or ``folder`` with somebody's pictures and ``controls`` with a picture of the same name
    for each.
    """

    weights = "side"
    pictures: Pictures

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data, self._folders = dict(options), dict(data), dict(folders)
        self.kinds = tuple(self.options.get("kinds", ("edge", "scribble")))
        paired = "controls" in self._data
        if (
            not self.kinds
            or set(self.kinds) - set(KINDS)
            or (len(self.kinds) > 1 if paired else set(self.kinds) - LINES)
        ):
            wanted = "one kind with data.controls" if paired else "edge and scribble, or data.controls with pictures"
            raise InvalidInput("kinds", ", ".join(self.kinds), f"{wanted}, of {', '.join(KINDS)}")
        self.base = Frozen(self.options, self._data, folders)
        self._gain = float(self.options.get("gain", 1.0))
        torch.manual_seed(0)
        own = DiffusionTransformer(**self.options["own"])
        finer = SIDE // self.base.grid
        self.side: dict[str, Any] = {"channels": len(self.kinds), "finer": finer}
        self.network: nn.Module = Controlled(self.base.network, SideNetwork(self.base.network, **self.side, own=own))

    def prepare(self, progress: Progress) -> None:
        """As of the base model; and find the edges, or read the controls."""
        self.pictures = self.base.prepare(progress)
        made = f"{[r.id for r in self.pictures.records]} {self._stamps()} {self.kinds}"
        path = self._folders["out"] / f"controls-{hashlib.sha256(made.encode()).hexdigest()[:16]}.npy"
        if not path.exists():
            find = self._read if "controls" in self._data else self._found
            part = path.with_suffix(".part.npy")
            np.save(part, find(progress))
            part.replace(path)
        self.controls: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")

    def _stamps(self) -> list[tuple[str, int, int]]:
        """Of the controls that are given, by which a change of them is seen."""
        paths = sorted(self._controls().values())
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]

    def _controls(self) -> dict[str, Path]:
        """The files of the controls that are given, by name."""
        folder = Path(str(self._data.get("controls", ""))).expanduser()
        found = sorted(folder.rglob("*")) if "controls" in self._data else []
        return {path.stem: path for path in found if path.is_file()}

    def _found(self, progress: Progress) -> npt.NDArray[np.uint8]:
        """The edges of every picture, 0 or 255."""
        pixels = self.pictures.pixels
        made = np.empty(pixels.shape[:3], np.uint8)
        for begin in range(0, len(pixels), 256):
            made[begin : begin + 256] = edges(np.array(pixels[begin : begin + 256])) * np.uint8(255)
            progress(begin, len(pixels), "finding edges")
        return made

    def _read(self, progress: Progress) -> npt.NDArray[np.uint8]:
        """The control of every picture, by its name."""
        known = self._controls()
        made = np.empty(self.pictures.pixels.shape[:3], np.uint8)
        for number, record in enumerate(self.pictures.records):
            path = known.get(Path(record.id).stem)
            if path is None:
                raise InvalidInput(
                    "data.controls", self._data["controls"], f"a picture called like {record.id} as well"
                )
            found = read_control(self.kinds[0], InputFile("image/*", path.read_bytes()), SIDE, SIDE)
            made[number] = (found * 255).round().astype(np.uint8)
            progress(number, len(made), "reading controls")
        return made

    def batch(self, size: int, generator: np.random.Generator) -> Controls:
        """Pictures by weight, with a control of a kind drawn evenly."""
        chosen = generator.choice(self.pictures.train, size, p=self.pictures.weights)
        return self._batch(chosen, generator)

    def _batch(self, chosen: npt.NDArray[np.int64], generator: np.random.Generator) -> Controls:
        lines = torch.from_numpy(self.controls[chosen]).float() / 255
        control = torch.zeros(len(chosen), len(self.kinds), SIDE, SIDE)
        which = generator.integers(len(self.kinds), size=len(chosen))
        for number, kind in enumerate(self.kinds):
            mine = torch.from_numpy(which == number)
            if mine.any():
                control[mine, number] = scribbled(lines[mine], generator) if kind == "scribble" else lines[mine]
        return Controls(self.base.task.batch_of(chosen, generator), control)

    def loss(self, network: nn.Module, batch: Controls, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The base model's, told the control."""
        return self.base.loss(network, batch.base, {"control": batch.control}, generator)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on held-out pictures; how well results follow the lines of some, and how well without a control.

        Draws the control, the real picture, ours, and ours without a control.
        """
        rng = np.random.default_rng(0)
        held = self.pictures.held_out[:256]
        loss = self.loss(network, self._batch(held, rng), torch.Generator().manual_seed(0))[0]
        count = int(self.options.get("samples", 32))
        chosen = np.resize(self.pictures.held_out[:: max(1, len(self.pictures.held_out) // count)], count)
        lines = torch.from_numpy(self.controls[chosen]).float()[:, None] / 255
        measured, rows = {"held_out_loss": float(loss)}, []
        real = torch.from_numpy(np.array(self.pictures.pixels[chosen]))
        without = self._draw(network, chosen, None)
        for number, kind in enumerate(self.kinds):
            control = torch.zeros(len(chosen), len(self.kinds), SIDE, SIDE)
            control[:, number] = scribbled(lines[:, 0], rng) if kind == "scribble" else lines[:, 0]
            made = self._draw(network, chosen, control)
            if kind in LINES:
                given = lines[:, 0].numpy() > 0.5
                measured[f"{kind}_f1"] = float(agreement(edges(made), given).mean())
                measured[f"{kind}_f1_without"] = float(agreement(edges(without), given).mean())
            shown = (255 - control[:, number] * 255).byte()[..., None].expand(-1, -1, -1, 4)
            rows += [
                torch.stack(four) for four in zip(shown, real, *map(torch.from_numpy, (made, without)), strict=True)
            ]
        Image.fromarray(grid_of(torch.cat(rows).numpy(), columns=16)).save(path)
        return measured

    def _draw(self, network: nn.Module, chosen: npt.NDArray[np.int64], control: Tensor | None) -> npt.NDArray[np.uint8]:
        """Pictures of the first captions of ``chosen``, in the first style: uint8 (B, 64, 64, 4), alpha of 255."""
        text = text_encoder()([self.pictures.records[i].captions[0] for i in chosen], LENGTH)
        null = text_encoder()([""], LENGTH)
        label = torch.zeros(len(chosen), dtype=torch.long)
        one = torch.full((len(chosen),), self._gain)
        told, untold = ({} if control is None else {"control": control, "strength": s} for s in (one, 0 * one))
        condition = {"context": text.tokens, "context_mask": text.mask, "label": label, **told}
        nothing = {"context": null.tokens, "context_mask": null.mask, "label": label[:1], **untold}
        denoiser = d.Denoiser(network, self.base.process, self.base.card.prediction)
        guided = d.guidance.classifier_free(denoiser, 3.0, nothing)
        plan = d.solvers.dpmpp_2m(d.grid.shifted(self.base.process, 16, shift=SHIFT))
        seeds = [7 + number for number in range(len(chosen))]
        shape = self.base.task.latents.shape[2:]
        latents = d.sample(guided, plan, shape=shape, seeds=seeds, condition=condition)
        pixels = to_pixels(self.base.task.codec.decode(cast(Tensor, latents)))
        pixels[..., 3] = 255
        return pixels

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the side network's averaged weights as fp16, and what the card says of this adapter."""
        state = cast(Controlled, network).side.state_dict()
        state = {key: value * self._gain if key.startswith("zeros.") else value for key, value in state.items()}
        save_file({key: value.half().contiguous() for key, value in state.items()}, folder / "side.safetensors")
        own = {"kind": "transformer", **self.options["own"]}
        return {
            "architecture": {"side": {"kind": "side", **self.side, "own": own}},
            "conditioners": {"control": list(self.kinds)},
            **self.base.facts(),
        }


def agreement(found: npt.NDArray[np.bool_], given: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """F1 (B,) between edges (B, H, W), if one pixel beside the place is as good as on it."""

    def near(lines: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        grown = F.max_pool2d(torch.from_numpy(np.ascontiguousarray(lines)).float()[:, None], 3, 1, 1)[:, 0]
        result: npt.NDArray[np.bool_] = grown.numpy() > 0
        return result

    def share(some: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        parts: npt.NDArray[np.float64] = (some & near(of)).sum((1, 2)) / np.maximum(some.sum((1, 2)), 1)
        return parts

    precision, recall = share(found, given), share(given, found)
    result: npt.NDArray[np.float64] = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return result


def scribbled(lines: Tensor, generator: np.random.Generator) -> Tensor:
    """What a hand might draw of lines (B, H, W): moved about by some pixels, thicker, broken, parts left out."""
    count, height, width = lines.shape
    draws = torch.Generator().manual_seed(int(generator.integers(2**62)))

    def smooth(channels: int, cells: int) -> Tensor:
        coarse = torch.randn(count, channels, cells, cells, generator=draws)
        return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)

    wobble = smooth(2, 5) * torch.rand(count, 1, 1, 1, generator=draws) * 1.6 * 2 / width
    still = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 1, height, width], align_corners=False)
    wide, narrow = F.max_pool2d(lines[:, None], 3, 1, 1), F.max_pool2d(F.pad(lines[:, None], (0, 1, 0, 1)), 2, 1)
    thick = torch.where(torch.rand(count, 1, 1, 1, generator=draws) < 0.5, wide, narrow)
    bent = F.grid_sample(thick, still + wobble.permute(0, 2, 3, 1), align_corners=False)[:, 0]
    broken = smooth(1, 16)[:, 0] > torch.empty(count, 1, 1).uniform_(-2.6, -1.2, generator=draws)
    there = smooth(1, 4)[:, 0] > torch.empty(count, 1, 1).uniform_(-3.0, -0.9, generator=draws)
    return ((bent > 0.5) & broken & there).float()
