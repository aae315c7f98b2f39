"""Tiny pipelines of diffusers, randomly initialised, with vocabularies of their own: made on the spot."""

from __future__ import annotations

import importlib
import json
import string
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "apple", "blue", "fish", "house", "in", "the", "snow", "ugly")


def quietly() -> Any:
    """No word of the libraries about themselves."""
    return importlib.import_module("perrin.models.checkpoints.loading").quietly()


def quiet(function: Any) -> Any:
    """The libraries warn of what is deprecated inside themselves."""

    def inner(*args: Any, **options: Any) -> Any:
        with quietly():
            torch.manual_seed(0)
            return function(*args, **options)

    return inner


def clip_tokenizer(length: int = 16) -> Any:
    """Letters, and the words that a few merges make of them."""
    transformers = importlib.import_module("transformers")
    vocabulary = [*string.ascii_lowercase]
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
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]  # the last ones, as in the real vocabulary
    table = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    return transformers.CLIPTokenizer(vocab=table, merges=merges, model_max_length=length)


def roberta_tokenizer(length: int = 16) -> Any:
    """Letters alone."""
    transformers = importlib.import_module("transformers")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *string.ascii_lowercase]
    table = {token: number for number, token in enumerate(tokens)}
    return transformers.RobertaTokenizer(vocab=table, merges=[], model_max_length=length)


def t5_tokenizer(length: int = 16) -> Any:
    """Whole words and letters, with scores."""
    transformers = importlib.import_module("transformers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -1.0) for word in WORDS] + [(letter, -3.0) for letter in string.ascii_lowercase]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def clip(width: int = 32, projected: bool = False, heads: int = 2, **more: Any) -> Any:
    transformers = importlib.import_module("transformers")
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=heads, vocab_size=200,
        max_position_embeddings=16, projection_dim=width, bos_token_id=0, eos_token_id=2, pad_token_id=1, **more,
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
        vae=vae(), text_encoder=clip(context), tokenizer=clip_tokenizer(),
        unet=unet(context, inputs, **(unet_options or {})),
        scheduler=getattr(diffusers, scheduler)(**{**SD_SCHEDULE, **options}), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return saved(pipe, folder)


def saved(pipe: Any, folder: Path) -> Any:
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def clips(**more: Any) -> dict[str, Any]:
    """Two encoders and their vocabularies."""
    return {
        "text_encoder": clip(32, **more), "text_encoder_2": clip(24, projected=True),
        "tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(),
    }  # fmt: skip


@quiet
def sdxl(folder: Path, refiner: bool = False) -> Any:
    diffusers = importlib.import_module("diffusers")
    numbers = 5 if refiner else 6
    network = unet(
        24 if refiner else 56, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 8 * numbers, transformer_layers_per_block=(2, 1),
    )  # fmt: skip
    parts = clips()
    if refiner:
        parts |= {"text_encoder": None, "tokenizer": None}
    kind = diffusers.StableDiffusionXLImg2ImgPipeline if refiner else diffusers.StableDiffusionXLPipeline
    options = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False} if refiner else {}
    schedule = diffusers.EulerDiscreteScheduler(**SD_SCHEDULE, timestep_spacing="leading")
    return saved(kind(vae=vae(), unet=network, scheduler=schedule, add_watermarker=False, **parts, **options), folder)


@quiet
def sd3(folder: Path, third: bool = True) -> Any:
    diffusers = importlib.import_module("diffusers")
    transformers = importlib.import_module("transformers")
    network = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=64, pooled_projection_dim=56, out_channels=4,
    ).eval()  # fmt: skip
    parts = clips()
    parts["text_encoder"] = clip(32, projected=True)
    del transformers
    return saved(
        diffusers.StableDiffusion3Pipeline(
            transformer=network, vae=vae(shift_factor=0.0609, scaling_factor=1.5305), **parts,
            text_encoder_3=t5(64) if third else None, tokenizer_3=t5_tokenizer() if third else None,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        ),
        folder,
    )  # fmt: skip


@quiet
def flux(folder: Path, guided: bool = True) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guided,
    ).eval()  # fmt: skip
    schedule = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0 if guided else 1.0, use_dynamic_shifting=guided, base_image_seq_len=256, max_image_seq_len=4096
    )
    return saved(
        diffusers.FluxPipeline(
            transformer=network, vae=vae(shift_factor=0.1159, scaling_factor=0.3611), text_encoder=clip(32),
            tokenizer=clip_tokenizer(), text_encoder_2=t5(32), tokenizer_2=t5_tokenizer(512), scheduler=schedule,
        ),
        folder,
    )  # fmt: skip


