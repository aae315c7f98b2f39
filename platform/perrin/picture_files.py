"""Pictures in: bytes that somebody gave, to straight-alpha RGBA of the size asked for.

Whatever a picture is (palette, gray, CMYK, 16 bits, turned by its EXIF, animated), what comes out is upright, eight
bits a channel, its first frame. It is fitted by cover and crop: scaled until it covers the size, and what stands over
is cut off on both sides alike. A picture that has the size already comes out as it is, bit for bit.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.pictures import Pixels

__all__ = ["MOST_PIXELS", "cut_out", "detail", "read_mask", "read_picture"]

MOST_PIXELS = 50_000_000
"""Pictures with more are refused before they are unpacked; a camera's have fewer."""

_WANTED_SIZE = f"a picture of at most {MOST_PIXELS // 1_000_000} million pixels"

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What Pillow may open: formats that no other program is called for, and that hold pictures only."""

WHITE = 240
"""From here on all channels are white paper, for `cut_out`."""

PALE = 128
"""From here on all channels are more paper than picture."""


Sides = tuple[int, int]
"""Width and height in pixels."""


def read_picture(field: str, file: InputFile, width: int, height: int, cover: Sides | None = None) -> Pixels:
    """The picture in ``file``, fitted to the size by cover and crop: uint8 (height, width, 4).

    Args:
        field: the parameter that it was given for.
        file: a PNG, JPEG, WebP, GIF, BMP, TIFF, PNM or AVIF.
        width, height: pixels.
        cover: width and height, in the middle, that it is to cover; what it does not reach beside that is empty. By
            default all.

    Raises:
        InvalidInput: no picture, a broken one, or one of more than 50 million pixels; names ``field``.
    """
    return np.asarray(_fitted(_open(field, file), width, height, cover))


def detail(field: str, file: InputFile, cover: Sides) -> float:
    """Pixels of the picture in ``file``, along a side, for one of what `read_picture` makes of it; below 1: too few.

    Raises:
        InvalidInput: as of `read_picture`.
    """
    image = _open(field, file)
    return min(image.width / cover[0], image.height / cover[1])


def read_mask(
    field: str, file: InputFile, width: int, height: int, cover: Sides | None = None
) -> npt.NDArray[np.bool_]:
    """Where the mask in ``file`` is white: bool (height, width), fitted as pictures are; what is transparent is black.

    Raises:
        InvalidInput: as of `read_picture`.
    """
    image = _open(field, file)
    gray = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("L")
    return np.asarray(_fitted(gray, width, height, cover)) >= 128


def cut_out(pixels: Pixels) -> Pixels:
    """An opaque picture (H, W, 4) on white paper, without the paper: white that touches the edge becomes transparent.

    So do pale pixels beside it, in which something fades into the paper. A picture with an alpha of its own, or with
    no white at its edge, is left as it is.
    """
    if pixels[..., 3].min() < 255:
        return pixels
    darkest = pixels[..., :3].min(-1)
    white = np.pad((darkest >= WHITE).astype(np.uint8), 1, constant_values=1)
    flooded = Image.fromarray(white).copy()  # what is made from an array cannot be drawn on
    ImageDraw.floodfill(flooded, (0, 0), 2)
    paper = np.asarray(flooded)[1:-1, 1:-1] == 2
    around = np.pad(paper, 1)
    beside = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    result = pixels.copy()
    result[paper | (beside & (darkest >= PALE))] = 0
    return result


def _open(field: str, file: InputFile) -> Image.Image:
    """The first frame, upright, RGBA."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are looked at here
            image: Image.Image = Image.open(io.BytesIO(file.data), formats=KINDS)
            _check_size(field, *image.size)
            return _rgba(ImageOps.exif_transpose(image))
    except (InvalidInput, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise InvalidInput(field, file.media_type, _WANTED_SIZE) from None
    except UnidentifiedImageError:
        raise InvalidInput(field, file.media_type, f"a picture that can be read: {', '.join(KINDS)}") from None
    except Exception as error:  # Pillow's readers raise anything for a broken file
        reason = str(error) if isinstance(error, OSError | ValueError) else type(error).__name__
        raise InvalidInput(field, file.media_type, f"a whole picture: {_line(reason)}") from None


def _check_size(field: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InvalidInput(field, f"{width}x{height}", _WANTED_SIZE)


def _line(text: str) -> str:
    return " ".join(text.split())[:120] or "it is broken"


def _rgba(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("it has floating-point pixels, wanted 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    return image.convert("RGBA")


def _fitted(image: Image.Image, width: int, height: int, cover: Sides | None = None) -> Image.Image:
    if image.size == (width, height):
        return image
    wide, high = cover or (width, height)
    scale = min(image.width / wide, image.height / high)
    reach = (min(image.width, width * scale), min(image.height, height * scale))
    left, top = (image.width - reach[0]) / 2, (image.height - reach[1]) / 2
    box = (left, top, min(left + reach[0], image.width), min(top + reach[1], image.height))
    size = (min(width, round(reach[0] / scale)), min(height, round(reach[1] / scale)))
    made = image.resize(size, Image.Resampling.LANCZOS, box=box)
    if size == (width, height):
        return made
    sheet = Image.new(image.mode, (width, height))
    sheet.paste(made, ((width - size[0]) // 2, (height - size[1]) // 2))
    return sheet
