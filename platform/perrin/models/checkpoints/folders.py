"""Looks at a folder as diffusers writes it: what family it is, which files its parts have. No torch, nothing is read
but descriptions and headers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perrin.errors import ModelError
from perrin.models.card import FILE
from perrin.models.checkpoints.families import FAMILIES, Family, family_of, library_of
from perrin.models.checkpoints.headers import Entry, precision_of, read_header

__all__ = ["Part", "Pipeline", "look_at_part", "look_at_pipeline", "look_at_vocabulary", "read_json"]

INDEX = "model_index.json"
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model|diffusion_flax_model)(?P<rest>.*)"
    r"\.(?P<ending>safetensors|bin|safetensors\.index\.json|bin\.index\.json)"
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")
_JSON_MOST = 16 << 20
VOCABULARY = ("json", "txt", "model", "jinja")


@dataclass(frozen=True)
class Part:
    """One part of a checkpoint.

    Attributes:
        kind: its class; empty for a vocabulary.
        files: what is copied, by the name it gets.
        pickles: what is read by the restricted reader and written anew.
        renamed: files that are written anew, with their text: an index of shards whose names have changed.
        tensors: what its safetensors hold.
        precision: the one type of its numbers; empty where it is not known yet.
        description: of one that comes without a config.json.
    """

    kind: str
    files: Mapping[str, Path]
    pickles: tuple[Path, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, Entry] = field(default_factory=dict)
    precision: str = ""
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(path.stat().st_size for path in (*self.files.values(), *self.pickles))


@dataclass(frozen=True)
class Pipeline:
    """A checkpoint in a folder."""

    family: Family
    parts: Mapping[str, Part]
    scheduler: Mapping[str, Any]
    options: Mapping[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file.

    Raises:
        ModelError: it is missing, too long, or none.
    """
    try:
        if path.stat().st_size > _JSON_MOST:
            raise ModelError(f"{path.name} has {path.stat().st_size >> 20} MiB: no description is so long")
        found = json.loads(path.read_text())
    except OSError:
        raise ModelError(f"{path.parent.name}/{path.name} is missing") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.parent.name}/{path.name} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path.parent.name}/{path.name} is no description: wanted an object")
    return found


def look_at_pipeline(folder: Path, variant: str | None, given: Mapping[str, Path], mixed: bool = False) -> Pipeline:
    """What is in a folder with ``model_index.json``.

    Args:
        folder: as diffusers saves a pipeline.
        variant: of its weights, such as fp16; None takes the plain ones, or the only ones there are.
        given: parts that lie elsewhere, by name.
        mixed: parts may mix precisions, for they are made one.

    Raises:
        ModelError: it is of no known family, or a part is missing or broken.
    """
    index = read_json(folder / INDEX)
    family = family_of(str(index.get("_class_name", "")), folder.name, index)
    if family.name == "sd" and "motion_adapter" in given:
        family = FAMILIES["animatediff"]
    parts: dict[str, Part] = {}
    for name in (*family.parts, *family.tokenizers):
        place = given.get(name, folder / name)
        if not place.is_dir():
            if name in family.may or _optional(name, family, index):
                continue
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "nothing"
            raise ModelError(
                f"{folder.name} lacks {name}, a part that {family.title} needs (there: {there}); "
                f"fetch the whole folder, or say where it is with --part {name}=FOLDER"
            )
        listed = index.get(name)
        named = str(listed[1]) if isinstance(listed, list) and len(listed) == 2 and listed[1] else ""
        parts[name] = (
            look_at_vocabulary(place) if name in family.tokenizers else look_at_part(place, variant, named, mixed)
        )
    scheduler = read_json(given.get("scheduler", folder / "scheduler") / "scheduler_config.json")
    options = {key: value for key, value in index.items() if not key.startswith("_") and not isinstance(value, list)}
    return Pipeline(family, parts, scheduler, options)


def _optional(name: str, family: Family, index: Mapping[str, Any]) -> bool:
    """A vocabulary whose encoder the family can do without."""
    return name in family.tokenizers and name.replace("tokenizer", "text_encoder") in family.may


