"""Single files of Stable Diffusion, as its first code saved them: parts by their prefixes, descriptions from shapes.

Such a file says of no part how it is built. Widths, depths and channels show in the shapes of its tensors. The rest is
the same in all that were ever trained: 32 groups in a norm; eight heads of attention in the first version, heads of 64
channels in the others. What a network predicts shows nowhere: it is what the file's notes say, or ``v`` of a second
version whose notes say nothing, unless a person says otherwise. Names are translated by diffusers.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from perrin.errors import ModelError
from perrin.models.checkpoints.adding import Options, Source, card_of
from perrin.models.checkpoints.families import FAMILIES, Family
from perrin.models.checkpoints.folders import Part, Pipeline, look_at_vocabulary
from perrin.models.checkpoints.loading import quietly
from perrin.models.checkpoints.rewriting import write_weights
from perrin.models.library import models
from perrin.settings import Settings

__all__ = ["is_single", "look_at_single"]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
HEAD = 64

CLIP_AT: Mapping[str, str] = {
    "cond_stage_model.transformer.text_model.": "first",
    "cond_stage_model.model.": "open",
    "conditioner.embedders.0.transformer.text_model.": "first",
    "conditioner.embedders.1.model.": "open",
    "conditioner.embedders.0.model.": "open",
}
"""Where encoders are, and whose code they are of."""


def is_single(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors of these names are a whole checkpoint of Stable Diffusion 1, 2 or XL."""
    names = {name.removeprefix("state_dict.") for name in tensors}
    return f"{UNET}input_blocks.0.0.weight" in names


def look_at_single(path: Path, tensors: Mapping[str, Tensor], options: Options, settings: Settings) -> Source:
    """What is in the file; as `perrin.models.checkpoints.adding.look`.

    Raises:
        ModelError: a part is missing, or it is of a kind that is not known.
    """
    state = {name.removeprefix("state_dict."): tensor for name, tensor in tensors.items()}
    kinds = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()}
    if len(kinds) > 1 and options.dtype is None:
        one = {str(t.dtype).removeprefix("torch."): n for n, t in state.items() if t.is_floating_point()}
        shown = ", ".join(f"{name} is {kind}" for kind, name in sorted(one.items())[:2])
        raise ModelError(f"{path.name} mixes precisions: {shown}; --dtype float16, bfloat16 or float32 makes them one")
    family, parts = _parts(state, path.name)
    vocabularies = {name: _vocabulary(name, family, options, settings, path) for name in family.tokenizers}
    scheduler = _scheduler(state, family, path)
    precision = options.dtype or next(iter(kinds))
    described = {
        name: Part(kind, {}, precision=precision, description=config) for name, (kind, config, _) in parts.items()
    }
    options_of = {"force_zeros_for_empty_prompt": family.name == "sdxl"}
    if family.name == "sdxl-refiner":
        options_of["requires_aesthetics_score"] = True
    found = Pipeline(family, {**described, **vocabularies}, scheduler, options_of)
    card = card_of(found, path, options)

    def write(target: Path) -> None:
        for name, (kind, config, weights) in parts.items():
            (target / name).mkdir()
            (target / name / "config.json").write_text(json.dumps(config, indent=1))
            write_weights(weights, target / name, kind, options.dtype)
        for name, part in vocabularies.items():
            (target / name).mkdir()
            for file, source in part.files.items():
                shutil.copyfile(source, target / name / file)

    size = sum(t.numel() * t.element_size() for _, _, weights in parts.values() for t in weights.values())
    return Source(card, size, write, f"{family.title}, a single file")


Parts = dict[str, tuple[str, dict[str, Any], dict[str, Tensor]]]


