"""A model of sounds with small random networks, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from perrin.models.card import ModelCard, write_card
from perrin.nn import DiffusionTransformer
from perrin_audio.conditions import classes
from perrin_audio.runtime import AudioRuntime
from perrin_audio.vocoder import Vocoder

NETWORK = {
    "channels": 112,
    "dims": 1,
    "context": 384,
    "classes": classes(2),
    "width": 48,
    "depth": 1,
    "heads": 3,
    "hidden": 64,
    "patch": 4,
}
VOCODER = {"width": 16, "hidden": 32, "depth": 1}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the model ``small``."""
    folder = tmp_path_factory.mktemp("models") / "small"
    folder.mkdir()
    torch.manual_seed(0)
    networks = {"transformer": DiffusionTransformer(**NETWORK), "vocoder": Vocoder(**VOCODER)}
    for name, network in networks.items():
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / f"{name}.safetensors")
    mel = {"mean": [-4.0] * 112, "deviation": [2.5] * 112}
    card = ModelCard(
        name="small",
        modality="audio",
        title="Small",
        licence="Apache-2.0",
        architecture={"transformer": {"kind": "transformer", **NETWORK}, "vocoder": {"kind": "vocoder", **VOCODER}},
        process={"kind": "flow"},
        prediction="x0",
        grid={"shift": 1.0},
        conditioners={"prompt": "minilm", "note": "midi"},
        defaults={"steps": 4, "sampler": "dpmpp_2m", "guidance": 2.0},
        data={"mel": mel, "frames": 128, "held": ["violin"], "names": ["violin", "flute"]},
    )
    write_card(card, folder)
    return folder.parent


@pytest.fixture(scope="session")
def runtime(small: Path) -> AudioRuntime:
    from perrin.models.card import read_card

    return AudioRuntime.load(read_card(small / "small"), "cpu")
