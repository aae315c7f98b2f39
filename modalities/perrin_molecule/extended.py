"""A molecule model with what was trained beside it: it completes molecules and hears of more properties.

The file ``completion.safetensors`` holds low-rank adapters under PEFT's names and a small network of the further
condition. Both are put into a copy, so that requests without them are computed by the model as it was.
"""

from __future__ import annotations

import copy

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from perrin.errors import InvalidInput, ModelError
from perrin.models import ModelCard
from perrin.training.adapters import Adapter, merge
from perrin_molecule.network import MoleculeNetwork

__all__ = ["FILE", "extended"]

FILE = "completion.safetensors"


def extended(card: ModelCard, network: MoleculeNetwork) -> MoleculeNetwork:
    """A copy of ``network`` with what ``card`` has beside it.

    Raises:
        ModelError: the file is missing, changed, or another network's.
    """
    device = next(network.parameters()).device
    try:
        tensors = {name: tensor.to(device).float() for name, tensor in load(card.read(FILE)).items()}
        small = {name.removeprefix("more."): x for name, x in tensors.items() if name.startswith("more.")}
        layers = {
            name.removesuffix(".lora_A.weight"): (x, tensors[name.replace(".lora_A.", ".lora_B.")])
            for name, x in tensors.items()
            if name.endswith(".lora_A.weight")
        }
        made = copy.deepcopy(network)
        merge(made, Adapter(layers, 1.0))
        told, channels = small["0.weight"].shape
        made.more = nn.Sequential(nn.Linear(channels, told), nn.SiLU(), nn.Linear(told, told)).to(device)
        made.more.load_state_dict(small)
    except (SafetensorError, RuntimeError, KeyError, InvalidInput) as error:
        raise ModelError(f"model {card.name}: {FILE} does not fit its network: {error}") from None
    return made.eval().requires_grad_(False)
