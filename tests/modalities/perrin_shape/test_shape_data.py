"""Parts, furniture, what of them is seen from outside, captions, and surfels."""

import io
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from perrin.training.data.pack import pack
from perrin.training.data.report import Report
from perrin.training.data.sources import Item
from perrin_shape.captions import CLASSES, class_of, plain, short, sizes
from perrin_shape.data.furniture import Catalogue
from perrin_shape.data.parts import STUDIO, Parts
from perrin_shape.data.recipe import _decode, held_captions, held_out
from perrin_shape.data.triangles import Triangles, normalised, seen
from perrin_shape.surfels import SIDE, STEP, Surfels, drawn, levelled, surfels_of

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
FACES = np.array([[q[0], q[a], q[a + 1]] for q in QUADS for a in (1, 2)])


def cube(size=1.0, colour=(200, 60, 50)):
    corners = CUBE[FACES] * np.float32(size)
    return Triangles(corners, np.tile(np.array(colour, np.float32), (len(corners), 1)))


def sphere(count, seed=0):
    at = np.random.default_rng(seed).normal(size=(count, 3))
    points = (at / np.linalg.norm(at, axis=1, keepdims=True)).astype(np.float32)
    return points, points.copy(), np.full((count, 3), 128, np.uint8)


def chamfer(a, b):
    return (cKDTree(a).query(b)[0] ** 2).mean() + (cKDTree(b).query(a)[0] ** 2).mean()


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path):
    for folder in ("p/48", "parts/s"):
        (tmp_path / folder).mkdir(parents=True)
    licence = "0 !LICENSE Redistributable under CCAL version 2.0 : see CAreadme.txt\r\n"
    (tmp_path / "LDConfig.ldr").write_text("0 !COLOUR Blue CODE 1 VALUE #0055BF EDGE #333333\n")
    (tmp_path / "p/quad.dat").write_text("0 Quad\r\n4 16 0 0 0 1 0 0 1 0 1 0 0 1\r\n")
    (tmp_path / "parts/s/1s01.dat").write_text("0 ~Inner\r\n1 16 0 10 0 2 0 0 0 1 0 0 0 2 quad.dat\r\n")
    inner = "1 16 0 0 0 1 0 0 0 1 0 0 0 1 s\\1s01.dat\r\n"
    inner += "1 1 0 0 0 1 0 0 0 1 0 0 0 1 Quad.dat\r\n3 16 0 0 0 1 0 0 0 0 1\r\n"
    (tmp_path / "parts/1.dat").write_text("0 Brick  2 x  4\r\n" + licence + inner)
    (tmp_path / "parts/2.dat").write_text("0 Brick  1 x  1\r\n" + licence + "1 16 0 0 0 1 0 0 0 1 0 0 0 1 lost.dat\r\n")
    for number, title in enumerate(("Sticker  1 x  1", "Minifig Hat", "~Moved to 1", "_Brick Red", "=Brick"), 3):
        (tmp_path / f"parts/{number}.dat").write_text(f"0 {title}\r\n{licence}{inner}")
    (tmp_path / "parts/9.dat").write_text("0 Brick Not Free\r\n" + inner)
    return Parts(tmp_path)


def test_a_part_is_read_with_what_it_refers_to(library):
    triangles = library.triangles("1.dat")
    areas = np.linalg.norm(np.cross(*(triangles.corners[:, k] - triangles.corners[:, 0] for k in (1, 2))), axis=1) / 2
    assert areas.sum() == pytest.approx(4 + 1 + 0.5)
    assert triangles.corners[..., 1].min() == -10  # LDraw's y points down
    assert triangles.corners[..., 2].min() == -2  # and its front to -z
    colours = {tuple(int(c) for c in colour) for colour in triangles.colours}
    assert colours == {STUDIO, (0, 0x55, 0xBF)}


def test_only_free_parts_that_are_no_stickers_or_people_are_taken(library):
    assert [part.title for part in library.parts()] == ["Brick  1 x  1", "Brick  2 x  4"][::-1]


def test_a_part_that_refers_to_a_missing_file_says_which(library):
    with pytest.raises(ValueError, match=r"missing file, lost\.dat"):
        library.triangles("2.dat")


# --- furniture --------------------------------------------------------------------------------------------------------

LIST = """id#1=T#chair
name#1=Caf\\u00e9 chair
category#1=Kitchen
model#1=/a%20b/chair.obj
width#1=40.0
depth#1=60.0
height#1=100.0
modelRotation#1=0 0 1 0 1 0 -1 0 0
"""


