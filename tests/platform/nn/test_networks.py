"""The networks' laws: what they must not depend on, what they begin as, and what they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perrin.errors import InvalidInput, NotInstalled
from perrin.nn import (
    Attention,
    Autoencoder,
    Controlled,
    DiffusionTransformer,
    EquivariantNetwork,
    Geometry,
    PointTransformer,
    SideNetwork,
    TemporalConv,
    UNet,
    attend,
)
from perrin.nn.attention import attend_axis, attend_windows, rotary, rotate
from perrin.nn.cost import cost_of
from perrin.nn.tiling import tiled, tiles
from perrin.nn.transformer import patches, unpatches
from perrin.nn.unet import resample

close = torch.testing.assert_close


def awake(network: nn.Module, seed: int = 0) -> Any:
    """The network with something in the place of every zero, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any() or parameter.ndim < 2:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- attention --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 20), st.booleans(), st.integers(0, 99))
@settings(max_examples=30)
def test_every_kernel_gives_the_softmax(n: int, m: int, masked: bool, seed: int) -> None:
    q, k, v = draw(2, 3, n, 8, seed=seed), draw(2, 3, m, 8, seed=seed + 1), draw(2, 3, m, 8, seed=seed + 2)
    mask = torch.rand(2, 1, 1, m, generator=torch.Generator().manual_seed(seed)) < 0.5 if masked else None
    scores = torch.einsum("bhnd,bhmd->bhnm", q.double(), k.double()) / math.sqrt(8)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    wanted = scores.softmax(-1).nan_to_num(0.0) @ v.double()
    for backend in ("plain", "fused", "auto"):
        close(attend(q, k, v, mask, backend=backend).double(), wanted, atol=1e-5, rtol=1e-4)


def test_an_unknown_kernel_is_refused_and_a_missing_one_named() -> None:
    x = draw(1, 1, 2, 4)
    with pytest.raises(InvalidInput, match="one of auto, plain, fused, xformers"):
        attend(x, x, x, backend="magic")  # type: ignore[arg-type]
    try:
        import xformers  # noqa: F401
    except ImportError:
        with pytest.raises(NotInstalled, match="xformers"):
            attend(x, x, x, backend="xformers")
    else:
        close(attend(x, x, x, backend="xformers"), attend(x, x, x, backend="plain"))


