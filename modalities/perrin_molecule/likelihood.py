r"""How likely a molecule is under a model: a bound on :math:`-\log p(x, k, b \mid N)` in nats.

Along a chain of T levels, even in log-SNR :math:`\lambda`, from pure noise to a thousandth of the unit of length:

.. math::
    \sum_{i=2}^{T} \tfrac12 \Delta\lambda_i \frac{\alpha_t^2}{\sigma_t^2} |x - D|^2
    + \mathrm{KL}\big(q(k_s \mid k_t, k_0) \,\|\, p(k_s \mid k_t)\big), \qquad
    -\log \mathcal N\big(x; D, (\sigma_1/\alpha_1)^2\big) - \log p(k_0 \mid k_1)

The first term is that of infinitely many levels, which is the tightest. Positions have no mean, so their densities are
those of (N - 1) 3 numbers. At the last level nothing of the data is left, so the prior adds nothing. Levels are drawn,
so that this is an estimate.

References:
    Kingma et al., Variational Diffusion Models (2021), eq. 11-15; Hoogeboom et al., EDM (2022), section 3.2 and
    appendix A, for the subspace; Austin et al. (2021), eq. 1, for classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perrin.diffusion.categorical import Categorical
from perrin.diffusion.denoiser import Condition, Denoiser, Point
from perrin.diffusion.state import Fields, zero_centre
from perrin_molecule.data import pairs_of

__all__ = ["bound"]

FINEST = 2 * math.log(999)
"""Log-SNR of the cleanest level, and the negative of that of the last but one."""


@torch.inference_mode()
def bound(
    denoiser: Denoiser,
    clean: Fields,
    noise: Mapping[str, Sequence[float]],
    *,
    condition: Condition | None = None,
    scale: float = 1.0,
    steps: int = 1000,
    draws: int = 20,
    seed: int = 0,
) -> Tensor:
    """An estimate of a bound on -log p, (B,), of clean molecules in units of ``scale`` angstrom; densities are per
    cubic angstrom.

    Args:
        denoiser: of molecules, at temperature 1.
        clean: with a mask; positions without a mean.
        noise: chances of ``kinds`` and ``bonds`` at full noise.
        condition: of the network.
        scale: the unit of positions in angstrom.
        steps: T - 1.
        draws: levels that are looked at beside the first one, spread evenly over all.
        seed: of levels and noise.
    """
    assert clean.mask is not None
    generator = torch.Generator().manual_seed(seed)
    freedom = 3.0 * (clean.mask.sum(1) - 1)
    half = torch.linspace(FINEST, -FINEST, steps, dtype=torch.float64) / 2
    keep = [*torch.sigmoid(half).tolist(), 0.0]  # of levels 1 to T
    total = _last(denoiser, clean, noise, condition or {}, freedom, keep[0], generator)
    offset = float(torch.rand((), generator=generator))
    for k in range(draws):
        i = 1 + int((k + offset) / draws * steps)
        here = _step(denoiser, clean, noise, condition or {}, keep[i], keep[i - 1], generator)
        total = total + steps / draws * here
    return total + freedom * math.log(scale)


def _noised(clean: Fields, noise: Mapping[str, Sequence[float]], keep: float, generator: torch.Generator) -> Fields:
    """The molecules where ``keep`` of them is left."""
    x = clean["positions"]
    e = zero_centre(torch.randn(x.shape, generator=generator).to(x), clean.mask)
    found = {"positions": keep * x + (1 - keep) * e}
    for name, chances in noise.items():
        fresh = torch.multinomial(torch.tensor(chances), clean[name].numel(), True, generator=generator)
        kept = torch.rand(clean[name].shape, generator=generator) < keep
        found[name] = torch.where(kept.to(x.device), clean[name], fresh.view(clean[name].shape).to(x.device))
    return Fields(found, clean.mask)


def _told(denoiser: Denoiser, state: Fields, condition: Condition, keep: float) -> Fields:
    levels = {"positions": keep}, {"positions": 1 - keep}
    found: Fields = denoiser.evaluate(state, Point(1 - keep, *levels), condition).clean  # type: ignore[assignment]
    return Fields({**found, "positions": zero_centre(found["positions"], state.mask)}, state.mask)


def _off(clean: Fields, found: Fields) -> Tensor:
    """(B,) squared distance of the positions."""
    assert clean.mask is not None
    return ((clean["positions"] - found["positions"]) * clean.mask[..., None]).square().flatten(1).sum(1)


def _there(clean: Fields, name: str) -> Tensor:
    """(B, N or P) which atoms or pairs there are."""
    assert clean.mask is not None
    if name == "kinds":
        return clean.mask
    i, j = (index.to(clean.mask.device) for index in pairs_of(clean.mask.shape[1]))
    return clean.mask[:, i] & clean.mask[:, j]


def _step(
    denoiser: Denoiser, clean: Fields, noise: Mapping[str, Sequence[float]], condition: Condition, keep: float,
    after: float, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """What the step from the level of ``keep`` to that of ``after`` adds, (B,)."""
    state = _noised(clean, noise, keep, generator)
    found = _told(denoiser, state, condition, keep)
    now, then = keep / (1 - keep), after / (1 - after)
    gain = now**2 * 2 * math.log(then / now) if now else then**2
    total = gain / 2 * _off(clean, found)
    for name, chances in noise.items():
        kind = Categorical(len(chances), tuple(chances))
        sure = torch.nn.functional.one_hot(clean[name], len(chances)).double()
        true = kind.posterior(state[name], sure, keep, after)
        said = kind.posterior(state[name], found[name].double(), keep, after)
        apart = (true * (true.clamp(min=1e-30).log() - said.clamp(min=1e-30).log())).sum(-1)
        total = total + (apart * _there(clean, name)).sum(1).to(total)
    return total


def _last(
    denoiser: Denoiser, clean: Fields, noise: Mapping[str, Sequence[float]], condition: Condition, freedom: Tensor,
    keep: float, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """What the last step, to the molecules themselves, adds."""
    state = _noised(clean, noise, keep, generator)
    found = _told(denoiser, state, condition, keep)
    width = (1 - keep) / keep
    total = _off(clean, found) / (2 * width**2) + freedom.to(clean["positions"]) * math.log(
        width * math.sqrt(2 * math.pi)
    )
    for name in noise:
        chance = found[name].gather(-1, clean[name][..., None])[..., 0].clamp(min=1e-30).log()
        total = total - (chance * _there(clean, name)).sum(1).to(total)
    return total
