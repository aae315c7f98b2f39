"""The face of the video modality: what can be asked for. No torch."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from perrin.errors import InvalidInput
from perrin.inputs import Input
from perrin.modality import Format, Modality, Parameters, View
from perrin.models import ModelCard, find

__all__ = ["MOST_FRAMES", "VideoParameters", "frames_named", "modality", "stops"]

MOST_FRAMES = 240
"""Of a clip that is made."""

STRENGTH = 0.7

LEAST_RATE, MOST_RATE = 1.0, 60.0

FROM: dict[str, JsonValue] = {"group": "From pictures"}
CLIP: dict[str, JsonValue] = {"group": "From a clip"}
TIME: dict[str, JsonValue] = {"group": "Time"}
SOUND: dict[str, JsonValue] = {"group": "With a sound"}

PICTURES = Input("image/*")
CLIPS = Input("video/*", "image/gif", "image/webp")

_STOP = re.compile(r"\s*(\d+(?:\.\d+)?)\s*s?\s*:\s*(.*\S)\s*")
_SPAN = re.compile(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*")
_BACKGROUND = re.compile(r"white|transparent|#[0-9a-fA-F]{6}")


class VideoParameters(Parameters):
    """A clip to be."""

    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=300,
        title="Prompt",
        description="A thing and what it does, in English: a rocket flying up. Things fly up, down, left or right, "
        "bounce, spin, grow, shrink, fade, appear, drift apart or orbit, slowly or fast.",
    )
    negative: str = Field("", max_length=300, title="Negative prompt", description="What to steer away from.")
    style: str | None = Field(None, max_length=40, title="Style", description="Drawing style, one the model knows.")
    frames: int | None = Field(
        None, ge=1, le=MOST_FRAMES, title="Frames", description="How many frames. Left out: 16, or those of the clip."
    )
    fps: float | None = Field(
        None,
        ge=LEAST_RATE,
        le=MOST_RATE,
        title="Frames a second",
        description="Told to the model: a motion takes as many seconds at any rate. Left out: 8, or that of the clip.",
    )
    size: int | None = Field(
        None, title="Size", description="Side of the frames in pixels; they are drawn at 64 and enlarged."
    )
    background: str = Field("white", title="Background", description="white, transparent, or a colour such as #ffcc00.")
    loop: bool = Field(False, title="Loop", description="The last frame leads into the first.")

    travel: list[Annotated[str, Field(max_length=320)]] = Field(
        [],
        max_length=7,
        title="Prompt travel",
        json_schema_extra=TIME,
        description="Further prompts with the second from which each holds: 1.5: a star flying up.",
    )
    times: list[Annotated[float, Field(ge=0, le=60)]] = Field(
        [],
        max_length=MOST_FRAMES,
        title="Times",
        json_schema_extra=TIME,
        description="The second of every frame, instead of a steady rate; each is shown until the next.",
    )
    causal: bool = Field(
        False, title="Causal", json_schema_extra=TIME, description="A frame depends on itself and earlier ones alone."
    )

    image: Annotated[str, PICTURES] | None = Field(
        None, title="First frame", json_schema_extra=FROM, description="A picture that the clip begins with."
    )
    last: Annotated[str, PICTURES] | None = Field(
        None, title="Last frame", json_schema_extra=FROM, description="A picture that the clip ends with."
    )

    video: Annotated[str, CLIPS] | None = Field(
        None, title="Clip", json_schema_extra=CLIP, description="A clip to begin with: its motion is kept."
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Strength",
        json_schema_extra=CLIP,
        description="How far to go from the clip: 0 gives it back, 1 keeps its motion alone. Left out: 0.7.",
    )
    keep: str | None = Field(
        None,
        max_length=300,
        title="Keep",
        json_schema_extra=CLIP,
        description="Frames of the clip that stay as they are, such as 0-3,15; all others are made anew.",
    )
    between: int | None = Field(
        None,
        ge=1,
        le=16,
        title="Between",
        json_schema_extra=CLIP,
        description="Frames to make between any two of the clip, which all stay.",
    )

    sound: Annotated[str, Input("audio/*")] | None = Field(
        None,
        title="Sound",
        json_schema_extra=SOUND,
        description="A sound that goes with the clip, from its beginning to its end; in MP4 and WebM alone.",
    )

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str | None) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("a prompt of at least one word")
        return prompt if prompt is None else prompt.strip()

    @field_validator("background")
    @classmethod
    def _known(cls, background: str) -> str:
        if not _BACKGROUND.fullmatch(background):
            raise PydanticCustomError("background", "white, transparent, or a colour such as #ffcc00")
        return background.lower()

    @field_validator("times")
    @classmethod
    def _rising(cls, times: list[float]) -> list[float]:
        if any(after <= before for before, after in pairwise(times)):
            raise PydanticCustomError("times", "seconds, each later than the one before")
        return times

    @field_validator("travel")
    @classmethod
    def _stops(cls, travel: list[str]) -> list[str]:
        found = [_STOP.fullmatch(text) for text in travel]
        if not all(found) or any(float(b[1]) <= float(a[1]) for a, b in pairwise(m for m in found if m)):
            raise PydanticCustomError("travel", "SECOND: PROMPT, each later than the one before, such as 1.5: a star")
        return travel

    @field_validator("keep")
    @classmethod
    def _frames(cls, keep: str | None) -> str | None:
        if keep is not None and not all(_SPAN.fullmatch(part) for part in keep.split(",")):
            raise PydanticCustomError("keep", "numbers of frames from 0, such as 0-3,15")
        return keep

    def resolved(self, card: ModelCard) -> Self:
        """The same request with the model's defaults; checks that what is asked for goes together.

        Raises:
            InvalidInput: names the field and what is allowed.
        """
        self._begun()
        result = super().resolved(card)
        sizes = [int(size[0]) for size in card.sizes]
        size = result.size or int(card.data.get("size", sizes[0]))
        if size not in sizes:
            raise InvalidInput("size", size, f"one of {', '.join(map(str, sizes))} for model {card.name}")
        styles = find(card.image, "image").conditioners.get("style", [])
        if result.style is not None and result.style not in styles:
            raise InvalidInput("style", result.style, f"one of {', '.join(styles)} for model {card.name}")
        changes: dict[str, Any] = {"size": size, "guidance": 1.0 if result.guidance is None else result.guidance}
        if self.times:
            if self.frames not in (None, len(self.times)):
                raise InvalidInput("frames", self.frames, f"{len(self.times)}, as there are times, or no number")
            changes["frames"] = len(self.times)
        if self.video is None:
            changes["frames"] = changes.get("frames") or self.frames or int(card.data.get("frames", 16))
            changes["fps"] = self.fps or float(card.data.get("fps", 8.0))
        elif self.keep is None and self.between is None:
            changes["strength"] = STRENGTH if self.strength is None else self.strength
        if changes.get("frames") == 1 and (self.last or self.loop):
            raise InvalidInput("frames", 1, "at least 2 for a loop or a last frame")
        result = result.model_copy(update=changes)
        if result.frames is not None and self.keep is not None:
            frames_named(self.keep, result.frames)
        return result

    def check_format(self, format: Format) -> None:
        """Raise `InvalidInput` if background or sound need what ``format`` has not."""
        if self.background == "transparent" and format.name in ("mp4", "webm"):
            raise InvalidInput("format", format.name, "gif, webp or zip: these clips have no transparency")
        if self.sound is not None and format.name not in ("mp4", "webm"):
            raise InvalidInput("format", format.name, "mp4 or webm: no other clip has a sound")

    def _begun(self) -> None:
        """Refuse what does not go together."""
        if self.prompt is None and not (self.video or (self.image and self.last)):
            raise InvalidInput("prompt", None, "a value: it is required, unless there is a clip, or two pictures")
        for name in ("image", "last"):
            if self.video is not None and getattr(self, name) is not None:
                raise InvalidInput(name, getattr(self, name), "none beside a clip: say keep, and which frames of it")
        for name in ("strength", "keep", "between"):
            if self.video is None and getattr(self, name) is not None:
                raise InvalidInput(name, getattr(self, name), "a clip as well (video)")
        if self.keep is not None and self.between is not None:
            raise InvalidInput("keep", self.keep, "none beside between, which keeps every frame of the clip")
        if self.strength is not None and (self.keep or self.between):
            raise InvalidInput("strength", self.strength, "none beside keep or between: what is not kept is made anew")
        if self.between is not None:
            for name in ("frames", "times"):
                if getattr(self, name):
                    raise InvalidInput(name, getattr(self, name), "none beside between, which says how many there are")
        if self.loop and (self.image or self.last or self.video or self.times):
            raise InvalidInput("loop", True, "no pictures, clip or times as well: a loop is made from its prompt")
        if self.travel and self.prompt is None:
            raise InvalidInput("travel", self.travel, "a prompt as well, to begin with")


def stops(travel: list[str]) -> list[tuple[float, str]]:
    """Seconds and prompts of a checked `VideoParameters.travel`."""
    found = (_STOP.fullmatch(text) for text in travel)
    return [(float(match[1]), match[2]) for match in found if match]


def frames_named(keep: str, frames: int) -> list[int]:
    """The numbers in ``0-3,15``, of a clip with so many frames.

    Raises:
        InvalidInput: one that the clip has not; or all of them are named, or none.
    """
    named: set[int] = set()
    for part in keep.split(","):
        match = _SPAN.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last >= frames:
            raise InvalidInput("keep", keep, f"frames 0 to {frames - 1}, such as 0-3,15")
        named |= set(range(first, last + 1))
    if len(named) == frames:
        raise InvalidInput("keep", keep, f"fewer than all {frames} frames of the clip: the rest is made anew")
    return sorted(named)


modality = Modality(
    name="video",
    title="Video",
    summary="Short clips of things that move, from a caption, pictures or another clip.",
    parameters=VideoParameters,
    view=View.VIDEO,
    formats=(
        Format("mp4", "video/mp4"),
        Format("webm", "video/webm"),
        Format("gif", "image/gif"),
        Format("webp", "image/webp"),
        Format("zip", "application/zip"),
    ),
    runtime="perrin_video.runtime:VideoRuntime",
    default_model="emoji-motion",
    package="perrin_video",
    examples=(
        {"prompt": "a rocket flying up", "seed": 7},
        {"prompt": "a red apple bouncing", "seed": 7},
        {"prompt": "a gear spinning", "seed": 7},
    ),
)
