"""Layers along time around the shipped image model: off or untrained they change nothing, and what is kept is kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from perrin.models import find
from perrin.models.weights import load_network
from perrin.nn import DiffusionTransformer
from perrin.nn.temporal import fold_frames, unfold_frames
from perrin_video.network import MotionLayers, VideoTransformer, own_coordinates
from perrin_video.windows import Windowed

B, F = 2, 4


@pytest.fixture(scope="module")
def image() -> DiffusionTransformer:
    network = load_network(find("emoji-64"), "transformer")
    assert isinstance(network, DiffusionTransformer)
    return network


@pytest.fixture(scope="module")
def trained(image: DiffusionTransformer) -> VideoTransformer:
    """The shipped layers."""
    layers = load_network(find("emoji-motion"), "motion", kinds={"motion": MotionLayers})
    assert isinstance(layers, MotionLayers)
    return VideoTransformer(image, layers).eval()


def told(frames: int = F, batch: int = B) -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    return {
        "context": torch.randn(batch, 6, 384, generator=g),
        "context_mask": torch.ones(batch, 6, dtype=torch.bool),
        "label": torch.zeros(batch, dtype=torch.long),
        "pose": torch.randn(batch, frames, 7, generator=g) * 0.3,
        "seconds": torch.arange(frames).float().expand(batch, -1) / 8,
        "portrait": torch.randn(batch, 16, 1, 8, 8, generator=g),
        "portrait_pose": torch.tensor([[[0, 0, 0, 1, 0, 1, 0.0]]]),
    }


def noisy(frames: int = F, batch: int = B) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return torch.randn(batch, 16, frames, 8, 8, generator=g), torch.rand(batch, generator=g)


def by_frames(image: DiffusionTransformer, x: torch.Tensor, t: torch.Tensor, c: dict[str, Any]) -> torch.Tensor:
    """The image model's answer to each frame alone, as samples of one batch."""
    n = x.shape[2]
    rows = {name: c[name].repeat_interleave(n, 0) for name in ("context", "context_mask", "label")}
    return unfold_frames(image(fold_frames(x), t.repeat_interleave(n), **rows), n)


@torch.inference_mode()
def test_with_the_layers_off_it_is_the_image_model_bit_for_bit(
    image: DiffusionTransformer, trained: VideoTransformer
) -> None:
    x, t = noisy()
    alone = by_frames(image, x, t, told())
    assert not torch.equal(trained(x, t, **told()), alone)
    trained.still = True
    assert torch.equal(trained(x, t, **told()), alone)
    trained.still = False


@torch.inference_mode()
def test_before_training_it_is_the_image_model_bit_for_bit(image: DiffusionTransformer) -> None:
    x, t = noisy()
    untrained = VideoTransformer(image, MotionLayers()).eval()
    condition = {key: value for key, value in told().items() if not key.startswith("portrait")}
    assert torch.equal(untrained(x, t, **condition), by_frames(image, x, t, condition))


def test_the_shipped_layers_are_small() -> None:
    card = find("emoji-motion")
    assert (card.folder / "motion.safetensors").stat().st_size <= 6 * 2**20
    assert card.image == "emoji-64"


@torch.inference_mode()
def test_what_is_said_of_a_kept_frame_is_that_frame(trained: VideoTransformer) -> None:
    """velocity = noise - clean, so that the clean estimate x - t v is what was given."""
    g = torch.Generator().manual_seed(3)
    clean, noise = (torch.randn(B, 16, F, 8, 8, generator=g) for _ in range(2))
    t = torch.tensor([0.3, 0.9])
    wide = t.view(-1, 1, 1, 1, 1)
    x = (1 - wide) * clean + wide * noise
    kept = torch.tensor([[True, False, False, True]])
    answer = trained(x, t, **told(), given=clean, kept=kept)
    estimate = x - wide * answer
    assert (estimate - clean)[:, :, [0, 3]].abs().max() < 1e-5
    assert (estimate - clean)[:, :, [1, 2]].abs().max() > 0.1


@torch.inference_mode()
def test_the_noise_of_a_kept_frame_is_not_seen(trained: VideoTransformer) -> None:
    x, t = noisy()
    clean, kept = torch.zeros_like(x), torch.tensor([[True, False, False, False]])
    other = x.clone()
    other[:, :, 0] += 1
    a, b = (trained(y, t, **told(), given=clean, kept=kept) for y in (x, other))
    assert torch.equal(a[:, :, 1:], b[:, :, 1:])


