"""Checkpoints of clips and sounds against diffusers: sampled in this process, to 1e-3 in float32."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_checkpoints as tiny
import torch
from torch import Tensor

from perrin.models.checkpoints import Options, add_checkpoint
from perrin.models.checkpoints.loading import quietly
from perrin.models.checkpoints.sampling import Sampler

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

CLOSE = 1e-3
CLIP = {"size": (32, 32), "frames": 5, "steps": 4, "guidance": 4.0, "seeds": [3], "negative": "ugly blue fish"}


def agree(a: Tensor, b: Tensor, what: str) -> None:
    """Largest difference over largest value."""
    assert a.shape == b.shape
    away = float((a.float() - b.float()).abs().max() / b.float().abs().max())
    print(f"{what} differ by {away:.1e}")
    assert away <= CLOSE


@torch.inference_mode()
def compare(
    sampler: Sampler, pipe: Any, turned: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], **asked: Any
) -> None:
    """Latents and decoded clips; ``turned`` brings our latents into their order, ``back`` theirs into ours."""
    run = sampler.start("a red apple", **CLIP)
    shared = {
        "prompt": "a red apple", "negative_prompt": "ugly blue fish", "num_inference_steps": 4, "guidance_scale": 4.0,
        "latents": turned(run.state), "width": 32, "height": 32, "num_frames": 5, **asked,
    }  # fmt: skip
    with quietly():
        theirs = pipe(**shared, output_type="latent").frames
        shown = pipe(**shared, output_type="pt").frames
    made = run.run()
    agree(made, back(theirs), "latents")
    agree((sampler.decode(made) / 2 + 0.5).clamp(0, 1).transpose(1, 2), shown, "decoded")


def same(x: Tensor) -> Tensor:
    return x


def frames_first(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def test_animatediff(home: Path, tmp_path: Path) -> None:
    pipe = tiny.animatediff(tmp_path / "motion")
    compare(Sampler(add_checkpoint(tmp_path / "motion")), pipe, same, same)


@pytest.mark.parametrize("turned", [False, True], ids=["2b", "5b"])
def test_cogvideox(turned: bool, home: Path, tmp_path: Path) -> None:
    pipe = tiny.cogvideox(tmp_path / "cog", turned)
    compare(Sampler(add_checkpoint(tmp_path / "cog")), pipe, frames_first, frames_first, max_sequence_length=16)


def test_wan(home: Path, tmp_path: Path) -> None:
    pipe = tiny.wan(tmp_path / "wan")
    compare(Sampler(add_checkpoint(tmp_path / "wan")), pipe, same, same)


def test_ltx(home: Path, tmp_path: Path) -> None:
    pipe = tiny.ltx(tmp_path / "ltx")
    sampler = Sampler(add_checkpoint(tmp_path / "ltx"))
    grid: list[tuple[int, ...]] = []

    def packed(x: Tensor) -> Tensor:
        grid.append(tuple(x.shape[2:]))
        return x.flatten(2).transpose(1, 2)

    compare(sampler, pipe, packed, lambda z: z.transpose(1, 2).unflatten(2, grid[0]), frame_rate=25)


@torch.inference_mode()
def test_stable_audio(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.stable_audio(tmp_path / "audio")
    sampler = Sampler(add_checkpoint(tmp_path / "audio"))
    run = sampler.start("a red apple", seeds=[3], steps=4, guidance=4.0, seconds=2.0)
    first = run.plan.rows[0]
    draws = run._draw
    calls = iter(range(1, 100))
    tree = type("Tree", (), {"__init__": lambda *_, **__: None, "__call__": lambda *_: draws(next(calls), "")})
    module = importlib.import_module(type(pipe.scheduler).__module__)
    monkeypatch.setattr(module, "BrownianTreeNoiseSampler", tree)
    pipe.scheduler.set_timesteps(4)
    latents = run.state / first.alpha / pipe.scheduler.init_noise_sigma
    options = {"num_inference_steps": 4, "guidance_scale": 4.0, "latents": latents, "audio_end_in_s": 2.0}
    with quietly():
        theirs = pipe("a red apple", output_type="latent", **options).audios
    made = run.run()
    agree(made, theirs, "latents")
    agree(sampler.decode(made), pipe.vae.decode(theirs).sample, "decoded")


@torch.inference_mode()
def test_audioldm2(home: Path, tmp_path: Path) -> None:
    pipe = tiny.audioldm2(tmp_path / "audio")
    sampler = Sampler(add_checkpoint(tmp_path / "audio"))
    run = sampler.start("a red apple", "ugly", seeds=[3], steps=4, guidance=3.5, seconds=0.032)
    options = {
        "num_inference_steps": 4,
        "guidance_scale": 3.5,
        "latents": run.state,
        "audio_length_in_s": 0.032,
        "max_new_tokens": 8,
    }
    with quietly():
        theirs = pipe("a red apple", negative_prompt="ugly", output_type="latent", **options).audios
        wave = pipe("a red apple", negative_prompt="ugly", output_type="pt", **options).audios
    made = run.run()
    agree(made, theirs, "latents")
    agree(sampler.decode(made)[:, 0, : wave.shape[1]], wave, "decoded")


def test_a_motion_module_for_a_model_of_pictures(home: Path, tmp_path: Path) -> None:
    """A folder of Stable Diffusion with a motion module from elsewhere is the same as a folder with both."""
    pipe = tiny.animatediff(tmp_path / "motion")
    pipe.motion_adapter.save_pretrained(tmp_path / "module")
    base = tiny.sd(tmp_path / "base", "DDIMScheduler", beta_schedule="linear", set_alpha_to_one=True, steps_offset=1)
    base.unet.save_pretrained(tmp_path / "base" / "unet")
    card = add_checkpoint(tmp_path / "base", Options(parts={"motion_adapter": tmp_path / "module"}))
    assert card.checkpoint is not None
    assert (card.modality, card.checkpoint.family) == ("video", "animatediff")
    run = Sampler(card).start("a red apple", size=(32, 32), frames=3, steps=2, seeds=[1])
    assert run.run().shape == (1, 4, 3, 16, 16)
