"""Checkpoints by their id on the Hugging Face hub, such as ``owner/name``: fetched into the hub's own cache.

The hub's client does the fetching, with its own settings and its own token (``HF_TOKEN``, ``hf auth login``); nothing
of it is kept here. Perrin never needs the hub: whatever a folder holds can be added from that folder.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perrin.errors import ModelError, NotInstalled, Unreachable

__all__ = ["fetched", "is_hub_id", "wanted"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")

WORDS = (".json", ".txt", ".model", ".jinja")
NUMBERS = (".safetensors", ".bin")
SKIPPED = ("safety_checker/", "feature_extractor/", "image_encoder/")
_VARIANT = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?P<variant>\.[a-z0-9_]+)?(?:-\d{5}-of-\d{5})?\.\w+"
)


def wanted(files: Sequence[str], variant: str | None = None) -> list[str]:
    """Which files of a checkpoint are fetched: descriptions, words and licences, and of each part's weights one set.

    Args:
        files: all that there are, with their folders.
        variant: of weights, such as fp16; None takes the plain ones, or whatever there is.
    """
    whole = "model_index.json" in files
    found = [
        name
        for name in files
        if not name.startswith(SKIPPED) and (name.endswith(WORDS) or name.startswith(("README", "LICEN")))
    ]
    folders: dict[str, list[str]] = {}
    for name in files:
        folder, _, _ = name.rpartition("/")
        if name.endswith(NUMBERS) and not name.startswith(SKIPPED) and (folder or not whole):
            folders.setdefault(folder, []).append(name)
    for names in folders.values():
        safe = [name for name in names if name.endswith(".safetensors")] or names
        sets: dict[str, list[str]] = {}
        for name in safe:
            match = _VARIANT.fullmatch(name.rpartition("/")[2])
            sets.setdefault((match["variant"] or "").strip(".") if match else "", []).append(name)
        chosen = variant if variant in sets else ""
        found += sets.get(chosen, safe)
    return found


def is_hub_id(text: str) -> bool:
    """Whether ``text`` could be an id, and is nothing on this machine."""
    return bool(_ID.fullmatch(text)) and not Path(text).exists()


def fetched(name: str, variant: str | None = None) -> Path:
    """The folder with the files of ``name``, fetched unless they are there.

    Raises:
        NotInstalled: the hub's client is missing.
        ModelError: there is no such checkpoint, or it is gated and the token does not open it.
        Unreachable: there is no network; says how else to get the files.
    """
    other = (
        f"on a machine that has a network, `hf download {name} --local-dir FOLDER` gets the files; "
        "copy the folder here, then `perrin models add FOLDER`"
    )
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        errors: Any = importlib.import_module("huggingface_hub.errors")
    except ModuleNotFoundError:
        raise NotInstalled("fetching a checkpoint from the hub", "hub") from None
    try:
        try:
            return Path(hub.snapshot_download(name, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
                raise Unreachable(f"{name} is not in the hub's cache, and HF_HUB_OFFLINE is set; {other}") from None
        files = wanted(hub.HfApi().list_repo_files(name), variant)
        return Path(hub.snapshot_download(name, allow_patterns=files))
    except errors.GatedRepoError:
        raise ModelError(
            f"{name} is gated: accept its terms on its page, and give the hub a token for it (`hf auth login`)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"{name} is no file here and no model on the hub, or one that needs a token") from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, RuntimeError) as error:
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(f"{name} cannot be fetched from the hub ({type(error).__name__}); {other}") from None
