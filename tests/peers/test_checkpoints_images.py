"""Image checkpoints against diffusers: made on the spot, saved, added, sampled; to 1e-3 in float32.

Both get the same starting state. Theirs is given as ``latents``, which their schedulers scale in their own way.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_checkpoints as tiny
import torch
from torch import Tensor

from perrin import plugins
from perrin.inputs import InputFile
from perrin.modality import validate
from perrin.models import ModelCard
from perrin.models.checkpoints import Options, add_checkpoint
from perrin.models.checkpoints.loading import quietly

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
        given = {name: name for name in inputs or {}}
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
    compare(Ours(tmp_path / "sd"), pipe, guidance=5.0, negative="ugly blue fish")


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
