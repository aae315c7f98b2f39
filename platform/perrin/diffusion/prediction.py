r"""What a network predicts, as four coefficients.

A denoiser's clean estimate is, for every parameterization in use,

.. math:: D(x; t) = c_{skip}\, x + c_{out}\, F(c_{in}\, x;\; c_{noise})

so a prediction is a function from (t, alpha, sigma) to (c_in, c_noise, c_skip, c_out). Its training target is the F for
which D is x_0: F* = (x_0 - c_skip x) / c_out.

References:
    Karras et al. (2022), eq. 7; Salimans and Ho, Progressive Distillation (2022), section 4 and appendix D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from perrin.diffusion.process import Array
from perrin.errors import UnknownName

__all__ = ["PREDICTIONS", "Coefficients", "coefficients"]


class Coefficients(NamedTuple):
    """c_in, c_noise, c_skip and c_out, each of the shape of the times given."""

    c_in: Array
    c_noise: Array
    c_skip: Array
    c_out: Array


def _epsilon(t: Array, alpha: Array, sigma: Array) -> Coefficients:
    return Coefficients(np.ones_like(t), t, 1 / alpha, -sigma / alpha)


def _x0(t: Array, alpha: Array, sigma: Array) -> Coefficients:
    return Coefficients(np.ones_like(t), t, np.zeros_like(t), np.ones_like(t))


def _v(t: Array, alpha: Array, sigma: Array) -> Coefficients:
    power = alpha**2 + sigma**2
    return Coefficients(np.ones_like(t), t, alpha / power, -sigma / power)


def _velocity(t: Array, alpha: Array, sigma: Array) -> Coefficients:
    return Coefficients(np.ones_like(t), t, 1 / (alpha + sigma), -sigma / (alpha + sigma))


def _score(t: Array, alpha: Array, sigma: Array) -> Coefficients:
    return Coefficients(np.ones_like(t), t, 1 / alpha, sigma**2 / alpha)


def _edm(t: Array, alpha: Array, sigma: Array, sigma_data: float = 0.5) -> Coefficients:
    s = sigma / alpha
    root = np.sqrt(s**2 + sigma_data**2)
    return Coefficients(1 / (alpha * root), np.log(s) / 4, sigma_data**2 / root**2 / alpha, s * sigma_data / root)


PREDICTIONS: dict[str, Callable[[Array, Array, Array], Coefficients]] = {
    "epsilon": _epsilon,
    "x0": _x0,
    "v": _v,
    "velocity": _velocity,
    "score": _score,
    "edm": _edm,
}
"""``epsilon``: noise; ``x0``: clean sample; ``v``: alpha eps - sigma x0; ``velocity``: eps - x0;
``score``: grad log p(x_t); ``edm``: EDM's F."""


def coefficients(prediction: str, t: Array, alpha: Array, sigma: Array) -> Coefficients:
    """The coefficients of ``prediction`` at times ``t``.

    Args:
        prediction: a key of `PREDICTIONS`.
        t: times, in the units the network was trained in.
        alpha: signal scales at ``t``.
        sigma: noise scales at ``t``.

    Raises:
        UnknownName: no such prediction.
    """
    if prediction not in PREDICTIONS:
        raise UnknownName("prediction", prediction, "one of " + ", ".join(PREDICTIONS))
    return PREDICTIONS[prediction](t, alpha, sigma)
