"""The model card: what a model is, where it came from, how it is sampled, and the hash of every file of it."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from perrin.errors import ModelError

__all__ = ["CALIBRATED", "FILE", "Attribution", "Checkpoint", "ModelCard", "file_hash", "read_card", "write_card"]

CARD = "card.yaml"

FILE = re.compile(r"([a-z0-9][a-z0-9_]{0,49}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(safetensors|json|txt|model|jinja)")
"""Names that a model's files may have, in its folder or in that of a part: numbers and words, nothing that runs."""

CARD_BYTES = 1 << 20
"""No card is longer."""

CALIBRATED = "calibrated"
"""The name by which a request asks for a calibrated plan, where others name a sampler."""


class Attribution(BaseModel):
    """Something the model was made from, with the line that its licence asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    licence: str
    line: str = ""


class Checkpoint(BaseModel):
    """That a model is somebody else's checkpoint, whose parts are networks of diffusers and transformers.

    Attributes:
        family: a key of `perrin.models.checkpoints.families.FAMILIES`; of an adapter, that of its base.
        parts: the class of each part that has weights, by the folder that it is in.
        dtype: that the weights are stored in.
        options: what else the family has to know: numbers and switches from its index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    parts: dict[str, str] = {}
    dtype: str = "float32"
    options: dict[str, Any] = {}


class ModelCard(BaseModel):
    """``card.yaml``, checked.

    Attributes:
        base: the model that an adapter or a learnt word belongs to.
        defaults: the request parameters a model is best with (steps, sampler, guidance, ...).
        architecture: constructor arguments of each network, by the name of its safetensors file.
        grid: how times are spaced: arguments of the grid that the modality samples on, such as ``shift``.
        process: the forward process and its arguments, see `perrin.diffusion.process.from_config`.
        upscaler: the model that makes its results larger, where it lists sizes that it does not make itself.
        image: the image model whose network it works with, where it has none of its own.
        sheet: it draws one thing in a square; of other shapes, what lies beside the square is empty.
        multiple: sizes that are not listed will do too, where both sides are multiples of this; 0: they will not.
        checkpoint: where the model's networks are not Perrin's own, whose they are.
        files: SHA-256 of every weight file and calibrated plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    modality: str
    base: str = ""
    title: str
    summary: str = ""
    licence: str
    attributions: tuple[Attribution, ...] = ()
    architecture: dict[str, dict[str, Any]] = {}
    process: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    prediction: str = ""
    conditioners: dict[str, Any] = {}
    sizes: tuple[tuple[int, int], ...] = ()
    upscaler: str = ""
    multiple: int = Field(0, ge=0)
    image: str = ""
    sheet: bool = False
    checkpoint: Checkpoint | None = None
    defaults: dict[str, Any] = {}
    data: dict[str, Any] = {}
    recipe: str = ""
    metrics: dict[str, Any] = {}
    files: dict[str, str] = {}

    folder: Path = Field(default=Path(), exclude=True)
    """Where the card was read from."""

    @field_validator("files")
    @classmethod
    def _plain(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if not FILE.fullmatch(name):
                raise ValueError(f"{name[:60]!r} is not the name of a file in the model's own folder")
        return files

    @property
    def sha256(self) -> str:
        """One hash for the whole model: over the names and hashes of its files, in order."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def plans(self) -> tuple[int, ...]:
        """The numbers of steps that this model has calibrated plans for, see `perrin.models.plans`."""
        found = (re.fullmatch(r"plan-(\d+)\.json", name) for name in self.files)
        return tuple(sorted(int(match[1]) for match in found if match))

    @property
    def preferred(self) -> dict[str, Any]:
        """What a request gets that says nothing: the defaults, and the calibrated plan where there is one."""
        return {**self.defaults, "sampler": CALIBRATED, "steps": self.plans[-1]} if self.plans else dict(self.defaults)

    def path(self, name: str) -> Path:
        """Where one of the model's files is, checked against its hash; once, while the file does not change.

        Raises:
            ModelError: it is missing, or not the file that the card describes.
        """
        path = self.folder / name
        try:
            stat = path.lstat()
        except OSError:
            raise ModelError(f"model {self.name}: {name} is missing from {self.folder}") from None
        if not path.is_file() or path.is_symlink() or path.parent.is_symlink():
            raise ModelError(f"model {self.name}: {name} is a link; a model's files lie in its own folder")
        if self.files.get(name) != _hashed(path, stat.st_ino, stat.st_size, stat.st_mtime_ns):
            raise ModelError(f"model {self.name}: {name} is not the file that its card describes; install it again")
        return path

    def read(self, name: str) -> bytes:
        """One of the model's files, checked against its hash: what is hashed is what is returned.

        Raises:
            ModelError: it is missing, or not the file that the card describes.
        """
        path = self.folder / name
        try:
            if path.is_symlink():
                raise ModelError(f"model {self.name}: {name} is a link; a model's files lie in its own folder")
            data = path.read_bytes()
        except OSError:
            raise ModelError(f"model {self.name}: {name} is missing from {self.folder}") from None
        if self.files.get(name) != hashlib.sha256(data).hexdigest():
            raise ModelError(f"model {self.name}: {name} is not the file that its card describes; install it again")
        return data


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=256)
def _hashed(path: Path, inode: int, size: int, changed: int) -> str:
    """The hash of a file as it stood then."""
    return file_hash(path)


def read_card(folder: Path) -> ModelCard:
    """The card in ``folder``.

    Raises:
        ModelError: there is none, or it is not a card; names the field.
    """
    path = folder / CARD
    try:
        if path.stat().st_size > CARD_BYTES:
            raise ModelError(f"{path} has {path.stat().st_size >> 10} KiB: no card is longer than {CARD_BYTES >> 10}")
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no model: {CARD} is missing") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} is not a model card: expected fields, got {type(values).__name__}")
    try:
        return ModelCard.model_validate({**values, "folder": folder})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ModelError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def write_card(card: ModelCard, folder: Path) -> ModelCard:
    """Write ``card`` into ``folder``, with the present hash of every weight file and calibrated plan there."""
    found = sorted([*folder.glob("*.safetensors"), *folder.glob("plan-*.json")])
    if card.checkpoint is not None:
        found += sorted(path for path in folder.glob("*/*") if FILE.fullmatch(f"{path.parent.name}/{path.name}"))
    for path in found:
        path.chmod(0o644)  # safetensors writes for the owner alone
    files = {path.relative_to(folder).as_posix(): file_hash(path) for path in found}
    card = card.model_copy(update={"files": files, "folder": folder})
    text = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    temporary = folder / (CARD + ".part")
    temporary.write_text(text)
    temporary.replace(folder / CARD)
    return card
