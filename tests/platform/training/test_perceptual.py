"""The perceptual distance against its authors' numbers, as a metric and as a loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perrin.diffusion.prediction import coefficients
from perrin.errors import InvalidInput, NotInstalled
from perrin.training import perceptual
from perrin.training.objective import Objective
from perrin.training.perceptual import Perceptual, Trunk


def waves(turn: float) -> Tensor:
    """Two pictures of coloured waves, (2, 3, 64, 64)."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 64), torch.linspace(0, 9, 64), indexing="ij")
    return torch.stack([torch.stack([torch.sin(k * x + c + turn) * torch.cos(y) for c in range(3)]) for k in (1, 2)])


@pytest.mark.parametrize(("trunk", "known"), [("alex", (0.0593752, 0.0333742)), ("vgg", (0.1643182, 0.1000702))])
def test_distances_are_those_of_the_authors(trunk: Trunk, known: tuple[float, float]) -> None:
    """What stlpips-pytorch 0.0.2 itself says of these pictures (LPIPS(net, variant="shift_tolerant"))."""
    distance = Perceptual(trunk)
    assert distance(waves(0.0), waves(0.7)).tolist() == pytest.approx(known, rel=1e-4)


def test_it_is_a_distance_that_forgives_a_shift_more_than_a_blur() -> None:
    distance, x = Perceptual("alex"), torch.rand(1, 3, 64, 72, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = nn.functional.avg_pool2d(x, 3, 1, 1)
    left, right = x[..., :64], x[..., 1:65]
    blurred = nn.functional.avg_pool2d(left, 5, 1, 2)
    assert float(distance(left, left)) == 0
    assert float(distance(left, blurred)) == pytest.approx(float(distance(blurred, left)), rel=1e-5)
    assert 0 < float(distance(left, right)) < float(distance(left, blurred))


def test_its_gradient_is_finite_where_features_are_zero() -> None:
    x = torch.full((1, 4, 64, 64), -1.0, requires_grad=True)
    Perceptual("vgg").rgb(x, torch.ones(1, 4, 64, 64)).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad[:, :3].abs().sum() > 0


def test_an_objective_adds_it_for_the_clean_estimate() -> None:
    """A network whose clean estimate is right pays nothing; one that answers zero pays the distance of that."""
    clean = waves(0.0)
    plain, made = Objective(prediction="x0").loss(), Objective(prediction="x0", perceptual=0.5).loss()
    noised = made.noised(clean, torch.Generator().manual_seed(0))
    right, told = made.of(lambda x, t: clean, noised, {})
    assert float(right) == pytest.approx(0, abs=1e-6)
    assert float(told["perceptual"]) == 0
    empty, told = made.of(lambda x, t: torch.zeros_like(x), noised, {})
    distance = Perceptual("vgg").rgb(torch.zeros_like(clean), clean)
    assert float(told["perceptual"]) == pytest.approx(float(distance), rel=1e-4)
    without, _ = plain.of(lambda x, t: torch.zeros_like(x), noised, {})
    assert float(empty) == pytest.approx(float(without + 0.5 * distance), rel=1e-4)


@pytest.mark.parametrize("prediction", ["velocity", "v", "epsilon"])
def test_the_clean_estimate_is_that_of_the_prediction(prediction: str) -> None:
    """A network that predicts exactly what it should has a clean estimate that looks right."""
    clean = waves(0.0)
    made = Objective(prediction=prediction, perceptual=1.0, times={"kind": "logit_normal"}).loss()  # type: ignore[arg-type]
    noised = made.noised(clean, torch.Generator().manual_seed(1))
    t = noised.t.numpy()
    known = coefficients(prediction, t, made.process.alpha(t), made.process.sigma(t))
    _, _, c_skip, c_out = (
        torch.from_numpy(np.broadcast_to(c, t.shape).copy()).view(-1, 1, 1, 1).float() for c in known
    )
    assert isinstance(noised.state, Tensor)
    answer = (clean - c_skip * noised.state) / c_out
    _, told = made.of(lambda x, t: answer, noised, {})
    assert float(told["perceptual"]) == pytest.approx(0, abs=1e-5)


def test_latents_have_no_looks_and_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Objective(perceptual=1.0).loss()
    with pytest.raises(InvalidInput, match="only pictures have looks"):
        made(lambda x, t: x, torch.zeros(2, 16, 8, 8), {}, torch.Generator())
    with pytest.raises(InvalidInput, match="alex or vgg"):
        Perceptual("resnet")  # type: ignore[arg-type]
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"perrin\[perceptual\]"):
        Perceptual()
