"""Random checkpoints of real shapes, written to disk tensor by tensor: numbers without meaning, at the right size."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "doubles"))
import tiny_checkpoints as tiny

SDXL_UNET = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SD_UNET = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "attention_head_dim": 8,
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, "layers_per_block": 2, "cross_attention_dim": 768,
}  # fmt: skip
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "vocab_size": 49408, "max_position_embeddings": 77, "projection_dim": 768, "hidden_act": "quick_gelu",
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
CLIP_G = CLIP_L | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip


def write(
    folder: Path,
    kind: str,
    dtype: torch.dtype,
    smaller: dict[str, Any] | None = None,
    narrow: tuple[int, ...] = (),
) -> Path:
    """A checkpoint of Stable Diffusion 1 (``sd``) or XL (``sdxl``) in ``folder``; nothing if it is there."""
    if (folder / "model_index.json").is_file():
        return folder
    diffusers, transformers = (importlib.import_module(name) for name in ("diffusers", "transformers"))
    unet = {**(SDXL_UNET if kind == "sdxl" else SD_UNET), **(smaller or {})}
    config = transformers.CLIPTextConfig
    makes = {
        "unet": lambda: diffusers.UNet2DConditionModel(**unet),
        "vae": lambda: diffusers.AutoencoderKL(**(VAE | ({"block_out_channels": narrow} if narrow else {}))),
        "text_encoder": lambda: transformers.CLIPTextModel(config(**CLIP_L)),
    }
    if kind == "sdxl":
        makes["text_encoder_2"] = lambda: transformers.CLIPTextModelWithProjection(config(**CLIP_G))
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if kind == "sdxl" else "StableDiffusionPipeline"
    }
    for name, make in makes.items():
        _part(folder / name, make, dtype)
        library = "transformers" if name.startswith("text") else "diffusers"
        index[name] = [library, json.loads((folder / name / "config.json").read_text())["kind"]]
    for name in ("tokenizer", "tokenizer_2") if kind == "sdxl" else ("tokenizer",):
        tiny.clip_tokenizer(77).save_pretrained(folder / name)
        index[name] = ["transformers", "CLIPTokenizer"]
    schedule = diffusers.EulerDiscreteScheduler(**tiny.SD_SCHEDULE, timestep_spacing="leading")
    schedule.save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    if kind == "sd":
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _part(folder: Path, make: Any, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"), tiny.quietly():
        network = make()
    draws = torch.Generator().manual_seed(0)
    weights = {}
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        spread = (
            (shape[1] * (torch.tensor(shape[2:]).prod().item() if len(shape) > 2 else 1)) ** -0.5
            if len(shape) > 1
            else 0.1
        )
        made = torch.randn(shape, generator=draws, dtype=torch.float32) * spread
        norm = len(shape) == 1 and name.endswith("weight")
        weights[name] = (made + 1 if norm else made).to(dtype)
    ours = hasattr(network, "config") and hasattr(network.config, "to_dict")
    values = network.config.to_dict() if ours else dict(network.config)
    values |= {"kind": type(network).__name__} | ({"_class_name": type(network).__name__} if not ours else {})
    (folder / "config.json").write_text(json.dumps(values))
    save_file(
        weights, folder / ("model.safetensors" if ours else "diffusion_pytorch_model.safetensors"), {"format": "pt"}
    )
