"""The diffusion core: mathematics only, the same for every modality.

::

    from perrin import diffusion as d

    process  = d.process.linear(beta_min=1e-4, beta_max=0.02, steps=1000)
    denoiser = d.Denoiser(network, process, prediction="epsilon")
    guided   = d.guidance.classifier_free(denoiser, scale=7.5, null=null_condition)
    plan     = d.solvers.dpmpp_2m(d.grid.karras(process, steps=20))
    x0       = d.sample(guided, plan, shape=(3, 32, 32), seeds=[1, 2, 3], condition=condition)

`process`, `prediction`, `grid`, `plan`, `solvers` and `noise` are NumPy; `Denoiser`, `guidance`, `sample` and `start`
bring torch in when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from perrin.diffusion import grid, noise, plan, prediction, process, solvers

if TYPE_CHECKING:
    from perrin.diffusion import guidance
    from perrin.diffusion.denoiser import Denoiser
    from perrin.diffusion.sampling import Run, sample, start

__all__ = [
    "Denoiser",
    "Run",
    "grid",
    "guidance",
    "noise",
    "plan",
    "prediction",
    "process",
    "sample",
    "solvers",
    "start",
]

_LAZY = {"Denoiser": "denoiser", "Run": "sampling", "sample": "sampling", "start": "sampling"}


def __getattr__(name: str) -> Any:
    if name == "guidance":
        return importlib.import_module("perrin.diffusion.guidance")
    if name in _LAZY:
        module = importlib.import_module(f"perrin.diffusion.{_LAZY[name]}")
        globals().update({key: getattr(module, key) for key, home in _LAZY.items() if home == _LAZY[name]})
        return globals()[name]
    raise AttributeError(f"module 'perrin.diffusion' has no attribute {name!r}")
