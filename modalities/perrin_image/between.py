r"""Between two prompts, and between two seeds.

Prompts are interpolated as their tokens' embeddings. Starting noise goes along the great circle, on which every point
is as likely a draw as the ends are,

.. math:: n(u) = \frac{\sin((1 - u)\theta)\, n_0 + \sin(u \theta)\, n_1}{\sin \theta}, \qquad
          \cos\theta = \frac{n_0 \cdot n_1}{|n_0|\,|n_1|}

References:
    Shoemake, Animating Rotation with Quaternion Curves (1985), section 3.3; Song et al., Denoising Diffusion Implicit
    Models (2021), section 5.3, which interpolates starting noise so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin.diffusion.noise import normals

__all__ = ["blend", "conditions", "slerp"]


def blend(tokens: Tensor, mask: Tensor, places: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Embeddings between two prompts.

    Args:
        tokens: (2, L, width), zeros where there is no token.
        mask: (2, L) True where there is one.
        places: u of each item, 0 the first prompt, 1 the second.

    Returns:
        (B, L, width) and (B, L): at an end only that prompt's tokens count, between them those of both.
    """
    u = torch.tensor(places, dtype=tokens.dtype, device=tokens.device)[:, None]
    return torch.lerp(tokens[:1], tokens[1:], u[..., None]), (mask[:1] & (u < 1)) | (mask[1:] & (u > 0))


def conditions(first: Mapping[str, Tensor], last: Mapping[str, Tensor], places: Sequence[float]) -> dict[str, Tensor]:
    """Conditions between those of two prompts: what is the same in both stays, numbers are interpolated.

    Args:
        first: of the first prompt, each (1, ...).
        last: of the second one.
        places: as of `blend`.
    """
    made = dict(first)
    for name, value in first.items():
        if value is last[name] or not value.is_floating_point() or value.dim() < 2:
            continue
        u = torch.tensor(places, dtype=value.dtype, device=value.device)
        made[name] = torch.lerp(value, last[name], u.reshape(-1, *[1] * (value.dim() - 1)))
    if "context_mask" in made:
        tokens, mask = (torch.cat([first[name], last[name]]) for name in ("context", "context_mask"))
        made["context"], made["context_mask"] = blend(tokens, mask, places)
    return made


def slerp(
    seeds: Sequence[int], others: Sequence[int], places: Sequence[float], shape: Sequence[int]
) -> npt.NDArray[np.float32]:
    """(B, *shape) starting noise between that of ``seeds`` and that of ``others``, at ``places``."""
    first, last = (normals(ends, 0, shape).astype(np.float64).reshape(len(places), -1) for ends in (seeds, others))
    cosine = (first * last).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(last, axis=1)
    angle = np.arccos(cosine.clip(-1, 1))
    u = np.asarray(places, np.float64)
    apart = angle > 1e-4  # two equal seeds are no arc
    turn = np.where(apart, np.sin(angle), 1.0)
    near = np.where(apart, np.sin((1 - u) * angle) / turn, 1 - u)
    far = np.where(apart, np.sin(u * angle) / turn, u)
    made = near[:, None] * first + far[:, None] * last
    return made.astype(np.float32).reshape(len(places), *shape)
