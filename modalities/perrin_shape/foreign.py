"""Weights of Point-E and Shap-E that the user has, made models: what is told words or a picture, and what goes with it.

A checkpoint is one file of tensors (``base_40m_textvec.pt`` and ``upsample_40m.pt``, or ``text_cond.pt`` and
``transmitter.pt``), whose shapes say the rest. Of Shap-E's transmitter the decoder of surfaces is read; its encoder
and the rendering of its radiance field are not. What words and pictures are told by is CLIP
ViT-L/14, which is not in them: its folder, in the layout of transformers, is looked for beside the checkpoint, and the
model remembers where it is. Without it, only the network that is told nothing works; the others say what is missing.

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
from perrin_shape.shap_e import PROCESS, Decoder

__all__ = ["DECODER", "UPSAMPLER", "arguments", "beside", "recognise", "take_in"]

UPSAMPLER = "upsampler"
"""Name of the upsampler's network in its card."""

DECODER = "decoder"
"""Name of Shap-E's decoder in its card."""

PARTS = {"encoder.params_proj.projections.": "projections.", "renderer.nerstf.mlp.": "mlp."}
"""What is read of a transmitter, and its names here."""

SCALES = ("channel_scales", "channel_biases")
"""Buffers of an upsampler: how its coarse points are scaled, which is the same for all."""

SIZES = {512: "40M", 1024: "300M", 2048: "1B"}


def recognise(names: Sequence[str]) -> str | None:
    """Whose weights have these names: ``point-e``, ``point-e-upsampler``, ``shap-e``, ``transmitter``, or None."""
    known = {*names}
    plain = {name.removeprefix("wrapped.") for name in known}
    if not {"input_proj.weight", "time_embed.c_fc.weight", "backbone.resblocks.0.attn.c_qkv.weight"} <= plain:
        return "transmitter" if all(any(name.startswith(part) for name in known) for part in PARTS) else None
    if plain != known:
        return "shap-e"
    return "point-e-upsampler" if "cond_point_proj.weight" in known else "point-e"


def take_in(file: Path, folder: Path) -> ModelCard | None:
    """Make a model of a checkpoint; None for a file of another kind. What ``perrin models add`` asks.

    Raises:
        ModelError: it is Point-E's or Shap-E's, and broken or of another layout than is published.
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
    tensors = {name.removeprefix("wrapped."): tensor.float() for name, tensor in read_tensors(file).items()}
    if kind == "transmitter":
        tensors, found = _decoder(tensors, file.name)
        network = DECODER
        _check(tensors, Decoder, found, file.name)
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in SCALES}
        found = arguments(tensors, file.name)
        network = {"shap-e": "shap_e", "point-e": "point_e"}.get(kind, UPSAMPLER)
        _check(tensors, PointE, found, file.name)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / f"{network}.safetensors")
    return write_card(_card(file, network, found), folder)


def arguments(tensors: Mapping[str, Tensor], shown: str) -> dict[str, Any]:
    """Of `PointE`, by the shapes of its tensors.

    Raises:
        ModelError: a network of something else than coloured points, or latents.
    """
    projection = tensors["input_proj.weight"]
    positions = len(tensors["pos_emb"]) if "pos_emb" in tensors else 0
    channels = projection.shape[-1] if positions else 6
    if projection.shape[1:] != (channels,) or len(tensors.get("output_proj.weight", ())) != 2 * channels:
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
    found = {"width": width, "layers": layers, "told": told, "size": size, "upsamples": upsamples}
    return {**found, "channels": channels, "positions": positions} if positions else found


def _decoder(tensors: Mapping[str, Tensor], shown: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a transmitter decodes by, and the arguments of `Decoder`."""
    parts = {
        ours + name.removeprefix(theirs): tensor
        for theirs, ours in PARTS.items()
        for name, tensor in tensors.items()
        if name.startswith(theirs)
    }
    told = len({name.split(".")[1] for name in parts if name.startswith("projections.")})
    layers = len({name.split(".")[1] for name in parts if name.startswith("mlp.")}) - 1
    first, last = parts.get("mlp.0.weight"), parts.get(f"mlp.{layers}.weight")
    row = parts.get("projections.nerstf__mlp__0__weight.proj.weight")
    if first is None or last is None or row is None or min(first.dim(), last.dim(), row.dim()) < 2:
        raise ModelError(f"{shown}: a transmitter without its first or last layer")
    sizes = {"latent": int(row.shape[1]), "hidden": len(first), "told": told, "layers": layers, "outputs": len(last)}
    return parts, sizes


def _check(tensors: Mapping[str, Tensor], kind: Any, found: Mapping[str, Any], shown: str) -> None:
    with torch.device("meta"):
        wanted = kind(**found).state_dict()
    for name in sorted({*wanted} ^ {*tensors}):
        raise ModelError(f"{shown} lacks {name}" if name in wanted else f"{shown}: no place for {name[:80]}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ModelError(f"{shown}: {name} is {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}")


PAPERS = {
    "point-e": "Nichol, Jun, Dhariwal, Mishkin and Chen, Point-E (2022)",
    "shap-e": "Jun and Nichol, Shap-E (2023)",
}
TOLD = {"none": "nothing", "vector": "words or a picture, as one vector of CLIP's", "grid": "a picture"}


def _card(file: Path, network: str, found: Mapping[str, Any]) -> ModelCard:
    theirs = "point-e" if network in ("point_e", UPSAMPLER) else "shap-e"
    helps = network in (UPSAMPLER, DECODER)
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", file.stem).strip("-.").lower() or network
    size = "" if network == DECODER else f" {SIZES.get(found['width'], str(found['width']) + ' wide')}"
    made = {"point_e": "1,024 coloured points", "shap_e": "Closed surfaces with colours"}
    clip = None if helps else beside(file.parent)
    data: dict[str, Any] = {"points": 1024 if network == "point_e" else 4096}
    return ModelCard(
        name=stem if theirs.split("-")[0] in stem else f"{theirs}-{stem}",
        modality="shape",
        base=theirs if helps else "",
        title=f"{theirs.title()}, {network if helps else 'base'}{size}",
        summary=f"Goes with {theirs.title()}." if helps else f"{made[network]}, told {TOLD[found['told']]}.",
        licence="as its file's",
        attributions=({"source": file.name, "licence": "as its file's", "line": PAPERS[theirs]},),
        architecture={network: {"kind": network if network == DECODER else "point_e", **found}},
        process={"point_e": PROCESSES["base"], UPSAMPLER: PROCESSES["upsample"], "shap_e": PROCESS}.get(network, {}),
        prediction={"shap_e": "x0", DECODER: ""}.get(network, "epsilon"),
        grid={} if network == DECODER else {"kind": "karras"},
        data={**data, **({"clip": str(clip)} if clip else {})},
        defaults={}
        if helps
        else {"steps": 64, "sampler": "heun", "guidance": 3.0 if theirs == "point-e" else 15.0, **data},
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
