"""Shapes to be turned with the mouse: PLY, OBJ, GLB and STL files, read and drawn as triangles or points.

The dashboard knows no modality: what a file holds is drawn as it is. A file of many triangles or points is thinned for
the page; the download has all of them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from perrin.glb_files import read_parts

__all__ = ["Drawn", "figure", "read_shape"]

KINDS = {"model/ply": "ply", "model/obj": "obj", "model/gltf-binary": "glb", "model/stl": "stl", "text/plain": "obj"}
"""Media types that can be drawn, and how trimesh calls them."""

MOST_FACES, MOST_POINTS = 60_000, 20_000
"""That a page is sent."""

LARGEST = 128 << 20
"""Bytes of a file that are read to be shown."""

GREY = (176, 186, 198)

Arrays = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint8] | None]
"""Places, faces and colours."""


@dataclass(frozen=True)
class Drawn:
    """A shape in space, y up.

    Attributes:
        places: (n, 3).
        faces: (f, 3), none for points.
        colours: (n, 3) uint8, or None.
        said: what it has, in words.
    """

    places: NDArray[np.float64]
    faces: NDArray[np.int64]
    colours: NDArray[np.uint8] | None
    said: str


def read_shape(data: bytes, media_type: str) -> Drawn | None:
    """The shape in a file; None where there is none that can be drawn."""
    kind = KINDS.get(media_type.partition(";")[0])
    if kind is None or len(data) > LARGEST:
        return None
    try:
        places, faces, colours = _scene(data) if kind == "glb" else _loaded(data, kind)
    except Exception:  # readers raise anything for a broken file, which can still be downloaded
        return None
    if not len(places) or not np.isfinite(places).all():
        return None
    if not len(faces):
        said = f"{len(places):,} points"
        step = -(-len(places) // MOST_POINTS)
        return Drawn(places[::step], faces, None if colours is None else colours[::step], said)
    said = f"{len(faces):,} triangles, {len(places):,} corners"
    if len(faces) > MOST_FACES:
        places, faces, colours = _coarser(places, faces, colours)
    return Drawn(places, faces, colours, said)


def _scene(data: bytes) -> Arrays:
    """Of a GLB: its triangles, or its points where it has none."""
    parts = read_parts(data, LARGEST // 12)
    solid = any(part.faces is not None for part in parts)
    places, faces, colours, coloured, before = [], [], [], False, 0
    for part in parts:
        if solid and part.faces is None:
            continue
        places.append(part.places)
        faces.append((np.zeros((0, 3), np.int64) if part.faces is None else part.faces) + before)
        coloured |= part.colours is not None
        colours.append(np.full((len(part.places), 3), GREY, np.uint8) if part.colours is None else part.colours)
        before += len(part.places)
    return np.concatenate(places), np.concatenate(faces), np.concatenate(colours) if coloured else None


def _loaded(data: bytes, kind: str) -> Arrays:
    """Of a PLY, OBJ or STL."""
    import trimesh

    made: Any = trimesh.load(io.BytesIO(data), file_type=kind, process=False)
    if isinstance(made, trimesh.Scene):
        made = made.to_geometry()
    places = np.asarray(made.vertices, np.float64)
    faces = np.asarray(getattr(made, "faces", np.zeros((0, 3))), np.int64).reshape(-1, 3)
    found = getattr(made, "colors", None)
    if getattr(getattr(made, "visual", None), "kind", None) == "vertex":
        found = made.visual.vertex_colors
    if found is None or len(found) != len(places):
        return places, faces, None
    return places, faces, np.asarray(found)[:, :3].astype(np.uint8)


def _coarser(places: NDArray[np.float64], faces: NDArray[np.int64], colours: NDArray[np.uint8] | None) -> Arrays:
    """Corners that share a cell of a grid are one, and triangles without area are gone."""
    low, extent = places.min(0), float(np.ptp(places, axis=0).max()) or 1.0
    made = places, faces, colours
    for cells in (160, 112, 80, 56, 40):
        key = ((places - low) / extent * cells).astype(np.int64)
        _, first, back = np.unique(key @ [1 << 40, 1 << 20, 1], return_index=True, return_inverse=True)
        smaller = back.reshape(-1)[faces]
        a, b, c = smaller.T
        smaller = smaller[(a != b) & (b != c) & (c != a)]
        made = places[first], smaller, None if colours is None else colours[first]
        if len(smaller) <= MOST_FACES:
            break
    return made


def figure(shape: Drawn) -> go.Figure:
    """Lit triangles, or points; seen from the front, a little from the right and above."""
    x, y, z = shape.places.T
    drawn = go.Figure()
    shown = None if shape.colours is None else [f"rgb({r},{g},{b})" for r, g, b in shape.colours.tolist()]
    plain = "rgb({},{},{})".format(*GREY)
    if len(shape.faces):
        i, j, k = shape.faces.T
        drawn.add_mesh3d(
            x=x, y=y, z=z, i=i, j=j, k=k, hoverinfo="skip",
            vertexcolor=shown, color=None if shown else plain, flatshading=False,
            lighting={"ambient": 0.55, "diffuse": 0.75, "specular": 0.15, "roughness": 0.6, "fresnel": 0.1},
            lightposition={"x": -1000, "y": 2000, "z": 1500},
        )  # fmt: skip
    else:
        size = float(np.clip(90 / np.sqrt(len(x)), 1.2, 6))
        marker = {"size": size, "color": shown or plain, "opacity": 1.0, "line": {"width": 0}}
        drawn.add_scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, hoverinfo="skip", showlegend=False)
    hidden = {"visible": False}
    drawn.update_layout(
        scene={
            "xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data", "dragmode": "orbit",
            "camera": {"up": {"x": 0, "y": 1, "z": 0}, "eye": {"x": 0.9, "y": 0.65, "z": 1.25}},
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=380,
        paper_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return drawn
