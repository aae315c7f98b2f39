"""EDM's and GeoLDM's own weights, as models of this house: what a user has of them is read, and sampled by the core.

Both were published as ``generative_model_ema.npy``, which is a pickle of tensors and no array. `adopt` writes a folder
with a card and safetensors; every tensor of the file is either put in its place or named as not needed for sampling.
Neither makes bonds; they are read from lengths by EDM's table, as the papers do.

What the file does not say is taken as in the authors' commands for QM9: five elements and, with EDM, the nuclear charge
as a feature; tanh; distances that are not expanded; sums that are not divided. A model of one of QM9's properties has
as many inputs as one with charges and cannot be told from it: it is not read.

References:
    Hoogeboom et al., Equivariant Diffusion for Molecule Generation in 3D (2022), section 3 and appendix B; Xu et al.,
    Geometric Latent Diffusion Models for 3D Molecule Generation (2023), section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from perrin.errors import ModelError
from perrin.models import ModelCard, find
from perrin.models.card import write_card
from perrin.models.checkpoints.headers import read_header
from perrin.models.tensors import PICKLED, read_tensors
from perrin_molecule.egnn import Egnn

__all__ = ["Published", "adopt", "recognise", "take_in", "translate"]

LARGEST = 256 << 20
"""No file of either is larger."""

ELEMENTS = 5
"""Features of an atom that say its element."""

PLACES: Sequence[tuple[str, str]] = (
    (r"embedding\.(weight|bias)", r"embed.\1"),
    (r"embedding_out\.(weight|bias)", r"unembed.\1"),
    (r"e_block_(\d+)\.gcl_(\d+)\.edge_mlp\.([02])\.(weight|bias)", r"blocks.\1.messages.\2.edge.\3.\4"),
    (r"e_block_(\d+)\.gcl_(\d+)\.node_mlp\.([02])\.(weight|bias)", r"blocks.\1.messages.\2.node.\3.\4"),
    (r"e_block_(\d+)\.gcl_(\d+)\.att_mlp\.0\.(weight|bias)", r"blocks.\1.messages.\2.attend.\3"),
    (r"e_block_(\d+)\.gcl_equiv\.coord_mlp\.([024])\.(weight|bias)", r"blocks.\1.move.\2.\3"),
)
"""Names in their networks, and here."""

UNUSED = re.compile(r"(vae\.)?buffer|vae\.encoder\..+")
"""Not needed for sampling: a buffer that says where a network lies, and what turns molecules into latents."""


class Published(NamedTuple):
    """What a file holds.

    Attributes:
        kind: ``edm`` or ``geoldm``.
        networks: the tensors of each by its name here.
        arguments: of `Egnn`, for each.
        gamma: (T + 1,) negative log-SNR of every step, float64.
        unused: names of the tensors that sampling does not need.
    """

    kind: str
    networks: Mapping[str, Mapping[str, Tensor]]
    arguments: Mapping[str, Mapping[str, Any]]
    gamma: Tensor
    unused: tuple[str, ...]


def recognise(names: Sequence[str]) -> str | None:
    """Whose weights have these names: ``edm``, ``geoldm``, or None."""
    known = {*names}
    if not {"gamma.gamma", "dynamics.egnn.embedding.weight"} <= known:
        return None
    return "geoldm" if "vae.decoder.egnn.embedding.weight" in known else "edm"


def translate(tensors: Mapping[str, Tensor], shown: str) -> Published:
    """The tensors of a file under this house's names.

    Raises:
        ModelError: a tensor that belongs nowhere, one that is missing, or a model of something else than QM9.
    """
    kind = recognise([*tensors])
    if kind is None:
        raise ModelError(f"{shown} holds no EDM or GeoLDM: wanted gamma.gamma and dynamics.egnn.* among its tensors")
    sources = {"dynamics.egnn.": "egnn"} | ({"vae.decoder.egnn.": "decoder"} if kind == "geoldm" else {})
    networks: dict[str, dict[str, Tensor]] = {name: {} for name in sources.values()}
    unused = []
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in sources if name.startswith(prefix)), None)
        place = None if prefix is None else _place(name.removeprefix(prefix))
        if prefix is not None and place is not None:
            networks[sources[prefix]][place] = tensor.float()
        elif UNUSED.fullmatch(name):
            unused.append(name)
        elif name != "gamma.gamma":
            raise ModelError(f"{shown}: no place for {name[:80]}, which no {kind} of QM9 has")
    gamma = tensors["gamma.gamma"].double().flatten()
    if len(gamma) < 3 or not (gamma.diff() > 0).all():
        raise ModelError(f"{shown}: gamma.gamma is no noise schedule: wanted numbers that grow")
    arguments = {name: _arguments(parts, shown) for name, parts in networks.items()}
    arguments["egnn"] |= {"steps": len(gamma) - 1, "features": arguments["egnn"]["features"] - 1, "outputs": None}
    _check_sizes(kind, arguments, shown)
    for name, parts in networks.items():
        with torch.device("meta"):
            wanted = Egnn(**arguments[name]).state_dict()
        for key in sorted({*wanted} ^ {*parts}):
            raise ModelError(f"{shown}: {name} lacks {key}" if key in wanted else f"{shown}: {name} has {key} too much")
        for key, tensor in parts.items():
            if tensor.shape != wanted[key].shape:
                raise ModelError(f"{shown}: {key} is {tuple(tensor.shape)}, wanted {tuple(wanted[key].shape)}")
    return Published(kind, networks, arguments, gamma, tuple(unused))


def _place(name: str) -> str | None:
    for theirs, ours in PLACES:
        match = re.fullmatch(theirs, name)
        if match is not None:
            return match.expand(ours)
    return None


def _arguments(parts: Mapping[str, Tensor], shown: str) -> dict[str, Any]:
    """What the shapes say of a network."""
    for name in ("embed.weight", "unembed.weight"):
        if name not in parts or parts[name].dim() != 2:
            raise ModelError(f"{shown}: {name} is missing, or no matrix")
    width, features = parts["embed.weight"].shape

    def most(pattern: str) -> int:
        return 1 + max((int(m[1]) for m in (re.match(pattern, name) for name in parts) if m), default=-1)

    return {
        "features": features,
        "outputs": len(parts["unembed.weight"]),
        "width": width,
        "depth": most(r"blocks\.(\d+)\."),
        "rounds": most(r"blocks\.\d+\.messages\.(\d+)\."),
        "attention": any(".attend." in name for name in parts),
    }


def _check_sizes(kind: str, arguments: Mapping[str, Mapping[str, Any]], shown: str) -> None:
    features = arguments["egnn"]["features"]
    if kind == "edm" and features not in (ELEMENTS, ELEMENTS + 1):
        raise ModelError(f"{shown}: {features} features an atom, wanted {ELEMENTS} or {ELEMENTS + 1}: QM9's elements")
    if kind == "geoldm":
        inside, outside = arguments["decoder"]["features"], arguments["decoder"]["outputs"]
        if inside != features or outside not in (ELEMENTS, ELEMENTS + 1):
            raise ModelError(f"{shown}: a decoder from {inside} to {outside} features, wanted {features} to 5 or 6")


def take_in(file: Path, folder: Path) -> ModelCard | None:
    """`adopt`, or None for a file that is neither; what ``perrin models add`` asks."""
    if file.suffix not in (*PICKLED, ".safetensors") or file.stat().st_size > LARGEST:
        return None
    try:
        names = [*(read_header(file) if file.suffix == ".safetensors" else read_tensors(file))]
    except ModelError:
        if file.suffix == ".npy":
            raise
        return None  # who knows files of its kind says what is wrong with it
    return None if recognise(names) is None else adopt(file, folder)


def adopt(file: Path, folder: Path, name: str | None = None) -> ModelCard:
    """Write a model folder of the weights in ``file``, and return its card.

    Args:
        file: a pickle of tensors (.npy as published, .pt, .ckpt) or safetensors.
        folder: of the model, to be made.
        name: of the model; by default ``edm-qm9`` or ``geoldm-qm9``.

    Raises:
        ModelError: it cannot be read, holds more than tensors, or another model.
    """
    found = translate(read_tensors(file), file.name)
    folder.mkdir(parents=True, exist_ok=True)
    for network, parts in found.networks.items():
        save_file({key: tensor.contiguous() for key, tensor in parts.items()}, folder / f"{network}.safetensors")
    paper = {
        "edm": ("EDM", "Hoogeboom, Satorras, Vignac and Welling, ICML (2022)"),
        "geoldm": ("GeoLDM", "Xu, Powers, Dror, Ermon and Leskovec, ICML (2023)"),
    }[found.kind]
    kept = torch.sigmoid(-found.gamma)
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    card = ModelCard(
        name=name or f"{found.kind}-qm9",
        modality="molecule",
        title=f"{paper[0]}, QM9",
        summary=f"{paper[0]}'s own weights; no bonds, they are read from lengths.",
        licence="as its file's",
        attributions=({"source": file.name, "licence": "as its file's", "line": paper[1]},),
        architecture={key: {"kind": "egnn", **options} for key, options in found.arguments.items()},
        process={"kind": "from_betas", "betas": betas.tolist()},
        prediction="epsilon",
        data={"scale": 1.0, "sizes": find("qm9", "molecule").data["sizes"]},
        defaults={"steps": 250, "sampler": "ddpm", "guidance": 1.0},
    )
    return write_card(card, folder)