def _parts(state: Mapping[str, Tensor], shown: str) -> tuple[Family, Parts]:
    """Class, description and weights of each part, by their names in the library."""
    convert: Any = importlib.import_module("diffusers.loaders.single_file_utils")
    config = unet_config(state)
    labelled = "addition_embed_type" in config
    encoders = [(at, kind) for at, kind in CLIP_AT.items() if any(name.startswith(at) for name in state)]
    if not encoders:
        raise ModelError(f"{shown} lacks a text encoder: wanted tensors that begin with {', '.join(CLIP_AT)}")
    if not any(name.startswith(VAE) for name in state):
        raise ModelError(f"{shown} lacks an autoencoder: wanted tensors that begin with {VAE}")
    name = "sd" if not labelled else "sdxl" if len(encoders) > 1 else "sdxl-refiner"
    parts: Parts = {}
    with quietly():
        weights = convert.convert_ldm_unet_checkpoint(dict(state), config)
        parts["unet"] = ("UNet2DConditionModel", config, weights)
        vae = vae_config(state, 0.13025 if labelled else 0.18215)
        parts["vae"] = ("AutoencoderKL", vae, convert.convert_ldm_vae_checkpoint(dict(state), vae))
        for number, (at, kind) in enumerate(encoders):
            part = "text_encoder_2" if number or name == "sdxl-refiner" else "text_encoder"
            parts[part] = _first_clip(state, at) if kind == "first" else _open_clip(state, at, convert, labelled)
    if labelled:
        pooled = parts["text_encoder_2"][1]["projection_dim"]
        numbers = 6 if name == "sdxl" else 5
        told = int(config["projection_class_embeddings_input_dim"])
        config["addition_time_embed_dim"] = (told - pooled) // numbers
    return FAMILIES[name], parts


def unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The description of a U-Net, from the shapes of its tensors."""
    unet = {name.removeprefix(UNET): tensor for name, tensor in state.items() if name.startswith(UNET)}
    first = unet["input_blocks.0.0.weight"]
    widths: list[int] = []
    depths: list[int] = []
    layers = number = 0
    while any(name.startswith(f"input_blocks.{number + 1}.0.") for name in unet):
        number += 1
        if f"input_blocks.{number}.0.op.weight" in unet:
            continue
        width = unet[f"input_blocks.{number}.0.out_layers.3.weight"].shape[0]
        after_down = number == 1 or f"input_blocks.{number - 1}.0.op.weight" in unet
        if after_down:
            widths.append(width)
            depths.append(0)
            layers = 0
        layers += 1
        blocks = {n.split(".")[4] for n in unet if n.startswith(f"input_blocks.{number}.1.transformer_blocks.")}
        depths[-1] = max(depths[-1], len(blocks))
    context = next(t.shape[1] for n, t in unet.items() if n.endswith("attn2.to_k.weight"))
    linear = next(t for n, t in unet.items() if n.endswith("proj_in.weight")).dim() == 2
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": first.shape[1],
        "out_channels": unet["out.2.weight"].shape[0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "cross_attention_dim": context,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [max(depth, 1) for depth in depths],
        "attention_head_dim": [max(1, width // HEAD) for width in widths] if linear else 8,
        "use_linear_projection": linear,
        "sample_size": 128 if "label_emb.0.0.weight" in unet else 96 if linear else 64,
    }
    middle = {n.split(".")[3] for n in unet if n.startswith("middle_block.1.transformer_blocks.")}
    if len(middle) != max(depths[-1], 1):
        config["mid_block_type"] = "UNetMidBlock2DCrossAttn"
        config["transformer_layers_per_block"][-1] = len(middle)
    if "label_emb.0.0.weight" in unet:
        config["addition_embed_type"] = "text_time"
        config["projection_class_embeddings_input_dim"] = unet["label_emb.0.0.weight"].shape[1]
    return config


def vae_config(state: Mapping[str, Tensor], scale: float) -> dict[str, Any]:
    """The description of an autoencoder, from the shapes of its tensors."""
    vae = {name.removeprefix(VAE): tensor for name, tensor in state.items() if name.startswith(VAE)}
    levels = sorted({int(n.split(".")[2]) for n in vae if n.startswith("encoder.down.")})
    widths = [vae[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in levels]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": vae["encoder.conv_in.weight"].shape[1],
        "out_channels": vae["decoder.conv_out.weight"].shape[0],
        "latent_channels": vae["decoder.conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": len({n.split(".")[4] for n in vae if n.startswith("encoder.down.0.block.")}),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "norm_num_groups": 32,
        "scaling_factor": scale,
        "sample_size": 256,
    }


def _clip_config(weights: Mapping[str, Tensor], act: str, projected: int | None) -> dict[str, Any]:
    """The description of an encoder, from the shapes of its tensors, as transformers names them."""
    embedding = weights["text_model.embeddings.token_embedding.weight"]
    width = embedding.shape[1]
    layers = {n.split(".")[3] for n in weights if n.startswith("text_model.encoder.layers.")}
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // HEAD),
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": weights["text_model.embeddings.position_embedding.weight"].shape[0],
        "projection_dim": projected or width,
        "hidden_act": act,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _first_clip(state: Mapping[str, Tensor], at: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    weights = {
        "text_model." + name.removeprefix(at): tensor
        for name, tensor in state.items()
        if name.startswith(at) and not name.endswith("position_ids")
    }
    return "CLIPTextModel", _clip_config(weights, "quick_gelu", None), weights


def _open_clip(
    state: Mapping[str, Tensor], at: str, convert: Any, projected: bool
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """The second version hears the last layer but one, so that its last layer is left out."""
    width = state[f"{at}token_embedding.weight"].shape[1]
    holder = nn.Module()
    holder.config = type("Config", (), {"hidden_size": width})()
    weights: dict[str, Tensor] = convert.convert_open_clip_checkpoint(holder, dict(state), prefix=at)
    if not projected:
        last = max(int(n.split(".")[3]) for n in weights if n.startswith("text_model.encoder.layers."))
        kept = state.get(f"{at}transformer.resblocks.{last}.ln_1.weight")
        if kept is not None and last >= 1:
            weights = {n: t for n, t in weights.items() if f".layers.{last}." not in n}
        weights.pop("text_projection.weight", None)
        return "CLIPTextModel", _clip_config(weights, "gelu", None), weights
    dim = weights["text_projection.weight"].shape[0]
    return "CLIPTextModelWithProjection", _clip_config(weights, "gelu", dim), weights


def _scheduler(state: Mapping[str, Tensor], family: Family, path: Path) -> dict[str, Any]:
    """As the first code sampled; what is predicted as the file says."""
    second = any(name.startswith("cond_stage_model.model.") for name in state)
    said = _notes(path).get("modelspec.prediction_type", "")
    v = "v_pred" in state or said == "v" or (second and said != "epsilon")
    first = {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "clip_sample": False}
    return {
        **(first if family.name == "sd" else {"_class_name": "EulerDiscreteScheduler"}),
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
        "timestep_spacing": "leading", "prediction_type": "v_prediction" if v else "epsilon",
        "rescale_betas_zero_snr": "ztsnr" in state,
    }  # fmt: skip


def _notes(path: Path) -> dict[str, str]:
    """What the head of a safetensors file says beside its tensors."""
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        found: dict[str, str] = json.loads(stream.read(length)).get("__metadata__", {})
    return found


def _vocabulary(name: str, family: Family, options: Options, settings: Settings, path: Path) -> Part:
    """The words of an encoder, which no single file has: as given, or those of a model that is here."""
    if name in options.parts:
        return look_at_vocabulary(options.parts[name])
    own = [card for card in models(settings).values() if card.checkpoint is not None and not card.base]
    for wanted in (name, "tokenizer"):
        for card in own:
            assert card.checkpoint is not None
            if card.checkpoint.family in ("sd", "sdxl", "sdxl-refiner", "sd3") and (card.folder / wanted).is_dir():
                return look_at_vocabulary(card.folder / wanted)
    raise ModelError(
        f"{path.name} has no vocabulary, as no single file has: say --part {name}=FOLDER, with the tokenizer folder of "
        "any Stable Diffusion, or add such a model first"
    )
