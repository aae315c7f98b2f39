"""The codec and the transformer of shapes, what they are told, and that they learn."""

import numpy as np
import pytest
import torch

from perrin.training.data.pack import pack
from perrin.training.data.report import Report
from perrin.training.data.sources import Item
from perrin_shape.captions import CLASSES, short
from perrin_shape.conditions import NO_CLASS, Told, encode, padded, part_of
from perrin_shape.data.recipe import _decode
from perrin_shape.data.triangles import Triangles
from perrin_shape.network import CELLS, LATENTS, PARTS, Decoded, ShapeCodec, ShapeTransformer, located, surfels_from
from perrin_shape.surfels import DIRECTIONS, SIDE, VALUES
from perrin_shape.training.codec import CodecTask
from perrin_shape.training.data import Clouds, cut, mirrored
from perrin_shape.training.diffusion import ShapeTask

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
FACES = np.array([[q[0], q[a], q[a + 1]] for q in QUADS for a in (1, 2)])
SMALL = {"width": 32, "depth": 2, "heads": 2, "hidden": 32, "narrow": 8}


def clouds(count=300, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    at = torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=generator), dim=-1)
    return Clouds(at * 0.9, at, torch.rand(batch, count, 3, generator=generator) * 2 - 1)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return ShapeCodec().eval()


# --- codec ------------------------------------------------------------------------------------------------------------


def test_latents_do_not_depend_on_the_order_of_points(codec):
    one = clouds()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    z = codec.encode(*one)
    assert z.shape == (2, 11, LATENTS, LATENTS, LATENTS)
    assert torch.allclose(codec.encode(*(part[:, order] for part in one)), z, atol=1e-5)


def test_points_without_a_normal_are_none(codec):
    one = clouds()
    more = clouds(50, seed=2)
    joined = Clouds(*(torch.cat(pair, 1) for pair in zip(one, more, strict=True)))
    joined.normals[:, 300:] = 0
    assert torch.allclose(codec.encode(*joined), codec.encode(*one), atol=1e-5)


def test_latents_depend_on_where_points_and_normals_are(codec):
    one = clouds()
    z = codec.encode(*one)
    assert (codec.encode(one.points * 0.8, one.normals, one.colours) - z).abs().max() > 1e-2
    assert (codec.encode(one.points, -one.normals, one.colours) - z).abs().max() > 1e-2


def test_standardised_latents_decode_to_the_same(codec):
    one = clouds(batch=1)
    before, z = codec.decode(codec.encode(*one)), codec.encode(*one)
    codec.mean.fill_(0.3)
    codec.deviation.fill_(2.0)
    try:
        assert torch.allclose(codec.encode(*one), (z - 0.3) / 2, atol=1e-6)
        assert torch.allclose(codec.decode(codec.encode(*one)).surface, before.surface, atol=1e-4)
    finally:
        codec.mean.fill_(0.0)
        codec.deviation.fill_(1.0)


class Told48:
    """Stands for a codec that says exactly these surfels."""

    def __init__(self, index):
        self.cells, self.parts = located(index)

    def decode(self, latents):
        surface = torch.full((1, CELLS**3), -1.0)
        surface[0, self.cells] = 1.0
        return Decoded(torch.arange(CELLS**3).view(1, -1, 1), surface)

    def surfels(self, features):
        there = torch.full((len(features), PARTS), -1.0)
        values = torch.ones(len(features), PARTS, VALUES)
        row = {int(cell): number for number, cell in enumerate(features.flatten())}
        there[[row[int(cell)] for cell in self.cells], self.parts] = 1.0
        return there, values


def test_cells_and_surfels_are_numbered_alike_on_both_ways():
    index = np.sort(np.random.default_rng(0).choice(SIDE**3 * DIRECTIONS, 500, replace=False))
    (found,) = surfels_from(Told48(index), torch.zeros(1))
    assert np.array_equal(found.index, index)


def test_surfels_that_are_decoded_stay_in_their_cells(codec):
    with torch.no_grad():
        codec.surface.bias.fill_(5.0)
        try:
            (found,) = surfels_from(codec, torch.randn(1, 11, 8, 8, 8, generator=torch.Generator().manual_seed(0)))
        finally:
            codec.surface.bias.fill_(-2.0)
    assert np.abs(found.values[:, 1:4]).max(initial=0) <= 0.5
    assert found.values[:, 4:6].min(initial=0) >= 0


# --- what the transformer is told -------------------------------------------------------------------------------------


def test_colours_come_through_an_untrained_codec(codec):
    """They are latents of their own, so no training has to find out that they matter."""
    one = clouds(batch=1)
    red = one._replace(colours=torch.tensor([1.0, -1.0, -1.0]).expand_as(one.colours))
    features = codec.decode(codec.encode(*red)).features
    assert torch.allclose(features[..., -3:], torch.tensor([1.0, -1.0, -1.0]), atol=1e-5)


