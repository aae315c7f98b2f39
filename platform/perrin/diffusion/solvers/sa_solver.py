r"""SA-Solver: stochastic Adams predictor and corrector on the clean estimate.

.. math::
    x_b = \tfrac{\sigma_b}{\sigma_a} e^{-\tau^2 h} x_a + \sum_j b_j D_j
        + \sigma_b \sqrt{1 - e^{-2\tau^2 h}}\; n, \qquad
    b_j = (1 + \tau^2)\, \sigma_b \int_{\lambda_a}^{\lambda_b}
        e^{-\tau^2 (\lambda_b - \lambda)} e^{\lambda} \ell_j(\lambda)\, d\lambda

tau = 0 is the flow, 1 the reverse diffusion; the two of a step share its draw. Two nodes weigh the slope by half of
(1 + tau^2) h, as the authors' code does.

References:
    Xue et al., SA-Solver: Stochastic Adams Solver (2023), eq. 14 and 17, algorithm 1.
"""

from __future__ import annotations

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._predictor_corrector import predictor_corrector
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["sa_solver"]


def _compile(grid: Grid, tau: float = 1.0, predictor: int = 2, corrector: int = 2, s_noise: float = 1.0) -> Plan:
    if not 0 <= tau <= 10:
        raise InvalidInput("tau", tau, "a number of at least 0 and at most 10")
    for name, nodes, least in (("predictor", predictor, 1), ("corrector", corrector, 0)):
        if nodes not in range(least, 5):
            raise InvalidInput(name, nodes, f"an order of {least} to 4")
    return predictor_corrector("sa_solver", grid, predictor, corrector, "bh1", eta=tau**2, s_noise=s_noise)


sa_solver = Solver("sa_solver", "SA-Solver", None, True, 1, _compile, "Xue et al. 2023, algorithm 1")
