"""Reads the parts of a checkpoint: networks of diffusers and transformers from a model's own folder. Imports torch.

Nothing is looked up elsewhere, only safetensors are read, and a class that is not on our list
(`perrin.models.checkpoints.families.PARTS`) is not imported; so no code of a checkpoint's runs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perrin.errors import ModelError, NotInstalled
from perrin.models.card import ModelCard
from perrin.models.checkpoints.families import library_of

__all__ = ["DTYPES", "class_of", "dtype_for", "load_part", "load_tokenizer", "quietly"]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps the libraries' notes to themselves: about what is deprecated inside them, and progress bars."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("diffusers", "transformers"):  # each sets its own level when it is first imported
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{name}.utils.logging").get_verbosity()
        loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def class_of(kind: str, shown: str) -> Any:
    """The class called ``kind``.

    Raises:
        ModelError: it is not on the list.
        NotInstalled: the library that has it is missing.
    """
    library = library_of(kind, shown)
    try:
        with quietly():
            return getattr(importlib.import_module(library), kind)
    except (ModuleNotFoundError, AttributeError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) or "No module named" in str(error):
            raise NotInstalled(f"a checkpoint with a {kind}", "hub") from None
        raise ModelError(f"{shown}: the installed {library} has no {kind}; a newer one may") from None


def dtype_for(card: ModelCard, device: str, short: bool = False) -> torch.dtype:
    """What the networks compute in: as stored on an accelerator, and where memory is short; on a CPU float32.

    A CPU has no arithmetic in float16, so that bfloat16 stands for it there.
    """
    stored = DTYPES[card.checkpoint.dtype if card.checkpoint else "float32"]
    if device != "cpu":
        return stored
    return torch.float32 if not short or stored is torch.float32 else torch.bfloat16


def load_part(card: ModelCard, part: str, device: str, dtype: torch.dtype) -> nn.Module:
    """The part called ``part``, in evaluation mode.

    Raises:
        ModelError: its files are missing or changed, or do not fit its own description.
    """
    assert card.checkpoint is not None
    shown = f"model {card.name}: {part}"
    kind = class_of(card.checkpoint.parts[part], shown)
    for name in card.files:
        if name.startswith(f"{part}/"):
            card.path(name)
    try:
        with quietly(), _silent():
            network: nn.Module
            network, notes = kind.from_pretrained(
                str(card.folder / part), local_files_only=True, use_safetensors=True, torch_dtype=dtype,
                output_loading_info=True, **_given(kind),
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"{shown} cannot be read: {' '.join(str(error).split())[:200]}") from None
    missing = sorted(notes.get("missing_keys", ()))
    if missing:
        raise ModelError(f"{shown} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    return network.to(device).eval().requires_grad_(False)


def _given(kind: Any) -> dict[str, Any]:
    return {"low_cpu_mem_usage": True} if kind.__module__.startswith("diffusers") else {}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No progress bars of transformers."""
    try:
        logs = importlib.import_module("transformers.utils.logging")
    except ModuleNotFoundError:
        yield
        return
    shown = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logs.enable_progress_bar()


def load_tokenizer(card: ModelCard, part: str) -> Any:
    """The vocabulary in the folder ``part``.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    folder = card.folder / part
    for name in card.files:
        if name.startswith(f"{part}/"):
            card.path(name)
    try:
        with quietly():
            auto = importlib.import_module("transformers").AutoTokenizer
            return auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except ModuleNotFoundError:
        raise NotInstalled("a checkpoint's tokenizer", "hub") from None
    except Exception as error:  # tokenizers raise anything at all for a broken file
        raise ModelError(f"model {card.name}: {part} cannot be read: {' '.join(str(error).split())[:200]}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a part, or ``scheduler_config.json``."""
    for name in ("config.json", "scheduler_config.json"):
        if (folder / name).is_file():
            found: dict[str, Any] = json.loads((folder / name).read_text())
            return found
    return {}
