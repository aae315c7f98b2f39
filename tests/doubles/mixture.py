"""A modality for tests: numbers from a mixture of two Gaussians, by its exact denoiser. Every solver runs on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from perrin import diffusion as d
from perrin import plugins
from perrin.errors import Degenerate
from perrin.modality import Format, Modality, Parameters, View
from perrin.models import ModelCard
from perrin.models.plans import plan_of

CARD = """
name: two-bells
modality: mixture
title: Two bells
licence: CC0-1.0
process: {kind: edm}
defaults: {steps: 12, sampler: dpmpp_2m, guidance: 1.0}
"""
PROCESS = d.process.edm()

face = Modality(
    name="mixture",
    title="Mixture",
    summary="Numbers.",
    parameters=Parameters,
    view=View.TABLE,
    formats=(Format("json", "application/json", many=True),),
    runtime="mixture:MixtureRuntime",
    default_model="two-bells",
    package="mixture",
    examples=({"seed": 1}, {"seed": 2}),
)


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact clean estimate of 0.7 N(-1, 0.2^2) + 0.3 N(1, 0.4^2) at noise level t."""
    level = t.view(-1, 1) ** 2
    logs, means = [], []
    for weight, mean, spread in ((0.7, -1.0, 0.2), (0.3, 1.0, 0.4)):
        variance = spread**2 + level
        logs.append(torch.log(weight / variance.sqrt()) - (x - mean) ** 2 / variance / 2)
        means.append(mean + spread**2 / variance * (x - mean))
    share = torch.softmax(torch.stack(logs), 0)
    return (share * torch.stack(means)).sum(0)


class MixtureRuntime:
    def __init__(self, card: ModelCard) -> None:
        self.card = card

    @classmethod
    def load(cls, card: ModelCard, device: str) -> MixtureRuntime:
        return cls(card)

    def start(self, p: Parameters) -> d.Run:
        assert p.steps is not None
        assert p.seed is not None
        assert p.sampler is not None
        plan = plan_of(self.card, p.sampler, d.grid.karras(PROCESS, p.steps))
        seeds = range(p.seed, p.seed + p.count)
        return d.start(d.Denoiser(network, PROCESS, "x0"), plan, shape=(1,), seeds=seeds, dtype=torch.float64)

    def preview(self, clean: torch.Tensor) -> bytes | None:
        return None

    def decode(self, clean: torch.Tensor, parameters: Parameters) -> list[float]:
        return [float(v) for v in clean[:, 0]]

    def check(self, result: float) -> None:
        if not abs(result) < 100:
            raise Degenerate(f"{result} is not a number of the mixture")

    def export(self, results: Sequence[float], format: Format, metadata: Mapping[str, Any]) -> bytes:
        return json.dumps({"items": list(results), "metadata": dict(metadata)}).encode()


def install(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """Make ``mixture`` the only modality; the folder of its model, under ``home``."""
    folder = home / "models" / "two-bells"
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(CARD)
    entry = EntryPoint("mixture", "mixture:face", "perrin.modalities")
    monkeypatch.setattr(plugins, "_entries", lambda: {"mixture": entry})
    monkeypatch.setenv("PERRIN_HOME", str(home))
    for name in ("PERRIN_MODELS", "PERRIN_DEVICE", "PERRIN_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return folder
