"""Looks at files that add to what a checkpoint hears: textual inversions, and IP-Adapters. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from perrin.errors import ModelError
from perrin.models.card import Checkpoint, ModelCard
from perrin.models.checkpoints.adding import Options, Source, write_part
from perrin.models.checkpoints.folders import look_at_part, read_json

__all__ = ["is_inversion", "is_reader", "look_at_inversion", "look_at_reader"]

Fits = Callable[[ModelCard], Any]
Chosen = Callable[[Fits], tuple[ModelCard, Any]]
Carded = Callable[..., ModelCard]

_OTHER_NAMES = ("emb_params", "clip_l", "clip_g")
_VECTORS = 75


def is_inversion(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are a few vectors of words."""
    return len(tensors) <= 4 and all(
        t.dim() in (1, 2) and t.reshape(-1, t.shape[-1]).shape[0] <= _VECTORS for t in tensors.values()
    )


def look_at_inversion(
    path: Path, tensors: Mapping[str, Tensor], options: Options, chosen: Chosen, carded: Carded
) -> Source:
    """A word that was learnt; it is written in a prompt as the file calls it, or else as the model is called."""
    vectors = {name: t.float().reshape(-1, t.shape[-1]) for name, t in tensors.items() if t.is_floating_point()}
    inner = {
        name.removeprefix("string_to_param."): t for name, t in vectors.items() if name.startswith("string_to_param.")
    }
    vectors = {"emb_params": next(iter(inner.values()))} if inner else vectors
    if not vectors:
        raise ModelError(f"{path.name} holds no vectors of words")
    own = next((name for name in vectors if name not in _OTHER_NAMES), None)
    token = own if own is not None else f"<{re.sub(r'[^A-Za-z0-9_-]+', '-', path.stem)}>"

    def fits(card: ModelCard) -> dict[str, Tensor]:
        assert card.checkpoint is not None
        widths = {
            part: int(read_json(card.folder / part / "config.json").get("hidden_size") or 0)
            for part in card.checkpoint.parts
            if part.startswith("text_encoder")
        }
        found = {}
        for name, vector in vectors.items():
            part = next(
                (part for part, width in widths.items() if width == vector.shape[1] and part not in found), None
            )
            if part is None:
                raise ModelError(
                    f"{path.name} is for another base: {name} has {vector.shape[1]} numbers a word, wanted "
                    + (" or ".join(map(str, widths.values())) or "none")
                )
            found[part] = vector.contiguous()
        return found

    base, found = chosen(fits)
    card = carded(base, "A learnt word", conditioners={"words": {"token": token}})

    def write(target: Path) -> None:
        save_file(found, target / "words.safetensors")

    size = sum(t.numel() * 4 for t in found.values())
    return Source(card, size, write, f"a word for {base.name}, written {token}")


def is_reader(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are an IP-Adapter."""
    return any(name.startswith("image_proj.") for name in tensors) and any(
        name.startswith("ip_adapter.") for name in tensors
    )


def look_at_reader(
    path: Path, tensors: Mapping[str, Tensor], options: Options, chosen: Chosen, carded: Carded
) -> Source:
    """A reader of pictures; it needs the encoder that it was trained with."""
    if "image_proj.proj.weight" not in tensors:
        some = ", ".join(sorted(name for name in tensors if name.startswith("image_proj."))[:3])
        raise ModelError(
            f"{path.name} is an IP-Adapter of another kind (seen: {some}); known are those with image_proj.proj"
        )
    if "image_encoder" not in options.parts:
        raise ModelError(
            f"{path.name} needs the encoder of pictures that it was trained with: say --part image_encoder=FOLDER"
        )
    part = look_at_part(options.parts["image_encoder"], options.variant, mixed=options.dtype is not None)
    width = int(read_json(options.parts["image_encoder"] / "config.json").get("projection_dim") or 0)
    wanted = tensors["image_proj.proj.weight"].shape[1]
    if width != wanted:
        raise ModelError(f"{path.name} reads {wanted} numbers, and that encoder of pictures gives {width}: another one")
    heard = next(t.shape[1] for name, t in tensors.items() if name.endswith("to_k_ip.weight"))

    def fits(card: ModelCard) -> bool:
        own = read_json(card.folder / "unet" / "config.json") if (card.folder / "unet").is_dir() else {}
        if own.get("cross_attention_dim") != heard:
            wanted = f"its words have {heard} numbers, wanted {own.get('cross_attention_dim')}"
            raise ModelError(f"{path.name} is for another base: {wanted}")
        return True

    base, _ = chosen(fits)
    assert base.checkpoint is not None
    checkpoint = Checkpoint(
        family=base.checkpoint.family, parts={"image_encoder": part.kind}, dtype=part.precision or "float32"
    )
    card = carded(base, "A reader of pictures", checkpoint=checkpoint, conditioners={"like": ["picture"]})

    def write(target: Path) -> None:
        write_part(part, target / "image_encoder", options.dtype)
        save_file({name: t.contiguous() for name, t in tensors.items()}, target / "reader.safetensors")

    size = part.bytes + sum(t.numel() * t.element_size() for t in tensors.values())
    return Source(card, size, write, f"a reader of pictures for {base.name}")
