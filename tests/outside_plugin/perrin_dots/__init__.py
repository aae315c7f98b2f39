"""The face of ``dots``: noise that contracts to discs, in NumPy alone."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field

from perrin.inputs import Input
from perrin.modality import Format, Modality, Parameters, View

__all__ = ["DotsParameters", "modality"]


class DotsParameters(Parameters):
    """What a person can ask of ``dots``; the last four exist for tests of the platform."""

    prompt: str = Field("", max_length=200, title="Prompt", description="Only its length matters.")
    start: Annotated[str, Input("image/x-portable-graymap")] | None = Field(
        None, title="Start", description="A picture that shines through."
    )
    more: list[Annotated[str, Input("image/x-portable-*")]] = Field(
        [], max_length=3, title="More", description="Further pictures that shine through."
    )
    radius: int = Field(6, ge=1, le=16, title="Radius", description="Radius of the dot, in pixels.")
    delay: float = Field(0.0, ge=0, le=10, title="Delay", description="Seconds that each step takes.")
    slow: Literal["step", "encode", "decode", "write"] = Field(
        "step", title="Slow", description="The stage that takes the delay."
    )
    trouble: Literal["none", "crash", "fail", "degenerate", "memory", "hang"] = Field(
        "none", title="Trouble", description="What goes wrong, half-way."
    )
    once: str = Field("", max_length=500, title="Once", description="A file that ends the trouble by being there.")

    def linger(self, stage: str) -> None:
        """Take the delay, if it is this stage's."""
        if self.slow == stage and self.delay:  # libfaketime minds a sleep of nothing
            time.sleep(self.delay)


modality = Modality(
    name="dots",
    title="Dots",
    summary="Discs of a given radius.",
    parameters=DotsParameters,
    view=View.IMAGE,
    formats=(Format("pgm", "image/x-portable-graymap"), Format("txt", "text/plain; charset=utf-8", many=True)),
    runtime="perrin_dots.runtime:DotsRuntime",
    default_model="dots-1",
    package="perrin_dots",
    examples=({"prompt": "a dot", "radius": 5},),
)