@torch.inference_mode()
def test_causally_no_frame_sees_a_later_one(trained: VideoTransformer) -> None:
    x, t = noisy()
    later = x.clone()
    later[:, :, 2:] += 1
    a, b = (trained(y, t, **told(), causal=True) for y in (x, later))
    assert torch.equal(a[:, :, :2], b[:, :, :2])
    a, b = (trained(y, t, **told()) for y in (x, later))
    assert not torch.equal(a[:, :, :2], b[:, :, :2])


@torch.inference_mode()
def test_each_frame_may_have_a_time_of_its_own(trained: VideoTransformer) -> None:
    x, t = noisy()
    same = trained(x, t[:, None].expand(-1, F), **told())
    assert torch.equal(same, trained(x, t, **told()))
    times = torch.tensor([[0.1, 0.4, 0.7, 0.95]]).expand(B, -1)
    assert not torch.equal(trained(x, times, **told()), same)


def test_a_part_of_the_thing_keeps_its_coordinates() -> None:
    """Moved, enlarged and turned, a place of the thing has the coordinates that it had."""
    still = torch.tensor([0, 0, 0, 1, 0, 1, 0.0])
    moved = torch.tensor([0.25, -0.5, 0, 1, 0, 1, 0.0])
    grid = own_coordinates(still, (8, 8)).view(8, 8, 2)
    assert torch.allclose(own_coordinates(moved, (8, 8)).view(8, 8, 2)[0:6, 1:], grid[2:8, :7], atol=1e-6)
    half = own_coordinates(torch.tensor([0, 0, math.log(0.5), 1, 0, 1, 0.0]), (8, 8)).view(8, 8, 2)
    assert torch.allclose(half, 2 * grid, atol=1e-6)
    two = own_coordinates(torch.tensor([0, 0, 0, 1, 0, 1, 0.5]), (8, 8)).view(8, 8, 2)
    assert torch.allclose(two[:, :4], two[:, 4:], atol=1e-6), "both copies have the same parts"
    quarter = own_coordinates(torch.tensor([0, 0, 0, 0, 1, 1, 0.0]), (8, 8)).view(8, 8, 2)
    assert torch.allclose(quarter, grid.rot90(-1, (0, 1)), atol=1e-6)


def split(frames: int) -> dict[str, Any]:
    c = told(frames, 1)
    c |= {"context": c["context"][:, None], "context_mask": c["context_mask"][:, None]}
    return {**c, "share": torch.ones(1, 1, frames)}


@torch.inference_mode()
def test_a_clip_of_one_window_is_the_networks_own(trained: VideoTransformer) -> None:
    x, t = noisy(6, 1)
    assert torch.equal(Windowed(trained, 8, 3)(x, t, **split(6)), trained(x, t, **told(6, 1)))


@torch.inference_mode()
def test_windows_cover_every_frame_and_a_circle_has_no_seam(trained: VideoTransformer) -> None:
    windows = Windowed(trained, 6, 2)
    for frames, loop in ((14, False), (14, True), (6, True), (7, False)):
        seen = torch.zeros(frames)
        pairs = set()
        for numbers, weight in windows._windows(frames, loop, torch.zeros(1)):
            seen[numbers] += weight
            pairs |= set(zip(numbers.tolist(), numbers[1:].tolist(), strict=False))
        assert (seen > 0).all()
        wanted = {(n, (n + 1) % frames) for n in range(frames if loop else frames - 1)}
        assert wanted <= pairs or (frames == 6 and loop)
    x, t = noisy(14, 1)
    assert windows(x, t, **split(14)).shape == x.shape


@torch.inference_mode()
def test_a_turned_circle_is_the_same_circle(trained: VideoTransformer) -> None:
    """With windows that begin everywhere alike, turning a loop by the step of its windows turns the answer."""
    windows = Windowed(trained, 6, 2)
    x, t = noisy(12, 1)
    c = split(12)
    turned = {**c, **{name: c[name].roll(4, 1) for name in ("pose", "seconds")}}
    a = windows(x, t, **c, loop=True)
    b = windows(x.roll(4, 2), t, **turned, loop=True)
    assert (a.roll(4, 2) - b).abs().max() < 1e-4
