"""Looks at what is no folder of a whole pipeline: single files, and adapters of a model that is here. Imports torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.errors import InvalidInput, ModelError
from perrin.models.card import Checkpoint, ModelCard
from perrin.models.checkpoints.adding import Options, Source, name_of, write_part
from perrin.models.checkpoints.checking import empty
from perrin.models.checkpoints.folders import look_at_part, read_json
from perrin.models.checkpoints.licences import licence_in
from perrin.models.checkpoints.lora import as_file, is_lora, read_lora
from perrin.models.checkpoints.readers import is_inversion, is_reader, look_at_inversion, look_at_reader
from perrin.models.checkpoints.single import is_single, look_at_single
from perrin.models.library import models
from perrin.models.tensors import PICKLED, read_tensors
from perrin.settings import Settings

__all__ = ["look_at_other"]

KINDS = ("edge", "scribble", "depth", "picture")
"""What a control network may read; ``picture`` is one that it takes as it is."""

MARKS: Mapping[str, str] = {
    "model.diffusion_model.input_blocks.0.0.weight": "a Stable Diffusion checkpoint",
    "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": "a Stable Diffusion 3 checkpoint",
    "double_blocks.0.img_attn.qkv.weight": "a Flux transformer",
    "control_model.input_blocks.0.0.weight": "a control network",
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": "a LoRA",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": "a LoRA",
    "image_proj.proj.weight": "an IP-Adapter",
    "emb_params": "a textual inversion",
    "decoder.conv_in.weight": "an autoencoder",
}
"""Names that tell what a file is."""


def look_at_other(path: Path, options: Options, settings: Settings) -> Source:
    """What is at ``path``; as `perrin.models.checkpoints.adding.look`."""
    if path.is_dir():
        return _folder(path, options, settings)
    if path.suffix != ".safetensors" and path.suffix not in PICKLED:
        raise ModelError(f"{path.name} cannot be read: wanted .safetensors or one of {', '.join(PICKLED)}")
    tensors = read_tensors(path)
    if is_lora(tensors):
        return _lora(path, tensors, options, settings)

    def choose(fits: Callable[[ModelCard], Any]) -> tuple[ModelCard, Any]:
        return chosen(path, options, settings, fits)

    def carded(base: ModelCard, title: str, **more: Any) -> ModelCard:
        return adapter_card(path, options, base, title, **more)

    if is_reader(tensors):
        return look_at_reader(path, tensors, options, choose, carded)
    if is_inversion(tensors):
        return look_at_inversion(path, tensors, options, choose, carded)
    if is_single(tensors):
        return look_at_single(path, tensors, options, settings)
    raise ModelError(_unknown(path, tensors))


def _unknown(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """What was seen, and what comes nearest."""

    def likeness(mark: str) -> float:
        return max(difflib.SequenceMatcher(None, mark, name).ratio() for name in [*tensors][:40])

    near = max(MARKS, key=likeness)
    some = ", ".join([*tensors][:3])
    return (
        f"{path.name} is of no known architecture: {len(tensors)} tensors, such as {some[:160]}; the nearest known one "
        f"is {MARKS[near]}, which has {near}"
    )


def bases(options: Options, settings: Settings) -> list[ModelCard]:
    """The models that an adapter may belong to.

    Raises:
        ModelError: there is none, or none of the name given.
    """
    found = [card for card in models(settings).values() if card.checkpoint is not None and not card.base]
    if options.base is not None:
        found = [card for card in found if card.name == options.base]
    if not found:
        wanted = f"called {options.base[:60]}" if options.base else "that it could belong to"
        raise ModelError(f"there is no checkpoint {wanted}: add the model itself first, then its adapters")
    return found


def chosen(path: Path, options: Options, settings: Settings, fits: Callable[[ModelCard], Any]) -> tuple[ModelCard, Any]:
    """The base that ``fits`` takes, and what it made of it.

    Raises:
        ModelError: it takes none; says why of the last one.
    """
    reasons = []
    for card in bases(options, settings):
        try:
            return card, fits(card)
        except ModelError as error:
            reasons.append(f"{card.name}: {error.message}")
    raise ModelError(reasons[0] if len(reasons) == 1 else f"{path.name} fits no model that is here: {reasons[0]}")


def adapter_card(path: Path, options: Options, base: ModelCard, title: str, **more: Any) -> ModelCard:
    """The card of an adapter."""
    assert base.checkpoint is not None
    more.setdefault("checkpoint", Checkpoint(family=base.checkpoint.family))
    return ModelCard(
        name=name_of(path, options),
        modality=base.modality,
        base=base.name,
        title=path.stem if path.is_file() else path.name,
        summary=f"{title} for {base.name}, added from a file.",
        licence=options.licence or licence_in(path) or "not stated",
        **more,
    )


def networks_of(card: ModelCard) -> dict[str, nn.Module]:
    """The networks of a base that a LoRA may adapt, without their weights."""
    assert card.checkpoint is not None
    from perrin.models.checkpoints.families import FAMILIES

    found = {"": empty(card, FAMILIES[card.checkpoint.family].network)}
    for part in card.checkpoint.parts:
        if part.startswith("text_encoder"):
            found[f"{part}."] = empty(card, part)
    return found


def _lora(
    path: Path, tensors: Mapping[str, Tensor], options: Options, settings: Settings,
    alphas: Mapping[str, float] | None = None,
) -> Source:  # fmt: skip
    base, found = chosen(path, options, settings, lambda card: read_lora(tensors, networks_of(card), path.name, alphas))
    made = as_file(found)

    def write(target: Path) -> None:
        save_file(made, target / "adapter.safetensors", {"scale": "1.0"})

    size = sum(tensor.numel() * tensor.element_size() for tensor in made.values())
    return Source(adapter_card(path, options, base, "A LoRA"), size, write, f"a LoRA for {base.name}")


def _folder(path: Path, options: Options, settings: Settings) -> Source:
    if (path / "adapter_config.json").is_file():
        config = read_json(path / "adapter_config.json")
        file = next(iter([*path.glob("adapter_model.safetensors"), *path.glob("*.safetensors")]), None)
        if file is None:
            raise ModelError(f"{path.name} has no adapter_model.safetensors beside its adapter_config.json")
        return _lora(path, read_tensors(file), options, settings, {"": float(config.get("lora_alpha") or 8)})
    single = list(path.glob("*.safetensors"))
    if not (path / "config.json").is_file():
        if len(single) == 1:
            return look_at_other(single[0], _named(options, path), settings)
        seen = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
        raise ModelError(f"{path.name} is no checkpoint: wanted model_index.json or config.json, seen: {seen[:160]}")
    part = look_at_part(path, options.variant, mixed=options.dtype is not None)
    if part.kind == "ControlNetModel":
        return _control(path, part, options, settings)
    if part.kind == "AutoencoderTiny":
        return _preview(path, part, options, settings)
    raise ModelError(
        f"{path.name} is one part, a {part.kind}, and no model by itself: add the whole pipeline with --part "
        f"{'vae' if part.kind.startswith('Autoencoder') else 'PART'}={path.name}"
    )


def _named(options: Options, path: Path) -> Options:
    from dataclasses import replace

    return options if options.name else replace(options, name=path.name)


def _control(path: Path, part: Any, options: Options, settings: Settings) -> Source:
    config = read_json(path / "config.json")
    kind = options.kind or next((name for name in (*KINDS, "canny") if name in path.name.lower()), "picture")
    kind = "edge" if kind == "canny" else kind
    if kind not in KINDS:
        raise InvalidInput("kind", kind, f"one of {', '.join(KINDS)}")
    width = int(config.get("cross_attention_dim") or 0)

    def fits(card: ModelCard) -> bool:
        assert card.checkpoint is not None
        own = read_json(card.folder / "unet" / "config.json") if "unet" in card.checkpoint.parts else {}
        for name in ("cross_attention_dim", "block_out_channels", "addition_embed_type"):
            if own.get(name) != config.get(name):
                raise ModelError(
                    f"{path.name} is for another base: its {name} is {config.get(name)}, wanted {own.get(name)}"
                )
        return bool(width)

    base, _ = chosen(path, options, settings, fits)
    assert base.checkpoint is not None
    checkpoint = Checkpoint(
        family=base.checkpoint.family, parts={"control": part.kind}, dtype=options.dtype or part.precision or "float32"
    )
    card = adapter_card(
        path, options, base, "A control network", checkpoint=checkpoint, conditioners={"control": [kind]}
    )
    return Source(
        card, part.bytes, lambda target: write_part(part, target / "control", options.dtype),
        f"a control network for {base.name} that reads {kind}",
    )  # fmt: skip


def _preview(path: Path, part: Any, options: Options, settings: Settings) -> Source:
    latent = int(read_json(path / "config.json").get("latent_channels") or 4)

    def fits(card: ModelCard) -> bool:
        own = read_json(card.folder / "vae" / "config.json") if (card.folder / "vae").is_dir() else {}
        if int(own.get("latent_channels") or 4) != latent:
            raise ModelError(f"{path.name} is for another base: it decodes {latent} channels")
        return True

    base, _ = chosen(path, options, settings, fits)
    assert base.checkpoint is not None
    checkpoint = Checkpoint(
        family=base.checkpoint.family, parts={"preview": part.kind}, dtype=part.precision or "float32"
    )
    card = adapter_card(
        path, options, base, "A small autoencoder", checkpoint=checkpoint, conditioners={"preview": [latent]}
    )
    return Source(
        card, part.bytes, lambda target: write_part(part, target / "preview", options.dtype),
        f"a small autoencoder for the previews of {base.name}",
    )  # fmt: skip
