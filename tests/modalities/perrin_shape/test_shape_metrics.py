"""Measures of shapes, against answers that are known by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from perrin.errors import InvalidInput
from perrin_shape.cloud import Cloud
from perrin_shape.mesh import sampled
from perrin_shape.metrics.distances import chamfer, chamfers, emd, emds
from perrin_shape.metrics.judge import Judge
from perrin_shape.metrics.meshes import ALLOWED, Surface, closed_share, surfaces
from perrin_shape.metrics.novelty import copied, nearest_of
from perrin_shape.metrics.sets import coverage, mmd, one_nna, scores


def points(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rows)


def ball(count: int, radius: float, seed: int) -> Tensor:
    made = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return radius * made / made.norm(dim=1, keepdim=True)


ONE = points((0, 0, 0), (1, 0, 0))
TWO = points((0, 0, 0), (3, 0, 0))


def test_distances_that_are_known() -> None:
    assert chamfer(ONE, TWO) == pytest.approx((0 + 1) / 2 + (0 + 4) / 2)  # squares, each way, and means
    assert emd(ONE, TWO) == pytest.approx((0 + 2) / 2)
    assert chamfer(points((0, 0, 0)), points((0, 3, 4))) == pytest.approx(50)
    assert emd(points((0, 0, 0)), points((0, 3, 4))) == pytest.approx(5)
    both = points((0, 0, 0), (0, 0, 0), (2, 0, 0)), points((0, 0, 0), (2, 0, 0), (2, 0, 0))
    assert chamfer(*both) == 0  # it does not see how many points are where
    assert emd(*both) == pytest.approx(2 / 3)  # and this does, so it is never 0 for clouds that differ
    assert emd(ONE, ONE.flip(0)) == chamfer(ONE, ONE) == 0


def test_the_earth_movers_matching_is_the_best_there_is() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x, y = torch.rand(6, 3, generator=generator), torch.rand(6, 3, generator=generator)
        lengths = torch.cdist(x, y)
        best = min(sum(float(lengths[i, j]) for i, j in enumerate(order)) / 6 for order in permutations(range(6)))
        assert emd(x, y) == pytest.approx(best, rel=1e-5)
        greedy = float(lengths.min(1).values.mean())
        assert emd(x, y) >= greedy > 0


def test_a_shift_and_a_scale_cost_what_they_should() -> None:
    x = ball(200, 1, 0)
    assert emd(x, x + torch.tensor([0.3, 0, 0])) == pytest.approx(0.3)  # the best matching of a shift is the shift
    assert emd(x, 1.5 * x) == pytest.approx(0.5)
    assert chamfer(x, x + 5) > chamfer(x, x + 4) > 0


def test_order_and_turning_do_not_matter() -> None:
    x, y = ball(150, 1, 0), ball(150, 0.8, 1) * torch.tensor([1, 0.5, 0.7])
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    for distance in (chamfer, emd):
        assert distance(x[order], y) == pytest.approx(distance(x, y), rel=1e-9)
        assert distance(x @ turn, y @ turn) == pytest.approx(distance(x, y), rel=1e-9)
        assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-9)
        assert distance(x @ turn, y) != pytest.approx(distance(x, y), rel=1e-3)
        assert distance(2 * x, 2 * y) == pytest.approx(distance(x, y) * (4 if distance is chamfer else 2), rel=1e-9)


def test_tables_of_distances_are_the_distances() -> None:
    xs, ys = torch.stack([ball(40, 1, s) for s in range(3)]), torch.stack([ball(40, 0.7, s) for s in range(4)])
    for table, one in ((chamfers, chamfer), (emds, emd)):
        found = table(xs, ys)
        assert found.shape == (3, 4)
        for i in range(3):
            for j in range(4):
                assert found[i, j] == pytest.approx(one(xs[i], ys[j]), rel=1e-9)
        own = table(xs, xs)
        np.testing.assert_allclose(own, own.T, rtol=1e-9)
        np.testing.assert_allclose(np.diag(own), 0, atol=1e-12)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="as many"):
        emd(ONE, points((0, 0, 0)))
    for bad in (torch.zeros(0, 3), torch.zeros(4, 2), torch.full((4, 3), torch.nan)):
        with pytest.raises(InvalidInput, match="finite points"):
            chamfer(bad, ONE)
    with pytest.raises(InvalidInput, match="N and M"):
        one_nna(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))


def on_a_line(*places: float) -> np.ndarray:
    return np.array(places)


def between(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(x[:, None] - y[None])


def test_sets_that_are_known() -> None:
    near, far = on_a_line(0, 1, 2), on_a_line(100, 101, 102)
    assert one_nna(between(near, near), between(near, far), between(far, far)) == 1  # told apart
    assert one_nna(between(near, near), between(near, near), between(near, near)) == 0  # copies
    made, real = on_a_line(0, 1, 10), on_a_line(0.4, 10.2, 20)
    # of made: 0 -> 0.4 wrong, 1 -> 0.4 wrong, 10 -> 10.2 wrong; of real: 0.4 -> 0, 10.2 -> 10 wrong, 20 -> 10.2 right
    assert one_nna(between(made, made), between(made, real), between(real, real)) == pytest.approx(1 / 6)
    assert coverage(between(made, real)) == pytest.approx(2 / 3)  # 0.4 twice, and 10.2
    assert mmd(between(made, real)) == pytest.approx((0.4 + 0.2 + 10) / 3)
    same = on_a_line(5, 5, 5)  # a model that makes one thing
    assert coverage(between(same, real)) == pytest.approx(1 / 3)
    found = scores(between(made, made), between(made, real), between(real, real))
    assert (found.made, found.real, found.coverage) == (3, 3, pytest.approx(2 / 3))


def test_two_halves_of_one_set_are_not_told_apart() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 300, 4))
    apart = [np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in ((x, x), (x, y), (y, y))]
    assert one_nna(*apart) == pytest.approx(0.5, abs=0.06)
    moved = [np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in ((x, x), (x, y + 3), (y, y))]
    assert one_nna(*moved) > 0.95


def test_a_copy_is_found_among_those_trained_on() -> None:
    trained = torch.stack([ball(300, 1, s) * torch.tensor([1, 0.3 + 0.05 * s, 0.5]) for s in range(40)])
    copy = trained[17][torch.randperm(300, generator=torch.Generator().manual_seed(0))] + 1e-3
    fresh = torch.stack([ball(300, 1, 90 + s) * torch.tensor([0.6, 0.2, 0.9 - 0.03 * s]) for s in range(8)])
    found = nearest_of(torch.cat([copy[None], fresh]), trained)
    assert found.number[0] == 17
    assert found.distance[0] == pytest.approx(6e-6, rel=0.01)
    assert copied(found, nearest_of(fresh, trained)) == pytest.approx(1 / 9, abs=0.12)
    table = chamfers(fresh, trained)
    np.testing.assert_allclose(found.distance[1:], table.min(1))


def test_a_mesh_counts_only_where_it_is_closed_and_near() -> None:
    real = [Surface("poisson", True, 2.0, 1.0, False)] * 10
    made = [
        Surface("poisson", True, 2.9, 1.0, False),
        Surface("signed-distance", True, 11.0, 4.0, False),  # of wider spacing
        Surface("poisson", True, 3.1, 1.0, False),
        Surface("poisson", False, 2.0, 1.0, False),
        Surface("poisson", True, 2.0, 1.0, True),
        Surface("none", False, float("inf"), 0.0, False),
    ]
    found = closed_share(made, real)
    assert found.share == pytest.approx(2 / 6)
    assert found.plain == pytest.approx(1 / 6)
    assert found.watertight == pytest.approx(4 / 6)
    assert found.fallback == pytest.approx(1 / 5)
    assert found.allowed == pytest.approx(ALLOWED * 2)
    assert closed_share(real, real).share == 1


def test_surfaces_of_real_solids_count() -> None:
    solids = [
        trimesh.creation.torus(0.7, 0.2),
        trimesh.creation.box((1, 0.1, 1)),
        trimesh.creation.capsule(1.0, 0.3),
    ]
    clouds = []
    for solid in solids:
        places, face, _ = sampled(solid.vertices.astype(np.float32), solid.faces.astype(np.int32), 1024)
        clouds.append(Cloud(places, solid.face_normals[face].astype(np.float32)))
    found = surfaces([*clouds, Cloud(np.zeros((100, 3), np.float32))])
    assert [one.how for one in found] == ["poisson"] * 3 + ["none"]
    assert closed_share(found[:3], found[:3]).share == 1
    assert not any(one.hull for one in found)  # a box is convex, and so is its cloud
    assert all(0.5 < one.relative < 6 for one in found[:3])


def test_the_judge_does_not_look_at_the_order() -> None:
    torch.manual_seed(0)
    judge = Judge(7, width=16).eval()
    given = torch.randn(3, 50, 6)
    order = torch.randperm(50)
    with torch.no_grad():
        torch.testing.assert_close(judge(given[:, order]), judge(given), atol=1e-5, rtol=1e-4)
        assert judge(given).shape == (3, 7)
        assert judge.features(given).shape == (3, 32)


def test_the_judge_learns_to_tell_a_plate_from_a_ball() -> None:
    torch.manual_seed(0)
    judge = Judge(2, width=16)
    optimiser = torch.optim.AdamW(judge.parameters(), 3e-3)

    def some(count: int) -> tuple[Tensor, Tensor]:
        normals = torch.nn.functional.normalize(torch.randn(count, 64, 3), dim=-1)
        label = torch.arange(count) % 2
        flat = torch.where(label[:, None, None] == 1, torch.tensor([1.0, 0.1, 1.0]), torch.ones(3))
        return torch.cat([normals * flat, normals], -1), label

    for _ in range(60):
        given, label = some(16)
        loss = torch.nn.functional.cross_entropy(judge(given), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    given, label = some(64)
    with torch.no_grad():
        assert (judge.eval()(given).argmax(1) == label).float().mean() > 0.95
