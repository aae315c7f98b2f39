"""Image checkpoints against diffusers: made on the spot, saved, added, sampled; to 1e-3 in float32.

Both get the same starting state. Theirs is given as ``latents``, which their schedulers scale in their own way.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import single_files
import tiny_checkpoints as tiny
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import perrin
from perrin import plugins
from perrin.errors import ModelError
from perrin.inputs import InputFile
from perrin.modality import validate
from perrin.models import ModelCard
from perrin.models.checkpoints import Options, add_checkpoint
from perrin.models.checkpoints.loading import load_tokenizer, quietly
from perrin.models.checkpoints.lora import read_lora

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

CLOSE = 1e-3


class Ours:
    """A checkpoint, added and loaded."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.face = plugins.modality("image")
        self.card: ModelCard = add_checkpoint(folder, Options(**options))
        self.runtime: Any = plugins.runtime(self.face).load(self.card, "cpu")

    def start(self, inputs: dict[str, InputFile] | None = None, **asked: Any) -> Any:
        given = dict.fromkeys(inputs or {}, "0" * 32)
        values = {"model": self.card.name, "seed": 3, "steps": 6, "size": 32, **given, **asked}
        self.parameters: Any = validate(self.face, values).resolved(self.card)
        return self.runtime.start(self.parameters, inputs or {})

    def decoded(self, latents: Tensor) -> Tensor:
        return self.runtime._codec.decode(latents)[:, :3]


def theirs_start(pipe: Any, run: Any, steps: int) -> Tensor:
    """The ``latents`` that make their first state ours."""
    first, scheduler = run.plan.rows[0], pipe.scheduler
    scheduler.set_timesteps(steps)
    ratio = hasattr(scheduler, "sigmas") and not type(scheduler).__name__.startswith(("DPM", "UniPC", "FlowMatch"))
    state = run.state / first.alpha if ratio else run.state
    return state / getattr(scheduler, "init_noise_sigma", 1.0)


def agree(a: Tensor, b: Tensor, what: str) -> None:
    """Largest difference over largest value."""
    assert a.shape == b.shape
    away = float((a.float() - b.float()).abs().max() / b.float().abs().max())
    print(f"{what} differ by {away:.1e}")
    assert away <= CLOSE


@torch.inference_mode()
def compare(ours: Ours, pipe: Any, decode: Callable[[Tensor], Tensor] | None = None, **asked: Any) -> None:
    run = ours.start(prompt="a red apple", **asked)
    p = ours.parameters
    with quietly():
        theirs = pipe(
            prompt=p.prompt, negative_prompt=p.negative or None, num_inference_steps=p.steps, guidance_scale=p.guidance,
            latents=theirs_start(pipe, run, p.steps), height=32, width=32, output_type="latent",
        ).images  # fmt: skip
    made = run.run()
    agree(made, theirs, "latents")
    config = pipe.vae.config
    shown = pipe.vae.decode(theirs / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)).sample
    agree(ours.decoded(made), shown, "decoded")


SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {"prediction_type": "v_prediction"}),
    (
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    ),
    ("PNDMScheduler", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}),
    ("UniPCMultistepScheduler", {}),
]


@pytest.mark.parametrize(("scheduler", "options"), SCHEDULERS, ids=lambda v: v if isinstance(v, str) else "")
def test_stable_diffusion(scheduler: str, options: dict[str, Any], home: Path, tmp_path: Path) -> None:
    pipe = tiny.sd(tmp_path / "sd", scheduler, **options)
    ours = Ours(tmp_path / "sd")
    # Where 1000 is no multiple of the steps, their DDIM steps to other times than those that it asks at next.
    steps = 8 if options.get("timestep_spacing") == "trailing" else 6
    compare(ours, pipe, guidance=5.0, negative="ugly blue fish", steps=steps)


def test_stable_diffusion_xl_with_two_encoders(home: Path, tmp_path: Path) -> None:
    pipe = tiny.sdxl(tmp_path / "xl")
    ours = Ours(tmp_path / "xl")
    assert ours.card.checkpoint is not None
    assert ours.card.checkpoint.family == "sdxl"
    compare(ours, pipe, guidance=5.0, negative="ugly blue fish")
    compare(ours, pipe, guidance=5.0)  # nothing to steer away from is zeros, not the sentence without words


