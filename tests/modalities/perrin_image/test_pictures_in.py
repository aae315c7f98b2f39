"""Pictures in: whatever kind they are, they come out upright, eight bits, fitted; what is no picture is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.media import sniff
from perrin.picture_files import MOST_PIXELS, cut_out, read_mask, read_picture

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)


def quarters(width: int = 32, height: int = 32) -> Image.Image:
    """Four colours, so that a turn shows."""
    image = Image.new("RGB", (width, height), RED)
    for colour, box in (
        (GREEN, (width // 2, 0, width, height // 2)),
        (BLUE, (0, height // 2, width // 2, height)),
        (YELLOW, (width // 2, height // 2, width, height)),
    ):
        image.paste(colour, box)
    return image


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> InputFile:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return InputFile(sniff(stream.getvalue()), stream.getvalue())


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:  # type: ignore[type-arg]
    """Colours in the middle of the quarters, row by row."""
    y, x = pixels.shape[0] // 4, pixels.shape[1] // 4
    return [tuple(pixels[b, a, :3].tolist()) for b in (y, 3 * y) for a in (x, 3 * x)]


def near(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]], far: int = 6) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= far)


@pytest.mark.parametrize(
    "file",
    [
        saved(quarters()),
        saved(quarters(), "JPEG", quality=95),
        saved(quarters(), "WEBP", lossless=True),
        saved(quarters(), "GIF"),
        saved(quarters(), "BMP"),
        saved(quarters(), "TIFF"),
        saved(quarters(), "PPM"),
        saved(quarters().convert("P", palette=Image.Palette.ADAPTIVE)),
        saved(quarters().convert("RGBA")),
        saved(quarters(), "GIF", save_all=True, append_images=[Image.new("RGB", (32, 32))] * 2),
        saved(quarters(), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (32, 32))]),
        saved(quarters(), "PNG", save_all=True, append_images=[Image.new("RGB", (32, 32))]),
        saved(quarters(64, 64)),
        saved(quarters(47, 47)),
    ],
)
def test_every_kind_comes_out_the_same(file: InputFile) -> None:
    pixels = read_picture("image", file, 32, 32)
    assert pixels.shape == (32, 32, 4)
    assert pixels.dtype == np.uint8
    assert (pixels[..., 3] == 255).all()
    assert near(corners(pixels), [RED, GREEN, BLUE, YELLOW])


def test_a_picture_of_the_size_comes_out_bit_for_bit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 4), np.uint8)
    assert (read_picture("image", saved(Image.fromarray(noise)), 40, 24) == noise).all()


@pytest.mark.parametrize(("turn", "wanted"), [(3, [YELLOW, BLUE, GREEN, RED]), (6, [BLUE, RED, YELLOW, GREEN])])
def test_exif_turns_it(turn: int, wanted: list[tuple[int, ...]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    assert near(corners(read_picture("image", saved(quarters(), exif=exif), 32, 32)), wanted)


def test_cmyk() -> None:
    pixels = read_picture("image", saved(quarters().convert("CMYK"), "JPEG", quality=95), 32, 32)
    assert near(corners(pixels), [RED, GREEN, BLUE, YELLOW])


def test_sixteen_bits_keep_their_brightness() -> None:
    ramp = np.linspace(0, 65535, 32).astype(np.uint16)[None].repeat(32, 0)
    wide, wider = Image.fromarray(ramp), Image.fromarray(ramp.astype(np.int32))
    for image, kind in ((wide, "PNG"), (wide, "TIFF"), (wide, "PPM"), (wider, "TIFF")):
        pixels = read_picture("image", saved(image, kind), 32, 32)
        assert abs(pixels[0, :, 0].astype(int) - np.linspace(0, 255, 32)).max() <= 1


def test_alpha_and_a_palette_with_a_hole() -> None:
    image = quarters().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    assert read_picture("image", saved(image), 32, 32)[4, 4, 3] == 0
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE)
    hole = palette.getpixel((2, 2))
    pixels = read_picture("image", saved(palette, transparency=hole), 32, 32)
    assert pixels[4, 4, 3] == 0
    assert (pixels[4, 20] == (*GREEN, 255)).all()


def test_it_covers_the_size_and_what_stands_over_is_cut_off_on_both_sides() -> None:
    wide = Image.new("RGB", (96, 32), RED)
    wide.paste(BLUE, (32, 0, 64, 32))
    assert (read_picture("image", saved(wide), 32, 32)[..., :3] == BLUE).all()
    high = wide.rotate(90, expand=True)
    assert (read_picture("image", saved(high), 32, 32)[..., :3] == BLUE).all()
    assert (read_picture("image", saved(Image.new("RGB", (1, 900), RED)), 32, 32)[..., :3] == RED).all()


def bomb(width: int, height: int) -> InputFile:
    """A PNG of a few bytes that says it is so large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return InputFile("image/png", b"\x89PNG\r\n\x1a\n" + packed)


WHOLE = saved(quarters(64, 64)).data


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (InputFile("image/png", WHOLE[: len(WHOLE) // 2]), "a whole picture"),
        (InputFile("image/png", WHOLE[:16]), "a whole picture"),
        (InputFile("image/png", b""), "a picture that can be read"),
        (InputFile("image/heic", b"\0\0\0\x18ftypheic"), "a picture that can be read: PNG, JPEG"),
        (InputFile("image/jpeg", saved(quarters(), "JPEG").data[:400]), "image: got 'image/jpeg', wanted a "),
        (bomb(8000, MOST_PIXELS // 8000 + 1), "got '8000x6251', wanted a picture of at most 50 million"),
        (bomb(60_000, 60_000), "a picture of at most 50 million pixels"),
        (bomb(1000, 1000), "a whole picture"),
        (saved(Image.new("F", (8, 8)), "TIFF"), "8 or 16 bits"),
        (InputFile("image/x-eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), "can be read"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(file: InputFile, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_picture("image", file, 32, 32)
    assert message in str(caught.value)
    assert str(caught.value).startswith("image: got ")
    assert "\n" not in str(caught.value)


def test_a_mask_is_where_it_is_white() -> None:
    gray = np.zeros((40, 40), np.uint8)
    gray[:, 20:] = 200
    mask = read_mask("mask", saved(Image.fromarray(gray)), 20, 20)
    assert not mask[:, :9].any()
    assert mask[:, 11:].all()
    drawn = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    drawn.paste((255, 255, 255, 255), (0, 0, 5, 20))
    mask = read_mask("mask", saved(drawn), 20, 20)
    assert mask[:, :5].all()
    assert not mask[:, 5:].any()


def test_paper_is_cut_away_from_the_edge_only() -> None:
    image = np.full((20, 20, 4), 255, np.uint8)
    image[4:16, 4:16] = (200, 0, 0, 255)
    image[8:12, 8:12] = 255  # white inside stays
    image[4, 4:16] = (240, 180, 180, 255)  # fades into the paper
    alpha = cut_out(image)[..., 3]
    assert not alpha[:5].any()
    assert alpha[5:16, 4:16].all()
    own = image.copy()
    own[0, 0, 3] = 0
    assert (cut_out(own) == own).all()
    full = image.copy()
    full[[0, -1]] = full[:, [0, -1]] = (9, 9, 9, 255)
    assert (cut_out(full) == full).all()
