"""Measures of clips: what is steady scores so, what drifts is found, and the video distance is that of its network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.errors import InvalidInput, ModelError
from perrin.metrics.distances import frechet
from perrin_video.metrics.fvd import PROTOCOLS, InflatedInception, Protocol, features, fvd, load_i3d
from perrin_video.metrics.steadiness import drift, identity, lab


def box(colour: tuple[int, int, int], places: list[int]) -> np.ndarray:  # type: ignore[type-arg]
    frames = np.zeros((len(places), 64, 64, 4), np.uint8)
    for frame, left in zip(frames, places, strict=True):
        frame[20:40, left : left + 20] = (*colour, 255)
        frame[20:26, left : left + 6] = (20, 20, 20, 255)
    return frames


def test_a_thing_that_only_moves_is_the_same_thing() -> None:
    assert identity(box((200, 30, 30), [4, 10, 20, 38])) > 0.98
    other = np.concatenate([box((200, 30, 30), [4, 10]), box((30, 30, 200), [20, 38])])
    assert identity(other) < identity(box((200, 30, 30), [4, 10, 20, 38])) - 0.1


def test_drift_is_the_distance_of_colours() -> None:
    steady = box((200, 30, 30), [10] * 8)
    assert drift(steady) == pytest.approx(0, abs=1e-6)
    gone = np.concatenate([box((200, 30, 30), [10] * 6), box((180, 60, 30), [10] * 2)])
    assert drift(gone) > 0.05
    assert np.allclose(lab(np.array([255.0, 255.0, 255.0])), [100, 0, 0], atol=0.1)
    assert np.allclose(lab(np.array([255.0, 0.0, 0.0])), [53.2, 80.1, 67.2], atol=0.2)


def test_i3d_is_the_published_network() -> None:
    """12,697,264 numbers with 400 classes; 16 frames of 224 pixels are 2 x 7 x 7 places before the last pooling."""
    with torch.device("meta"):
        network = InflatedInception()
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264
    names = set(network.state_dict())
    for name in ("Conv3d_1a_7x7.conv3d.weight", "Mixed_4e.b1b.bn.running_var", "logits.conv3d.bias"):
        assert name in names
    assert network.eval()(torch.empty(1, 3, 16, 224, 224, device="meta")).shape == (1, 400)


def test_weights_are_the_users_and_only_tensors_are_read(tmp_path: Path) -> None:
    network = InflatedInception(7)
    save_file(network.state_dict(), tmp_path / "i3d.safetensors")
    loaded = load_i3d(tmp_path / "i3d.safetensors")
    assert torch.equal(loaded.logits.conv3d.weight, network.logits.conv3d.weight)
    torch.save(network.state_dict(), tmp_path / "i3d.pt")
    assert isinstance(load_i3d(tmp_path / "i3d.pt"), InflatedInception)
    for content in (b"junk", b""):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(ModelError, match="I3D"):
            load_i3d(tmp_path / "bad.pt")


class Means(nn.Module):
    """Instead of I3D: the mean colours of the first and the second half."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=2)
        return torch.cat([first.mean((2, 3, 4)), second.mean((2, 3, 4))], 1)


def test_the_distance_is_frechets_in_the_networks_features() -> None:
    rng = np.random.default_rng(0)
    protocol = Protocol(24, 8, 32, "a test")
    real, made = (rng.integers(low, 256, (24, 10, 16, 16, 3), dtype=np.uint8) for low in (0, 60))
    a, b = (features(Means(), clips, protocol) for clips in (real, made))
    assert a.shape == (24, 6)
    assert a.abs().max() <= 1
    assert fvd(Means(), real, made, protocol) == pytest.approx(frechet(a, b))
    assert fvd(Means(), real, real, protocol) == pytest.approx(0, abs=1e-6)
    with pytest.raises(InvalidInput, match="24, as the protocol says"):
        fvd(Means(), real, made[:20], protocol)
    with pytest.raises(InvalidInput, match="at least 8"):
        features(Means(), real[:, :5], protocol)
    assert (PROTOCOLS["styleganv"].clips, PROTOCOLS["styleganv"].frames) == (2048, 16)
