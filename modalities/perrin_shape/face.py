"""The face of the shape modality: what can be asked for. No torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue

from perrin.errors import InvalidInput
from perrin.inputs import Input
from perrin.modality import Format, Modality, Parameters, View
from perrin.models import ModelCard

__all__ = ["POINTS", "ShapeParameters", "modality"]

CLOUD: dict[str, JsonValue] = {"group": "From a shape"}
FILE: dict[str, JsonValue] = {"group": "The file"}

POINTS = 4096

STRENGTHS = {"vary": 0.6, "complete": 1.0, "upsample": 0.1}


class ShapeParameters(Parameters):
    """Shapes to be."""

    prompt: str | None = Field(
        None, max_length=300, title="Prompt", description="What it is, such as: a chair; brick 2 x 4; a potted plant."
    )
    negative: str = Field("", max_length=300, title="Negative prompt", description="What to go away from.")
    category: str | None = Field(
        None, max_length=60, title="Class", description="One of the model's classes, whatever the prompt says."
    )
    points: int | None = Field(
        None,
        ge=256,
        le=65536,
        title="Points",
        description="How many points the shape has. Left out: 4096, or twice as many as a given shape that is kept.",
    )
    image: Annotated[str, Input("image/*")] | None = Field(
        None, title="Picture", description="A view of it on white or nothing, from the side and a little above."
    )
    cloud: Annotated[str, Input("model/*", "text/plain", "application/octet-stream", "application/x-npy")] | None = (
        Field(
            None,
            title="Shape",
            json_schema_extra=CLOUD,
            description="Points or a mesh to begin with: PLY, OBJ, GLB, STL or XYZ. What lies within the unit ball "
            "stays where it is; else it is centred and scaled.",
        )
    )
    use: Literal["vary", "complete", "upsample"] | None = Field(
        None,
        title="Use",
        json_schema_extra=CLOUD,
        description="What to do with the shape: another like it; all of it, of which this is a part, kept point by "
        "point; or the same with more points, kept likewise. Left out: complete.",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Strength",
        json_schema_extra=CLOUD,
        description="How far to go from the shape: 0 keeps it, 1 forgets it. Left out: 0.6 to vary, 1 to complete, "
        "0.1 to upsample.",
    )
    mesh: Literal["auto", "poisson", "signed-distance"] = Field(
        "auto",
        title="Surface",
        json_schema_extra=FILE,
        description="What makes the mesh of an OBJ, GLB or STL: Poisson reconstruction, a signed distance, or the "
        "first, and the second where that fails.",
    )

    def resolved(self, card: ModelCard) -> Self:
        """The same request with the model's defaults; checks what does not go together.

        Raises:
            InvalidInput: names the field and what would do.
        """
        result = super().resolved(card)
        known = [str(name) for name in card.conditioners.get("category", ())]
        if result.category is not None and result.category not in known:
            raise InvalidInput("category", result.category, "one of " + ", ".join(known))
        if result.cloud is None:
            for name in ("use", "strength"):
                if getattr(result, name) is not None:
                    raise InvalidInput(name, getattr(result, name), "a shape as well (cloud)")
            if not result.prompt and result.category is None and result.image is None:
                raise InvalidInput(
                    "prompt", result.prompt, "what to make, a class, a picture, or a shape to begin with (cloud)"
                )
            return result.model_copy(update={"points": result.points or POINTS})
        use = result.use or "complete"
        strength = STRENGTHS[use] if result.strength is None else result.strength
        points = POINTS if use == "vary" and result.points is None else result.points
        return result.model_copy(update={"use": use, "strength": strength, "points": points})


modality = Modality(
    name="shape",
    title="3D shapes",
    summary="Point clouds and meshes from a caption, a picture, or a part of one.",
    parameters=ShapeParameters,
    view=View.MESH,
    formats=(
        Format("ply", "model/ply"),
        Format("obj", "model/obj"),
        Format("glb", "model/gltf-binary"),
        Format("stl", "model/stl"),
        Format("gif", "image/gif"),
        Format("png", "image/png"),
    ),
    runtime="perrin_shape.runtime:ShapeRuntime",
    default_model="bricks-and-furniture",
    package="perrin_shape",
    examples=(
        {"prompt": "a chair", "seed": 7},
        {"prompt": "brick 2 x 4", "seed": 7},
        {"prompt": "a lamp", "points": 8192, "seed": 7},
    ),
)
