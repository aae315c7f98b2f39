"""Image checkpoints against diffusers: made on the spot, saved, added, sampled; to 1e-3 in float32.

Both get the same starting state. Theirs is given as ``latents``, which their schedulers scale in their own way.
"""

from __future__ import annotations

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
    return state / scheduler.init_noise_sigma


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
