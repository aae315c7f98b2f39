"""The families of checkpoints that can be taken in, as a table. No torch.

A family says which parts a checkpoint of it has, which of them is the network, and what a request gets that says
nothing. `perrin.models.checkpoints.pipelines` has, by the same names, how each is told a prompt and asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perrin.errors import ModelError

__all__ = ["FAMILIES", "PARTS", "Family", "family_of", "library_of"]

PARTS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "AudioLDM2ProjectionModel",
            "AudioLDM2UNet2DConditionModel",
            "AutoencoderKL",
            "AutoencoderKLCogVideoX",
            "AutoencoderKLLTXVideo",
            "AutoencoderKLWan",
            "AutoencoderOobleck",
            "AutoencoderTiny",
            "CogVideoXTransformer3DModel",
            "ControlNetModel",
            "DiTTransformer2DModel",
            "FluxTransformer2DModel",
            "LTXVideoTransformer3DModel",
            "MotionAdapter",
            "PixArtTransformer2DModel",
            "SD3Transformer2DModel",
            "StableAudioDiTModel",
            "StableAudioProjectionModel",
            "Transformer2DModel",
            "UNet2DConditionModel",
            "UNet2DModel",
            "UNetMotionModel",
            "WanTransformer3DModel",
        ),
        "diffusers",
    ),
    **dict.fromkeys(
        (
            "CLIPTextModel",
            "CLIPTextModelWithProjection",
            "CLIPVisionModelWithProjection",
            "ClapModel",
            "GPT2LMHeadModel",
            "GPT2Model",
            "SpeechT5HifiGan",
            "T5EncoderModel",
            "UMT5EncoderModel",
        ),
        "transformers",
    ),
}
"""Classes that a part may be of, and the library that has each. A checkpoint that names another one is refused."""


@dataclass(frozen=True)
class Family:
    """Checkpoints that are sampled alike.

    Attributes:
        name: as cards write it.
        title: as people read it.
        modality: what it makes.
        pipelines: names that ``model_index.json`` may give it.
        network: the part that denoises.
        needs: the other parts without which nothing is made.
        tokenizers: parts that are vocabularies.
        defaults: of requests: steps and guidance.
        multiple: sides in pixels are multiples of this.
        words: it is told a prompt.
        may: parts that it can do without.
    """

    name: str
    title: str
    modality: str
    pipelines: tuple[str, ...]
    network: str
    needs: tuple[str, ...]
    tokenizers: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 8
    words: bool = True
    may: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Those with weights, the ones it can do without at the end."""
        return (self.network, *self.needs, *self.may)


_SD = ("vae", "text_encoder")
_USUAL = {"steps": 30, "guidance": 7.5}

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "sd", "Stable Diffusion 1 and 2", "image",
            (
                "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
                "StableDiffusionControlNetPipeline", "LatentConsistencyModelPipeline",
                "LatentConsistencyModelImg2ImgPipeline",
            ),
            "unet", _SD, ("tokenizer",), _USUAL,
        ),
        Family(
            "sdxl", "Stable Diffusion XL", "image",
            (
                "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
                "StableDiffusionXLControlNetPipeline",
            ),
            "unet", ("vae", "text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2"),
            {"steps": 30, "guidance": 5.0},
        ),
        Family(
            "sdxl-refiner", "Stable Diffusion XL refiner", "image", (), "unet", ("vae", "text_encoder_2"),
            ("tokenizer_2",), {"steps": 30, "guidance": 5.0},
        ),
        Family(
            "sd3", "Stable Diffusion 3", "image", ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
            "transformer", ("vae", "text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2", "tokenizer_3"),
            {"steps": 28, "guidance": 7.0}, 16, may=("text_encoder_3",),
        ),
        Family(
            "flux", "Flux", "image", ("FluxPipeline", "FluxImg2ImgPipeline"), "transformer",
            ("vae", "text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2"), {"steps": 28, "guidance": 3.5}, 16,
        ),
        Family(
            "pixart", "PixArt", "image", ("PixArtAlphaPipeline", "PixArtSigmaPipeline"), "transformer",
            ("vae", "text_encoder"), ("tokenizer",), {"steps": 20, "guidance": 4.5}, 16,
        ),
        Family(
            "dit", "DiT", "image", ("DiTPipeline",), "transformer", ("vae",), (), {"steps": 25, "guidance": 4.0}, 8,
            words=False,
        ),
        Family(
            "ddpm", "Unconditional DDPM", "image", ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline"), "unet", (), (),
            {"steps": 50, "guidance": 1.0}, 1, words=False,
        ),
        Family(
            "animatediff", "AnimateDiff", "video", ("AnimateDiffPipeline",), "unet",
            ("motion_adapter", "vae", "text_encoder"), ("tokenizer",), {"steps": 25, "guidance": 7.5},
        ),
        Family(
            "cogvideox", "CogVideoX", "video", ("CogVideoXPipeline",), "transformer", ("vae", "text_encoder"),
            ("tokenizer",), {"steps": 50, "guidance": 6.0}, 16,
        ),
        Family(
            "wan", "Wan", "video", ("WanPipeline",), "transformer", ("vae", "text_encoder"), ("tokenizer",),
            {"steps": 50, "guidance": 5.0}, 16,
        ),
        Family(
            "ltx", "LTX Video", "video", ("LTXPipeline",), "transformer", ("vae", "text_encoder"), ("tokenizer",),
            {"steps": 50, "guidance": 3.0}, 32,
        ),
        Family(
            "audioldm2", "AudioLDM 2", "audio", ("AudioLDM2Pipeline",), "unet",
            ("vae", "text_encoder", "text_encoder_2", "projection_model", "language_model", "vocoder"),
            ("tokenizer", "tokenizer_2"), {"steps": 200, "guidance": 3.5},
        ),
        Family(
            "stable-audio", "Stable Audio Open", "audio", ("StableAudioPipeline",), "transformer",
            ("vae", "text_encoder", "projection_model"), ("tokenizer",), {"steps": 100, "guidance": 7.0},
        ),
    )
}  # fmt: skip
"""By name."""


def family_of(pipeline: str, shown: str, network: Mapping[str, Any] | None = None) -> Family:
    """The family of the pipeline that ``model_index.json`` names.

    Args:
        pipeline: ``_class_name``.
        shown: how messages call the checkpoint.
        network: the components that the index lists, where they decide.

    Raises:
        ModelError: there is none; names the nearest.
    """
    if pipeline.startswith("StableDiffusionXL") and network is not None and not _there(network, "text_encoder"):
        return FAMILIES["sdxl-refiner"]
    known = {name: family for family in FAMILIES.values() for name in family.pipelines}
    if pipeline in known:
        return known[pipeline]
    nearest = difflib.get_close_matches(pipeline, known, 1, 0)[0]
    listed = ", ".join(sorted(key for key in network or {} if not key.startswith("_"))) or "nothing"
    raise ModelError(
        f"{shown} is a {pipeline[:60]}, which is unknown (seen: {listed[:160]}); the nearest known one is {nearest}"
    )


def _there(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list | tuple) and len(entry) == 2 and entry[1] is not None


def library_of(kind: object, shown: str) -> str:
    """The library that has the class called ``kind``.

    Raises:
        ModelError: it is not one that is used here: nothing else is imported for a checkpoint's sake.
    """
    if kind in PARTS:
        return PARTS[str(kind)]
    nearest = difflib.get_close_matches(str(kind), PARTS, 1, 0)[0]
    raise ModelError(f"{shown} is of class {str(kind)[:60]}, which is unknown; the nearest known one is {nearest}")
