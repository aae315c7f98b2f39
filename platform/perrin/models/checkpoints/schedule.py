"""A checkpoint's schedule, from its own ``scheduler_config.json``: process, prediction, grid and sampler. No torch.

What is in such a file belongs to two things. How noise goes with time (betas, or a straight flow) and what the network
predicts are the model's; they become the card's ``process`` and ``prediction``. At which times it is asked, and by
which rule, are its authors' advice; they become the card's ``grid`` and the default ``sampler``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from perrin.errors import ModelError

__all__ = ["SAMPLERS", "Schedule", "schedule_of"]

SAMPLERS: Mapping[str, str] = {
    "CogVideoXDDIMScheduler": "ddim",
    "CogVideoXDPMScheduler": "dpmpp_2m_sde",
    "CosineDPMSolverMultistepScheduler": "dpmpp_2m_sde",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DEISMultistepScheduler": "deis_2",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "DPMSolverSinglestepScheduler": "dpmpp_2s",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "EulerDiscreteScheduler": "euler",
    "FlowMatchEulerDiscreteScheduler": "flow_euler",
    "FlowMatchHeunDiscreteScheduler": "flow_heun",
    "HeunDiscreteScheduler": "heun",
    "IPNDMScheduler": "ipndm",
    "KDPM2AncestralDiscreteScheduler": "dpm2_ancestral",
    "KDPM2DiscreteScheduler": "dpm2",
    "LCMScheduler": "lcm",
    "LMSDiscreteScheduler": "lms",
    "PNDMScheduler": "plms",
    "SASolverScheduler": "sa_solver",
    "TCDScheduler": "tcd",
    "UniPCMultistepScheduler": "unipc_2",
}
"""Our sampler for each of their schedulers."""

BETAS: Mapping[str, str] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
    "laplace": "laplace",
}

PREDICTIONS: Mapping[str, str] = {
    "epsilon": "epsilon",
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "velocity",
}

SPACINGS = ("leading", "trailing", "linspace")

USUAL_SPACING: Mapping[str, str] = {
    "DPMSolverMultistepScheduler": "linspace",
    "DPMSolverSinglestepScheduler": "linspace",
    "DEISMultistepScheduler": "linspace",
    "UniPCMultistepScheduler": "linspace",
    "EulerDiscreteScheduler": "linspace",
    "EulerAncestralDiscreteScheduler": "linspace",
    "HeunDiscreteScheduler": "linspace",
    "KDPM2DiscreteScheduler": "linspace",
    "KDPM2AncestralDiscreteScheduler": "linspace",
    "LMSDiscreteScheduler": "linspace",
    "SASolverScheduler": "linspace",
}
"""What each does where its file says nothing; the others lead."""


SPARING = frozenset({
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "SASolverScheduler",
    "UniPCMultistepScheduler",
})  # fmt: skip
"""Those whose grids have one even time more than they ask the network at."""


class Schedule(NamedTuple):
    """Fields of a card."""

    process: dict[str, Any]
    prediction: str
    grid: dict[str, Any]
    sampler: str


def schedule_of(config: Mapping[str, Any], shown: str) -> Schedule:
    """What ``scheduler_config.json`` says.

    Raises:
        ModelError: a scheduler, beta schedule or prediction that is unknown.
    """
    kind = str(config.get("_class_name", ""))
    if kind not in SAMPLERS:
        raise ModelError(f"{shown}: its scheduler is {kind[:60]!r}, wanted one of {', '.join(SAMPLERS)}")
    if kind == "CosineDPMSolverMultistepScheduler":
        return _angular(config)
    if kind.startswith("FlowMatch") or config.get("use_flow_sigmas") or config.get("prediction_type") in FLOWS:
        return _flow(kind, config)
    return Schedule(_process(config, shown), _prediction(config, shown), _grid(kind, config), SAMPLERS[kind])


FLOWS = ("flow_prediction",)


def _angular(config: Mapping[str, Any]) -> Schedule:
    process = {
        "kind": "angular",
        "sigma_min": float(config.get("sigma_min", 0.3)),
        "sigma_max": float(config.get("sigma_max", 500.0)),
    }
    return Schedule(process, _prediction(config, "the scheduler"), {"kind": "log_snr"}, "dpmpp_2m_sde")


def _flow(kind: str, config: Mapping[str, Any]) -> Schedule:
    grid: dict[str, Any]
    if config.get("use_dynamic_shifting"):
        low = [int(config.get("base_image_seq_len", 256)), float(config.get("base_shift", 0.5))]
        high = [int(config.get("max_image_seq_len", 4096)), float(config.get("max_shift", 1.15))]
        grid = {"kind": "shifted", "by_tokens": [low, high]}
    elif kind.startswith("UniPC"):
        grid = {"kind": "shifted", "shift": float(config.get("flow_shift") or 1.0)}
    else:
        trained = int(config.get("num_train_timesteps", 1000))
        grid = {"kind": "flow", "shift": float(config.get("shift") or 1.0), "trained": trained}
    if config.get("shift_terminal"):
        grid["terminal"] = float(config["shift_terminal"])
    return Schedule({"kind": "flow"}, "velocity", grid, "unipc_2" if kind.startswith("UniPC") else SAMPLERS[kind])


def _process(config: Mapping[str, Any], shown: str) -> dict[str, Any]:
    trained = config.get("trained_betas")
    steps = int(config.get("num_train_timesteps", 1000))
    name = config.get("beta_schedule", "linear")
    process: dict[str, Any]
    if trained is not None:
        process = {"kind": "from_betas", "betas": [float(beta) for beta in trained]}
    elif name not in BETAS:
        raise ModelError(f"{shown}: its betas are {str(name)[:40]!r}, wanted one of {', '.join(BETAS)}")
    elif BETAS[name] in ("cosine", "laplace"):
        process = {"kind": BETAS[name], "steps": steps}
    else:
        low, high = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        process = {"kind": BETAS[name], "beta_min": low, "beta_max": high, "steps": steps}
    if config.get("snr_shift_scale") is not None:
        process["snr_shift"] = float(config["snr_shift_scale"])
    if config.get("rescale_betas_zero_snr"):
        process["zero_terminal_snr"] = True
    return process


def _prediction(config: Mapping[str, Any], shown: str) -> str:
    name = config.get("prediction_type", "epsilon")
    if name not in PREDICTIONS:
        raise ModelError(f"{shown}: it predicts {str(name)[:40]!r}, wanted one of {', '.join(PREDICTIONS)}")
    return PREDICTIONS[name]


def _grid(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if kind in ("LCMScheduler", "TCDScheduler"):
        return {"kind": "distilled", "original": int(config.get("original_inference_steps", 50))}
    for flag, name in (("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential")):
        if config.get(flag):
            return {"kind": name}
    spacing = str(config.get("timestep_spacing") or USUAL_SPACING.get(kind, "leading"))
    grid: dict[str, Any] = {"kind": spacing if spacing in SPACINGS else "leading"}
    if grid["kind"] == "leading" and config.get("steps_offset"):
        grid["offset"] = int(config["steps_offset"])
    if kind in SPARING and grid["kind"] != "trailing":
        grid["spare"] = 1
    # A file that says nothing ends where the library does: at the clean end, but for PNDM.
    clean = config.get("set_alpha_to_one", kind != "PNDMScheduler")
    if not clean or config.get("final_sigmas_type") == "sigma_min":
        grid["end"] = "cleanest"
    return grid