def look_at_vocabulary(folder: Path) -> Part:
    """The words of an encoder in a folder.

    Raises:
        ModelError: there are none.
    """
    files = {path.name: path for path in sorted(folder.iterdir()) if path.name.split(".")[-1] in VOCABULARY}
    files = {name: path for name, path in files.items() if FILE.fullmatch(name)}
    if not any(name in files for name in ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")):
        raise ModelError(f"{folder.name} holds no vocabulary: wanted tokenizer.json, vocab.json or spiece.model")
    return Part("", files)


def look_at_part(folder: Path, variant: str | None, named: str = "", mixed: bool = False) -> Part:
    """What is in the folder of one network.

    Raises:
        ModelError: it is of an unknown class, or its weights are missing, cut off, or of several precisions.
    """
    config = read_json(folder / "config.json")
    kind = str(config.get("_class_name") or next(iter(config.get("architectures") or ()), "") or named)
    library_of(kind, folder.name)
    by_variant = _weights(folder)
    if not by_variant:
        raise ModelError(f"{folder.name} has no weights: wanted safetensors beside its config.json")
    chosen = _variant(by_variant, variant, folder.name)
    listed = by_variant[chosen]
    safe = [path for path in listed if path.name.endswith(".safetensors")]
    files: dict[str, Path] = {"config.json": folder / "config.json"}
    extra = folder / "generation_config.json"
    if extra.is_file():
        files[extra.name] = extra
    if not safe:
        pickles = tuple(path for path in listed if path.name.endswith(".bin"))
        _all_shards(folder, pickles)
        return Part(kind, files, pickles)
    _all_shards(folder, tuple(safe))
    tensors: dict[str, Entry] = {}
    for path in safe:
        tensors |= read_header(path)
    stem = "diffusion_pytorch_model" if library_of(kind, folder.name) == "diffusers" else "model"
    names = {path.name: _plain(path.name, stem) for path in safe}
    files |= {names[path.name]: path for path in safe}
    renamed = {}
    if len(safe) > 1:
        weights = {name: names[path.name] for path in safe for name in read_header(path)}
        table = {"metadata": {"total_size": sum(p.stat().st_size for p in safe)}, "weight_map": weights}
        renamed[f"{stem}.safetensors.index.json"] = json.dumps(table)
    precision = "" if mixed else precision_of(tensors, folder.name)
    return Part(kind, files, (), renamed, tensors, precision)


def _weights(folder: Path) -> dict[str, list[Path]]:
    """Files of weights by variant, '' the plain one."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _WEIGHTS.fullmatch(path.name)
        if match is None or match["ending"].endswith("index.json") or "flax" in match["stem"]:
            continue
        variant = _SHARD.sub("", match["rest"]).strip(".").replace("non_ema", "non_ema")
        found.setdefault(variant, []).append(path)
    return found


def _variant(found: Mapping[str, list[Path]], wanted: str | None, shown: str) -> str:
    there = ", ".join(name or "plain" for name in found)
    if wanted is not None and wanted not in found:
        raise ModelError(f"{shown} has no variant {wanted[:40]!r}; it has {there}")
    if wanted is not None:
        return wanted
    if "" in found or len(found) == 1:
        return "" if "" in found else next(iter(found))
    raise ModelError(f"{shown} has the variants {there}: --variant chooses one")


def _all_shards(folder: Path, files: tuple[Path, ...]) -> None:
    """Raise `ModelError` unless every shard is there that the others count."""
    numbers = [match for match in (_SHARD.search(path.name) for path in files) if match]
    if not numbers:
        return
    total = int(numbers[0][2])
    there = {int(match[1]) for match in numbers}
    gone = sorted(set(range(1, total + 1)) - there)
    if gone:
        raise ModelError(f"{folder.name} lacks shard {gone[0]} of {total}; fetch the whole folder")


def _plain(name: str, stem: str) -> str:
    """The name under which a library looks for a file of the plain variant."""
    shard = _SHARD.search(name)
    return f"{stem}{shard[0] if shard else ''}.safetensors"