@pytest.fixture
def catalogue(tmp_path):
    obj = "mtllib chair.mtl\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in CUBE)
    obj += "vt 0.1 0.1\nvt 0.9 0.1\n"
    for number, quad in enumerate(QUADS):
        obj += f"usemtl {'cloth' if number else 'wood'}\nf " + " ".join(f"{k - 8}/1" for k in quad) + "\n"
    stream = io.BytesIO()
    picture = Image.new("RGBA", (64, 64), (0, 200, 0, 255))
    picture.paste((0, 0, 0, 0), (32, 0, 64, 64))
    picture.save(stream, "PNG")
    path = tmp_path / "Test.sh3f"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("PluginFurnitureCatalog.properties", LIST)
        file.writestr("a b/chair.obj", obj)
        file.writestr("a b/chair.mtl", "newmtl wood\nKd 0.5 0.25 0\nnewmtl cloth\nKd 1 1 1\nmap_Kd cloth.png\n")
        file.writestr("a b/cloth.png", stream.getvalue())
    return Catalogue(path)


def test_furniture_has_the_size_and_the_turn_of_its_catalogue(catalogue):
    (piece,) = catalogue.pieces()
    assert piece.name == "Café chair"
    triangles = catalogue.triangles(piece)
    assert np.ptp(triangles.corners.reshape(-1, 3), axis=0) == pytest.approx([40, 100, 60])
    assert len(triangles.corners) == 12


def test_furniture_has_its_materials_colours(catalogue):
    (piece,) = catalogue.pieces()
    found = seen(catalogue.triangles(piece))
    wood = np.abs(found.colours.astype(int) - [127, 63, 0]).max(1) <= 1
    cloth = np.abs(found.colours.astype(int) - [0, 200, 0]).max(1) <= 1
    assert (wood | cloth).all()
    assert 0.05 < wood.mean() < 0.5


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wound", ["outward", "inward", "mixed"])
def test_what_is_inside_is_not_seen_and_normals_point_outward(wound):
    outer, inner = cube(), cube(0.5)
    corners = np.concatenate([outer.corners, inner.corners])
    turned = {"outward": slice(0, 0), "inward": slice(None), "mixed": slice(None, None, 2)}[wound]
    corners[turned] = corners[turned, ::-1]
    found = seen(Triangles(corners, np.concatenate([outer.colours, inner.colours])))
    on = np.abs(found.points).max(1)
    assert (on > 0.9 / 3**0.5).mean() > 0.995
    outside = on > 0.9 / 3**0.5
    assert ((found.points * found.normals).sum(1)[outside] > 0).mean() > 0.999
    assert found.area * len(found.points) == pytest.approx(24 / 3, rel=0.02)


def test_a_shape_without_extent_or_area_is_refused():
    with pytest.raises(ValueError, match="without extent"):
        seen(Triangles(np.zeros((4, 3, 3), np.float32), np.zeros((4, 3), np.float32)))
    line = np.zeros((1, 3, 3), np.float32)
    line[0, 1, 0], line[0, 2, 0] = 1, 2
    with pytest.raises(ValueError, match="without area"):
        seen(Triangles(line, np.zeros((1, 3), np.float32)))


def test_normalising_does_not_care_where_and_how_large_a_shape_is():
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    middle, size = normalised(points)
    moved_middle, moved_size = normalised(points * 7 + 3)
    assert moved_middle == pytest.approx(middle * 7 + 3, abs=1e-4)
    assert moved_size == pytest.approx(7 * size, rel=1e-5)


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "caption", "brief", "named", "numbers"),
    [
        ("Brick  2 x  4", "brick 2 x 4", "brick 2 x 4", "brick", (2, 4)),
        ("A 2x4 brick", "2 x 4 brick", "2 x 4 brick", "brick", (2, 4)),
        ("a chair", "chair", "chair", "chair", ()),
        ("Chair with cushion", "chair with cushion", "chair", "chair", ()),
        ("Technic Gear 24 Tooth", "technic gear 24 tooth", "technic gear 24 tooth", "gear", (24,)),
        ("Slope Brick 45  2 x  1", "slope brick 45 2 x 1", "slope brick 45 2 x 1", "slope", (2, 1)),
        ("Double French window", "double french window", "double french window", "window", ()),
        ("Coffee table", "coffee table", "coffee table", "table", ()),
        ("Tile 1 x 1 with Blue \"8\" Pattern", 'tile 1 x 1 with blue "8" pattern', "tile 1 x 1", "tile", (1, 1)),
        ("something else", "something else", "something else", "other", ()),
    ],
)  # fmt: skip
def test_captions_are_read_alike(title, caption, brief, named, numbers):
    assert plain(title) == caption
    assert short(caption) == brief
    assert class_of(caption) == named
    assert sizes(caption) == numbers


