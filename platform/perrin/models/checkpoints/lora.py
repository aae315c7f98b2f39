r"""LoRA files in whatever layout, made the one that Perrin has: ``LAYER.lora_A.weight`` and ``lora_B``. Imports torch.

Read are the names of diffusers (``unet.LAYER.lora_A.weight``, ``unet.LAYER.lora.down.weight``), those of PEFT
(``base_model.model.LAYER.lora_A.weight``) and those of kohya's scripts (``lora_unet_LAYER_IN_ONE.lora_down``), whose
layers may be counted as the first Stable Diffusion code counted them. Each alpha is multiplied into B, so that a scale
of 1 is the adapter as it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perrin.errors import ModelError

__all__ = ["Halves", "is_lora", "read_lora"]

_NAME = re.compile(
    r"(?P<layer>.+?)[._](?P<half>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|lora_linear_layer\.down|"
    r"lora_linear_layer\.up)(?:\.default)?(?:\.weight)?"
)
_ALPHA = re.compile(r"(?P<layer>.+)\.alpha")
_DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down")

_OTHERS = ("hada_w1_a", "lokr_w1", "oft_blocks", "dora_scale", "magnitude")

PARTS: Mapping[str, str] = {
    "lora_unet_": "",
    "lora_transformer_": "",
    "lora_te1_": "text_encoder.",
    "lora_te2_": "text_encoder_2.",
    "lora_te_": "text_encoder.",
    "unet.": "",
    "transformer.": "",
    "diffusion_model.": "",
    "base_model.model.": "",
    "text_encoder_2.": "text_encoder_2.",
    "text_encoder.": "text_encoder.",
}
"""What a name begins with, and which part that is: '' is the network."""


class Halves(NamedTuple):
    """An adapter of one layer: A (r, in, ...) and B (out, r), with its alpha in B."""

    down: Tensor
    up: Tensor


def is_lora(names: Mapping[str, object]) -> bool:
    """Whether tensors of these names are a LoRA."""
    return any(_NAME.fullmatch(name) for name in names)


def read_lora(
    tensors: Mapping[str, Tensor],
    networks: Mapping[str, nn.Module],
    shown: str,
    alphas: Mapping[str, float] | None = None,
) -> dict[str, Halves]:
    """The adapter by our names of layers.

    Args:
        tensors: of the file.
        networks: the base's, by what stands before the names of their layers: '', ``text_encoder.``.
        shown: how messages call the file.
        alphas: by '' for all, where the file itself has none (PEFT's configuration does).

    Raises:
        ModelError: it is of another kind, or of another base; says which layer does not fit.
    """
    other = next((name for name in tensors if any(mark in name for mark in _OTHERS)), None)
    if other is not None:
        raise ModelError(f"{shown} is no plain LoRA: it has {other[:80]}; wanted low-rank pairs alone")
    pairs: dict[str, dict[str, Tensor]] = {}
    scales: dict[str, float] = {}
    for name, tensor in tensors.items():
        alpha, match = _ALPHA.fullmatch(name), _NAME.fullmatch(name)
        if alpha is not None:
            scales[alpha["layer"]] = float(tensor)
        elif match is not None:
            pairs.setdefault(match["layer"], {})["down" if match["half"] in _DOWN else "up"] = tensor
        else:
            raise ModelError(f"{shown} is no plain LoRA: it has {name[:80]}; wanted low-rank pairs alone")
    known = {prefix: dict(_names(network)) for prefix, network in networks.items()}
    found: dict[str, Halves] = {}
    for raw, pair in pairs.items():
        if len(pair) < 2:
            raise ModelError(f"{shown}: {raw[:80]} has only one half")
        layer, module = _layer(raw, known, networks, shown)
        down, up = pair["down"].float(), pair["up"].float()
        wanted = module.weight.shape
        up = up.flatten(1)
        down = down.reshape(len(down), -1, *wanted[2:]) if down.dim() <= len(wanted) else down.flatten(1)
        if (up.shape[0], *down.shape[1:]) != tuple(wanted) or up.shape[1] != down.shape[0]:
            raise ModelError(
                f"{shown} is for another base: {layer} takes {tuple(wanted)}, the file has "
                f"{(up.shape[0], *down.shape[1:])}"
            )
        alpha_of = scales.get(raw, (alphas or {}).get(""))
        found[layer] = Halves(down, up * (1.0 if alpha_of is None else alpha_of / len(down)))
    if not found:
        raise ModelError(f"{shown} holds no LoRA")
    return found


def _names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Every layer's name, by that with underscores."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            yield name.replace(".", "_"), name


def _layer(
    raw: str, known: Mapping[str, Mapping[str, str]], networks: Mapping[str, nn.Module], shown: str
) -> tuple[str, nn.Linear]:
    prefix, rest = next(((part, raw[len(mark) :]) for mark, part in PARTS.items() if raw.startswith(mark)), ("", raw))
    for mark, part in PARTS.items():  # PEFT's prefix may stand before another
        if raw.startswith("base_model.model.") and rest.startswith(mark):
            prefix, rest = part, rest[len(mark) :]
    flat = rest.replace(".", "_")
    names = known.get(prefix, {})
    for tried in (
        flat,
        flat.replace("_processor_", "_").replace("to_out_lora", "to_out_0"),
        *_older(flat, networks.get(prefix)),
    ):
        tried = tried.removesuffix("_lora").removeprefix("text_model_") if tried not in names else tried
        for name in (tried, "text_model_" + tried, tried.replace("_to_out", "_to_out_0")):
            if name in names:
                layer = networks[prefix].get_submodule(names[name])
                assert isinstance(layer, nn.Linear | nn.Conv2d)
                return prefix + names[name], layer  # type: ignore[return-value]
    some = next(iter(names.values()), "nothing")
    raise ModelError(f"{shown} is for another base: it has no layer {raw[:80]}; its layers are such as {some}")


def _older(flat: str, network: nn.Module | None) -> Iterator[str]:
    """The name of what the first Stable Diffusion code, which counted blocks in one row, calls ``flat``."""
    middle = re.fullmatch(r"middle_block_(\d)_(.+)", flat)
    if middle:
        place = int(middle[1])
        kind = "attentions_0" if place == 1 else f"resnets_{place // 2}"
        yield f"mid_block_{kind}_{_inside(middle[2])}"
    match = re.fullmatch(r"(input|output)_blocks_(\d+)_(\d)_(.+)", flat)
    layers: Any = getattr(getattr(network, "config", None), "layers_per_block", None)
    if match is not None and isinstance(layers, int):
        number, place, rest = int(match[2]), int(match[3]), match[4]
        if match[1] == "input":
            block, layer = divmod(number - 1, layers + 1)
            if rest in ("op",):
                yield f"down_blocks_{block}_downsamplers_0_conv"
            yield f"down_blocks_{block}_{('resnets', 'attentions')[place]}_{layer}_{_inside(rest)}"
        else:
            block, layer = divmod(number, layers + 1)
            if rest == "conv":
                yield f"up_blocks_{block}_upsamplers_0_conv"
            yield f"up_blocks_{block}_{('resnets', 'attentions')[min(place, 1)]}_{layer}_{_inside(rest)}"


def _inside(rest: str) -> str:
    """A layer inside a block."""
    resnet = {
        "in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_3": "conv2",
        "skip_connection": "conv_shortcut",
    }  # fmt: skip
    return resnet.get(rest, rest)


def as_file(found: Mapping[str, Halves]) -> dict[str, Tensor]:
    """Tensors of ``adapter.safetensors``."""
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in found.items():
        tensors[f"{layer}.lora_A.weight"] = down.to(torch.float16).contiguous()
        tensors[f"{layer}.lora_B.weight"] = up.to(torch.float16).contiguous()
    return tensors
