"""The plugin contract: what a modality declares, so that the platform does the rest.

A modality has two halves. Its *face* (`Modality`, `Parameters`) is read by the command line, the SDK, the gateway and
the dashboard, and imports no torch. Its *runtime* (`Runtime`) is loaded by name where jobs run.

A distribution offers a modality under the entry point group ``perrin.modalities``::

    [project.entry-points."perrin.modalities"]
    image = "perrin_image:modality"
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core.core_schema import ErrorType

from perrin.errors import InvalidInput
from perrin.inputs import declares

if TYPE_CHECKING:
    from perrin.diffusion.sampling import Run
    from perrin.inputs import InputFile
    from perrin.models.card import ModelCard

__all__ = ["Format", "Modality", "Parameters", "Runtime", "View", "validate"]

SEED_LIMIT = 2**53
"""Seeds stay below this, so that JSON readers that know only doubles keep them exact."""


class View(enum.StrEnum):
    """How a result is shown. The dashboard knows these, and no modality."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    POINTS = "points"
    MESH = "mesh"
    MOLECULE = "molecule"
    TABLE = "table"
    FILE = "file"


@dataclass(frozen=True)
class Format:
    """A file format that results are written in.

    Attributes:
        name: what a person writes after the dot, such as ``png``.
        media_type: its MIME type.
        many: one file holds all items of a request (an SDF does, a PNG does not).
    """

    name: str
    media_type: str
    many: bool = False


