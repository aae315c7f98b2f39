"""What a card says of a checkpoint beyond its schedule: sizes, conditioners, architecture. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perrin.errors import ModelError
from perrin.models.checkpoints.folders import Part, Pipeline, read_json

__all__ = ["described"]

SHAPES = ((1, 1), (3, 2), (2, 3), (4, 3), (3, 4), (16, 9), (9, 16))
"""Sides in proportion, of about the same area."""

SMALLER = (0.5, 0.75)


def described(found: Pipeline, shown: str) -> dict[str, Any]:
    """Fields of the card."""
    family = found.family
    config = _config(found.parts[family.network])
    more: dict[str, Any] = {"options": {}, "defaults": {}, "conditioners": {}}
    more["architecture"] = {
        ("autoencoder" if name == "vae" else name): {"kind": part.kind}
        for name, part in found.parts.items()
        if part.kind
    }
    if family.words:
        more["conditioners"]["prompt"] = family.name
    if family.modality != "image":
        return more
    factor = 1
    if "vae" in found.parts:
        vae = _config(found.parts["vae"])
        factor = 2 ** (len(vae.get("block_out_channels") or (0,) * 4) - 1)
        more["architecture"]["autoencoder"]["channels"] = int(vae.get("out_channels") or 3)
    _check_input(config, found, shown)
    side = _side(config, family.name) * factor
    more["sizes"] = sizes(side, family.multiple) if family.words else ((side, side),)
    if not family.words:
        more["architecture"][family.network]["channels"] = int(config.get("in_channels") or 3)
    if family.name == "flux" and not config.get("guidance_embeds"):
        more["defaults"] = {"steps": 4, "guidance": 1.0}
    if config.get("time_cond_proj_dim"):
        more["defaults"] = {"steps": 4, "guidance": 8.0}
    if family.name == "dit":
        labels = found.options.get("id2label") or {}
        names = {int(number): str(name).split(",")[0].strip() for number, name in labels.items()}
        count = int(config.get("num_embeds_ada_norm") or len(names) or 1000)
        more["conditioners"]["class"] = [names.get(number, str(number)) for number in range(count)]
        more["options"]["id2label"] = None
    return more


def _config(part: Part) -> dict[str, Any]:
    return dict(part.description) if part.description else read_json(part.files["config.json"])


def _side(config: Mapping[str, Any], family: str) -> int:
    size = config.get("sample_size") or {"flux": 128, "sd3": 128}.get(family, 64)
    return int(size[0] if isinstance(size, list) else size)


def _check_input(config: Mapping[str, Any], found: Pipeline, shown: str) -> None:
    """Refuse a network that is asked in a way which its family is not."""
    if found.family.name not in ("sd", "sdxl", "sdxl-refiner"):
        return
    latent = int(_config(found.parts["vae"]).get("latent_channels") or 4)
    channels = int(config.get("in_channels") or 4)
    if channels not in (latent, 2 * latent + 1):
        raise ModelError(
            f"{shown}: its network takes {channels} channels, wanted {latent}, or {2 * latent + 1} of one that paints "
            "inside a mask; this variant of the family is not known"
        )


def sizes(side: int, multiple: int) -> tuple[tuple[int, int], ...]:
    """The square, other shapes of its area, and smaller squares; sides are multiples."""
    step = max(multiple, 8)
    found = [(side, side)]
    for wide, high in SHAPES[1:]:
        scale = (side * side / (wide * high)) ** 0.5
        found.append((round(wide * scale / step) * step, round(high * scale / step) * step))
    found += [(round(side * part / step) * step,) * 2 for part in SMALLER]
    return tuple(dict.fromkeys(pair for pair in found if min(pair) >= 16))
