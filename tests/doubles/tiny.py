"""Image models of a few thousand random weights, in a folder of models, for tests of what surrounds a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from perrin.models import ModelCard
from perrin.models.card import write_card
from perrin.nn import NETWORKS

UNET = {"kind": "unet", "widths": [8, 8], "blocks": 1, "attention": []}
LARGER = {"kind": "unet", "widths": [8, 8], "blocks": 1, "attention": [], "channels": 133, "out_channels": 64}


def network(kind: str, **arguments: Any) -> nn.Module:
    """One with random weights everywhere, the same each time; also where a new one has zeros."""
    torch.manual_seed(0)
    made: nn.Module = NETWORKS[kind](**arguments)
    for name, parameter in made.named_parameters():
        if not parameter.any() and name.endswith("weight"):
            nn.init.normal_(parameter, std=0.3 / parameter[0].numel() ** 0.5)
    return made.eval()


def write_model(
    folder: Path,
    name: str,
    architecture: Mapping[str, Mapping[str, Any]],
    *,
    fill: float | None = None,
    sizes: tuple[tuple[int, int], ...] = ((32, 32),),
    **card: Any,
) -> ModelCard:
    """A model in ``folder / name``; ``fill`` is put into its networks' last bias, and makes their last weights zero."""
    place = folder / name
    place.mkdir(parents=True)
    for key, arguments in architecture.items():
        made = network(**arguments)
        if fill is not None:
            last = made.decoder[-2] if key == "autoencoder" else made.out
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, fill)
        save_file(made.state_dict(), place / f"{key}.safetensors")
    told = {
        "process": {"kind": "flow"},
        "prediction": "velocity",
        "defaults": {"steps": 3, "sampler": "ddim", "guidance": 2.0},
        **card,
    }
    return write_card(
        ModelCard(
            name=name, modality="image", title=name, licence="Apache-2.0", sizes=sizes, architecture=dict(architecture),
            **told,
        ),
        place,
    )  # fmt: skip


def write_upscaler(folder: Path, name: str = "tiny-larger", fill: float | None = None) -> ModelCard:
    """A model that makes pictures four times larger, badly."""
    return write_model(
        folder, name, {"unet": LARGER}, fill=fill, sizes=((128, 128),), prediction="x0",
        conditioners={"low": {"factor": 4, "gain": 16.0, "level": 0.0, "noise": 0.1}}, defaults={"steps": 2},
    )  # fmt: skip
