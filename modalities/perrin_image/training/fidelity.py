r"""How near a picture is to the real one: signal to noise, and structural similarity.

.. math:: PSNR = -10 \log_{10} \operatorname{mean} (x - y)^2, \qquad
          SSIM = \operatorname{mean} \frac{(2\mu_x\mu_y + c_1)(2\sigma_{xy} + c_2)}
                                        {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}

with means and covariances under a Gaussian window of 11 pixels and deviation 1.5, over values in [0, 1].

References:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity (2004), section III.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["psnr", "ssim"]


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """In dB, (B,), of pictures (B, C, H, W) in [-1, 1]; equal ones have 100."""
    error = ((x - y) / 2).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp(min=1e-10))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """(B,), of pictures (B, C, H, W) in [-1, 1] of 11 pixels a side and more; equal ones have 1."""
    x, y = (x.double() + 1) / 2, (y.double() + 1) / 2  # small variances are differences of large numbers
    place = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    line = torch.exp(-place.square() / (2 * 1.5**2))
    line = line / line.sum()
    channels = x.shape[1]

    def blurred(z: Tensor) -> Tensor:
        for shape in ((1, 1, 11, 1), (1, 1, 1, 11)):
            z = F.conv2d(z, line.view(shape).expand(channels, *shape[1:]), groups=channels)
        return z

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    both = blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return ratio.flatten(1).mean(1).float()