@pytest.mark.parametrize("grid", [(12,), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_see_their_own_tokens_and_no_others(grid: tuple[int, ...], shifted: bool) -> None:
    side, count = 4, math.prod(grid)
    q, k, v = (draw(1, 1, count, 4, seed=i) for i in range(3))
    out = attend_windows(q, k, v, grid, side, shifted)
    places = list(itertools.product(*(range(n) for n in grid)))
    begins = [side // 2 if shifted and n > side else 0 for n in grid]

    def window(place: tuple[int, ...]) -> tuple[int, ...]:
        return tuple((p + b) // side for p, b in zip(place, begins, strict=True))

    together = torch.tensor([[window(a) == window(b) for b in places] for a in places])
    close(out, attend(q, k, v, together))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_sees_its_own_line(axis: int) -> None:
    grid = (3, 4, 5)
    q, k, v = (draw(2, 2, 60, 4, seed=i) for i in range(3))
    places = list(itertools.product(*(range(n) for n in grid)))
    lines = [tuple(p for i, p in enumerate(place) if i != axis) for place in places]
    together = torch.tensor([[a == b for b in lines] for a in lines])
    close(attend_axis(q, k, v, grid, axis), attend(q, k, v, together))


@pytest.mark.parametrize(("grid", "head"), [((9,), 8), ((4, 5), 8), ((3, 3, 4), 16)])
def test_rotary_products_depend_on_distances_alone(grid: tuple[int, ...], head: int) -> None:
    angle = rotary(grid, head)
    q, k = draw(1, 1, 1, head), draw(1, 1, 1, head, seed=2)
    count = math.prod(grid)
    many_q, many_k = (rotate(x.expand(1, 1, count, head), angle.cos(), angle.sin()) for x in (q, k))
    products = (many_q @ many_k.transpose(-1, -2))[0, 0]
    places = list(itertools.product(*(range(n) for n in grid)))
    found: dict[tuple[int, ...], float] = {}
    for (i, a), (j, b) in itertools.product(enumerate(places), enumerate(places)):
        apart = tuple(x - y for x, y in zip(a, b, strict=True))
        value = float(products[i, j])
        assert abs(found.setdefault(apart, value) - value) < 1e-4
    assert len({round(value, 3) for value in found.values()}) > count


@pytest.mark.parametrize("layer", [Attention(16, 2, causal=True, rotates=True), Attention(16, 2, context=8)])
def test_attention_begins_as_the_identity(layer: Attention) -> None:
    x = draw(2, 5, 16)
    context = draw(2, 3, 8) if layer.kv.in_features == 8 else None
    assert torch.equal(layer(x, context), x)
    assert not torch.equal(awake(layer)(x, context), x)


# --- grids ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=30)
def test_patches_are_cut_and_put_back(dims: int, side: int, channels: int) -> None:
    grid = tuple(2 + i for i in range(dims))
    x = draw(2, channels, *(side * n for n in grid))
    tokens = patches(x, side)
    assert tokens.shape == (2, math.prod(grid), channels * side**dims)
    assert torch.equal(unpatches(tokens, grid, side), x)
    first = x[(0, slice(None), *[slice(0, side)] * dims)].flatten()
    assert torch.equal(tokens[0, 0], first)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": lambda **options: UNet(3, (16, 32), 1, (1,), head=8, **options),
    "depthwise": lambda **options: UNet(3, (16, 32), 1, (1,), head=8, depthwise=True, **options),
    "transformer": lambda **options: DiffusionTransformer(3, 24, 3, 2, 32, 2, **{"context": 0, **options}),
    "window": lambda **options: DiffusionTransformer(
        3, 24, 3, 2, 32, 2, pattern="window", window=2, **{"context": 0, **options}
    ),
    "axial": lambda **options: DiffusionTransformer(3, 24, 3, 2, 32, 2, pattern="axial", **{"context": 0, **options}),
}
GRIDS = {1: (8,), 2: (8, 12), 3: (4, 8, 4)}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_grids_of_every_number_of_axes_conditioned_or_not(kind: str, dims: int) -> None:
    network = NETWORKS[kind](dims=dims, context=12, classes=3, out_channels=5)
    x, t, context = draw(2, 3, *GRIDS[dims]), torch.tensor([0.1, 0.9]), draw(2, 4, 12)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    label = torch.tensor([0, 3])
    assert not network(x, t, context, mask, label).any(), "it begins with nothing to say"
    network = awake(network)
    out = network(x, t, context, mask, label)
    assert out.shape == (2, 5, *GRIDS[dims])
    other = torch.where(mask[..., None], context, 7.0)
    close(network(x, t, other, mask, label), out, msg="masked tokens count for nothing")
    for changed in (
        (x + 1, t, context, mask, label),
        (x, t.flip(0), context, mask, label),
        (x, t, context + 1, mask, label),
        (x, t, context, mask, label.flip(0)),
    ):
        assert not torch.allclose(network(*changed), out)
    close(network(x[1:], t[1:], context[1:], mask[1:], label[1:]), out[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_image_model_becomes_a_video_model_without_forgetting(kind: str) -> None:
    image = awake(NETWORKS[kind](context=12))
    video = NETWORKS[kind](context=12, temporal=True).eval()
    missing, unexpected = video.load_state_dict(image.state_dict(), strict=False)
    assert not unexpected
    assert all("time_" in name or "temporal" in name for name in missing)
    x, t, context = draw(2, 3, 5, 8, 8), torch.tensor([0.2, 0.8]), draw(2, 4, 12)
    frames = torch.stack([image(x[:, :, i], t, context) for i in range(5)], dim=2)
    close(video(x, t, context), frames, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_a_causal_model_does_not_see_the_future(kind: str, causal: bool) -> None:
    network = awake(NETWORKS[kind](temporal=True, causal=causal))
    x, t = draw(1, 3, 6, 8, 8), torch.tensor([0.5])
    later = x.clone()
    later[:, :, 4:] += 1
    one, two = network(x, t), network(later, t)
    assert torch.allclose(one[:, :, :4], two[:, :, :4], atol=1e-5) is causal
    assert not torch.allclose(one[:, :, 4:], two[:, :, 4:], atol=1e-5)


def test_a_skip_passes_what_a_token_cannot_carry() -> None:
    """A patch has 96 numbers and a token 8: without the skip no weights could give the input back."""
    network = DiffusionTransformer(6, 8, 1, 1, 16, patch=4, context=0, skip=True).eval()
    x, t = draw(2, 6, 8, 8), torch.tensor([0.0, 0.5])
    assert not network(x, t).any()
    network.skip.bias.data += 1  # type: ignore[union-attr]
    assert torch.equal(network(x, t), x)
    awake(network)
    frames = draw(2, 6, 3, 8, 8)
    temporal = DiffusionTransformer(6, 8, 1, 1, 16, patch=4, context=0, skip=True, temporal=True).eval()
    temporal.load_state_dict(network.state_dict(), strict=False)
    close(
        temporal(frames, t), torch.stack([network(frames[:, :, i], t) for i in range(3)], dim=2), atol=1e-5, rtol=1e-4
    )
    with pytest.raises(ValueError, match="as many channels out as in, 6, got 5"):
        DiffusionTransformer(6, 8, 1, 1, 16, patch=4, skip=True, out_channels=5)


def test_a_temporal_convolution_begins_as_the_identity() -> None:
    x = draw(6, 16, 4, 4)
    assert torch.equal(TemporalConv(16)(x, 3), x)


@pytest.mark.parametrize("kind", NETWORKS)
def test_computing_again_gives_the_same_gradient(kind: str) -> None:
    network = awake(NETWORKS[kind](temporal=True))
    x, t = draw(2, 3, 2, 8, 8), torch.tensor([0.2, 0.8])
    gradients = []
    for recompute in (False, True):
        network.recompute = recompute
        network.zero_grad()
        network(x, t).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for one, two in zip(*gradients, strict=True):
        close(one, two, atol=1e-7, rtol=1e-4)


def test_resampling_keeps_smooth_things_and_moves_nothing() -> None:
    for dims in (1, 2, 3):
        flat = torch.ones(1, 2, *[8] * dims)
        inner = (slice(None), slice(None), *[slice(2, -2)] * dims)
        close(resample(flat, -1)[(slice(None), slice(None), *[slice(1, -1)] * dims)].unique(), torch.tensor([1.0]))
        close(resample(flat, 1)[inner].unique(), torch.tensor([1.0]))
    ramp = torch.arange(16.0).view(1, 1, 16)
    close(resample(ramp, -1)[0, 0, 1:-1], torch.arange(16.0).view(8, 2).mean(1)[1:-1])
    wave = torch.cos(torch.pi * torch.arange(32.0)).view(1, 1, 32)
    assert resample(wave, -1)[..., 1:-1].abs().max() < 1e-6, "what a coarser grid cannot hold is gone"


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_a_control_adds_nothing_before_training_and_by_its_strength_after(kind: str) -> None:
    network = awake(NETWORKS[kind](context=12))
    side = SideNetwork(network, channels=1, finer=2)
    controlled = Controlled(network, side)
    x, t, context, control = draw(2, 3, 8, 8), torch.tensor([0.1, 0.9]), draw(2, 4, 12), draw(2, 1, 16, 16)
    alone = network(x, t, context)
    assert torch.equal(controlled(x, t, context), alone)
    assert torch.equal(controlled(x, t, context, control=control), alone)
    trained = {name for name, parameter in controlled.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("side.") for name in trained)
    awake(side)
    changed = controlled(x, t, context, control=control)
    assert not torch.allclose(changed, alone)
    assert torch.equal(controlled(x, t, context, control=control, strength=0.0), alone)
    strengths = torch.tensor([0.0, 1.0])
    close(controlled(x, t, context, control=control, strength=strengths), torch.stack([alone[0], changed[1]]))


def test_a_small_side_network_reaches_every_block() -> None:
    network = awake(DiffusionTransformer(3, 32, 4, 2, 48, patch=2, context=12))
    own = DiffusionTransformer(5, 16, 2, 2, 24, patch=2, context=0)
    side = SideNetwork(network, channels=1, finer=2, own=own)
    controlled = Controlled(network, side)
    x, t, context, control = draw(2, 3, 8, 8), torch.tensor([0.1, 0.9]), draw(2, 4, 12), draw(2, 1, 16, 16)
    assert torch.equal(controlled(x, t, context, control=control), network(x, t, context))
    awake(side)
    added = side(x, t, control)
    assert [tuple(part.shape) for part in added] == [(2, 16, 32)] * 4
    assert torch.equal(side(x, t, control, context)[0], added[0]), "one without a context hears none"
    other = controlled(x, t, context, control=draw(2, 1, 16, 16, seed=5))
    assert not torch.allclose(controlled(x, t, context, control=control), other)
    for wrong in (DiffusionTransformer(2, 16, 1, 2, 24, patch=2), DiffusionTransformer(5, 16, 1, 2, 24, patch=1)):
        with pytest.raises(InvalidInput, match="of its patch and channels"):
            SideNetwork(network, channels=1, own=wrong)
    with pytest.raises(InvalidInput, match="a transformer beside it"):
        SideNetwork(NETWORKS["unet"](), channels=1, own=own)


# --- sets and geometry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inducing", [0, 4])
def test_a_set_has_no_order_and_padding_is_nothing(inducing: int) -> None:
    network = awake(PointTransformer(4, 32, 3, 4, 48, context=6, classes=2, inducing=inducing, bands=3))
    x, t, context = draw(2, 7, 4), torch.tensor([0.3, 0.6]), draw(2, 3, 6)
    label = torch.tensor([1, 2])
    out = network(x, t, context=context, label=label)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    close(network(x[:, order], t, context=context, label=label), out[:, order], atol=1e-5, rtol=1e-4)
    padded = torch.cat([x, 100 * draw(2, 5, 4, seed=9)], dim=1)
    mask = torch.arange(12) < 7
    held = network(padded, t, mask.expand(2, 12), context, label=label)
    close(held[:, :7], out, atol=1e-5, rtol=1e-4)
    assert not held[:, 7:].any()


@pytest.fixture(scope="module")
def molecule() -> tuple[EquivariantNetwork, Geometry, Tensor, Tensor]:
    torch.manual_seed(0)
    network = awake(EquivariantNetwork(5, 3, 32, 16, 3, context=2)).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.move[2].weight.mul_(300)  # it begins with small steps
    pairs = draw(2, 6, 6, 3, seed=3)
    pairs = (pairs + pairs.transpose(1, 2)).double()
    geometry = Geometry(draw(2, 6, 3).double(), draw(2, 6, 5, seed=2).double(), pairs)
    return network, geometry, torch.tensor([0.2, 0.7]).double(), draw(2, 2, seed=4).double()


def test_the_network_turns_with_what_it_sees(molecule: Any) -> None:
    network, geometry, t, context = molecule
    out = network(geometry, t, context=context)
    turn, _ = torch.linalg.qr(draw(3, 3, seed=5).double())
    for matrix in (turn, -turn):  # one of them mirrors
        moved = geometry._replace(positions=geometry.positions @ matrix.T + torch.tensor([3.0, -2.0, 9.0]))
        found = network(moved, t, context=context)
        close(found.positions, out.positions @ matrix.T, atol=1e-8, rtol=1e-6)
        close(found.features, out.features, atol=1e-8, rtol=1e-6)
        close(found.pairs, out.pairs, atol=1e-8, rtol=1e-6)
    assert out.positions.abs().max() > 0.1
    assert out.positions.mean(1).abs().max() < 1e-12
    close(out.pairs, out.pairs.transpose(1, 2))
    assert not out.pairs.diagonal(dim1=1, dim2=2).any()


def test_the_network_follows_a_permutation(molecule: Any) -> None:
    network, geometry, t, context = molecule
    out = network(geometry, t, context=context)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    found = network(
        Geometry(geometry.positions[:, order], geometry.features[:, order], geometry.pairs[:, order][:, :, order]),
        t,
        context=context,
    )
    close(found.positions, out.positions[:, order], atol=1e-8, rtol=1e-6)
    close(found.features, out.features[:, order], atol=1e-8, rtol=1e-6)
    close(found.pairs, out.pairs[:, order][:, :, order], atol=1e-8, rtol=1e-6)


def test_padding_never_leaks_into_a_geometry(molecule: Any) -> None:
    network, geometry, t, context = molecule
    out = network(geometry, t, context=context)
    junk = [100 * draw(2, 4, width, seed=7).double() for width in (3, 5)]
    pairs = 100 * draw(2, 10, 10, 3, seed=8).double()
    pairs[:, :6, :6] = geometry.pairs
    padded = Geometry(torch.cat([geometry.positions, junk[0]], 1), torch.cat([geometry.features, junk[1]], 1), pairs)
    mask = (torch.arange(10) < 6).expand(2, 10)
    found = network(padded, t, mask, context)
    close(found.positions[:, :6], out.positions, atol=1e-9, rtol=1e-7)
    close(found.features[:, :6], out.features, atol=1e-9, rtol=1e-7)
    close(found.pairs[:, :6, :6], out.pairs, atol=1e-9, rtol=1e-7)
    assert not found.positions[:, 6:].any()
    assert not found.features[:, 6:].any()
    assert not found.pairs[:, 6:].any()


# --- autoencoders and tiles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_autoencoder_of_every_number_of_axes(dims: int) -> None:
    network = awake(Autoencoder(2, 4, (8, 16), 1, 2, dims))
    x = draw(2, 2, *[16] * dims)
    z = network.encode(x)
    assert z.shape == (2, 4, *[4] * dims)
    assert network.decode(z).shape == x.shape
    network.latent_mean.fill_(3.0)
    network.latent_std.fill_(2.0)
    close(network.decode(network.encode(x)), network.decoder(network.moments(x)[0]), atol=1e-5, rtol=1e-4)


@given(st.integers(1, 60), st.integers(3, 20), st.data())
def test_tiles_cover_every_place_and_overlap(side: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, (tile - 1) // 2))
    spans = tiles(side, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == side
    assert {end - begin for begin, end in spans} == {min(tile, side)}
    for (_, before), (after, _) in itertools.pairwise(spans):
        assert before - after >= overlap
    x = torch.arange(float(side)).view(1, 1, side)
    twice = lambda part: part.repeat_interleave(2, dim=-1)  # noqa: E731
    close(tiled(twice, x, 2, tile, overlap), twice(x), atol=1e-4, rtol=1e-5)


def test_tiled_decoding_is_decoding_where_nothing_looks_far() -> None:
    conv = nn.Conv2d(4, 3, 3, padding=1)
    z = draw(2, 4, 20, 23)
    out = tiled(conv, z, 1, 9, 3)
    inner = torch.zeros(20, 23, dtype=torch.bool)
    whole = conv(z)
    seams = (out - whole).abs().amax((0, 1)) > 1e-5
    inner[:, :] = seams
    assert inner.float().mean() < 0.5, "only where one tile ends does it see less than the whole"
    z = draw(1, 16, 16, 16)
    network = awake(Autoencoder(4, 16, (16, 24), 1, 2))
    network.decoder = nn.Sequential(*(layer for layer in network.decoder if not isinstance(layer, nn.GroupNorm)))
    assert network.decode(z, tile=10, overlap=4).shape == network.decode(z).shape
    with pytest.raises(InvalidInput, match="less than half a tile"):
        network.decode(z, tile=4, overlap=2)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_costs_are_counted_without_computing() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 50))
        cost = cost_of(network, torch.empty(8, 100))
    assert cost.parameters == 100 * 200 + 200 + 200 * 50 + 50
    assert cost.flops == 2 * 8 * (100 * 200 + 200 * 50)
    assert cost.inference_bytes == 2 * 8 * 200 * 4, "two layers' results at once"
    assert cost.training_bytes == 8 * 4 * (100 + 200), "what came into each product; the ReLU shares its result"


def test_computing_again_costs_less_memory() -> None:
    with torch.device("meta"):
        network = UNet(3, (32, 64), 2, (1,))
        x, t = torch.empty(4, 3, 32, 32), torch.empty(4)
        kept = cost_of(network, x, t)
        network.recompute = True
        assert cost_of(network, x, t).training_bytes < kept.training_bytes / 3