class Parameters(BaseModel):
    """What a person can ask of every modality; each adds its own fields.

    The HTTP schema, the command line's options, the SDK's signature and the dashboard's form are all made from the
    subclass. None means: the model's own default, from its card. `validate` fills every None in, so that a job's
    stored parameters alone reproduce it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    model: str | None = Field(None, max_length=200, title="Model", description="Name of the model.")
    seed: int | None = Field(
        None, ge=0, lt=SEED_LIMIT, title="Seed", description="Item i uses seed + i. Left out: drawn and recorded."
    )
    count: int = Field(1, ge=1, le=64, title="Count", description="How many items to make.")
    steps: int | None = Field(None, ge=1, le=1000, title="Steps", description="Sampler steps.")
    sampler: str | None = Field(None, max_length=64, title="Sampler", description="Sampler, by its name.")
    guidance: float | None = Field(None, ge=0, le=30, title="Guidance", description="Guidance scale; 1 is none.")
    strict: bool = Field(False, title="Strict", description="Computed alone: the same bits, whatever runs beside it.")

    def resolved(self, card: ModelCard) -> Self:
        """The same request with every default of ``card`` written out and every name checked.

        Where neither sampler nor steps say otherwise, a model's calibrated plan is its default.

        Args:
            card: the model's card.

        Raises:
            InvalidInput: naming the field and what this model allows.
        """
        from perrin.models.plans import CALIBRATED, check_steps  # NumPy, kept out of start-up

        fits = self.steps in (None, *card.plans) if self.sampler is None else self.sampler == CALIBRATED
        defaults = card.preferred if fits else card.defaults
        changes: dict[str, Any] = {"model": card.name}
        for name, value in defaults.items():
            if name in type(self).model_fields and getattr(self, name) is None:
                changes[name] = value
        if self.seed is None:
            changes["seed"] = secrets.randbelow(2**31)
        result = self.model_copy(update=changes)
        if result.sampler is not None and result.steps is not None:
            check_steps(card, result.sampler, result.steps)
        return result

    def item(self, number: int) -> dict[str, Any]:
        """What to change in resolved parameters so that they make item ``number`` alone."""
        return {"seed": (self.seed or 0) + number, "count": 1}

    def check_format(self, format: Format) -> None:
        """Raise `InvalidInput` where what is asked for cannot be written as ``format``; called before anything runs."""


@dataclass(frozen=True)
class Modality:
    """The face of a modality: everything that clients need, and no torch.

    Attributes:
        name: one word, lower case: ``image``.
        title: what a person reads: ``Image``.
        summary: one line for help pages.
        parameters: the pydantic model of a request.
        view: how results are shown.
        formats: what results can be written as; the first is the default.
        runtime: ``"package.module:Class"`` of the `Runtime`, imported only where jobs run.
        default_model: name of the model used when a request names none.
        package: import name of the package that holds ``weights/`` and ``recipes/``.
        examples: prompts to show a newcomer and to run in the demo.
    """

    name: str
    title: str
    summary: str
    parameters: type[Parameters]
    view: View
    formats: tuple[Format, ...]
    runtime: str
    default_model: str
    package: str
    examples: tuple[Mapping[str, Any], ...] = ()

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """JSON schema of the parameters as declared, whatever is installed here; says which of them take files."""
        return _schema(self.parameters)

    @property
    def takes_files(self) -> bool:
        """Whether any parameter takes a file (`perrin.inputs.Input`); its runtime is handed them then."""
        return _takes_files(self.parameters)

    def schema(self) -> dict[str, Any]:
        """JSON schema of the parameters, for forms and command lines, with what is installed here.

        ``model`` and ``sampler`` list what there is to choose from; so does ``size``, the default model's first; and so
        does whatever the default model's card says of its conditioners (drawing styles, ...), where a parameter has
        that name.
        """
        from perrin.diffusion.solvers import SOLVERS
        from perrin.models import models
        from perrin.models.plans import CALIBRATED

        cards = {name: card for name, card in models().items() if card.modality == self.name and not card.base}
        calibrated = [CALIBRATED] if any(card.plans for card in cards.values()) else []
        helpers = {card.upscaler for card in cards.values()}  # what only serves others is nothing to choose
        choices: dict[str, list[Any]] = {
            "model": [name for name in cards if name not in helpers],
            "sampler": [*calibrated, *SOLVERS],
        }
        card = cards.get(self.default_model)
        if card is not None:
            choices |= {k: v for k, v in card.conditioners.items() if isinstance(v, list)}
            sides = [side for one in (card, *(cards[name] for name in choices["model"])) for side in one.sizes]
            choices["size"] = [side[0] if len(set(side)) == 1 else "x".join(map(str, side)) for side in sides]
            choices["size"] = list(dict.fromkeys(choices["size"]))
        schema = self.parameters.model_json_schema()
        for name, field in schema["properties"].items():
            if choices.get(name) and "enum" not in field:
                field["choices"] = choices[name]
        return schema

    def format(self, name: str) -> Format:
        """The format called ``name`` (``png`` or ``.png``).

        Raises:
            InvalidInput: with the formats there are.
        """
        wanted = name.lower().removeprefix(".")
        for item in self.formats:
            if item.name == wanted:
                return item
        raise InvalidInput("format", name, "one of " + ", ".join(f.name for f in self.formats))


@lru_cache(maxsize=64)
def _schema(parameters: type[Parameters]) -> Mapping[str, Any]:
    return parameters.model_json_schema()


@lru_cache(maxsize=64)
def _takes_files(parameters: type[Parameters]) -> bool:
    return bool(declares(_schema(parameters)))


class Runtime(Protocol):
    """One model on one device. The engine calls these in this order; each call is one stage of a job.

    The rows of its runs share network calls with those of other requests where their denoiser is the same object, so a
    runtime makes it once. A runtime whose network reads a mask may say which axes of a field ('' for a plain tensor)
    may be padded, as an attribute ``padding = {"positions": (1,), "bonds": (1, 2)}``: requests of about one length then
    share calls too, the mask being that of the `perrin.diffusion.state.Fields`, or the condition ``mask`` (B, N).

    One that can leave a model's weights in their files has a class method ``load_streamed(card, device)``, called where
    they do not fit into memory; it returns None for a model with which it cannot.

    One whose results come from other models as well may have a method ``also(parameters)``: the hashes of those, by
    name. They are written down with each result, under ``models``.
    """

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the model that ``card`` describes onto ``device``."""
        ...

    def start(self, parameters: Any, *inputs: Mapping[str, InputFile]) -> Run:
        """Encode the conditions of resolved ``parameters`` and set the sampler up, at its first row.

        Where the modality declares parameters that take files (`perrin.inputs.Input`), this and `decode` are called
        with one more argument: the files that were given, by their places in the parameters. One that cannot be read
        raises `perrin.errors.InvalidInput`.
        """
        ...

    def preview(self, clean: Any) -> bytes | None:
        """A small PNG of the current clean estimate, cheap enough to make while sampling, or None."""
        ...

    def decode(self, clean: Any, parameters: Any, *inputs: Mapping[str, InputFile]) -> Iterable[Any]:
        """The results, one per item, from the sampler's clean output.

        Where each takes long, an iterator that makes one when it is asked: the engine asks for one a tick, so that a
        request can be cancelled between them and nobody waits for all of them.
        """
        ...

    def check(self, result: Any) -> None:
        """Raise `perrin.errors.Degenerate` if ``result`` is empty, constant or not finite."""
        ...

    def export(self, results: Sequence[Any], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One file in ``format`` that holds ``results`` and ``metadata``; the same input gives the same bytes."""
        ...


Progress = Callable[[int, int, str], None]
"""Called with (done, total, label) by whatever takes long."""


def validate(modality: Modality, values: Mapping[str, Any]) -> Parameters:
    """``values`` as the modality's parameters.

    Raises:
        InvalidInput: for the first field that is wrong, with its range in words.
    """
    try:
        return modality.parameters.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part != "[key]") or modality.name
        if first["type"] == "extra_forbidden":
            known = ", ".join(modality.parameters.model_fields)
            raise InvalidInput(field, first["input"], f"no such parameter; {modality.name} takes {known}") from None
        if first["type"] == "missing":
            raise InvalidInput(field, None, "a value: it is required") from None
        own = first["type"] not in get_args(ErrorType)  # a validator of the modality's said it in its own words
        said = first["msg"] if own else _in_words(modality, field, first["msg"])
        raise InvalidInput(field, first["input"], said) from None


def _in_words(modality: Modality, field: str, message: str) -> str:
    """The allowed range of ``field`` where the schema states one, else pydantic's sentence."""
    schema = modality.parameters.model_json_schema()["properties"].get(field.split(".")[0], {})
    for part in (schema, *schema.get("anyOf", ())):
        low = part.get("minimum", part.get("exclusiveMinimum"))
        high = part.get("maximum", part.get("exclusiveMaximum"))
        kind = {"integer": "an integer", "number": "a finite number"}.get(part.get("type", ""), "a value")
        if low is not None and high is not None:
            below = "below" if "exclusiveMaximum" in part else "at most"
            return f"{kind} of at least {low} and {below} {high}"
        if "minimum" in part and high is None:
            return f"{kind} of at least {low}"
        if part.get("type") == "string" and "maxLength" in part:
            return f"{part.get('minLength', 0)} to {part['maxLength']} characters"
        if "enum" in part:
            return "one of " + ", ".join(map(str, part["enum"]))
    return message[:1].lower() + message[1:]
