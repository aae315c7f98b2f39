"""Distances between sets of pictures, against closed forms and SciPy; features, against their makers; copies found."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from perrin.errors import InvalidInput
from perrin.metrics.distances import frechet, kernel, kernel_once
from perrin_image.metrics.copies import copies
from perrin_image.metrics.features import Features
from perrin_image.metrics.known import small


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _exactly(x: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """``x`` changed so that its sample mean and covariance are ``mean`` and ``root @ root.T``."""
    x = x - x.mean(0)
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (len(x) - 1))).T
    return whitened @ root.T + mean


def test_frechet_of_two_gaussians_is_the_closed_form() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), torch.tensor([3.0, 2.0, 0.1], dtype=torch.float64)
    apart = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    x, y = _exactly(_normal(0, 50, 3), 0 * apart, torch.diag(a)), _exactly(_normal(1, 70, 3), apart, torch.diag(b))
    assert frechet(x, y) == pytest.approx(float(apart.square().sum() + (a - b).square().sum()), rel=1e-9)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_agrees_with_scipys_root_of_a_matrix() -> None:
    x, y = _normal(0, 200, 24) @ _normal(2, 24, 24), _normal(1, 150, 24) @ _normal(3, 24, 24) + 0.3
    m, n = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = scipy.linalg.sqrtm(m @ n)
    theirs = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(m + n - 2 * np.real(root))
    assert frechet(x, y) == pytest.approx(theirs, rel=1e-8)
    assert frechet(y, x) == pytest.approx(theirs, rel=1e-8)


def test_frechet_copes_with_fewer_pictures_than_channels() -> None:
    x, y = _normal(0, 10, 40), _normal(1, 12, 40)
    assert frechet(x, x) == pytest.approx(0, abs=1e-4)
    assert frechet(x, y) > 10


def test_the_kernel_distance_is_the_double_sum() -> None:
    x, y = _normal(0, 7, 5), _normal(1, 9, 5) + 0.5

    def k(p: Tensor, q: Tensor) -> float:
        return float((p @ q / 5 + 1) ** 3)

    same = [sum(k(p, q) for i, p in enumerate(z) for j, q in enumerate(z) if i != j) / len(z) / (len(z) - 1)
            for z in (x, y)]  # fmt: skip
    cross = sum(k(p, q) for p in x for q in y) / len(x) / len(y)
    assert kernel_once(x, y) == pytest.approx(sum(same) - 2 * cross, rel=1e-10)


def test_the_kernel_distance_is_unbiased_and_tells_sets_apart() -> None:
    x, y = _normal(0, 4000, 8), _normal(1, 4000, 8)
    alike, other = kernel(x, y, size=20, subsets=200), kernel(x, y + 0.5, size=20, subsets=200)
    assert abs(alike.mean) < 3 * alike.spread / 200**0.5
    assert other.mean > 10 * other.spread / 200**0.5
    assert other.mean == pytest.approx(kernel_once(x, y + 0.5), rel=0.1), "small sets say what large ones do"
    assert kernel(x, y, size=20) == kernel(x, y, size=20)


@pytest.mark.parametrize("wrong", [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5, 3))])
def test_features_that_cannot_be_compared_are_refused(wrong: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, y = (_normal(0, *shape) for shape in wrong)
    for distance in (frechet, kernel):
        with pytest.raises(InvalidInput, match="features"):
            distance(x, y)


def test_features_are_those_of_the_network_that_was_published() -> None:
    """The numbers were computed by PyPI's efficientnet-lite-pytorch 0.1.0 with ``image_size=128``."""
    features = Features()
    x = torch.linspace(-1, 1, 3 * 128 * 128).view(1, 3, 128, 128).sin()
    out = features(x)
    assert out.shape == (1, 320)
    assert out[0, :6].tolist() == pytest.approx([0.55083, 2.61455, -0.06336, 1.54636, -0.11827, 1.96913], abs=1e-3)
    assert float(out.norm()) == pytest.approx(24.11102, abs=1e-2)
    many = torch.rand(35, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(features.of(many)[33:], features(many[33:, :3]), atol=1e-4)
    with pytest.raises(InvalidInput, match="pictures"):
        features(x[0])


def test_copies_are_found_and_others_are_not() -> None:
    training, held_out = _normal(0, 300, 6).float(), _normal(1, 200, 6).float()
    fresh, copied = _normal(2, 150, 6).float(), training[:50] + 1e-4
    found = copies(torch.cat([copied, fresh]), held_out, training)
    assert found.share == pytest.approx(50 / 200, abs=0.06)
    assert found.neighbour[:50].tolist() == list(range(50))
    assert set(found.worst(50)) == set(range(50))
    assert copies(fresh, held_out, training).share < 0.12
    assert copies(held_out, held_out, training).share == pytest.approx(0.05)
    assert found.real_median == copies(fresh, held_out, training).real_median


def test_the_worst_are_shown_with_each_neighbour_once() -> None:
    training = torch.eye(4)
    found = copies(torch.stack([training[2], training[2] + 0.1, training[1] + 0.2]), training + 1, training)
    assert found.worst(3) == [0, 2]


def test_small_pictures_are_means_of_blocks() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8).repeat(1, 4, 1, 1)
    assert small(x, 2).view(3, 4)[1].tolist() == [13.5, 17.5, 45.5, 49.5]
