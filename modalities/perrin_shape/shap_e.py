r"""Shap-E's decoder: a latent becomes the weights of a small network, which says of every place how far inside it is.

A latent is as many vectors as the first layers of that network have rows. Each vector gives one row, by a projection of
its own; the later layers are the same for all shapes. Of a place x in the cube from -1 to 1 the network is told

.. math:: \gamma(x) = (x, \sin(2^k x), \sin(2^k x + \pi/2))_{k = 0 \ldots 14}

and of the direction it is seen from, here, nothing. Its first output is the signed distance, positive inside; outputs 3
to 5 are the colour of the surface.

References:
    Jun and Nichol, Shap-E: Generating conditional 3D implicit functions (2023), sections 4.1 and 4.2, appendix A.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin_shape.cloud import Cloud
from perrin_shape.mesh import Mesh, closed, sampled, vertex_normals

__all__ = ["PROCESS", "Decoder"]

_KEPT = math.exp(-12 / 1024)
PROCESS = {"kind": "linear", "beta_min": 1 - _KEPT, "beta_max": 1 - _KEPT, "steps": 1024}
"""The forward process of the latents: alpha-bar falls like exp(-12 t)."""

WAVES, SEEN = 15, 8
"""Frequencies of a place's code, and of a direction's."""

GRID = 80
"""Points along a side of the grid on which the surface is looked for."""

AT_ONCE = 65_536
"""Places that are asked about in one go."""


class _Row(nn.Module):
    """Vectors (n, latent) to rows (n, width), each by a matrix of its own."""

    def __init__(self, rows: int, width: int, latent: int) -> None:
        super().__init__()
        self.shape = rows, width, latent
        self.proj, self.norm = nn.Linear(latent, rows * width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        rows, width, latent = self.shape
        made = torch.einsum("nl,nwl->nw", x, self.proj.weight.view(rows, width, latent))
        return cast(Tensor, self.norm(made) + self.proj.bias.view(rows, width))


class Decoder(nn.Module):
    """Latents to surfaces.

    Args:
        latent: width of a latent's vectors.
        hidden: width of the implicit network.
        told: layers whose weights a latent says.
        layers: hidden layers; the direction comes in before number ``told``.
        outputs: signed distance, two densities, and three colours of three.
    """

    def __init__(
        self, latent: int = 1024, hidden: int = 256, told: int = 4, layers: int = 6, outputs: int = 12
    ) -> None:
        super().__init__()
        place, direction = 3 + 6 * WAVES, 3 + 6 * SEEN
        widths = [place, *[hidden] * layers]
        widths[told] += direction
        self.told, self.hidden, self.direction = told, hidden, direction
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, [*[hidden] * layers, outputs], strict=True))
        self.projections = nn.ModuleDict(
            {f"nerstf__mlp__{k}__weight": _Row(hidden, widths[k], latent) for k in range(told)}
        )

    @property
    def vectors(self) -> int:
        """Of a latent."""
        return self.told * self.hidden

    def weights(self, latents: Tensor) -> list[Tensor]:
        """The weights that latents (vectors, latent) say."""
        parts = latents.split(self.hidden)
        return [self.projections[f"nerstf__mlp__{k}__weight"](part) for k, part in enumerate(parts)]

    def forward(self, weights: list[Tensor], places: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance (n,), positive inside, and colours (n, 3) from 0 to 1, at places (n, 3)."""
        scales = 2.0 ** torch.arange(WAVES, dtype=places.dtype, device=places.device)
        turned = (places[:, None] * scales[:, None]).flatten(1)
        h = torch.cat([places, turned.sin(), (turned + math.pi / 2).sin()], 1)
        for k, layer in enumerate(self.mlp):
            if k == self.told:
                h = torch.cat([h, h.new_zeros(len(h), self.direction)], 1)
            own = cast(nn.Linear, layer)
            h = F.linear(h, weights[k] if k < self.told else own.weight, own.bias)
            if k < len(self.mlp) - 1:
                h = F.silu(h)
        return torch.tanh(h[:, 0]), torch.sigmoid(h[:, 3:6])

    @torch.inference_mode()
    def mesh(self, latents: Tensor, grid: int | None = None) -> Mesh | None:
        """The closed surface of latents (vectors, latent), y up; None where nothing is inside."""
        from skimage.measure import marching_cubes

        weights, grid = self.weights(latents), grid or GRID
        line = torch.linspace(-1, 1, grid, device=latents.device)
        places = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
        inside = torch.cat([self(weights, part)[0] for part in places.split(AT_ONCE)])
        field = np.full((grid + 2,) * 3, -1.0, np.float32)
        field[1:-1, 1:-1, 1:-1] = inside.reshape(grid, grid, grid).float().cpu().numpy()
        field[np.abs(field) < 1e-6] = 1e-6
        if not (field > 0).any():
            return None
        found, faces, *_ = marching_cubes(field, 0.0, allow_degenerate=False)
        corners = torch.from_numpy(((found - 1) * (2 / (grid - 1)) - 1).astype(np.float32)).to(latents)
        shades = torch.cat([self(weights, part)[1] for part in corners.split(AT_ONCE)])
        x, y, z = corners.float().cpu().numpy().T
        vertices, faces = np.stack([x, z, -y], 1), faces.astype(np.int32)
        a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
        if np.einsum("nd,nd->", a, np.cross(b, c)) < 0:
            faces = faces[:, ::-1].copy()
        colours = (shades.float().cpu().numpy() * 255).round().astype(np.uint8)
        return Mesh(vertices, faces, vertex_normals(vertices, faces), colours, "signed-distance", closed(faces))

    def cloud(self, latents: Tensor, count: int, seed: int) -> Cloud | None:
        """``count`` points of that surface, with normals and colours."""
        mesh = self.mesh(latents)
        if mesh is None or mesh.normals is None or mesh.colours is None:
            return None
        points, face, weights = sampled(mesh.vertices, mesh.faces, count, seed)
        corners = mesh.faces[face]
        normals = np.einsum("nk,nkd->nd", weights, mesh.normals[corners])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        colours = np.einsum("nk,nkd->nd", weights, mesh.colours[corners].astype(np.float32)).round()
        return Cloud(points, normals.astype(np.float32), colours.clip(0, 255).astype(np.uint8))