@quiet
def pixart(folder: Path, sizes: bool = False) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=48, sample_size=128 if sizes else 16, patch_size=2, caption_channels=32,
    ).eval()  # fmt: skip
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    schedule = diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    return saved(
        diffusers.PixArtAlphaPipeline(
            transformer=network, vae=vae(), text_encoder=t5(32), tokenizer=t5_tokenizer(120), scheduler=schedule
        ),
        folder,
    )


@quiet
def dit(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=16,
        patch_size=2, num_embeds_ada_norm=5, norm_type="ada_norm_zero",
    ).eval()  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    schedule = diffusers.DDIMScheduler(clip_sample=False)
    pipe = saved(diffusers.DiTPipeline(transformer=network, vae=vae(), scheduler=schedule), folder)
    index = json.loads((folder / "model_index.json").read_text())
    names = {"0": "cat, tabby", "1": "dog", "2": "fish", "3": "bird", "4": "horse"}
    (folder / "model_index.json").write_text(json.dumps(index | {"id2label": names}))  # as the real ones have it
    return pipe


@quiet
def ddpm(folder: Path, scheduler: str = "DDPMScheduler") -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()  # fmt: skip
    kind = diffusers.DDPMPipeline if scheduler == "DDPMScheduler" else diffusers.DDIMPipeline
    return saved(kind(unet=network, scheduler=getattr(diffusers, scheduler)()), folder)


@quiet
def lcm(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    schedule = diffusers.LCMScheduler(**SD_SCHEDULE, set_alpha_to_one=False, clip_sample=False)
    return saved(
        diffusers.LatentConsistencyModelPipeline(
            vae=vae(), text_encoder=clip(32), tokenizer=clip_tokenizer(), unet=unet(32, time_cond_proj_dim=16),
            scheduler=schedule, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        ),
        folder,
    )  # fmt: skip


@quiet
def control_net(folder: Path, context: int = 32) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.ControlNetModel(
        block_out_channels=(16, 32), layers_per_block=1, in_channels=4, attention_head_dim=4, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=context,
        conditioning_embedding_out_channels=(8, 16),
    ).eval()  # fmt: skip
    for block in (
        *network.controlnet_down_blocks,
        network.controlnet_mid_block,
        network.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(block.weight, std=0.2)  # they begin at zero
    network.save_pretrained(folder)
    return network


@quiet
def animatediff(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    motion = diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=8, motion_num_attention_heads=4
    )
    return saved(
        diffusers.AnimateDiffPipeline(
            vae=vae(), text_encoder=clip(32), tokenizer=clip_tokenizer(), unet=unet(32), motion_adapter=motion,
            scheduler=diffusers.DDIMScheduler(**{**SD_SCHEDULE, "beta_schedule": "linear"}, clip_sample=False),
        ),
        folder,
    )  # fmt: skip


@quiet
def cogvideox(folder: Path, turned: bool = False) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=8,
        text_embed_dim=32, num_layers=2, sample_width=16, sample_height=16, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=16, use_rotary_positional_embeddings=turned,
    ).eval()  # fmt: skip
    codec = diffusers.AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4, norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()  # fmt: skip
    schedule = diffusers.CogVideoXDDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing", clip_sample=False,
    )  # fmt: skip
    return saved(
        diffusers.CogVideoXPipeline(
            transformer=network, vae=codec, text_encoder=t5(32), tokenizer=t5_tokenizer(16), scheduler=schedule
        ),
        folder,
    )


@quiet
def wan(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()  # fmt: skip
    codec = diffusers.AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    transformers = importlib.import_module("transformers")
    config = transformers.UMT5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return saved(
        diffusers.WanPipeline(
            transformer=network, vae=codec, text_encoder=transformers.UMT5EncoderModel(config).eval(),
            tokenizer=t5_tokenizer(512), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        ),
        folder,
    )  # fmt: skip


@quiet
def ltx(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, num_layers=1, caption_channels=32,
    ).eval()  # fmt: skip
    codec = diffusers.AutoencoderKLLTXVideo(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1), spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, timestep_conditioning=False, patch_size=1,
        patch_size_t=1, encoder_causal=True, decoder_causal=False,
    ).eval()  # fmt: skip
    return saved(
        diffusers.LTXPipeline(
            transformer=network, vae=codec, text_encoder=t5(32), tokenizer=t5_tokenizer(128),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=64
            ),
        ),
        folder,
    )  # fmt: skip