@pytest.mark.parametrize("third", [True, False])
def test_stable_diffusion_3(third: bool, home: Path, tmp_path: Path) -> None:
    pipe = tiny.sd3(tmp_path / "three", third)
    compare(Ours(tmp_path / "three"), pipe, guidance=4.0, negative="ugly blue fish")


def _as_flux(latents: Tensor) -> Tensor:
    """Two by two places as one token."""
    batch, channels, high, wide = latents.shape
    grid = latents.reshape(batch, channels, high // 2, 2, wide // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(batch, -1, channels * 4)


@torch.inference_mode()
@pytest.mark.parametrize("guided", [True, False], ids=["dev", "schnell"])
def test_flux(guided: bool, home: Path, tmp_path: Path) -> None:
    pipe = tiny.flux(tmp_path / "flux", guided)
    ours = Ours(tmp_path / "flux")
    run = ours.start(prompt="a red apple", guidance=3.5, steps=4)
    with quietly():
        theirs = pipe(
            "a red apple", num_inference_steps=4, guidance_scale=3.5, latents=_as_flux(run.state), height=32, width=32,
            output_type="latent", max_sequence_length=512 if guided else 256,
        ).images  # fmt: skip
        shown = pipe.vae.decode(pipe._unpack_latents(theirs, 32, 32, 2) / 0.3611 + 0.1159).sample
    made = run.run()
    agree(_as_flux(made), theirs, "latents")
    agree(ours.decoded(made), shown, "decoded")


@pytest.mark.parametrize("sizes", [False, True])
def test_pixart(sizes: bool, home: Path, tmp_path: Path) -> None:
    pipe = tiny.pixart(tmp_path / "art", sizes)
    pipe = _with(pipe, clean_caption=False, use_resolution_binning=False)
    compare(Ours(tmp_path / "art"), pipe, guidance=4.0, negative="ugly blue fish")


class _with:  # noqa: N801
    """A pipeline that is always called with these options."""

    def __init__(self, pipe: Any, **options: Any) -> None:
        self.pipe, self.options = pipe, options

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def __call__(self, **asked: Any) -> Any:
        asked["negative_prompt"] = asked["negative_prompt"] or ""
        return self.pipe(**asked, **self.options)


@torch.inference_mode()
def test_dit_by_the_name_of_a_class(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.dit(tmp_path / "dit")
    ours = Ours(tmp_path / "dit")
    assert ours.card.conditioners["class"] == ["cat", "dog", "fish", "bird", "horse"]
    run = ours.start(prompt="Fish", guidance=3.0)
    start = run.state.clone()
    made = run.run()
    module = importlib.import_module(type(pipe).__module__)
    monkeypatch.setattr(module, "randn_tensor", lambda **_: start)
    seen: list[Tensor] = []

    def decode(z: Tensor) -> Any:
        seen.append(z)
        return type("", (), {"sample": torch.zeros(1, 3, 32, 32)})

    monkeypatch.setattr(pipe.vae, "decode", decode)
    # Theirs has the class of nothing at 1000; this one, of five classes, at 5.
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda value, **more: tensor([5] if value == [1000] else value, **more))
    with quietly():
        pipe([2], guidance_scale=3.0, num_inference_steps=6)
    agree(made * 1.0, seen[0] * pipe.vae.config.scaling_factor, "latents")


@torch.inference_mode()
@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DDIMScheduler"])
def test_unconditional(scheduler: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs cut the estimate off at 1; DDPM goes on along what was cut off, DDIM along what was not."""
    pipe = tiny.ddpm(tmp_path / "ddpm", scheduler)
    ours = Ours(tmp_path / "ddpm")
    run = ours.start(size=16)
    draws = run._draw
    calls = iter(range(1000))
    scale = run.plan.start

    def drawn(*_: Any, **__: Any) -> Tensor:
        number = next(calls)
        return draws(number, "") * (scale if number == 0 else 1)

    for name in (type(pipe).__module__, type(pipe.scheduler).__module__):
        monkeypatch.setattr(importlib.import_module(name), "randn_tensor", drawn)
    with quietly():
        theirs = pipe(num_inference_steps=6, output_type="np").images
    made = run.run()
    agree((made / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), torch.from_numpy(theirs), "pictures")


@torch.inference_mode()
def test_latent_consistency(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.lcm(tmp_path / "lcm")
    ours = Ours(tmp_path / "lcm")
    run = ours.start(prompt="a red apple", guidance=8.0, steps=4)
    start, draws = run.state.clone(), run._draw
    calls = iter(range(1, 1000))
    monkeypatch.setattr(
        importlib.import_module(type(pipe.scheduler).__module__),
        "randn_tensor",
        lambda *_, **__: draws(next(calls), ""),
    )
    with quietly():
        theirs = pipe(
            "a red apple", num_inference_steps=4, guidance_scale=8.0, latents=start, height=32, width=32,
            output_type="latent",
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


def picture(width: int = 32, height: int = 32, seed: int = 0) -> InputFile:
    """Coloured noise as a PNG: nothing in it is white paper."""
    numbers = np.random.default_rng(seed).integers(0, 250, (height, width, 3), np.uint8)
    return _png(numbers)


def _png(numbers: Any) -> InputFile:
    stream = io.BytesIO()
    Image.fromarray(numbers).save(stream, "PNG")
    return InputFile("image/png", stream.getvalue())


def latent_of(pipe: Any, file: InputFile) -> Tensor:
    numbers = np.asarray(Image.open(io.BytesIO(file.data)).convert("RGB"))
    x = torch.from_numpy(numbers.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    return pipe.vae.encode(x).latent_dist.mode() * pipe.vae.config.scaling_factor


@torch.inference_mode()
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_from_a_picture(family: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs is given the picture as latents, noised by our draw."""
    pipe = getattr(tiny, family)(tmp_path / "base")
    ours, file = Ours(tmp_path / "base"), picture()
    run = ours.start({"image": file}, prompt="a red apple", negative="ugly", strength=0.5, steps=10, guidance=5.0)
    assert len(run.plan) == 5
    diffusers = importlib.import_module("diffusers")
    kind = diffusers.StableDiffusionImg2ImgPipeline if family == "sd" else diffusers.StableDiffusionXLImg2ImgPipeline
    with quietly():
        other = kind.from_pipe(pipe)
        other.set_progress_bar_config(disable=True)
        monkeypatch.setattr(importlib.import_module(kind.__module__), "randn_tensor", lambda *_, **__: run._draw(0, ""))
        theirs = other(
            "a red apple", negative_prompt="ugly", image=latent_of(pipe, file), strength=0.5, num_inference_steps=10,
            guidance_scale=5.0, output_type="latent",
            **({"target_size": (32, 32), "original_size": (32, 32)} if family == "sdxl" else {}),
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


@torch.inference_mode()
@pytest.mark.parametrize("inputs", [4, 9])
def test_inside_a_mask(inputs: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By holding the rest as it is, and by a network that is told the rest."""
    pipe = tiny.sd(tmp_path / "base", inputs=inputs, set_alpha_to_one=True)  # theirs ends what is kept without noise
    ours, file = Ours(tmp_path / "base"), picture()
    white = np.zeros((32, 32, 3), np.uint8)
    white[8:24, 8:32] = 255
    given = {"image": file, "mask": _png(white)}
    strength = 0.8
    run = ours.start(given, prompt="a red apple", negative="ugly", strength=strength, steps=10, guidance=5.0)
    diffusers = importlib.import_module("diffusers")
    kind = diffusers.StableDiffusionInpaintPipeline
    with quietly():
        other = kind.from_pipe(pipe)
        other.set_progress_bar_config(disable=True)
        module = importlib.import_module(kind.__module__)
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: run._draw(0, ""))
        monkeypatch.setattr(module, "retrieve_latents", lambda found, generator=None: found.latent_dist.mode())
        theirs = other(
            "a red apple", negative_prompt="ugly", image=Image.open(io.BytesIO(file.data)), strength=strength,
            mask_image=Image.fromarray(white), num_inference_steps=10, guidance_scale=5.0, output_type="latent",
            width=32, height=32,
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


@torch.inference_mode()
def test_control(home: Path, tmp_path: Path) -> None:
    pipe = tiny.sd(tmp_path / "base")
    side = tiny.control_net(tmp_path / "depth-net")
    ours = Ours(tmp_path / "base")
    added = add_checkpoint(tmp_path / "depth-net")
    assert (added.base, added.conditioners) == ("base", {"control": ["depth"]})
    grey = np.random.default_rng(1).integers(0, 250, (32, 32, 1), np.uint8).repeat(3, 2)
    inputs = {"control.depth": _png(grey)}
    asked = {"prompt": "a red apple", "negative": "ugly", "guidance": 5.0, "control_strength": 0.7}
    ours.parameters = validate(
        ours.face, {"model": "base", "seed": 3, "steps": 6, "size": 32, "control": {"depth": "0" * 32}, **asked}
    ).resolved(ours.card)
    run = ours.runtime.start(ours.parameters, inputs)
    diffusers = importlib.import_module("diffusers")
    with quietly():
        other = diffusers.StableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=side)
        other.set_progress_bar_config(disable=True)
        theirs = other(
            "a red apple", negative_prompt="ugly", image=torch.from_numpy(grey).permute(2, 0, 1)[None].float() / 255,
            controlnet_conditioning_scale=0.7, num_inference_steps=6, guidance_scale=5.0,
            latents=theirs_start(pipe, run, 6), output_type="latent", height=32, width=32,
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


def lora_of(pipe: Any, layout: str, alpha: float = 2.0, rank: int = 4) -> dict[str, Tensor]:
    """A random LoRA of some layers, two of them in the encoder, in one of the layouts that people have."""
    made: dict[str, Tensor] = {}
    draws = torch.Generator().manual_seed(1)
    parts = [("unet", pipe.unet), ("text_encoder", pipe.text_encoder)]
    for part, network in parts:
        for name, layer in network.named_modules():
            wanted = name.endswith(("to_q", "to_v", "ff.net.2", "proj_in", "q_proj", "fc2"))
            if not wanted or not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                continue
            out, *rest = layer.weight.shape
            down = torch.randn(rank, *rest, generator=draws) * 0.3
            up = torch.randn(out, rank, *[1] * (len(rest) - 1), generator=draws) * 0.3
            old = name if part == "unet" or name.startswith("text_model") else f"text_model.{name}"
            if layout == "kohya":
                key = ("lora_unet_" if part == "unet" else "lora_te_") + old.replace(".", "_")
                made |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
                made[f"{key}.alpha"] = torch.tensor(alpha)
            elif layout == "peft":
                made |= {f"{part}.{old}.lora_A.weight": down, f"{part}.{old}.lora_B.weight": up * alpha / rank}
            else:
                made |= {f"{part}.{old}.lora.down.weight": down, f"{part}.{old}.lora.up.weight": up * alpha / rank}
    return made


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["kohya", "peft", "older"])
def test_lora(layout: str, home: Path, tmp_path: Path) -> None:
    """Against their network with the products added to its weights by hand."""
    pipe = tiny.sd(tmp_path / "base")
    ours = Ours(tmp_path / "base")
    weights = lora_of(pipe, layout)
    save_file({name: tensor.contiguous().half() for name, tensor in weights.items()}, tmp_path / "strokes.safetensors")
    added = add_checkpoint(tmp_path / "strokes.safetensors")
    assert added.base == "base"
    plain = ours.start(prompt="a red apple", guidance=5.0, negative="ugly").run()
    run = ours.start(prompt="a red apple", guidance=5.0, negative="ugly", lora=["strokes:0.8"])
    merge(pipe, lora_of(pipe, "kohya"), 0.8)
    with quietly():
        theirs = pipe(
            "a red apple", negative_prompt="ugly", num_inference_steps=6, guidance_scale=5.0,
            latents=theirs_start(pipe, run, 6), height=32, width=32, output_type="latent",
        ).images  # fmt: skip
    made = run.run()
    agree(made, theirs, "latents")
    assert float((made - plain).abs().max()) > 0.1


def merge(pipe: Any, kohya: dict[str, Tensor], weight: float) -> None:
    """W + w alpha / r B A."""
    for prefix, network in (("lora_unet_", pipe.unet), ("lora_te_", pipe.text_encoder)):
        layers = {name.replace(".", "_"): layer for name, layer in network.named_modules()}
        for name, down in kohya.items():
            if not name.startswith(prefix) or not name.endswith(".lora_down.weight"):
                continue
            key = name.removesuffix(".lora_down.weight")
            up, scale = kohya[f"{key}.lora_up.weight"].half().float(), float(kohya[f"{key}.alpha"]) / len(down)
            raw = key.removeprefix(prefix)
            layer = layers.get(raw) or layers[raw.removeprefix("text_model_")]
            product = (up.flatten(1) @ down.half().float().flatten(1)).reshape(layer.weight.shape)
            layer.weight += weight * scale * product


@pytest.mark.parametrize("family", ["sd", "sd2", "sdxl"])
@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_single_file(family: str, ending: str, home: Path, tmp_path: Path) -> None:
    """Descriptions are made from shapes; the words come from elsewhere, for no single file has them."""
    pipe = getattr(single_files, family)(tmp_path / "folder")
    path = single_files.write(pipe, tmp_path / f"one{ending}")
    with pytest.raises(ModelError, match="--part tokenizer=FOLDER"):
        add_checkpoint(path)
    words = {name: tmp_path / "folder" / name for name in ("tokenizer", "tokenizer_2")}
    ours = Ours(path, parts=words)
    assert ours.card.checkpoint is not None
    assert ours.card.checkpoint.family == family.replace("2", "")
    compare(ours, pipe, guidance=5.0, negative="ugly blue fish")


@torch.inference_mode()
@pytest.mark.parametrize("given", ["diffusers", "other"])
def test_a_learnt_word(given: str, home: Path, tmp_path: Path) -> None:
    pipe = tiny.sd(tmp_path / "base")
    ours = Ours(tmp_path / "base")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(4))
    if given == "diffusers":
        save_file({"<toy>": vectors}, tmp_path / "toy.safetensors")
        add_checkpoint(tmp_path / "toy.safetensors")
    else:
        torch.save({"string_to_param": {"*": vectors}, "name": "toy"}, tmp_path / "toy.pt")
        add_checkpoint(tmp_path / "toy.pt")
    run = ours.start(prompt="a red <toy> in the snow", guidance=5.0, negative="ugly")
    assert list(ours.runtime.also(ours.parameters)) == ["toy"]
    with quietly():
        pipe.load_textual_inversion({"<toy>": vectors}, token="<toy>")
        theirs = pipe(
            "a red <toy> in the snow", negative_prompt="ugly", num_inference_steps=6, guidance_scale=5.0,
            latents=theirs_start(pipe, run, 6), height=32, width=32, output_type="latent",
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


@torch.inference_mode()
def test_a_picture_beside_the_prompt(home: Path, tmp_path: Path) -> None:
    pipe = tiny.sd(tmp_path / "base")
    ours = Ours(tmp_path / "base")
    tiny.image_encoder(tmp_path / "eyes")
    weights = tiny.ip_adapter(pipe)
    flat = {f"{part}.{name}": tensor for part, own in weights.items() for name, tensor in own.items()}
    save_file(flat, tmp_path / "ip-adapter.safetensors")
    with pytest.raises(ModelError, match="--part image_encoder=FOLDER"):
        add_checkpoint(tmp_path / "ip-adapter.safetensors")
    add_checkpoint(tmp_path / "ip-adapter.safetensors", Options(parts={"image_encoder": tmp_path / "eyes"}))
    run = ours.start({"like": picture(16, 16)}, prompt="a red apple", negative="ugly", guidance=5.0)
    heard = run.condition["pictures"]
    plain = ours.start(prompt="a red apple", negative="ugly", guidance=5.0).run()
    with quietly():
        pipe.unet._load_ip_adapter_weights([weights], low_cpu_mem_usage=False)
        theirs = pipe(
            "a red apple", negative_prompt="ugly", num_inference_steps=6, guidance_scale=5.0,
            ip_adapter_image_embeds=[torch.cat([torch.zeros_like(heard), heard])],
            latents=theirs_start(pipe, run, 6), height=32, width=32, output_type="latent",
        ).images  # fmt: skip
    made = run.run()
    agree(made, theirs, "latents")
    assert float((made - plain).abs().max()) > 0.1


@torch.inference_mode()
def test_previews_by_a_small_autoencoder(home: Path, tmp_path: Path) -> None:
    tiny.sd(tmp_path / "base")
    small = tiny.small_vae(tmp_path / "taesd")
    ours = Ours(tmp_path / "base")
    add_checkpoint(tmp_path / "taesd")
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = ours.runtime._codec.preview(latents)[:, :3]
    agree(seen, small.decode(latents).sample, "previews")
    assert ours.runtime.preview(latents).startswith(b"\x89PNG")


@torch.inference_mode()
def test_the_refiner_goes_on_from_a_picture(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.sdxl(tmp_path / "refiner", refiner=True)
    ours, file = Ours(tmp_path / "refiner"), picture()
    assert ours.card.checkpoint is not None
    assert ours.card.checkpoint.family == "sdxl-refiner"
    run = ours.start({"image": file}, prompt="a red apple", negative="ugly", strength=0.5, steps=10, guidance=5.0)
    monkeypatch.setattr(
        importlib.import_module(type(pipe).__module__), "randn_tensor", lambda *_, **__: run._draw(0, "")
    )
    with quietly():
        theirs = pipe(
            "a red apple", negative_prompt="ugly", image=latent_of(pipe, file), strength=0.5, num_inference_steps=10,
            guidance_scale=5.0, output_type="latent", target_size=(32, 32), original_size=(32, 32),
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


def test_layers_as_the_first_code_counted_them(tmp_path: Path) -> None:
    """kohya's files for XL count blocks as the first Stable Diffusion code did: every layer is found again."""
    pipe = single_files.sdxl(tmp_path / "xl")
    names = single_files.unet_names(pipe.unet)
    kinds = torch.nn.Linear | torch.nn.Conv2d
    layers = {name: layer for name, layer in pipe.unet.named_modules() if isinstance(layer, kinds)}
    weights: dict[str, Tensor] = {}
    wanted = [name for name in layers if ".attentions." in name or ".resnets." in name or "sampler" in name]
    for name in wanted:
        old = names[f"{name}.weight"].removesuffix(".weight").replace(".", "_")
        out, *rest = layers[name].weight.shape
        weights[f"lora_unet_{old}.lora_down.weight"] = torch.zeros(2, *rest)
        weights[f"lora_unet_{old}.lora_up.weight"] = torch.zeros(out, 2, *[1] * (len(rest) - 1))
    found = read_lora(weights, {"": pipe.unet}, "file")
    assert set(found) == set(wanted)


@torch.inference_mode()
def test_few_steps_by_an_adapter(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LCM-LoRA: an adapter, and the sampler whose times it was distilled for."""
    pipe = tiny.sd(tmp_path / "base")
    ours = Ours(tmp_path / "base")
    weights = {name: tensor for name, tensor in lora_of(pipe, "kohya").items() if "unet" in name}
    save_file({name: tensor.contiguous().half() for name, tensor in weights.items()}, tmp_path / "lcm.safetensors")
    add_checkpoint(tmp_path / "lcm.safetensors")
    run = ours.start(prompt="a red apple", guidance=1.0, steps=4, sampler="lcm", lora=["lcm"])
    start, draws, calls = run.state.clone(), run._draw, iter(range(1, 100))
    merge(pipe, weights, 1.0)
    diffusers = importlib.import_module("diffusers")
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    module = importlib.import_module(type(pipe.scheduler).__module__)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: draws(next(calls), ""))
    with quietly():
        theirs = pipe(
            "a red apple", num_inference_steps=4, guidance_scale=1.0, latents=start, height=32, width=32,
            output_type="latent",
        ).images  # fmt: skip
    agree(run.run(), theirs, "latents")


FAMILIES = ["sd", "sdxl", "sd3", "flux", "pixart", "dit", "ddpm", "lcm"]


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_at_once_are_those_alone(family: str, home: Path, tmp_path: Path) -> None:
    """Through the engine: requests of one checkpoint share network calls, and each is what it would be alone."""
    getattr(tiny, family)(tmp_path / family)
    card = add_checkpoint(tmp_path / family)
    generate = perrin.load("image", model=family, device="cpu")
    prompt = {"dit": "fish", "ddpm": None}.get(family, "a red apple")
    own = {"prompt": prompt} if prompt else {}
    side = 16 if family == "ddpm" else 32
    many = generate([{**own, "seed": seed} for seed in range(8)], size=side, steps=3)
    assert len({made[0].bytes() for made in many}) == 8
    alone = generate(**own, seed=5, size=side, steps=3)
    differs = np.abs(alone[0].value.astype(int) - many[5][0].value.astype(int))
    assert differs.max() <= 1
    assert card.sha256 in many[5][0].metadata.values()


def test_a_vocabulary_of_sentencepiece_alone(home: Path, tmp_path: Path) -> None:
    """As most folders with a T5 have it: ``spiece.model``, and no tokenizer.json."""
    pipe = tiny.pixart(tmp_path / "art")
    words = tmp_path / "art" / "tokenizer"
    tiny.as_sentencepiece(pipe.tokenizer, words)
    (words / "tokenizer.json").unlink()
    card = add_checkpoint(tmp_path / "art")
    ours = load_tokenizer(card, "tokenizer")
    text = "a red apple in the snow"
    assert ours(text).input_ids == pipe.tokenizer(text).input_ids
