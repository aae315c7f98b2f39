"""A modality for the benchmarks: a small U-Net with classes, or a model that does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import UNet2DModel
from pydantic import Field
from torch import Tensor

from perrin import diffusion as d
from perrin import plugins
from perrin.modality import Format, Modality, Parameters, View

CLASSES = 10


class BenchParameters(Parameters):
    size: int = Field(32, title="Size", description="Pixels a side.")
    label: int = Field(1, title="Label", description="Class; 0 is none.")


def face_of(runtime: str) -> Modality:
    return Modality(
        name="bench",
        title="Bench",
        summary="Measured.",
        parameters=BenchParameters,
        view=View.FILE,
        formats=(Format("bin", "application/octet-stream"),),
        runtime=f"plugin:{runtime}",
        default_model="bench-1",
        package="plugin",
    )


unet, nothing = face_of("UnetRuntime"), face_of("NothingRuntime")


def make_unet() -> Any:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), num_class_embeds=CLASSES,
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=8,
    ).eval().requires_grad_(False)  # fmt: skip


class Common:
    def preview(self, clean: Tensor) -> None:
        return None

    def decode(self, clean: Tensor, parameters: Any) -> list[Tensor]:
        return list(clean)

    def check(self, result: Tensor) -> None:
        pass

    def export(self, results: Sequence[Any], format: Format, metadata: Mapping[str, Any]) -> bytes:
        return b""


class UnetRuntime(Common):
    sizes: ClassVar[list[int]] = []
    """Samples of every network call."""

    def __init__(self) -> None:
        self.network = make_unet()
        self.process = d.process.linear()

        def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            UnetRuntime.sizes.append(len(x))
            out: Tensor = self.network(x, t, class_labels=label).sample
            return out

        self.denoiser = d.Denoiser(network, self.process, "epsilon")

    @classmethod
    def load(cls, card: Any, device: str) -> UnetRuntime:
        return cls()

    def start(self, p: BenchParameters) -> d.Run:
        assert None not in (p.steps, p.sampler, p.guidance, p.seed)
        return d.start(
            d.guidance.classifier_free(self.denoiser, p.guidance, {"label": torch.zeros(1, dtype=torch.long)}),
            d.solvers.solver(p.sampler)(d.grid.trailing(self.process, p.steps)),
            shape=(3, p.size, p.size),
            seeds=[p.seed],
            condition={"label": torch.full((1,), p.label)},
        )


class NothingRuntime(Common):
    plans: ClassVar[dict[tuple[str, int], Any]] = {}

    def __init__(self) -> None:
        self.process = d.process.flow()
        self.denoiser = d.Denoiser(lambda x, t: x, self.process, "velocity")

    @classmethod
    def load(cls, card: Any, device: str) -> NothingRuntime:
        return cls()

    def start(self, p: BenchParameters) -> d.Run:
        assert None not in (p.steps, p.sampler, p.seed)
        key = (p.sampler, p.steps)
        if key not in self.plans:
            self.plans[key] = d.solvers.solver(p.sampler)(d.grid.linspace(self.process, p.steps))
        return d.start(self.denoiser, self.plans[key], shape=(4,), seeds=[p.seed])


CARD = """
name: bench-1
modality: bench
title: Bench
licence: CC0-1.0
defaults: {steps: 10, sampler: ddim, guidance: 1.0}
"""


def install(home: Path, which: str) -> None:
    """Make ``bench`` a modality of this process."""
    folder = home / "models" / "bench-1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.yaml").write_text(CARD)
    entry = EntryPoint("bench", f"plugin:{which}", "perrin.modalities")
    others = {name: found for name, found in plugins._entries().items() if name != "bench"}
    plugins._entries = lambda: {**others, "bench": entry}  # type: ignore[assignment]
