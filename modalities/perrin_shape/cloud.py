"""A point cloud: what the model makes, what the surface is made of, what files hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cloud"]


@dataclass(frozen=True)
class Cloud:
    """Points of a surface, right-handed, y up, the front towards +z (as in glTF).

    Attributes:
        points: float32 (n, 3). Shapes of the model are centred, the farthest point at distance one.
        normals: float32 (n, 3), of length one, outward; or None.
        colours: uint8 (n, 3), sRGB; or None.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32] | None = None
    colours: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.points)
