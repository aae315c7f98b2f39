"""How many clouds have a watertight surface that is theirs.

A mesh counts where it is closed (`perrin_shape.mesh.closed`, and trimesh agrees) and its Chamfer distance to its cloud
is at most 1.5 times what the same reconstruction has on real clouds of as many points, on the mean. Distances are
divided by the mean squared distance of a point of the cloud to its nearest, without which a shape of twice the area
would be twice as far from its points whatever its surface; the share without that is told too. Real clouds are counted
by the same rule: their share is the floor. A mesh that is its own convex hull does not count, unless the cloud
fills its hull too: no point of it is far inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from perrin.errors import Degenerate
from perrin_shape.cloud import Cloud
from perrin_shape.surface import apart, reconstruct

__all__ = ["ALLOWED", "Closed", "Surface", "closed_share", "surfaces"]

ALLOWED = 1.5
"""Times the mean distance on real clouds."""


class Surface(NamedTuple):
    """What came of one cloud.

    Attributes:
        how: poisson, signed-distance, or none.
        watertight: whether it is closed.
        apart: Chamfer distance to the cloud; infinite where there is none.
        spacing: mean squared distance of a point of the cloud to its nearest.
        hull: it fills its convex hull.
    """

    how: str
    watertight: bool
    apart: float
    spacing: float
    hull: bool

    @property
    def relative(self) -> float:
        """Chamfer distance in squares of the spacing."""
        return self.apart / max(self.spacing, 1e-12)


class Closed(NamedTuple):
    """Of a set of clouds.

    Attributes:
        share: of clouds whose mesh counts.
        plain: the same with distances as they are.
        watertight: of clouds whose mesh is closed, however far away.
        fallback: of meshes that the signed distance made.
        apart: the mean Chamfer distance of mesh and cloud.
        relative: that in squares of the spacing.
        allowed: what this may be at the most for one cloud.
    """

    share: float
    plain: float
    watertight: float
    fallback: float
    apart: float
    relative: float
    allowed: float


def surfaces(clouds: Sequence[Cloud], said: Callable[[int, int], None] = lambda *_: None) -> list[Surface]:
    """The surface of each cloud, as `reconstruct` makes it by itself."""
    found = []
    for number, cloud in enumerate(clouds, 1):
        try:
            mesh = reconstruct(cloud)
        except Degenerate:
            found.append(Surface("none", False, float("inf"), 0.0, False))
        else:
            found.append(Surface(mesh.how, mesh.watertight, apart(cloud, mesh), _spacing(cloud), _hull(mesh, cloud)))
        said(number, len(clouds))
    return found


def closed_share(made: Sequence[Surface], real: Sequence[Surface]) -> Closed:
    """How many of ``made`` count, measured by ``real``; of ``real`` itself it is the floor."""
    allowed = ALLOWED * float(np.mean([one.relative for one in real]))
    plainly = ALLOWED * float(np.mean([one.apart for one in real]))
    fit = [one for one in made if one.watertight and not one.hull]
    there = [one for one in made if one.how != "none"]
    return Closed(
        sum(one.relative <= allowed for one in fit) / len(made),
        sum(one.apart <= plainly for one in fit) / len(made),
        float(np.mean([one.watertight for one in made])),
        float(np.mean([one.how == "signed-distance" for one in there])) if there else 0.0,
        float(np.mean([one.apart for one in there])) if there else float("inf"),
        float(np.mean([one.relative for one in there])) if there else float("inf"),
        allowed,
    )


def _spacing(cloud: Cloud) -> float:
    away, _ = cKDTree(cloud.points).query(cloud.points, k=2)
    return float((away[:, 1] ** 2).mean())


def _hull(mesh: Any, cloud: Cloud) -> bool:
    """Whether the mesh is a convex hull of a cloud that is not convex itself."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(cloud.points)
        own = ConvexHull(mesh.vertices)
    except QhullError:
        return False
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    volume = abs(float(np.einsum("nd,nd->", a, np.cross(b, c)))) / 6
    depth = -(cloud.points @ hull.equations[:, :3].T + hull.equations[:, 3]).max(1)
    inside = float(np.mean(depth > 0.1))
    return volume > 0.97 * own.volume and inside > 0.05
