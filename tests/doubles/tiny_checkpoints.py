"""Tiny pipelines of diffusers, randomly initialised, with vocabularies of their own: made on the spot, nothing fetched."""

from __future__ import annotations

import importlib
import string
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "apple", "blue", "fish", "house", "in", "the", "snow", "ugly")


def quiet(function: Any) -> Any:
    """The libraries warn of what is deprecated inside themselves."""

    def inner(*args: Any, **options: Any) -> Any:
        from perrin.models.checkpoints.loading import quietly

        with quietly():
            torch.manual_seed(0)
            return function(*args, **options)

    return inner


def clip_tokenizer(length: int = 16) -> Any:
    """Letters, and the words that a few merges make of them."""
    transformers = importlib.import_module("transformers")
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase]
    vocabulary += [letter + "</w>" for letter in string.ascii_lowercase]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            pieces = ["".join(pair), *pieces[2:]]
    table = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    return transformers.CLIPTokenizer(vocab=table, merges=merges, model_max_length=length)


def t5_tokenizer(length: int = 16) -> Any:
    """Whole words and letters, with scores."""
    transformers = importlib.import_module("transformers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -1.0) for word in WORDS] + [(letter, -3.0) for letter in string.ascii_lowercase]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def clip(width: int = 32, projected: bool = False, **more: Any) -> Any:
    transformers = importlib.import_module("transformers")
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2, vocab_size=200,
        max_position_embeddings=16, projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1, **more,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return kind(config).eval()


def t5(width: int = 32) -> Any:
    transformers = importlib.import_module("transformers")
    config = transformers.T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return transformers.T5EncoderModel(config).eval()


def vae(latent: int = 4, **more: Any) -> Any:
    diffusers = importlib.import_module("diffusers")
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=latent, sample_size=32, **more,
    ).eval()  # fmt: skip


def unet(context: int = 32, inputs: int = 4, **more: Any) -> Any:
    diffusers = importlib.import_module("diffusers")
    options = {
        "block_out_channels": (16, 32), "layers_per_block": 1, "sample_size": 16, "in_channels": inputs,
        "out_channels": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "attention_head_dim": 4,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": context, "norm_num_groups": 8,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**options, **more}).eval()


SD_SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
}  # fmt: skip


@quiet
def sd(
    folder: Path,
    scheduler: str = "DDIMScheduler",
    inputs: int = 4,
    context: int = 32,
    unet_options: Any = None,
    **options: Any,
) -> Any:
    """Stable Diffusion 1 (or 2, by its options); saved in ``folder``."""
    diffusers = importlib.import_module("diffusers")
    if scheduler in ("DDIMScheduler", "PNDMScheduler"):
        options = {"set_alpha_to_one": False, **options}
    if scheduler == "DDIMScheduler":
        options = {"clip_sample": False, **options}
    if scheduler == "PNDMScheduler":
        options = {"skip_prk_steps": True, **options}
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(context), tokenizer=clip_tokenizer(), unet=unet(context, inputs, **(unet_options or {})),
        scheduler=getattr(diffusers, scheduler)(**{**SD_SCHEDULE, **options}), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return saved(pipe, folder)


def saved(pipe: Any, folder: Path) -> Any:
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
