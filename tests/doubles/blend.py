"""A modality for tests of the engine: an analytic network that treats every sample by itself, so that its results are
the same to the bit in any batch. What goes wrong is chosen by a request's parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from perrin import diffusion as d
from perrin import plugins
from perrin.errors import Degenerate
from perrin.modality import Format, Modality, Parameters, View

RAISES, BAD_SHAPE = 666.0, 777.0


class BlendParameters(Parameters):
    prompt: str = Field("", title="Prompt", description="What goes wrong, and where.")
    value: float = Field(0.0, title="Value", description="What the samples are pulled to.")
    length: int = Field(6, ge=1, le=64, title="Length", description="Numbers in a sample.")
    low: float = Field(0.0, title="Low", description="Guidance acts above this time.")


face = Modality(
    name="blend",
    title="Blend",
    summary="Rows of numbers.",
    parameters=BlendParameters,
    view=View.TABLE,
    formats=(Format("json", "application/json"),),
    runtime="blend:BlendRuntime",
    default_model="blend-1",
    package="blend",
)


def analytic(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """Elementwise; raises, or returns another shape, if any sample of the batch says so."""
    if (c == RAISES).any():
        raise ZeroDivisionError("the network divides by zero")
    if (c == BAD_SHAPE).any():
        return x[:, :-1]
    scale = t.reshape(-1, *[1] * (x.dim() - 1))
    return x * (0.3 + 0.5 * scale) + c.reshape(-1, *scale.shape[1:]) * torch.cos(x)


class BlendRuntime:
    """Its class attributes are what tests change."""

    network: ClassVar[Callable[..., Tensor]] = staticmethod(analytic)
    calls: ClassVar[list[tuple[str, int]]] = []
    loads: ClassVar[list[str]] = []
    loading: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    weights: ClassVar[int] = 0

    def __init__(self, card: Any) -> None:
        self.card = card
        self.held = nn.Linear(self.weights, 1, bias=False) if self.weights else None
        process = d.process.flow()

        def network(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
            BlendRuntime.calls.append((card.name, len(x)))
            return BlendRuntime.network(x, t, c)

        self.process, self.denoiser = process, d.Denoiser(network, process, "velocity")

    @classmethod
    def load(cls, card: Any, device: str) -> BlendRuntime:
        cls.loads.append(card.name)
        cls.loading()
        return cls(card)

    def start(self, p: BlendParameters) -> d.Run:
        if p.prompt == "start":
            raise ZeroDivisionError("in start")
        if p.prompt == "interrupt":
            raise KeyboardInterrupt
        assert p.seed is not None
        guided: Any = d.guidance.classifier_free(
            self.denoiser, p.guidance or 1.0, {"c": torch.zeros(1, 1)}, interval=(p.low, 2.0)
        )
        if p.prompt == "steered":
            guided = d.guidance.reconstruction(self.denoiser, lambda x: x.sum(1, keepdim=True), torch.ones(1, 1), 0.1)
        if p.prompt == "branches":
            guided = Raising(self.denoiser)
        value = float("nan") if p.prompt == "nan" else p.value
        return d.start(
            guided,
            d.solvers.solver(p.sampler or "ddim")(d.grid.linspace(self.process, p.steps or 4)),
            shape=(p.length,),
            seeds=[p.seed + i for i in range(p.count)],
            condition={"c": torch.full((1, 1), value)},
        )

    def preview(self, clean: Any) -> bytes | None:
        return b"preview"

    def decode(self, clean: Tensor, p: BlendParameters) -> list[list[float]]:
        if p.prompt == "decode":
            raise ZeroDivisionError("in decode")
        return clean.tolist()

    def check(self, result: Any) -> None:
        if not result:
            raise Degenerate("the result is empty")

    def export(self, results: Sequence[Any], format: Format, metadata: Mapping[str, Any]) -> bytes:
        return json.dumps([list(results), metadata["parameters"]], sort_keys=True).encode()


class Raising(d.guidance.Unguided):
    def branches(self, condition: Any, t: float) -> Any:
        raise ZeroDivisionError("in branches")


CARD = """
name: {name}
modality: blend
title: Blend
licence: CC0-1.0
defaults: {{steps: 4, sampler: ddim, guidance: 1.0}}
files: {{weights.safetensors: "0"}}
"""


def install(monkeypatch: pytest.MonkeyPatch, home: Path, models: int = 3, size: int = 400) -> None:
    """Make ``blend`` the only modality, with models blend-1, blend-2 ... whose files have ``size`` bytes."""
    for number in range(1, models + 1):
        folder = home / "models" / f"blend-{number}"
        folder.mkdir(parents=True)
        (folder / "card.yaml").write_text(CARD.format(name=folder.name))
        (folder / "weights.safetensors").write_bytes(bytes(size))
    entry = EntryPoint("blend", "blend:face", "perrin.modalities")
    monkeypatch.setattr(plugins, "_entries", lambda: {"blend": entry})
    monkeypatch.setenv("PERRIN_HOME", str(home))
    for name in ("PERRIN_MODELS", "PERRIN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(BlendRuntime, "calls", [])
    monkeypatch.setattr(BlendRuntime, "loads", [])
