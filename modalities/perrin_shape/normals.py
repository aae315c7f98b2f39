"""Normals of a cloud that has none: planes through the nearest points, turned outward.

Which side is outside is told by who sees what: from a viewpoint far away, the points that nothing hides have their
outer side towards it. Many viewpoints vote; where no point was seen, or the votes are even, neighbours decide, along a
tree that walks from a point to the one whose plane is most alike.

References:
    Hoppe, DeRose, Duchamp, McDonald and Stuetzle, Surface reconstruction from unorganized points (1992), on planes and
    the tree; Katz, Tal and Basri, Direct visibility of point sets (2007), on who is seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import ConvexHull, QhullError, cKDTree

from perrin_shape.light import directions

__all__ = ["outward_normals"]

Floats = NDArray[np.float32]

NEIGHBOURS = 10
VIEWS = 42
SHARPNESS = 2.2
"""Powers of ten of the shape's radius that points are flipped about: more sees deeper into hollows."""


def outward_normals(points: Floats) -> Floats:
    """(n, 3) of length one, of points (n, 3).

    Raises:
        ValueError: fewer than four points.
    """
    if len(points) < 4:
        raise ValueError("fewer than four points")
    places = points.astype(np.float64)
    k = min(NEIGHBOURS, len(points) - 1)
    _, near = cKDTree(places).query(places, k=k + 1)
    around = places[near] - places[near].mean(1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    normals = axes[:, :, 0]
    votes = _votes(places, normals)
    signs = _settled(normals, near[:, 1:], votes)
    return np.asarray(normals * signs[:, None], np.float32)


def _votes(places: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much more often a point was seen along its normal than against it."""
    middle = (places.min(0) + places.max(0)) / 2
    centred = places - middle
    radius = float(np.linalg.norm(centred, axis=1).max())
    votes = np.zeros(len(places))
    for towards in directions(VIEWS):
        away = centred - 4 * radius * towards
        lengths = np.linalg.norm(away, axis=1, keepdims=True)
        flipped = away + 2 * (10**SHARPNESS * radius - lengths) * away / np.maximum(lengths, 1e-12)
        try:
            seen = ConvexHull(np.concatenate([flipped, np.zeros((1, 3))])).vertices
        except QhullError:
            continue
        seen = seen[seen < len(places)]
        votes[seen] -= np.einsum("nd,nd->n", normals[seen], away[seen]) / lengths[seen, 0]
    return votes


def _settled(normals: NDArray[np.float64], near: NDArray[np.int64], votes: NDArray[np.float64]) -> NDArray[np.float64]:
    count, k = near.shape
    row, column = np.arange(count).repeat(k), near.ravel()
    alike = np.einsum("nd,nd->n", normals[row], normals[column])
    cost = 1.001 - np.abs(alike)
    tree = minimum_spanning_tree(coo_matrix((cost, (row, column)), shape=(count, count)).tocsr())
    parts, label = connected_components(tree, directed=False)
    signs = np.zeros(count)
    strong = np.abs(votes) > 0.35 * np.abs(votes).max(initial=0)
    signs[strong] = np.sign(votes[strong])
    for part in range(parts):
        members = np.flatnonzero(label == part)
        start = members[np.argmax(np.abs(votes[members]))]
        order, before = breadth_first_order(tree, start, directed=False)
        if signs[start] == 0:
            signs[start] = np.sign(votes[start]) or 1.0
        for item in order[1:]:
            if signs[item] == 0:
                other = before[item]
                signs[item] = signs[other] * (np.sign(normals[item] @ normals[other]) or 1.0)
    return signs
