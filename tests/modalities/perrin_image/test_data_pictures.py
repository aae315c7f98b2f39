"""Laws of drawing, colour naming, recolouring and finding duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from perrin.errors import InvalidInput
from perrin_image.data.colours import COLOURS, dominant_colour, from_oklch, to_oklch
from perrin_image.data.duplicates import first_of_each
from perrin_image.data.recolour import TARGETS, body_colour, recolour
from perrin_image.data.render import MARGIN, SIZE, fit, premultiplied, render_svg, visible_box

APPLE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">
<defs><radialGradient id="g"><stop offset="0" stop-color="#ff6a5a"/><stop offset="1" stop-color="#b81414"/>
</radialGradient></defs>
<circle cx="50" cy="58" r="36" fill="url(#g)"/><path d="M50 24q4-14 16-14q-2 14-16 14z" fill="#3c8f34"/></svg>"""
ROCKET = """<svg xmlns="http://www.w3.org/2000/svg" width="40mm" height="60mm" viewBox="0 0 40 60">
<path d="M20 2Q34 20 30 50H10Q6 20 20 2z" fill="#d5d8de"/><circle cx="20" cy="24" r="5" fill="#4a9be0"/></svg>"""


def disc(rgb: tuple[int, int, int], side: int = SIZE) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    picture = np.zeros((side, side, 4), np.uint8)
    picture[x**2 + y**2 < (side / 2 - 3) ** 2] = (*rgb, 255)
    return picture


@pytest.fixture(scope="module")
def apple() -> np.ndarray:
    return render_svg(APPLE)


@pytest.mark.parametrize("svg", [APPLE, ROCKET], ids=["apple", "rocket"])
def test_a_drawing_fills_the_square_up_to_its_margin_and_is_centred(svg: str) -> None:
    picture = render_svg(svg)
    assert picture.shape == (SIZE, SIZE, 4)
    assert picture.dtype == np.uint8
    left, top, right, bottom = visible_box(picture)
    assert max(right - left, bottom - top) == pytest.approx(SIZE - 2 * MARGIN, abs=1)
    assert abs(left - (SIZE - right)) <= 1
    assert abs(top - (SIZE - bottom)) <= 1


def test_edges_are_antialiased_and_keep_their_colour() -> None:
    picture = fit(disc((200, 30, 30), 256))
    edge = (picture[..., 3] > 60) & (picture[..., 3] < 200)
    assert edge.sum() > 30
    assert np.abs(picture[edge][:, :3].astype(int) - (200, 30, 30)).max() <= 3


def test_fitting_moves_nothing_that_fits_already() -> None:
    once = fit(disc((30, 90, 200), 300))
    assert np.abs(premultiplied(fit(once)) - premultiplied(once)).mean() < 0.01


def test_small_content_may_keep_its_relative_size() -> None:
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
    dot = head + '<circle cx="20" cy="20" r="10" fill="#000"/></svg>'
    left, _, right, _ = visible_box(render_svg(dot, smallest_share=0.6))
    assert right - left == pytest.approx(60 * 20 / 60, abs=1)
    left, _, right, _ = visible_box(render_svg(dot))
    assert right - left == pytest.approx(60, abs=1)


@pytest.mark.parametrize("svg", ["", "<svg", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'])
def test_what_cannot_be_drawn_is_refused(svg: str) -> None:
    with pytest.raises(InvalidInput):
        render_svg(svg)


def test_oklch_round_trip() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    assert np.abs(from_oklch(to_oklch(colours)).astype(int) - colours).max() <= 1


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((221, 46, 68), "red"),
        ((244, 144, 12), "orange"),
        ((255, 204, 77), "yellow"),
        ((119, 178, 85), "green"),
        ((85, 172, 238), "blue"),
        ((146, 102, 204), "purple"),
        ((244, 154, 193), "pink"),
        ((121, 76, 49), "brown"),
        ((20, 20, 24), "black"),
        ((250, 250, 252), "white"),
        ((140, 142, 145), "gray"),
        ((0, 160, 165), None),
    ],
)
def test_plain_colours_have_their_words(rgb: tuple[int, int, int], word: str | None) -> None:
    assert dominant_colour(disc(rgb)) == word


def test_two_halves_have_no_dominant_colour() -> None:
    picture = disc((221, 46, 68))
    picture[:, 32:, :3] = (59, 136, 195)
    assert dominant_colour(picture) is None
    assert body_colour(picture) is None


@pytest.mark.parametrize("target", [word for word in COLOURS if word != "red"])
def test_a_recoloured_picture_measures_as_its_word_and_keeps_its_shape(apple: np.ndarray, target: str) -> None:
    copy = recolour(apple, "red", target)
    assert copy is not None
    if target not in {"black", "white", "gray"}:
        assert dominant_colour(copy, least=0.45) == target
    np.testing.assert_array_equal(copy[..., 3], apple[..., 3])


def test_recolouring_leaves_the_leaf(apple: np.ndarray) -> None:
    lch = to_oklch(apple[..., :3])
    leaf = (np.abs(lch[..., 2] - 142) < 6) & (lch[..., 1] > 0.12) & (apple[..., 3] == 255)
    assert leaf.sum() > 20
    copy = recolour(apple, "red", "blue")
    assert copy is not None
    np.testing.assert_array_equal(copy[leaf], apple[leaf])


def test_recolouring_keeps_the_order_of_light_and_shade(apple: np.ndarray) -> None:
    copy = recolour(apple, "red", "green")
    assert copy is not None
    before, after = (to_oklch(p[24:56, 18:46, :3])[..., 0].ravel() for p in (apple, copy))
    assert np.corrcoef(before, after)[0, 1] > 0.95


def test_a_gray_body_takes_a_colour() -> None:
    rocket = render_svg(ROCKET)
    assert body_colour(rocket) in {"white", "gray"}
    copy = recolour(rocket, str(body_colour(rocket)), "red")
    assert copy is not None
    assert dominant_colour(copy) == "red"


def test_recolouring_what_is_not_there_gives_nothing(apple: np.ndarray) -> None:
    assert recolour(apple, "purple", "blue") is None


def test_targets_are_the_colour_words() -> None:
    assert set(TARGETS) == set(COLOURS)


def test_duplicates_are_found_and_colours_told_apart(apple: np.ndarray) -> None:
    nearly = apple.copy()
    nearly[..., :3] = np.clip(nearly[..., :3].astype(int) + 2, 0, 255)
    firsts, merged = first_of_each(np.stack([apple, disc((200, 20, 20)), nearly, disc((20, 20, 200)), apple]))
    assert firsts == [0, 1, 3]
    assert merged == {0: [2, 4]}


def test_no_pictures_have_no_duplicates() -> None:
    assert first_of_each(np.zeros((0, SIZE, SIZE, 4), np.uint8)) == ([], {})
