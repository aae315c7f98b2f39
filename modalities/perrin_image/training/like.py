r"""Trains a reader of pictures: tokens of one drawing, from which a frozen model draws another of the same thing.

The data hold most things in several drawing styles. The reader sees one, the model is to draw another whose style it is
told; so what helps is what both show, and not where it is. The mean of the tokens is also drawn towards that of the
caption's,

.. math:: L = L_{diffusion} + \gamma\, \| \bar k - \bar c \|^2 / \| \bar c \|^2

References:
    Ye et al., IP-Adapter (2023), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.modality import Progress
from perrin.nn.text import text_encoder
from perrin.nn.transformer import mean_token
from perrin.training.objective import drop
from perrin_image.data import Record
from perrin_image.like import LikeNetwork
from perrin_image.pictures import Pixels, grid_of, to_pixels
from perrin_image.training.dataset import Pictures
from perrin_image.training.diffusion import SHIFT, Batch
from perrin_image.training.frozen import Frozen
from perrin_image.training.latents import LENGTH

__all__ = ["LikeTask", "Liked", "Nearest"]


class Pairs(NamedTuple):
    """A batch of the base model's, with the caption's tokens even where they are dropped; what the reader sees, (B, C,
    h, w); and whether it is given, (B,)."""

    base: Batch
    said: Tensor
    like: Tensor
    given: Tensor


class Liked(nn.Module):
    """``network``, frozen, which hears what the reader says of a picture."""

    def __init__(self, network: nn.Module, reader: LikeNetwork) -> None:
        super().__init__()
        self.network, self.reader = network.requires_grad_(False), reader

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, context_mask: Tensor, label: Tensor, tokens: Tensor, given: Tensor
    ) -> Tensor:
        """One evaluation; ``tokens`` (B, n, width) count where ``given`` (B,)."""
        tokens = tokens * given[:, None, None]
        there = given[:, None].expand(-1, tokens.shape[1])
        context, mask = torch.cat([context, tokens.to(context)], 1), torch.cat([context_mask, there], 1)
        out: Tensor = self.network(x, t, context=context, context_mask=mask, label=label)
        return out


class LikeTask:
    """Options: ``base`` (the model's name), ``network`` (arguments of `perrin_image.like.LikeNetwork`), ``align``
    (gamma), ``like_dropout``, ``emphasis``, ``text_dropout``, ``style_dropout`` (as of
    `perrin_image.training.diffusion.DiffusionTask`), ``samples`` (held-out pictures that are drawn).
    """

    weights = "like"
    pictures: Pictures

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = {"text_dropout": 0.5, "like_dropout": 0.1, "align": 0.2, **options}
        network = self.options.pop("network", {})
        self.base = Frozen(self.options, data, folders)
        self.arguments = {**network, "channels": self.base.network.channels, "side": self.base.grid}
        torch.manual_seed(0)
        self.network: nn.Module = Liked(self.base.network, LikeNetwork(**self.arguments))

    def prepare(self, progress: Progress) -> None:
        """As of the base model; and find out who shows the same thing."""
        self.pictures = self.base.prepare(progress)
        alike: dict[tuple[str, str], list[int]] = {}
        for index in self.pictures.train:
            alike.setdefault(_thing(self.pictures.records[index]), []).append(int(index))
        self._alike = alike
        paired = np.array([len(alike[_thing(self.pictures.records[i])]) > 1 for i in self.pictures.train])
        chances = self.pictures.weights * paired
        self._chances = chances / chances.sum() if paired.any() else self.pictures.weights

    def batch(self, size: int, generator: np.random.Generator) -> Pairs:
        """Pictures by weight, and for each another of the same thing, in another style where there is one."""
        chosen = generator.choice(self.pictures.train, size, p=self._chances)
        return self._batch(chosen, [self._other(int(index), generator) for index in chosen], generator)

    def _other(self, index: int, generator: np.random.Generator) -> int:
        record = self.pictures.records[index]
        alike = self._alike.get(_thing(record), [index])
        others = [i for i in alike if self.pictures.records[i].style != record.style] or alike
        return others[int(generator.integers(len(others)))]

    def _batch(self, chosen: npt.NDArray[np.int64], others: list[int], generator: np.random.Generator) -> Pairs:
        base = self.base.task.batch_of(chosen, generator)
        said, mask = self.base.task.captions.batch([self.pictures.records[i].captions[0] for i in chosen])
        mirrored = [
            int(self.pictures.records[i].mirror_ok and generator.random() < 0.5) for i in others
        ]  # where a thing looks is nothing to learn
        like = np.stack([self.base.task.latents[i, side] for i, side in zip(others, mirrored, strict=True)])
        without = drop(len(chosen), {"like": self.options["like_dropout"]}, generator)["like"]
        return Pairs(base, mean_token(said, mask), torch.from_numpy(like).float(), torch.from_numpy(~without))

    def loss(self, network: nn.Module, batch: Pairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The base model's, told the tokens; and how far their mean is from the caption's."""
        tokens = cast(Liked, network).reader(batch.like)
        total, numbers = self.base.loss(network, batch.base, {"tokens": tokens, "given": batch.given}, generator)
        apart = (tokens.float().mean(1) - batch.said).square().sum(1) / batch.said.square().sum(1)
        align = apart.mean()
        return total + float(self.options["align"]) * align, {
            **numbers,
            "diffusion": total.detach(),
            "align": align.detach(),
        }

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on held-out pictures; how often what is drawn of one alone is recognised, in the first style.

        Draws the pictures given, and what is made of them.
        """
        rng = np.random.default_rng(0)
        held = self.pictures.held_out[:256]
        batch = self._batch(held, [int(i) for i in held], rng)
        numbers = self.loss(network, batch, torch.Generator().manual_seed(0))[1]
        known = Nearest(self.pictures, [i for i, r in enumerate(self.pictures.records) if not r.recoloured])
        things = {self.pictures.records[i].group for i in self.pictures.train}
        fit = [i for i in self.pictures.held_out if not self.pictures.records[i].recoloured]
        fit = [i for i in fit if self.pictures.records[i].group in things] or list(held)
        count = int(self.options.get("samples", 32))
        chosen = [int(i) for i in fit[:: max(1, len(fit) // count)][:count]]
        records = self.pictures.records
        measured = {"held_out_loss": float(numbers["diffusion"]), "align": float(numbers["align"])}
        rows = [np.array(self.pictures.pixels[chosen])[..., :4]]
        for name, like, prompts in (("like", True, False), ("prompt", False, True), ("both", True, True)):
            made = self._draw(cast(Liked, network), chosen, like, prompts)
            hits = [known.recognises(one, records[i].group) for one, i in zip(made, chosen, strict=True)]
            measured |= {f"{name}_nearest": float(np.mean([h[0] for h in hits]))}
            measured |= {f"{name}_of_five": float(np.mean([h[1] for h in hits]))}
            rows.append(made)
        measured["chance"] = float(np.mean([known.chance(records[i].group) for i in chosen]))
        shown = np.stack([over_white(row) for row in rows], 1).reshape(-1, 64, 64, 3)
        Image.fromarray(grid_of(shown, columns=16)).save(path)
        return measured

    def _draw(self, network: Liked, chosen: list[int], like: bool, prompts: bool) -> Pixels:
        """Pictures uint8 (B, 64, 64, 4), over white with an alpha of 255."""
        count, task = len(chosen), self.base.task
        texts = [self.pictures.records[i].captions[0] if prompts else "" for i in chosen]
        text, null = text_encoder()(texts, LENGTH), text_encoder()([""], LENGTH)
        latents = torch.from_numpy(np.stack([task.latents[i, 0] for i in chosen])).float()
        tokens = network.reader(latents)
        label = torch.zeros(count, dtype=torch.long)
        given = torch.full((count,), like)
        condition = {
            "context": text.tokens,
            "context_mask": text.mask,
            "label": label,
            "tokens": tokens,
            "given": given,
        }
        nothing = {
            "context": null.tokens.expand(count, -1, -1), "context_mask": null.mask.expand(count, -1), "label": label,
            "tokens": torch.zeros_like(tokens), "given": torch.zeros(count, dtype=torch.bool),
        }  # fmt: skip
        denoiser = d.Denoiser(network, self.base.process, self.base.card.prediction)
        guided = d.guidance.classifier_free(denoiser, 3.0, nothing)
        plan = d.solvers.dpmpp_2m(d.grid.shifted(self.base.process, 16, shift=SHIFT))
        seeds = [7 + number for number in range(count)]
        made = d.sample(guided, plan, shape=task.latents.shape[2:], seeds=seeds, condition=condition)
        pixels = to_pixels(task.codec.decode(cast(Tensor, made)))
        pixels[..., 3] = 255
        return pixels

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the reader's averaged weights as fp16, and what the card says of this adapter."""
        state = {key: v.half().contiguous() for key, v in cast(Liked, network).reader.state_dict().items()}
        save_file(state, folder / "like.safetensors")
        return {
            "architecture": {"like": {"kind": "like", **self.arguments}},
            "conditioners": {"like": {"tokens": cast(Liked, network).reader.tokens}},
            **self.base.facts(),
        }


def _thing(record: Record) -> tuple[str, str]:
    """What a picture shows; of recoloured ones, in which colour."""
    return record.group, record.colour or "" if record.recoloured else ""


def over_white(pixels: Pixels) -> Pixels:
    """Straight-alpha uint8 (B, H, W, 4) as (B, H, W, 3)."""
    alpha = pixels[..., 3:].astype(np.float32) / 255
    result: Pixels = (pixels[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return result


class Nearest:
    """Pictures that are known, to recognise others by: near in colour over white, averaged over 4x4 pixels.

    Args:
        pictures: the data.
        known: indices.
    """

    def __init__(self, pictures: Pictures, known: Sequence[int]) -> None:
        self._groups = [pictures.records[i].group for i in known]
        parts = np.array_split(np.asarray(known), max(1, len(known) // 512))
        self._small = np.concatenate([_coarse(np.array(pictures.pixels[part])) for part in parts])

    def recognises(self, picture: Pixels, group: str) -> tuple[bool, bool]:
        """Whether the nearest, and whether one of the nearest five, shows what ``group`` is."""
        far = np.square(self._small - _coarse(picture[None])).sum(1)
        near = [self._groups[int(n)] for n in np.argsort(far)[:5]]
        return near[0] == group, group in near

    def chance(self, group: str) -> float:
        """How often one drawn blindly does."""
        return self._groups.count(group) / len(self._groups)


def _coarse(pixels: Pixels) -> npt.NDArray[np.float32]:
    values = over_white(pixels).astype(np.float32) / 255
    coarse: npt.NDArray[np.float32] = values.reshape(len(values), 16, 4, 16, 4, 3).mean((2, 4))
    return coarse.reshape(len(values), -1)
