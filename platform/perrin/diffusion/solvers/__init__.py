"""Solvers: one paper per file, each a compiler from a time grid to a plan. NumPy only."""

from __future__ import annotations

from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.consistency import consistency, lcm, tcd
from perrin.diffusion.solvers.ddim import ddim
from perrin.diffusion.solvers.ddpm import ddpm
from perrin.diffusion.solvers.deis import deis_2, deis_3
from perrin.diffusion.solvers.dpm2 import dpm2, dpm2_ancestral
from perrin.diffusion.solvers.dpm_solver import (
    dpm_solver_1,
    dpm_solver_2m,
    dpm_solver_2s,
    dpm_solver_3m,
    dpm_solver_3s,
)
from perrin.diffusion.solvers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m, dpmpp_3m_sde, dpmpp_3s
from perrin.diffusion.solvers.dpmpp_sde import dpmpp_sde
from perrin.diffusion.solvers.er_sde import er_sde
from perrin.diffusion.solvers.euler import euler, euler_ancestral, flow_euler
from perrin.diffusion.solvers.exponential_adams import eab2, eab3, eab4
from perrin.diffusion.solvers.heun import edm_churn, flow_heun, heun
from perrin.diffusion.solvers.lms import lms
from perrin.diffusion.solvers.pndm import ipndm, plms, pndm
from perrin.diffusion.solvers.res import res_2m, res_2s, res_3s
from perrin.diffusion.solvers.restart import restart
from perrin.diffusion.solvers.sa_solver import sa_solver
from perrin.diffusion.solvers.seeds import seeds_2, seeds_3
from perrin.diffusion.solvers.unipc import unipc_2, unipc_3
from perrin.errors import UnknownName

__all__ = ["SOLVERS", "Solver", "solver"]
__all__ += [
    "ddim",
    "deis_2",
    "deis_3",
    "dpm2",
    "euler",
    "flow_euler",
    "flow_heun",
    "heun",
    "ipndm",
    "lms",
    "plms",
    "pndm",
]
__all__ += ["dpm_solver_1", "dpm_solver_2m", "dpm_solver_2s", "dpm_solver_3m", "dpm_solver_3s"]
__all__ += ["dpmpp_2m", "dpmpp_2s", "dpmpp_3m", "dpmpp_3s", "eab2", "eab3", "eab4", "res_2m", "res_2s", "res_3s"]
__all__ += ["ddpm", "dpm2_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "edm_churn", "euler_ancestral"]
__all__ += ["er_sde", "restart", "sa_solver", "seeds_2", "seeds_3", "unipc_2", "unipc_3"]
__all__ += ["consistency", "lcm", "tcd"]

_ALL = (
    *(ddim, euler, flow_euler, flow_heun, heun, dpm2, lms, pndm, plms, ipndm, deis_2, deis_3),
    *(dpm_solver_1, dpm_solver_2s, dpm_solver_3s, dpm_solver_2m, dpm_solver_3m),
    *(dpmpp_2s, dpmpp_3s, dpmpp_2m, dpmpp_3m, unipc_2, unipc_3, eab2, eab3, eab4, res_2s, res_3s, res_2m),
    *(ddpm, euler_ancestral, dpm2_ancestral, edm_churn, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde),
    *(sa_solver, seeds_2, seeds_3, er_sde, restart, consistency, lcm, tcd),
)

SOLVERS: dict[str, Solver] = {made.name: made for made in _ALL}


def solver(name: str) -> Solver:
    """The solver called ``name``.

    Raises:
        UnknownName: with the solvers there are.
    """
    if name not in SOLVERS:
        raise UnknownName("sampler", name, "one of " + ", ".join(SOLVERS))
    return SOLVERS[name]
