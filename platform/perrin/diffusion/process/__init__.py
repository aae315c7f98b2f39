r"""Forward processes: how a clean x_0 turns into noise.

.. math:: x_t = \alpha(t)\, x_0 + \sigma(t)\, \varepsilon, \qquad \varepsilon \sim \mathcal N(0, I)

Everything else derives from alpha and sigma. `Process.log_snr` is log(alpha^2 / sigma^2), strictly decreasing in t, and
`Process.time` is its inverse. All of it is float64 NumPy.

References:
    Kingma et al., Variational Diffusion Models (2021), eq. 1-3.
    Song et al., Score-Based Generative Modeling through SDEs (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perrin.diffusion.process.analytic import (
    EDM,
    VE,
    VP,
    Angular,
    Flow,
    PerChannel,
    SubVP,
    angular,
    edm,
    flow,
    per_channel,
    sub_vp,
    ve,
    vp,
)
from perrin.diffusion.process.base import Array, Process
from perrin.diffusion.process.betas import (
    FromBetas,
    cosine,
    from_betas,
    laplace,
    linear,
    quadratic,
    scaled_linear,
    shifted_snr,
    sigmoid,
    zero_terminal_snr,
)
from perrin.errors import UnknownName

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Angular",
    "Array",
    "Flow",
    "FromBetas",
    "PerChannel",
    "Process",
    "SubVP",
    "angular",
    "cosine",
    "edm",
    "flow",
    "from_betas",
    "from_config",
    "laplace",
    "linear",
    "per_channel",
    "quadratic",
    "scaled_linear",
    "shifted_snr",
    "sigmoid",
    "sub_vp",
    "ve",
    "vp",
    "zero_terminal_snr",
]

_KINDS: dict[str, Any] = {
    f.__name__: f
    for f in (
        linear,
        quadratic,
        scaled_linear,
        sigmoid,
        cosine,
        laplace,
        vp,
        sub_vp,
        ve,
        edm,
        angular,
        flow,
        from_betas,
    )
}


def from_config(config: Mapping[str, Any]) -> Process:
    """The process that a model card describes: ``{"kind": "linear", "beta_min": ...}``.

    ``zero_terminal_snr: true`` stretches a process of betas, ``snr_shift: 3.0`` divides its signal-to-noise ratio.

    Raises:
        UnknownName: no such kind.
    """
    options = dict(config)
    kind, stretch = options.pop("kind", None), options.pop("zero_terminal_snr", False)
    shift = options.pop("snr_shift", 1.0)
    if kind not in _KINDS:
        raise UnknownName("process", kind, "one of " + ", ".join(_KINDS))
    made: Process = _KINDS[kind](**options)
    made = shifted_snr(made, shift) if shift != 1 and isinstance(made, FromBetas) else made
    return zero_terminal_snr(made) if stretch and isinstance(made, FromBetas) else made
