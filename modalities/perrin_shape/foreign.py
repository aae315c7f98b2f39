"""Weights of Point-E that the user has, made models: the networks from words or a picture, and the upsampler.

A checkpoint of Point-E is one file of tensors (``base_40m_textvec.pt``, ``upsample_40m.pt``, ...), whose shapes say the
rest. What words and pictures are told by is CLIP ViT-L/14, which is not in them: its folder, in the layout of
transformers, is looked for beside the checkpoint, and the model remembers where it is. Without it, only the network
that is told nothing works, and the others say what is missing.

Of Shap-E, weights are recognised, and refused in one line.

References:
    Nichol et al., Point-E (2022), and its published configurations; Jun and Nichol, Shap-E (2023).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from perrin.errors import ModelError
from perrin.models.card import ModelCard, write_card
from perrin.models.checkpoints.headers import read_header
from perrin.models.tensors import PICKLED, read_tensors
from perrin_shape.point_e import HEAD, PROCESSES, PointE

__all__ = ["UPSAMPLER", "arguments", "beside", "recognise", "take_in"]

UPSAMPLER = "upsampler"
"""Name of the upsampler's network in its card."""

SCALES = ("channel_scales", "channel_biases")
"""Buffers of an upsampler: how its coarse points are scaled, which is the same for all."""

SIZES = {512: "40M", 1024: "300M", 2048: "1B"}


def recognise(names: Sequence[str]) -> str | None:
    """Whose weights have these names: ``point-e``, ``point-e-upsampler``, ``shap-e``, or None."""
    known = {*names}
    plain = {name.removeprefix("wrapped.") for name in known}
    if not {"input_proj.weight", "time_embed.c_fc.weight", "backbone.resblocks.0.attn.c_qkv.weight"} <= plain:
        return "shap-e" if any("params_proj.projections.nerstf__" in name for name in known) else None
    if plain != known:
        return "shap-e"
    return "point-e-upsampler" if "cond_point_proj.weight" in known else "point-e"


def take_in(file: Path, folder: Path) -> ModelCard | None:
    """Make a model of a checkpoint; None for a file of another kind. What ``perrin models add`` asks.

    Raises:
        ModelError: it is Point-E's, and broken or of another size than is published; or it is Shap-E's.
    """
    if file.suffix not in (*PICKLED, ".safetensors"):
        return None
    try:
        names = [*(read_header(file) if file.suffix == ".safetensors" else read_tensors(file))]
    except ModelError:
        return None  # who knows files of its kind says what is wrong with it
    kind = recognise(names)
    if kind is None:
        return None
    if kind == "shap-e":
        raise ModelError(
            f"{file.name} is Shap-E's, whose latents and implicit surfaces Perrin does not read; Point-E's it does"
        )
    tensors = {name: tensor.float().contiguous() for name, tensor in read_tensors(file).items() if name not in SCALES}
    found = arguments(tensors, file.name)
    _check(tensors, found, file.name)
    folder.mkdir(parents=True, exist_ok=True)
    network = UPSAMPLER if found["upsamples"] else "point_e"
    save_file(tensors, folder / f"{network}.safetensors")
    return write_card(_card(file, network, found), folder)


def arguments(tensors: Mapping[str, Tensor], shown: str) -> dict[str, Any]:
    """Of `PointE`, by the shapes of its tensors.

    Raises:
        ModelError: a network of something else than coloured points.
    """
    projection = tensors["input_proj.weight"]
    if projection.dim() != 2 or projection.shape[1] != 6 or len(tensors.get("output_proj.weight", ())) != 12:
        got = f"{tuple(projection.shape)} in, {tuple(tensors.get('output_proj.weight', torch.empty(0)).shape)} out"
        raise ModelError(f"{shown}: {got}, wanted points with colours: 6 numbers in, 12 out")
    width = len(projection)
    if width % HEAD:
        raise ModelError(f"{shown}: a width of {width}, wanted a multiple of {HEAD}")
    layers = 1 + max(int(m[1]) for m in (re.match(r"backbone\.resblocks\.(\d+)\.", name) for name in tensors) if m)
    told, size = "none", 0
    if "clip_embed.weight" in tensors:
        told, size = "vector", int(tensors["clip_embed.weight"].shape[1])
    elif "clip_embed.1.weight" in tensors:
        told, size = "grid", int(tensors["clip_embed.1.weight"].shape[1])
    upsamples = "cond_point_proj.weight" in tensors
    return {"width": width, "layers": layers, "told": told, "size": size, "upsamples": upsamples}


def _check(tensors: Mapping[str, Tensor], found: Mapping[str, Any], shown: str) -> None:
    with torch.device("meta"):
        wanted = PointE(**found).state_dict()
    for name in sorted({*wanted} ^ {*tensors}):
        raise ModelError(f"{shown} lacks {name}" if name in wanted else f"{shown}: no place for {name[:80]}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ModelError(f"{shown}: {name} is {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}")


def _card(file: Path, network: str, found: Mapping[str, Any]) -> ModelCard:
    size = SIZES.get(found["width"], f"{found['width']} wide")
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", file.stem).strip("-.").lower() or network
    clip = beside(file.parent)
    told = {"none": "nothing", "vector": "words or a picture, as one vector of CLIP's", "grid": "a picture"}
    upsamples = found["upsamples"]
    return ModelCard(
        name=stem if "point" in stem else f"point-e-{stem}",
        modality="shape",
        base="point-e" if upsamples else "",
        title=f"Point-E, {'upsampler' if upsamples else 'base'} {size}",
        summary="1,024 points become 4,096." if upsamples else f"1,024 coloured points, told {told[found['told']]}.",
        licence="as its file's",
        attributions=(
            {
                "source": file.name,
                "licence": "as its file's",
                "line": "Nichol, Jun, Dhariwal, Mishkin and Chen, Point-E (2022)",
            },
        ),
        architecture={network: {"kind": "point_e", **found}},
        process=PROCESSES["upsample" if upsamples else "base"],
        prediction="epsilon",
        grid={"kind": "karras"},
        data={"points": 4096 if upsamples else 1024, **({"clip": str(clip)} if clip else {})},
        defaults={"steps": 64, "sampler": "heun", "guidance": 1.0 if upsamples else 3.0, "points": 1024},
    )


def beside(folder: Path) -> Path | None:
    """A folder of CLIP's, as transformers writes it, that lies in ``folder`` or is it."""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        try:
            if json.loads((place / "config.json").read_text()).get("model_type") == "clip":
                return place.resolve()
        except (OSError, ValueError, AttributeError):
            continue
    return None