@quiet
def stable_audio(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.StableAudioDiTModel(
        sample_size=16, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=4, cross_attention_dim=16, time_proj_dim=8,
        global_states_input_dim=32, cross_attention_input_dim=16,
    ).eval()  # fmt: skip
    codec = diffusers.AutoencoderOobleck(
        encoder_hidden_size=6, downsampling_ratios=[1, 2], decoder_channels=6, decoder_input_channels=4,
        audio_channels=2, channel_multiples=[1, 2], sampling_rate=8,
    ).eval()  # fmt: skip
    projection = diffusers.StableAudioProjectionModel(
        text_encoder_dim=32, conditioning_dim=16, min_value=0, max_value=32
    )
    return saved(
        diffusers.StableAudioPipeline(
            transformer=network, vae=codec, text_encoder=t5(32), tokenizer=t5_tokenizer(16),
            projection_model=projection.eval(), scheduler=diffusers.CosineDPMSolverMultistepScheduler(
                solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
            ),
        ),
        folder,
    )  # fmt: skip


@quiet
def image_encoder(folder: Path, width: int = 16) -> Any:
    transformers = importlib.import_module("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16,
        patch_size=4, projection_dim=width,
    )  # fmt: skip
    network = transformers.CLIPVisionModelWithProjection(config).eval()
    network.save_pretrained(folder)
    return network


def ip_adapter(pipe: Any, width: int = 16) -> dict[str, dict[str, torch.Tensor]]:
    """A random one for the U-Net of ``pipe``, as its own code saves it."""
    draws = torch.Generator().manual_seed(2)
    context = pipe.unet.config.cross_attention_dim
    reader = {
        "proj.weight": torch.randn(4 * context, width, generator=draws) * 0.3, "proj.bias": torch.zeros(4 * context),
        "norm.weight": torch.ones(context), "norm.bias": torch.zeros(context),
    }  # fmt: skip
    layers = {}
    for number, name in enumerate(pipe.unet.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            for kind in "kv":
                layers[f"{number}.to_{kind}_ip.weight"] = torch.randn(hidden, context, generator=draws) * 0.3
    return {"image_proj": reader, "ip_adapter": layers}


@quiet
def small_vae(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    network = diffusers.AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    ).eval()  # fmt: skip
    network.save_pretrained(folder)
    return network


@quiet
def audioldm2(folder: Path) -> Any:
    diffusers = importlib.import_module("diffusers")
    transformers = importlib.import_module("transformers")
    network = diffusers.AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, sample_size=32, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=((None, 16, 32), (None, 16, 32)),
    ).eval()  # fmt: skip
    codec = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), in_channels=1, out_channels=1, norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip
    text = transformers.ClapTextConfig(
        bos_token_id=0, eos_token_id=2, hidden_size=8, intermediate_size=37, layer_norm_eps=1e-05,
        num_attention_heads=1, num_hidden_layers=1, pad_token_id=1, vocab_size=200, projection_dim=8,
    )  # fmt: skip
    audio = transformers.ClapAudioConfig(
        spec_size=8, window_size=4, num_mel_bins=8, intermediate_size=37, layer_norm_eps=1e-05, depths=[1, 1],
        num_attention_heads=[1, 1], num_hidden_layers=1, hidden_size=192, projection_dim=8, patch_size=2,
        patch_stride=2, patch_embed_input_channels=4,
    )  # fmt: skip
    clap = transformers.ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=16)
    language = transformers.GPT2Config(
        n_embd=16, n_head=2, n_layer=1, vocab_size=200, n_ctx=99, n_positions=99, pad_token_id=1, eos_token_id=2
    )
    vocoder = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8, sampling_rate=16000, upsample_initial_channel=16, upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        normalize_before=False,
    )  # fmt: skip
    projection = diffusers.AudioLDM2ProjectionModel(text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16)
    return saved(
        diffusers.AudioLDM2Pipeline(
            vae=codec, text_encoder=transformers.ClapModel(clap).eval(), text_encoder_2=t5(32),
            projection_model=projection.eval(), language_model=transformers.GPT2LMHeadModel(language).eval(),
            tokenizer=roberta_tokenizer(16), tokenizer_2=t5_tokenizer(16),
            feature_extractor=transformers.ClapFeatureExtractor(feature_size=8), unet=network,
            scheduler=diffusers.DDIMScheduler(**SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False),
            vocoder=transformers.SpeechT5HifiGan(vocoder).eval(),
        ),
        folder,
    )  # fmt: skip


def as_sentencepiece(tokenizer: Any, folder: Path) -> None:
    """The words of a T5 tokenizer as ``spiece.model``."""
    proto = importlib.import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    for word, score in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]:
        piece = proto.pieces.add()
        piece.piece, piece.score, piece.type = word, score, kinds.get(word, 1)
    spec = proto.trainer_spec
    spec.model_type, spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 1, 0, 1, 2, -1
    (folder / "spiece.model").write_bytes(proto.SerializeToString())
