"""Averages: their width is what was asked for, and any other one can be made afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from perrin.errors import InvalidInput, NotFound
from perrin.training.ema import WIDTHS, Average, Averages, gamma_of_width, reconstruct, reconstruction


class Weights(nn.Module):
    """As many weights as there are steps; after step i, weight i is one and stays."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(steps))
        self.register_buffer("count", torch.tensor(0))

    def step(self, number: int) -> None:
        with torch.no_grad():
            self.values.zero_()
            self.values[number - 1] = 1.0


def profile(width: float, steps: int) -> np.ndarray:
    """How much each step's weights count, by running the average."""
    network = Weights(steps)
    average = Average(network, width)
    for number in range(1, steps + 1):
        network.step(number)
        average.update(network, number)
    return average.network.values.double().numpy()  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("width", [0.03, 0.05, 0.10, 0.2])
def test_the_width_is_the_standard_deviation_of_the_profile(width: float) -> None:
    weights = profile(width, 2000)
    at = (np.arange(2000) + 0.5) / 2000
    assert weights.sum() == pytest.approx(1.0, abs=1e-4)
    mean = (weights * at).sum()
    assert np.sqrt((weights * (at - mean) ** 2).sum()) == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.10, 0.15, 0.2])
def test_any_other_average_is_made_of_the_snapshots(width: float, tmp_path: Path) -> None:
    steps, every = 1024, 32
    network = Weights(steps)
    averages = Averages(network, 0.05, snapshots=True)
    assert [average.width for _, average in averages] == [0.05, *WIDTHS]
    for number in range(1, steps + 1):
        network.step(number)
        averages.update(network, number)
        if number % every == 0:
            averages.snapshot(tmp_path, number)
    made = reconstruct(tmp_path, width)["values"].double().numpy()
    wanted = profile(width, steps)
    # Weights drift slowly in training, so what counts is the profile at the scale of the snapshots.
    coarse = lambda p: p.reshape(-1, 16).sum(1)  # noqa: E731
    error = np.abs(coarse(made) - coarse(wanted)).sum()
    assert error < (0.15 if width < 0.05 else 0.05), error
    assert made.sum() == pytest.approx(1.0, abs=0.01)
    earlier = reconstruct(tmp_path, width, step=768)["values"].double().numpy()
    assert np.abs(earlier[768:]).max() < 1e-3
    assert np.abs(coarse(earlier[:768]) - coarse(profile(width, 768))).sum() < (0.2 if width < 0.05 else 0.08)


def test_a_snapshot_itself_is_found_again() -> None:
    steps, widths = [256, 512, 1024] * 2, [WIDTHS[0]] * 3 + [WIDTHS[1]] * 3
    assert reconstruction(steps, widths, 1024, WIDTHS[1]) == pytest.approx([0, 0, 0, 0, 0, 1], abs=1e-6)


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="ema_snapshots: true"):
        reconstruct(tmp_path, 0.1)
    with pytest.raises(InvalidInput, match=r"up to 0\.28"):
        gamma_of_width(0.3)
    averages = Averages(Weights(4), 0.0, snapshots=True)
    averages.snapshot(tmp_path, 4)
    with pytest.raises(InvalidInput, match="1 to 4"):
        reconstruct(tmp_path, 0.1, step=5)
