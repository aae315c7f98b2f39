"""The face of the image modality: what can be asked for. No torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from perrin.errors import InvalidInput
from perrin.inputs import Input
from perrin.modality import SEED_LIMIT, Format, Modality, Parameters, View
from perrin.models import ModelCard, find
from perrin.models.card import CALIBRATED
from perrin_image.adapters import MOST, check_base, reader_of, resolved_lora, written
from perrin_image.classes import class_of
from perrin_image.prompts import read_prompt
from perrin_image.sizes import Size, channels_of, layout_of, pair, read_size, size_of

__all__ = ["ImageParameters", "modality", "no_transparency"]

MOST_LETTERS, OWN_LETTERS = 2000, 300
"""Of a prompt; and of one for a model of this package, whose encoder hears no more."""

STRENGTH = 0.6
VARIATION = 0.4
"""The default strength without a prompt: with nothing to go to, more only melts the picture."""

LEAST_SIDE = 16
"""A picture is not made smaller than this to make room around it."""

FROM: dict[str, JsonValue] = {"group": "From a picture"}
BETWEEN: dict[str, JsonValue] = {"group": "Between two prompts or seeds"}
BESIDE: dict[str, JsonValue] = {"group": "Control, image prompt and adapters"}

_BACKGROUND = re.compile(r"white|transparent|#[0-9a-fA-F]{6}")


class ImageParameters(Parameters):
    """A picture to be."""

    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=MOST_LETTERS,
        title="Prompt",
        description="What to show, in English. (red:1.3) apple gives a part a weight, 0 to 2. With an image it may be "
        "left out. Of a model of classes, the name of one; left out: any.",
    )
    negative: str = Field("", max_length=MOST_LETTERS, title="Negative prompt", description="What to steer away from.")
    style: str | None = Field(None, max_length=40, title="Style", description="Drawing style, one the model knows.")
    size: Size | None = Field(
        None,
        title="Size",
        description="Side of the picture in pixels, or its width and height, such as 96x64.",
    )
    image: Annotated[str, Input("image/*")] | None = Field(
        None,
        title="Image",
        json_schema_extra=FROM,
        description="A picture to begin with. It is scaled to cover the size, and what stands over is cut off.",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Strength",
        json_schema_extra=FROM,
        description="How far to go from the image: 0 gives it back, 1 forgets it. Left out: 0.6; 0.4 without a "
        "prompt; 1 with a mask or expand.",
    )
    mask: Annotated[str, Input("image/*")] | None = Field(
        None,
        title="Mask",
        json_schema_extra=FROM,
        description="White where to paint into the image; what is black is kept as it is. Fitted like the image.",
    )
    expand: int = Field(
        0,
        ge=0,
        le=2048,
        title="Expand",
        json_schema_extra=FROM,
        description="Paint so many pixels around the image, made smaller to fit; white paper in it counts as empty.",
    )
    background: str = Field("white", title="Background", description="white, transparent, or a colour such as #ffcc00.")
    seamless: bool = Field(
        False, title="Seamless", description="A tile: laid side by side, copies of it meet without a seam."
    )

    morph: str | None = Field(
        None,
        min_length=1,
        max_length=MOST_LETTERS,
        title="Morph",
        json_schema_extra=BETWEEN,
        description="A second prompt; the items go evenly from the first to it.",
    )
    seed_to: int | None = Field(
        None,
        ge=0,
        lt=SEED_LIMIT,
        title="Seed to",
        json_schema_extra=BETWEEN,
        description="A second seed; the items go evenly from the first to it.",
    )
    blend: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Blend",
        json_schema_extra=BETWEEN,
        description="How far towards morph and seed_to all items are. Left out: evenly from 0 to 1; one alone, half.",
    )

    control: dict[Literal["edge", "scribble", "depth", "picture"], Annotated[str, Input("image/*")]] = Field(
        {},
        max_length=1,
        title="Control",
        json_schema_extra=BESIDE,
        description="A picture that says where things are: lines, white on black or black on white, or depth. Of an "
        "ordinary picture given as edge the edges are found first; a picture is given as it is. Fitted like the image.",
    )
    control_strength: float | None = Field(
        None,
        ge=0,
        le=2,
        title="Control strength",
        json_schema_extra=BESIDE,
        description="How much the control counts; left out: 1.",
    )
    control_model: str | None = Field(
        None,
        max_length=200,
        title="Control adapter",
        json_schema_extra=BESIDE,
        description="Name of the adapter that reads the control; left out: the first installed one that can.",
    )
    like: Annotated[str, Input("image/*")] | None = Field(
        None,
        title="Like",
        json_schema_extra=BESIDE,
        description="A picture of something: draw the like, placed anew. With it the prompt may be left out.",
    )
    like_model: str | None = Field(
        None,
        max_length=200,
        title="Like adapter",
        json_schema_extra=BESIDE,
        description="Name of the adapter that reads like; left out: the first installed one.",
    )
    lora: list[Annotated[str, Field(max_length=200)]] = Field(
        [],
        max_length=MOST,
        title="LoRA",
        json_schema_extra=BESIDE,
        description="Adapters that draw differently, as NAME:WEIGHT with a weight of -2 to 2, 1 if it is left out.",
    )

    @field_validator("prompt", "morph")
    @classmethod
    def _not_blank(cls, prompt: str | None) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("a prompt of at least one word")
        return prompt if prompt is None else prompt.strip()

    @field_validator("size", mode="before")
    @classmethod
    def _one_way(cls, size: object) -> Size | None:
        found = read_size(size)
        if found is None and size is not None:
            raise PydanticCustomError("size", "a side of 16 to 4096 pixels, or two, such as 96x64")
        return found

    @field_validator("background")
    @classmethod
    def _known(cls, background: str) -> str:
        if not _BACKGROUND.fullmatch(background):
            raise PydanticCustomError("background", "white, transparent, or a colour such as #ffcc00")
        return background.lower()

    def resolved(self, card: ModelCard) -> Self:
        """The same request with the model's defaults; checks that the model can do its size and style.

        Raises:
            InvalidInput: names the field and what this model allows.
        """
        check_base(card)
        self._suits(card)
        result = super(ImageParameters, self._begun(card)._between()._beside(card)).resolved(card)
        sizes = [size_of(*side) for side in card.sizes]
        size = result.size or sizes[0]
        if size not in sizes and not _multiple(size, card.multiple):
            other = f", or sides that are multiples of {card.multiple}" if card.multiple else ""
            raise InvalidInput("size", size, f"one of {', '.join(map(str, sizes))}{other} for model {card.name}")
        layout = layout_of(card, size)
        if layout.factor > 1:
            find(card.upscaler, "image")
        guidance = 1.0 if result.guidance is None else result.guidance
        result = result.model_copy(update={"size": size, "guidance": guidance})
        styles = card.conditioners.get("style", [])
        if result.style is not None and result.style not in styles:
            known = f"one of {', '.join(styles)}" if styles else "none"
            raise InvalidInput("style", result.style, f"{known} for model {card.name}")
        room = (min(layout.width, layout.height) - LEAST_SIDE) // 2
        if result.expand > room:
            raise InvalidInput("expand", result.expand, f"at most {room} for a picture of {result.size} pixels")
        return result

    @property
    def places(self) -> list[float]:
        """How far towards the second prompt and seed each item is; empty where there is neither."""
        if self.morph is None and self.seed_to is None:
            return []
        if self.blend is not None:
            return [self.blend] * self.count
        return [number / (self.count - 1) for number in range(self.count)] if self.count > 1 else [0.5]

    def item(self, number: int) -> dict[str, Any]:
        """What makes item ``number`` alone; of items on the way to another prompt or seed, its place on it."""
        if self.places and self.blend is None:
            return {"seed": self.seed, "count": 1, "blend": self.places[number]}
        return super().item(number)

    def check_format(self, format: Format) -> None:
        """Raise `InvalidInput` if the background needs what ``format`` has not."""
        if self.background == "transparent" and format.media_type == "image/jpeg":
            raise no_transparency(format)

    def _suits(self, card: ModelCard) -> None:
        """Refuse what the model of ``card`` cannot do, whatever else is asked for."""
        if not card.sizes or "low" in card.conditioners:
            raise InvalidInput("model", card.name, "a model that draws by itself")
        if self.background != "white" and channels_of(card) < 4:
            raise InvalidInput("background", self.background, f"white: model {card.name} has no transparency")
        for name in ("prompt", "negative", "morph") if card.checkpoint is None else ():
            if len(getattr(self, name) or "") > OWN_LETTERS:
                raise InvalidInput(name, getattr(self, name), f"at most {OWN_LETTERS} characters for model {card.name}")
        if "prompt" not in card.conditioners:
            class_of(card, "prompt", self.prompt)
            class_of(card, "negative", self.negative or None)
            for name in ("morph", "like"):
                if getattr(self, name) is not None:
                    raise InvalidInput(name, getattr(self, name), f"none: model {card.name} takes no sentences")
        beside = () if card.sheet else ("control", "like", "lora")
        for name in ("image", "morph", "seed_to", *beside) if self.seamless else ():
            if getattr(self, name):
                raise InvalidInput("seamless", True, f"no {name} as well: a tile is drawn from its prompt and seed")

    def _between(self) -> Self:
        """The same request, its prompts and what lies between them checked."""
        weighed = read_prompt(self.prompt or "")
        if self.morph is not None and self.prompt is None:
            raise InvalidInput("morph", self.morph, "a prompt as well, to begin with")
        if self.morph is not None and weighed.parts:
            raise InvalidInput("morph", self.morph, "a prompt without weights to begin with")
        if self.blend is not None and not self.places:
            raise InvalidInput("blend", self.blend, "a second prompt (morph) or seed (seed_to) as well")
        return self

    def _beside(self, card: ModelCard) -> Self:
        """The same request with the adapters that it means, each with its hash."""
        changes: dict[str, Any] = {"lora": resolved_lora(self.lora, card)}
        kind = next(iter(self.control), None)
        for name in ("control_strength", "control_model") if kind is None else ():
            if getattr(self, name) is not None:
                raise InvalidInput(name, getattr(self, name), "a control as well")
        if self.like is None and self.like_model is not None:
            raise InvalidInput("like_model", self.like_model, "a picture as like as well")
        if kind is not None:
            reader = reader_of("control_model", self.control_model, card, "control", kind)
            changes["control_strength"] = 1.0 if self.control_strength is None else self.control_strength
            changes["control_model"] = written(reader)
        if self.like is not None:
            changes["like_model"] = written(reader_of("like_model", self.like_model, card, "like"))
        return self.model_copy(update=changes)

    def _begun(self, card: ModelCard) -> Self:
        """The same request with what follows from its image, if it has one."""
        if self.image is None:
            if self.prompt is None and self.like is None and "prompt" in card.conditioners:
                raise InvalidInput("prompt", None, "a value: it is required, unless there is an image, or a like")
            for name in ("strength", "mask"):
                if getattr(self, name) is not None:
                    raise InvalidInput(name, getattr(self, name), "an image as well")
            if self.expand:
                raise InvalidInput("expand", self.expand, "an image as well")
            return self
        painting = self.mask is not None or self.expand > 0
        usual = 1.0 if painting else VARIATION if self.prompt is None else STRENGTH
        strength = usual if self.strength is None else self.strength
        changes: dict[str, Any] = {"strength": strength}
        if strength < 1 and self.sampler == CALIBRATED:
            raise InvalidInput("sampler", CALIBRATED, "another: a calibrated plan begins at noise, not at an image")
        if self.sampler is None and (painting or strength < 1):
            changes |= {"sampler": card.defaults.get("sampler"), "steps": self.steps or card.defaults.get("steps")}
        return self.model_copy(update=changes)


def _multiple(size: Size, step: int) -> bool:
    """Whether both sides are multiples of ``step``; of 0 nothing is."""
    return step > 0 and all(side % step == 0 for side in pair(size))


def no_transparency(format: Format) -> InvalidInput:
    """What is wrong with a transparent picture in ``format``."""
    return InvalidInput("format", format.name, "png or webp: JPEG has no transparency")


modality = Modality(
    name="image",
    title="Image",
    summary="Pictures from a prompt, or from a picture.",
    parameters=ImageParameters,
    view=View.IMAGE,
    formats=(
        Format("png", "image/png"),
        Format("webp", "image/webp"),
        Format("jpg", "image/jpeg"),
        Format("jpeg", "image/jpeg"),
    ),
    runtime="perrin_image.runtime:ImageRuntime",
    default_model="emoji-64",
    package="perrin_image",
    examples=(
        {"prompt": "a red apple", "seed": 7},
        {"prompt": "rocket", "seed": 7},
        {"prompt": "smiling face with sunglasses", "seed": 7},
        {"prompt": "blue fish", "seed": 7},
        {"prompt": "pizza", "seed": 7},
        {"prompt": "snowman", "seed": 7},
    ),
)