def test_forty_captions_are_held_out_and_their_shapes_with_them(tmp_path):
    held = held_captions()
    assert len(held) == 40
    assert all(plain(caption) == caption for caption in held)
    chosen = sorted(held)[0]
    names = (chosen, f"{chosen} with groove", "brick 2 x 4")
    items = [
        Item(name, (name, short(name)), name.encode, {"of": lambda s=size: cube(s), "source": 0})
        for size, name in enumerate(names, 1)
    ]
    made = pack(items, _decode, tmp_path, Report(read=3))
    assert held_out(made).tolist() == [True, True, False]
    assert made.arrays["points"].shape == (3, 4096, 3)
    assert CLASSES[made.arrays["label"][2]] == "brick"


# --- surfels ----------------------------------------------------------------------------------------------------------


def test_points_of_surfels_are_as_near_to_the_shape_as_its_own_points():
    for shape in (cube(), Triangles(CUBE[FACES] * [1, 0.1, 0.4], cube().colours)):
        found = seen(shape)
        surfels = surfels_of(found.points, found.normals, found.colours, found.area)
        order = np.random.default_rng(0).permutation(len(found.points))
        first, second = found.points[order[:2048]], found.points[order[2048:4096]]
        assert chamfer(drawn(surfels, 2048).points, first) < chamfer(second, first)


@pytest.mark.parametrize("count", [256, 1000, 65536])
def test_any_number_of_points_is_drawn(count):
    points, normals, colours = sphere(20000)
    cloud = drawn(surfels_of(points, normals, colours, 4 * np.pi / len(points)), count, seed=3)
    assert len(cloud) == count
    assert np.abs(np.linalg.norm(cloud.points, axis=1) - 1).max() < 0.5 * STEP
    assert (cloud.points * cloud.normals).sum(1).min() > 0.9
    assert np.linalg.norm(cloud.normals, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_order_of_points_does_not_matter_to_surfels():
    points, normals, colours = sphere(5000)
    order = np.random.default_rng(1).permutation(len(points))
    one = surfels_of(points, normals, colours, 0.001)
    two = surfels_of(points[order], normals[order], colours[order], 0.001)
    assert np.array_equal(one.index, two.index)
    assert two.values == pytest.approx(one.values, abs=1e-4)


@pytest.mark.parametrize("turn", [np.array(t, np.float32) for t in (
    ((0, 0, 1), (0, 1, 0), (-1, 0, 0)), ((0, 1, 0), (0, 0, 1), (1, 0, 0)), ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
)])  # fmt: skip
def test_surfels_of_a_turned_shape_are_its_turned_surfels(turn):
    found = seen(Triangles(CUBE[FACES] * [1, 0.3, 0.6], cube().colours))
    plainly = drawn(surfels_of(found.points, found.normals, found.colours, found.area), 4096)
    points, normals = found.points @ turn.T, found.normals @ turn.T
    turned = drawn(surfels_of(points, normals, found.colours, found.area), 4096)
    assert chamfer(turned.points, plainly.points @ turn.T) < chamfer(found.points[:4096], found.points[4096:8192])
    nearest = cKDTree(plainly.points @ turn.T).query(turned.points)[1]
    assert ((plainly.normals @ turn.T)[nearest] * turned.normals).sum(1).mean() > 0.97


def leaning(surfels, amount):
    """The same places, the leans off by chance."""
    off = surfels.values.copy()
    off[:, 6:8] += amount * np.random.default_rng(2).standard_normal((len(off), 2)).astype(np.float32)
    return Surfels(surfels.index, off)


def test_leans_that_are_wrong_come_right_by_where_surfels_are():
    points, normals, colours = sphere(20000)
    right = surfels_of(points, normals, colours, 4 * np.pi / len(points))
    wrong = leaning(right, 0.4)
    off, left = (drawn(one, 4096) for one in (wrong, levelled(wrong)))
    radial = [np.degrees(np.arccos(np.clip((c.normals * c.points).sum(1), -1, 1))).mean() for c in (off, left)]
    assert radial[0] > 15
    assert radial[1] < 5
    assert np.array_equal(levelled(wrong).values[:, :6], wrong.values[:, :6]), "nothing else changes"


def test_sides_of_a_thin_box_stay_flat_and_apart():
    found = seen(Triangles(CUBE[FACES] * [1, 0.05, 0.4], cube().colours))
    box = surfels_of(found.points, found.normals, found.colours, found.area)
    assert np.abs(levelled(leaning(box, 0.1)).values[:, 6:8]).mean() < 0.03
    few = Surfels(box.index[:3], box.values[:3])
    assert levelled(few) is few


def test_no_surfels_give_no_points():
    none = surfels_of(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), 1.0)
    with pytest.raises(ValueError, match=re.escape("no surfels")):
        drawn(none, 100)


def test_a_cell_is_a_thirty_second_of_the_cube():
    assert SIDE * STEP == 2
