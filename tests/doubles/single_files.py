"""Tiny pipelines written into one file, with the names that the first Stable Diffusion code gave its layers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import tiny_checkpoints as tiny
import torch
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


def unet_names(network: Any) -> dict[str, str]:
    layers = network.config.layers_per_block
    attentive = [kind.startswith("CrossAttn") for kind in network.config.up_block_types]
    found = {}
    for name in network.state_dict():
        old = next((name.replace(new, was, 1) for new, was in UNET.items() if name.startswith(new + ".")), None)
        parts = name.split(".")
        if old is None and parts[0] == "mid_block":
            place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
            old = f"middle_block.{place}." + rest_of(parts[1], parts[3:])
        elif old is None:
            block, kind, layer = int(parts[1]), parts[2], int(parts[3])
            if kind == "downsamplers":
                old = f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{parts[-1]}"
            elif kind == "upsamplers":
                old = f"output_blocks.{block * (layers + 1) + layers}.{2 if attentive[block] else 1}.conv.{parts[-1]}"
            else:
                down = parts[0] == "down_blocks"
                number = block * (layers + 1) + layer + (1 if down else 0)
                side, place = "input" if down else "output", 0 if kind == "resnets" else 1
                old = f"{side}_blocks.{number}.{place}." + rest_of(kind, parts[4:])
        found[name] = old
    return found


def rest_of(kind: str, rest: list[str]) -> str:
    return ".".join([RESNET[rest[0]], *rest[1:]]) if kind == "resnets" else ".".join(rest)


def vae_tensors(network: Any) -> dict[str, Tensor]:
    count = len(network.config.block_out_channels)
    found = {}
    for name, tensor in network.state_dict().items():
        old = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        old = old.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        old = old.replace("downsamplers.0.conv", "downsample.conv").replace("upsamplers.0.conv", "upsample.conv")
        if "mid_block.attentions.0" in old:
            old = old.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            for new, was in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
                old = old.replace(new, was)
            tensor = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        for number in range(count):
            old = old.replace(f"down_blocks.{number}.resnets", f"down.{number}.block")
            old = old.replace(f"down_blocks.{number}.down", f"down.{number}.down")
            old = old.replace(f"up_blocks.{number}.resnets", f"UP.{count - 1 - number}.block")
            old = old.replace(f"up_blocks.{number}.upsample", f"UP.{count - 1 - number}.upsample")
        found[old.replace("UP.", "up.")] = tensor
    return found


def open_clip(network: Any, at: str, more: int = 0) -> dict[str, Tensor]:
    """With so many layers ``more`` at the end, which are not heard."""
    own = network.state_dict()
    state = {
        name if name.startswith(("text_model.", "text_proj")) else f"text_model.{name}": t for name, t in own.items()
    }
    count = network.config.num_hidden_layers
    for name in [name for name in state if f".layers.{count - 1}." in name]:
        for number in range(count, count + more):
            state[name.replace(f".layers.{count - 1}.", f".layers.{number}.")] = torch.ones_like(state[name])
    if "text_projection.weight" not in state:
        state["text_projection.weight"] = torch.eye(network.config.hidden_size)
    found = {
        f"{at}token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        f"{at}positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        f"{at}text_projection": state["text_projection.weight"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        found[f"{at}ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        for number in range(count + more):
            layer, block = f"text_model.encoder.layers.{number}.", f"{at}transformer.resblocks.{number}."
            names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
            for new, old in {**names, "self_attn.out_proj": "attn.out_proj"}.items():
                found[f"{block}{old}.{kind}"] = state[f"{layer}{new}.{kind}"]
            three = [state[f"{layer}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            found[f"{block}attn.in_proj_{kind}"] = torch.cat(three)
    return found


def clip_tensors(network: Any, at: str) -> dict[str, Tensor]:
    names = {n: n if n.startswith("text_model.") else f"text_model.{n}" for n in network.state_dict()}
    return {at + names[name]: tensor for name, tensor in network.state_dict().items()}


def tensors_of(pipe: Any) -> dict[str, Tensor]:
    state = pipe.unet.state_dict()
    found = {f"model.diffusion_model.{old}": state[new] for new, old in unet_names(pipe.unet).items()}
    found |= {f"first_stage_model.{name}": tensor for name, tensor in vae_tensors(pipe.vae).items()}
    second = getattr(pipe, "text_encoder_2", None)
    if second is None and pipe.unet.config.use_linear_projection:
        found |= open_clip(pipe.text_encoder, "cond_stage_model.model.", more=1)
    elif second is None:
        found |= clip_tensors(pipe.text_encoder, "cond_stage_model.transformer.")
    else:
        found |= clip_tensors(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        found |= open_clip(second, "conditioner.embedders.1.model.")
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def wide_vae(**more: Any) -> Any:
    """With norms of 32 groups, as all that were ever trained."""
    diffusers = importlib.import_module("diffusers")
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=32,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=32, **more,
    ).eval()  # fmt: skip


@tiny.quiet
def sd(folder: Path) -> Any:
    """A pipeline whose settings are those of Stable Diffusion 1, in small."""
    diffusers = importlib.import_module("diffusers")
    options = {"block_out_channels": (32, 64), "norm_num_groups": 32, "attention_head_dim": 8}
    encoder = tiny.clip(32, heads=1)
    schedule = diffusers.DDIMScheduler(**tiny.SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False)
    return tiny.saved(
        diffusers.StableDiffusionPipeline(
            vae=wide_vae(), text_encoder=encoder, tokenizer=tiny.clip_tokenizer(), unet=tiny.unet(32, **options),
            scheduler=schedule, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        ),
        folder,
    )  # fmt: skip


@tiny.quiet
def sd2(folder: Path) -> Any:
    """A pipeline whose settings are those of Stable Diffusion 2 at 768 pixels, in small."""
    diffusers = importlib.import_module("diffusers")
    options = {"block_out_channels": (32, 64), "norm_num_groups": 32, "attention_head_dim": (1, 1)}
    schedule = diffusers.DDIMScheduler(
        **tiny.SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
    )
    return tiny.saved(
        diffusers.StableDiffusionPipeline(
            vae=wide_vae(), text_encoder=tiny.clip(32, heads=1, hidden_act="gelu"), tokenizer=tiny.clip_tokenizer(),
            unet=tiny.unet(32, use_linear_projection=True, **options), scheduler=schedule, safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        ),
        folder,
    )  # fmt: skip


@tiny.quiet
def sdxl(folder: Path) -> Any:
    """A pipeline whose settings are those of Stable Diffusion XL, in small."""
    diffusers = importlib.import_module("diffusers")
    network = tiny.unet(
        56, block_out_channels=(32, 64), norm_num_groups=32, attention_head_dim=(1, 1), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 48,
        transformer_layers_per_block=(2, 1), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    schedule = diffusers.EulerDiscreteScheduler(**tiny.SD_SCHEDULE, timestep_spacing="leading")
    return tiny.saved(
        diffusers.StableDiffusionXLPipeline(
            vae=wide_vae(scaling_factor=0.13025), unet=network, scheduler=schedule, add_watermarker=False,
            text_encoder=tiny.clip(32, heads=1), tokenizer=tiny.clip_tokenizer(), tokenizer_2=tiny.clip_tokenizer(),
            text_encoder_2=tiny.clip(24, projected=True, heads=1, hidden_act="gelu"),
        ),
        folder,
    )  # fmt: skip


def write(pipe: Any, path: Path) -> Path:
    """As safetensors, or as torch saves it."""
    tensors = tensors_of(pipe)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "global_step": 1}, path)
    return path
