"""The face of the audio modality: what can be asked for. No torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from perrin.errors import InvalidInput
from perrin.inputs import Input
from perrin.modality import Format, Modality, Parameters, View
from perrin.models import ModelCard
from perrin_audio.notes import number_of

__all__ = ["AudioParameters", "modality", "spans_of"]

FROM: dict[str, JsonValue] = {"group": "From a sound"}
CLIP: dict[str, JsonValue] = {"group": "For a clip"}
FILE: dict[str, JsonValue] = {"group": "The file"}

SHORTEST, LONGEST = 0.1, 60.0
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*")


def spans_of(text: str) -> list[tuple[float, float]]:
    """Seconds from and to of ``0.5-1, 1.5-2``.

    Raises:
        ValueError: it is not that, or a span has no length.
    """
    found = []
    for part in text.split(","):
        match = _SPAN.fullmatch(part)
        if match is None or float(match[1]) >= float(match[2]):
            raise ValueError(text)
        found.append((float(match[1]), float(match[2])))
    return found


class AudioParameters(Parameters):
    """Sounds to be."""

    prompt: str | None = Field(
        None, max_length=300, title="Prompt", description="What to hear, such as: violin, note A4, loud."
    )
    negative: str = Field("", max_length=300, title="Negative prompt", description="What to go away from.")
    note: str | None = Field(
        None, max_length=4, title="Note", description="Its pitch, such as A4 or C#5, whatever the prompt says."
    )
    seconds: float | None = Field(
        None,
        ge=SHORTEST,
        le=LONGEST,
        title="Seconds",
        description="How long it is, to the sample. Left out: 2, or as long as the sound or clip that is given.",
    )
    start: float = Field(
        0.0, ge=0, le=4, title="Start", description="Seconds of the sound's own beginning that are left out."
    )
    loop: bool = Field(False, title="Loop", description="Its end goes on at its beginning.")
    audio: Annotated[str, Input("audio/*")] | None = Field(
        None, title="Sound", json_schema_extra=FROM, description="A sound to begin with; its first minute counts."
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Strength",
        json_schema_extra=FROM,
        description="How far to go from the sound: 0 gives it back, 1 forgets it. Left out: 0.6; 1 where a part is "
        "made anew.",
    )
    renew: str | None = Field(
        None,
        max_length=200,
        title="Renew",
        json_schema_extra=FROM,
        description="Parts of the sound to make anew, in seconds, such as 0.5-1.2; all else is kept as it is.",
    )
    extend: float | None = Field(
        None,
        gt=0,
        le=LONGEST,
        title="Extend",
        json_schema_extra=FROM,
        description="Seconds to add after the sound, which is kept as it is.",
    )
    clip: Annotated[str, Input("video/*", "image/gif", "image/webp")] | None = Field(
        None, title="Clip", json_schema_extra=CLIP, description="A clip; the sound is as long as it."
    )
    vocoder: str | None = Field(
        None,
        max_length=100,
        title="Vocoder",
        json_schema_extra=FILE,
        description="What makes the waveform: own (the model's), griffin-lim, or the name of one that was added.",
    )
    loudness: float = Field(
        -20.0,
        ge=-60,
        le=-6,
        title="Loudness",
        json_schema_extra=FILE,
        description="LUFS (ITU-R BS.1770-4) of the file; less where its peaks would pass -1 dB of full scale.",
    )
    depth: Literal["16", "24", "float"] = Field(
        "16", title="Depth", json_schema_extra=FILE, description="Bits of a sample in WAV and FLAC; float in WAV alone."
    )

    @field_validator("note")
    @classmethod
    def _note(cls, note: str | None) -> str | None:
        if note is None:
            return None
        try:
            number_of(note)
        except ValueError:
            raise PydanticCustomError("note", "a note such as A4, C#5 or Bb3, from C-1 to G9") from None
        return note

    @field_validator("renew")
    @classmethod
    def _renew(cls, renew: str | None) -> str | None:
        if renew is None:
            return None
        try:
            spans_of(renew)
        except ValueError:
            raise PydanticCustomError("renew", "spans of seconds such as 0.5-1.2, or several: 0-0.4, 1-1.5") from None
        return renew

    def resolved(self, card: ModelCard) -> Self:
        """The same request with the model's defaults; checks what does not go together.

        Raises:
            InvalidInput: names the field and what would do.
        """
        result = super().resolved(card)
        if result.audio is None:
            for name in ("strength", "renew", "extend"):
                if getattr(result, name) is not None:
                    raise InvalidInput(name, getattr(result, name), "a sound as well (audio)")
            if not result.prompt and result.note is None:
                raise InvalidInput("prompt", result.prompt, "what to hear, a note, or a sound to begin with (audio)")
        if result.extend is not None and result.seconds is not None:
            raise InvalidInput("seconds", result.seconds, "no value beside extend, which says how long it becomes")
        if result.clip is not None:
            if result.audio is not None:
                raise InvalidInput("clip", "a file", "none beside a sound (audio)")
            if result.seconds is not None:
                raise InvalidInput("seconds", result.seconds, "no value beside a clip, which says how long it is")
        changes: dict[str, object] = {}
        if result.audio is None and result.clip is None and result.seconds is None:
            changes["seconds"] = 2.0
        if result.audio is not None and result.strength is None:
            changes["strength"] = 1.0 if result.renew or result.extend else 0.6
        if result.vocoder is None:
            changes["vocoder"] = "own" if "vocoder" in card.architecture else "griffin-lim"
        return result.model_copy(update=changes)

    def check_format(self, format: Format) -> None:
        """Raise `InvalidInput` for float samples in anything but WAV."""
        if self.depth == "float" and format.name != "wav":
            raise InvalidInput("depth", self.depth, f"16 or 24 for {format.name}: only WAV holds float samples")


modality = Modality(
    name="audio",
    title="Audio",
    summary="Notes, short phrases and hits from a caption.",
    parameters=AudioParameters,
    view=View.AUDIO,
    formats=(
        Format("wav", "audio/wav"),
        Format("flac", "audio/flac"),
        Format("ogg", "audio/ogg"),
        Format("png", "image/png"),
    ),
    runtime="perrin_audio.runtime:AudioRuntime",
    default_model="instruments",
    package="perrin_audio",
    examples=(
        {"prompt": "violin, note A4, loud", "seed": 7},
        {"prompt": "marimba, arpeggio from C4", "seed": 7},
        {"prompt": "grand piano, note C4, loud", "seconds": 4.0, "seed": 7},
    ),
)
