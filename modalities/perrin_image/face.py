"""The face of the image modality: what can be asked for. No torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator

from perrin.errors import InvalidInput
from perrin.modality import Format, Modality, Parameters, View
from perrin.models import ModelCard

__all__ = ["ImageParameters", "modality"]


class ImageParameters(Parameters):
    """A picture to be."""

    prompt: str = Field(min_length=1, max_length=300, title="Prompt", description="What to show, in English.")
    negative: str = Field("", max_length=300, title="Negative prompt", description="What to steer away from.")
    style: str | None = Field(None, max_length=40, title="Style", description="Drawing style, one the model knows.")
    size: int | None = Field(None, ge=16, le=4096, title="Size", description="Side of the picture, in pixels.")

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("a prompt of at least one word")
        return prompt.strip()

    def resolved(self, card: ModelCard) -> Self:
        """The same request with the model's defaults; checks that the model can do its size and style.

        Raises:
            InvalidInput: names the field and what this model allows.
        """
        result = super().resolved(card)
        sizes = [width for width, height in card.sizes if width == height]
        if result.size is None:
            result = result.model_copy(update={"size": sizes[0]})
        elif result.size not in sizes:
            raise InvalidInput("size", result.size, f"one of {', '.join(map(str, sizes))} for model {card.name}")
        styles = card.conditioners.get("style", [])
        if result.style is not None and result.style not in styles:
            raise InvalidInput("style", result.style, f"one of {', '.join(styles)} for model {card.name}")
        return result


modality = Modality(
    name="image",
    title="Image",
    summary="Pictures from a prompt.",
    parameters=ImageParameters,
    view=View.IMAGE,
    formats=(Format("png", "image/png"),),
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
