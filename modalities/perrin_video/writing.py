"""Clips out: MP4, WebM, GIF, animated WebP, or a ZIP of PNG frames; each says how it was made.

The same clip and metadata give the same bytes: encoders run on one thread and write no dates.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from perrin.clip_notes import with_gif, with_mp4
from perrin.xmp import packet
from perrin_video.tracks import BITS, RATE, Track, encoded

__all__ = ["VideoClip", "strip", "write"]

TICKS = 1000
"""Times are written in so many parts of a second."""


@dataclass(frozen=True)
class VideoClip:
    """A clip that was made.

    Attributes:
        frames: uint8 (F, H, W, 3), or (F, H, W, 4) with straight alpha.
        seconds: (F,) when each frame is shown.
        length: seconds of the whole.
        moves: something was asked to move.
        kept: every frame was given, so that nothing is to be found fault with.
        sound: (2, samples) that are heard with it, if any.
    """

    frames: npt.NDArray[np.uint8]
    seconds: npt.NDArray[np.float64]
    length: float
    moves: bool = True
    kept: bool = False
    sound: Track | None = None

    @property
    def lasts(self) -> list[int]:
        """Milliseconds that each frame is shown."""
        ends = np.append(self.seconds[1:], self.length)
        edges = np.rint(np.append(self.seconds, ends[-1]) * TICKS).astype(int)
        return [max(1, int(part)) for part in np.diff(edges)]


def write(clip: VideoClip, name: str, metadata: Mapping[str, Any]) -> bytes:
    """``clip`` as a file of the format called ``name``."""
    prompt = metadata.get("parameters", {}).get("prompt") or ""
    software = f"Perrin {metadata.get('perrin', '')}".strip()
    match name:
        case "mp4":
            return with_mp4(_encoded(clip, "mp4", {"title": prompt} if prompt else {}), metadata, prompt, software)
        case "webm":
            tags = {"PERRIN": json.dumps(metadata, sort_keys=True), **({"title": prompt} if prompt else {})}
            return _encoded(clip, "webm", tags)
        case "gif":
            return with_gif(_gif(clip), metadata, prompt, software)
        case "webp":
            pictures = [Image.fromarray(frame) for frame in clip.frames]
            stream = io.BytesIO()
            # Every frame is whole (kmax): between others, libwebp drops the alpha of pictures with few colours.
            pictures[0].save(
                stream, "WEBP", save_all=True, append_images=pictures[1:], duration=clip.lasts, loop=0, lossless=True,
                kmin=0, kmax=1, xmp=packet(metadata, prompt, software),
            )  # fmt: skip
            return stream.getvalue()
    return _zip(clip, metadata)


def _encoded(clip: VideoClip, container: str, tags: Mapping[str, str]) -> bytes:
    """H.264 (and AAC) in MP4, or VP9 (and Opus) in WebM; opaque, with the times as they are."""
    stream_file = io.BytesIO()
    height, width = clip.frames.shape[1:3]
    with av.open(stream_file, "w", format=container, options={"fflags": "+bitexact"}) as target:
        target.metadata.update(tags)
        stream: Any
        if container == "mp4":
            stream = target.add_stream("libx264", rate=TICKS, options={"crf": "12", "preset": "slow", "bf": "0"})
        else:
            stream = target.add_stream("libvpx-vp9", rate=TICKS, options={"crf": "14", "b": "0", "row-mt": "0"})
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        stream.thread_count = stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        heard: Any = None
        if clip.sound is not None:
            heard = target.add_stream("aac" if container == "mp4" else "libopus", rate=RATE, layout="stereo")
            heard.bit_rate = BITS
            heard.codec_context.flags |= av.codec.context.Flags.bitexact
        begins = np.cumsum([0, *clip.lasts])[:-1].tolist()
        length = dict(zip(begins, clip.lasts, strict=True))
        made: list[Any] = []
        for picture, at in zip(clip.frames, begins, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[..., :3]), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, TICKS)
            made += stream.encode(frame)
        for part in (*made, *stream.encode()):
            part.duration = length.get(part.pts, 1)  # without it the last frame is shown for one tick
            target.mux(part)
        if clip.sound is not None:
            for part in encoded(heard, clip.sound):
                target.mux(part)
    return stream_file.getvalue()


def _gif(clip: VideoClip) -> bytes:
    """One palette for all frames, so that no colour flickers; alpha is all or nothing."""
    clear = clip.frames.shape[-1] == 4
    colours = np.concatenate(list(clip.frames[..., :3]), 1)
    palette = Image.fromarray(colours).quantize(255, Image.Quantize.MEDIANCUT)
    made = []
    for frame in clip.frames:
        picture = Image.fromarray(frame[..., :3]).quantize(255, palette=palette, dither=Image.Dither.NONE)
        if clear:
            empty = Image.fromarray(np.where(frame[..., 3] < 128, np.uint8(255), np.uint8(0)))
            picture.paste(255, mask=empty)
        made.append(picture)
    hundredths = np.diff(np.rint(np.cumsum([0, *clip.lasts]) / 10).astype(int))
    more: dict[str, Any] = {"transparency": 255} if clear else {}
    stream = io.BytesIO()
    made[0].save(
        stream, "GIF", save_all=True, append_images=made[1:], duration=[max(20, 10 * int(n)) for n in hundredths],
        loop=0, disposal=2 if clear else 1, optimize=False, **more,
    )  # fmt: skip
    return stream.getvalue()


def _zip(clip: VideoClip, metadata: Mapping[str, Any]) -> bytes:
    """Frames as PNG files, their seconds in frames.csv, the metadata in perrin.json."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:

        def put(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)

        put("perrin.json", json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode())
        rows = [f"{number:04}.png,{second:.3f}" for number, second in enumerate(clip.seconds)]
        put("frames.csv", "\n".join(["file,seconds", *rows, ""]).encode())
        for number, frame in enumerate(clip.frames):
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "PNG", compress_level=6)
            put(f"{number:04}.png", picture.getvalue())
    return stream.getvalue()


def strip(frames: npt.NDArray[np.uint8], most: int = 8) -> Image.Image:
    """Frames (F, H, W, 3) side by side, evenly chosen, in up to two rows."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)]
    columns = (len(chosen) + 1) // 2 if len(chosen) > 4 else len(chosen)
    height, width = chosen.shape[1:3]
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height), "white")
    for number, frame in enumerate(chosen):
        sheet.paste(Image.fromarray(frame), (number % columns * width, number // columns * height))
    return sheet
