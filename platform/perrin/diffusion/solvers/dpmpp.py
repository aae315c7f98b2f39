r"""DPM-Solver++: exponential integrators on the clean estimate, of the flow and of the reverse diffusion.

.. math::
    x_b = \tfrac{\sigma_b}{\sigma_a} e^{-\eta h} x_a + (1+\eta)\,\alpha_b \int_0^h e^{-(1+\eta)(h-\tau)} P(\tau)\, d\tau
        + \sigma_b \sqrt{1 - e^{-2\eta h}}\; n

P goes through the estimates at hand: of the latest two (2M) or three (3M) rows, or of a and a node between a and b, a
grid point (2S), or two (3S). With two of them the slope counts by half of the integral of 1, not by its own; so for 2M

.. math::
    x_b = \tfrac{\sigma_b}{\sigma_a} x_a + \alpha_b (1 - e^{-h}) \left[\left(1 + \tfrac{1}{2r}\right) D_a
    - \tfrac{1}{2r} D_{prev}\right], \qquad r = h_{prev} / h

3M is the integral of the parabola. The authors' code, and what follows it, halves its second derivative, and then the
order is 2 (tests/peers measures it).

References:
    Lu et al., DPM-Solver++ (2022): algorithm 1 (2S), algorithm 2 (2M), section 4 (3M), section 5 (SDE);
    Katherine Crowson, k-diffusion (2022), for 2M SDE ``heun`` and 3M SDE.
"""

from __future__ import annotations

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._multistep import multistep
from perrin.diffusion.solvers._singlestep import singlestep
from perrin.diffusion.solvers._steps import Second
from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.dpm_solver import stage_of
from perrin.errors import InvalidInput

__all__ = ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "dpmpp_3m", "dpmpp_3m_sde", "dpmpp_3s"]


def _2s(grid: Grid, variant: str = "midpoint") -> Plan:
    return singlestep("dpmpp_2s", grid, 2, "clean", stage_of(variant))


def _3s(grid: Grid, variant: str = "paper") -> Plan:
    return singlestep("dpmpp_3s", grid, 3, "clean", stage_of(variant))


def _2m(grid: Grid) -> Plan:
    return multistep("dpmpp_2m", grid, 2, "clean", second="bh2")


def _3m(grid: Grid) -> Plan:
    return multistep("dpmpp_3m", grid, 3, "clean", second="bh2")


def _checked(eta: float) -> float:
    if not 0 <= eta <= 10:
        raise InvalidInput("eta", eta, "a number of at least 0 and at most 10")
    return eta


def _2m_sde(grid: Grid, eta: float = 1.0, s_noise: float = 1.0, variant: str = "midpoint") -> Plan:
    if variant not in ("midpoint", "heun"):
        raise InvalidInput("variant", variant, "midpoint or heun")
    second: Second = "bh2" if variant == "midpoint" else "exact"
    return multistep("dpmpp_2m_sde", grid, 2, "clean", second=second, eta=_checked(eta), s_noise=s_noise)


def _3m_sde(grid: Grid, eta: float = 1.0, s_noise: float = 1.0) -> Plan:
    return multistep("dpmpp_3m_sde", grid, 3, "clean", eta=_checked(eta), s_noise=s_noise)


dpmpp_2s = Solver("dpmpp_2s", "DPM-Solver++(2S)", 2, False, 1, _2s, "Lu et al. 2022, algorithm 1")
dpmpp_2m = Solver("dpmpp_2m", "DPM-Solver++(2M)", 2, False, 1, _2m, "Lu et al. 2022, algorithm 2")
dpmpp_3s = Solver("dpmpp_3s", "DPM-Solver++(3S)", 3, False, 1, _3s, "Lu et al. 2022, section 4")
dpmpp_3m = Solver("dpmpp_3m", "DPM-Solver++(3M)", 3, False, 1, _3m, "Lu et al. 2022, section 4")
dpmpp_2m_sde = Solver("dpmpp_2m_sde", "DPM-Solver++(2M) SDE", None, True, 1, _2m_sde, "Lu et al. 2022, section 5")
dpmpp_3m_sde = Solver("dpmpp_3m_sde", "DPM-Solver++(3M) SDE", None, True, 1, _3m_sde, "k-diffusion 2022, dpmpp_3m_sde")