def test_a_picture_of_zeros_is_none_and_one_is_heard():
    torch.manual_seed(0)
    network = ShapeTransformer(classes=NO_CLASS, **SMALL).eval()
    torch.nn.init.normal_(network.body.out.weight)
    for block in network.body.blocks:
        torch.nn.init.normal_(block.cross_out.weight)
    told = Told.of(["brick 2 x 4"], 11)
    x, t = torch.randn(1, 11, 8, 8, 8), torch.tensor([0.5])
    plainly = network(x, t, **told.condition)
    shown = told._replace(picture=torch.randn(1, 16, 320))
    assert not torch.allclose(network(x, t, **shown.condition), plainly, atol=1e-4)
    network.places.data.normal_()
    assert torch.allclose(network(x, t, **told.condition), plainly, atol=1e-6)


def test_sizes_are_a_token_that_counts_where_there_are_some():
    text = encode(["brick 2 x 4", "brick 2 x 6", "chair"])
    assert text.mask[:, -1].tolist() == [True, True, False]
    assert (text.tokens[0, -1] - text.tokens[1, -1]).abs().max() > 0.5
    assert text.tokens[2, -1].abs().max() == 0


def test_texts_of_different_lengths_keep_the_token_of_sizes_last():
    parts = [encode(["chair"]), encode(["brick 2 x 4 with groove and long name"])]
    joined = padded(parts)
    assert joined.tokens.shape[0] == 2
    assert torch.equal(joined.tokens[1], parts[1].tokens[0])
    assert joined.mask[0].sum() == parts[0].mask.sum()


@pytest.mark.parametrize(
    ("caption", "category", "label"),
    [("a chair", None, "chair"), ("a chair", "lamp", "lamp"), ("odd thing", None, None)],
)
def test_the_class_is_that_of_the_words_unless_it_is_said(caption, category, label):
    told = Told.of([caption], 11, [category])
    assert told.label.tolist() == [NO_CLASS if label is None else CLASSES.index(label)]


def test_a_part_is_told_where_it_has_points():
    points = torch.tensor([[[-0.9, -0.9, -0.9], [0.9, 0.9, 0.9]]])
    normals = torch.tensor([[[1.0, 0, 0], [0, 0, 0]]])
    part = part_of(torch.ones(1, 8, 8, 8, 8), points, normals)
    assert part.sum() == 9
    assert part[0, :, 0, 0, 0].tolist() == [1.0] * 9


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_cut_leaves_some_and_takes_some():
    points = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    for seed in range(50):
        kept = cut(points, np.random.default_rng(seed)).mean()
        assert 0.1 < kept < 0.9


def test_a_mirror_image_has_left_and_right_exchanged():
    one = clouds()
    turned = mirrored(one, torch.tensor([True, False]))
    assert torch.equal(turned.points[0, :, 0], -one.points[0, :, 0])
    assert torch.equal(turned.normals[0, :, 1:], one.normals[0, :, 1:])
    assert torch.equal(turned.points[1], one.points[1])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The pack of a few boxes, where the task looks for its data."""
    root = tmp_path_factory.mktemp("shape")
    (root / "out").mkdir()
    (root / "model").mkdir()
    sides = [(1, b / 10, c / 10) for b in (2, 5, 9) for c in (2, 5, 9)]
    items = []
    for number, side in enumerate(sides):
        soup = Triangles(CUBE[FACES] * np.array(side, np.float32), np.full((12, 3), 20.0 * number, np.float32))
        caption = f"brick {number + 1} x 2"
        extra = {"of": lambda s=soup: s, "source": number % 2}
        items.append(Item(caption, (caption, short(caption), "brick"), caption.encode, extra))
    pack(items, _decode, root / "data/shape/shapes", Report(read=len(items)))
    return {"data": root / "data", "out": root / "out", "model": root / "model"}


def fit(task, steps, rate):
    optimizer = torch.optim.AdamW(task.network.parameters(), rate)
    losses = []
    for step in range(steps):
        batch = task.batch(8, np.random.default_rng(step))
        loss, _ = task.loss(task.network, batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def standing(task):
    """The loss of always the same batch at always the same times."""
    batch = task.batch(64, np.random.default_rng(99))
    return float(task.loss(task.network, batch, torch.Generator().manual_seed(99))[0])


def test_codec_and_transformer_learn_and_are_published(folders, tmp_path):
    codec = CodecTask({}, {}, folders)
    codec.prepare(lambda *_: None)
    losses = fit(codec, 60, 3e-3)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    measured = codec.evaluate(codec.network.eval(), tmp_path / "codec.png")
    assert measured["chamfer"] < 20 * measured["floor"]
    assert "codec" in codec.publish(codec.network, folders["model"])["architecture"]

    task = ShapeTask({"network": SMALL}, {}, folders)
    task.prepare(lambda *_: None)
    assert abs(float(task._latents.float().std()) - 1) < 0.5
    before = standing(task)
    fit(task, 40, 3e-3)
    assert standing(task) < 0.9 * before
    told = task.batch(256, np.random.default_rng(0))
    assert 0.2 < (told["picture"].abs().sum((1, 2)) > 0).float().mean() < 0.4
    assert 0.1 < (told["part"].abs().sum((1, 2, 3, 4)) > 0).float().mean() < 0.3
    card = task.publish(task.network, folders["model"])
    assert len(card["attributions"]) == 6
    assert (folders["model"] / "transformer.safetensors").exists()


def test_the_same_step_has_the_same_batch(folders):
    task = CodecTask({}, {}, folders)
    task.prepare(lambda *_: None)
    one, two = (task.batch(4, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one.clouds.points, two.clouds.points)
    assert torch.equal(one.values, two.values)
