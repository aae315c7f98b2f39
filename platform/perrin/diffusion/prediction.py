r"""What a network predicts, as four coefficients.

A denoiser's clean estimate is, for every parameterization in use,

.. math:: D(x; t) = c_{skip}\, x + c_{out}\, F(c_{in}\, x;\; c_{noise})

so a prediction is a function from (t, alpha, sigma) to (c_in, c_noise, c_skip, c_out). Its training target is the F for
which D is x_0: F* = (x_0 - c_skip x) / c_out.

References:
    Karras et al. (2022), eq. 7; Salimans and Ho, Progressive Distillation (2022), section 4 and appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from perrin.diffusion.process import Array
from perrin.errors import InvalidInput, UnknownName

__all__ = ["PREDICTIONS", "Coefficients", "coefficients"]


class Coefficients(NamedTuple):
    """c_in, c_noise, c_skip and c_out: numbers, or arrays of the shape of the levels given."""

    c_in: float | Array
    c_noise: float | Array
    c_skip: float | Array
    c_out: float | Array


def _epsilon(t: float, alpha: float, sigma: float) -> Coefficients:
    return Coefficients(1.0, t, 1 / alpha, -sigma / alpha)


def _x0(t: float, alpha: float, sigma: float) -> Coefficients:
    return Coefficients(1.0, t, 0.0, 1.0)


def _v(t: float, alpha: float, sigma: float) -> Coefficients:
    power = alpha * alpha + sigma * sigma
    return Coefficients(1.0, t, alpha / power, -sigma / power)


def _velocity(t: float, alpha: float, sigma: float) -> Coefficients:
    return Coefficients(1.0, t, 1 / (alpha + sigma), -sigma / (alpha + sigma))


def _score(t: float, alpha: float, sigma: float) -> Coefficients:
    return Coefficients(1.0, t, 1 / alpha, sigma * sigma / alpha)


def _edm(t: float, alpha: float, sigma: float, sigma_data: float = 0.5) -> Coefficients:
    s = sigma / alpha
    power = s * s + sigma_data * sigma_data
    root = math.sqrt(power)
    return Coefficients(1 / (alpha * root), math.log(s) / 4, sigma_data**2 / power / alpha, s * sigma_data / root)


PREDICTIONS: dict[str, Callable[[float, float, float], Coefficients]] = {
    "epsilon": _epsilon,
    "x0": _x0,
    "v": _v,
    "velocity": _velocity,
    "score": _score,
    "edm": _edm,
}
"""``epsilon``: noise; ``x0``: clean sample; ``v``: alpha eps - sigma x0; ``velocity``: eps - x0;
``score``: grad log p(x_t); ``edm``: EDM's F."""


def coefficients(prediction: str, t: npt.ArrayLike, alpha: npt.ArrayLike, sigma: npt.ArrayLike) -> Coefficients:
    """The coefficients of ``prediction`` at times ``t``.

    Args:
        prediction: a key of `PREDICTIONS`.
        t: times, in the units the network was trained in.
        alpha: signal scales at ``t``.
        sigma: noise scales at ``t``.

    Returns:
        Numbers for numbers; for arrays, arrays, of the very numbers that each entry alone would give.

    Raises:
        UnknownName: no such prediction.
        InvalidInput: the prediction divides by alpha or sigma, which is zero there.
    """
    if prediction not in PREDICTIONS:
        raise UnknownName("prediction", prediction, "one of " + ", ".join(PREDICTIONS))
    function = PREDICTIONS[prediction]
    try:
        if isinstance(alpha, float):
            return function(t, alpha, sigma)
        points = np.broadcast(t, alpha, sigma)
        made = np.array([function(*map(float, point)) for point in points])
        return Coefficients(*(made[:, i].reshape(points.shape) for i in range(4)))
    except (ArithmeticError, ValueError):
        wanted = "a prediction that is defined there (x0, v or velocity), or a grid that stays away from it"
        raise InvalidInput("prediction", f"{prediction} at alpha = {alpha!r}, sigma = {sigma!r}", wanted) from None
