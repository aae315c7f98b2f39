"""Shapes that people give: files of points, or of meshes that points are spread over; or refused in one line.

Nothing that a file names elsewhere (materials, pictures, buffers) is looked for. A mesh need not be closed, nor its
edges be of two triangles each: points are spread over whatever surface there is, evenly by area, the same each time.
What comes out is centred, the farthest point at distance one.
"""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perrin.errors import InvalidInput, NotInstalled
from perrin.glb_files import read_parts
from perrin_shape.cloud import Cloud
from perrin_shape.mesh import sampled

__all__ = ["LARGEST", "MOST", "POINTS", "centred", "read", "read_said", "thinned"]

POINTS = 4096
"""Spread over a mesh."""

MOST = 65_536
"""Points of a cloud that are kept; of a larger one, an even choice."""

LARGEST = 256 << 20
"""Bytes of a file, and of what a compressed one unpacks to."""

LEAST = 4
"""Points of a shape."""

ELEMENTS = 30_000_000
"""Numbers that a file may say it holds."""

Floats = NDArray[np.float32]


class _Placed(NamedTuple):
    """A cloud near the origin, and what gives the file's own places: times ``reach``, plus ``middle``."""

    cloud: Cloud
    middle: NDArray[np.float64] | float = 0.0
    reach: float = 1.0


def read(data: bytes, name: str, field: str = "shape", points: int = POINTS, centre: bool = True) -> Cloud:
    """`read_said`, without what is to be said.

    Raises:
        InvalidInput: as of `read_said`.
    """
    return read_said(data, name, field, points, centre)[0]


def read_said(
    data: bytes, name: str, field: str = "shape", points: int = POINTS, centre: bool = True
) -> tuple[Cloud, list[str]]:
    """The cloud in a file, and what a person should know of how it was read.

    Args:
        data: a PLY, OBJ, GLB or STL, an XYZ of ``x y z``, ``x y z nx ny nz`` or ``x y z r g b`` a line, or an NPZ or
            NPY of ``points`` and, where it has them, ``normals`` and ``colours``.
        name: the file's, for its ending; the first bytes count where they say what it is.
        field: the parameter that it was given for.
        points: to spread over a mesh.
        centre: centred, the farthest point at distance one; else where the file has it.

    Raises:
        InvalidInput: it cannot be read, holds nothing, one place alone or numbers that are not finite, or is too large.
    """
    if not data:
        raise InvalidInput(field, name, "a file with something in it")
    if len(data) > LARGEST:
        raise InvalidInput(field, f"{len(data) >> 20} MiB", f"a shape of at most {LARGEST >> 20} MiB")
    kind = _kind(data, name)
    try:
        if kind in {"npz", "npy"}:
            found = _Placed(_arrays(data, kind))
        elif kind == "xyz":
            found = _Placed(_columns(data))
        elif kind == "glb":
            found = _scene(data, field, points)
        else:
            found = _file(data, kind, field, points)
    except (InvalidInput, NotInstalled):
        raise
    except MemoryError:
        raise InvalidInput(field, name, "a shape that fits into memory") from None
    except Exception as error:  # trimesh's readers raise anything at all for a broken file
        reason = " ".join(str(error).split())[:120] if isinstance(error, ValueError) else type(error).__name__
        raise InvalidInput(field, name, f"a whole {kind.upper()} of a shape: {reason or 'it is broken'}") from None
    return _checked(found, field, centre)


def centred(cloud: Cloud) -> Cloud:
    """The same, its points' mean at the origin and the farthest at distance one.

    Raises:
        ValueError: all points are at one place.
    """
    points = cloud.points.astype(np.float64)
    points = points - points.mean(0)
    reach = float(np.linalg.norm(points, axis=1).max(initial=0))
    if not reach > 1e-9 * max(1.0, float(np.abs(cloud.points).max(initial=0))):
        raise ValueError("all points are at one place")
    return Cloud((points / reach).astype(np.float32), cloud.normals, cloud.colours)


def _kind(data: bytes, name: str) -> str:
    for start, kind in ((b"ply\n", "ply"), (b"ply\r", "ply"), (b"glTF", "glb"), (b"PK", "npz"), (b"\x93NUMPY", "npy")):
        if data.startswith(start):
            return kind
    ending = name.rpartition(".")[2].lower()
    if ending in {"obj", "stl", "xyz"}:
        return ending
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return "stl"
    if re.match(rb"solid[^\n]*\n\s*facet", data[:400]):
        return "stl"
    if re.search(rb"^(?:v|o|g|vn|usemtl|mtllib) ", data[:65536], re.MULTILINE):
        return "obj"
    return ending if ending in {"ply", "glb", "npz", "npy"} else "xyz"


# --- points -----------------------------------------------------------------------------------------------------------


def _arrays(data: bytes, kind: str) -> Cloud:
    import zipfile

    if kind == "npz":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST >> 20} MiB")
        found = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {name: found[name] for name in found.files if name in {"points", "normals", "colours", "colors"}}
        if "points" not in arrays:
            raise ValueError("no array named points in it")
    else:
        arrays = {"points": np.load(io.BytesIO(data), allow_pickle=False)}
    points = _rows(arrays["points"], "points")
    normals = arrays.get("normals")
    colours = arrays.get("colours", arrays.get("colors"))
    if colours is not None and colours.dtype != np.uint8:
        colours = np.asarray(colours, np.float64)
        colours = (colours * (255 if colours.size and colours.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8)
    return Cloud(
        points,
        None if normals is None else _rows(normals, "normals", len(points)),
        None if colours is None else np.asarray(colours, np.uint8).reshape(len(points), -1)[:, :3],
    )


def _rows(values: NDArray[Any], what: str, count: int | None = None) -> Floats:
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"{what} of shape {values.shape} and type {values.dtype}, wanted numbers (n, 3)")
    if count is not None and len(values) != count:
        raise ValueError(f"{len(values)} {what} for {count} points")
    return values.astype(np.float32)


def _columns(data: bytes) -> Cloud:
    rows: list[list[float]] = []
    width = 0
    for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not words or (number <= 2 and len(words) != 3 and not rows and len(words) < 3):
            continue  # a count, or a line of words, above the points
        if len(words) < 3:
            raise ValueError(f"line {number} has {len(words)} numbers, wanted 3 or 6")
        try:
            values = [float(word) for word in words[:6]]
        except ValueError:
            if not rows and number <= 2:
                continue
            raise ValueError(f"line {number} is no line of numbers: {line[:30]!r}") from None
        width = width or (6 if len(values) == 6 else 3)
        if len(values) < width:
            raise ValueError(f"line {number} has {len(values)} numbers, wanted {width}")
        rows.append(values[:width])
    if not rows:
        raise ValueError("no points in it")
    table = np.array(rows, np.float64)
    points = table[:, :3].astype(np.float32)
    if width == 3:
        return Cloud(points)
    more = table[:, 3:]
    if ((more >= 0) & (more <= 255) & (more == np.round(more))).all() and more.max() > 1:
        return Cloud(points, None, more.astype(np.uint8))
    return Cloud(points, more.astype(np.float32))


# --- meshes -----------------------------------------------------------------------------------------------------------


def _file(data: bytes, kind: str, field: str, points: int) -> _Placed:
    """The cloud in a PLY, OBJ, GLB or STL, or one spread over the mesh in it."""
    try:
        import trimesh
    except ImportError:
        raise NotInstalled("reading shapes", "run") from None
    if kind == "ply":
        _check_ply(data)
    if kind == "obj" and not re.search(rb"^f ", data, re.MULTILINE):
        return _Placed(_obj_points(data))
    more = {"skip_materials": True} if kind in {"obj", "ply"} else {}
    made: Any = trimesh.load(io.BytesIO(data), file_type=kind, process=False, **more)
    corners: list[NDArray[np.float64]] = []
    shades: list[NDArray[np.uint8]] = []
    coloured = False
    for part in _parts(made, trimesh):
        if isinstance(part, trimesh.Trimesh) and len(part.faces):
            own = getattr(part.visual, "kind", None) == "vertex"
            coloured |= own
            colours = np.asarray(part.visual.vertex_colors) if own else np.full((len(part.vertices), 3), 200, np.uint8)
            corners.append(np.asarray(part.triangles, np.float64))
            shades.append(colours[:, :3].astype(np.uint8)[part.faces])
        elif isinstance(part, trimesh.PointCloud) and not corners and len(part.vertices):
            return _loose(part)
    if not corners:
        raise ValueError("no points and no triangles in it")
    return _spread(np.concatenate(corners), np.concatenate(shades) if coloured else None, field, points)


def _scene(data: bytes, field: str, count: int) -> _Placed:
    """The cloud in a GLB: its points, where it has no triangles."""
    parts = read_parts(data, ELEMENTS)
    corners, shades, coloured = [], [], False
    for part in parts:
        if part.faces is None or not len(part.faces):
            continue
        corners.append(part.places[part.faces])
        plain = np.full((len(part.places), 3), 200, np.uint8)
        shades.append((plain if part.colours is None else part.colours)[part.faces])
        coloured |= part.colours is not None
    if corners:
        return _spread(np.concatenate(corners), np.concatenate(shades) if coloured else None, field, count)
    loose = [part for part in parts if len(part.places)]
    if not loose:
        raise ValueError("no points and no triangles in it")
    across = [part.normals for part in loose if part.normals is not None]
    tones = [part.colours for part in loose if part.colours is not None]
    return _near(
        np.concatenate([part.places for part in loose]),
        np.concatenate(across).astype(np.float32) if len(across) == len(loose) else None,
        np.concatenate(tones) if len(tones) == len(loose) else None,
    )


def _spread(triangles: NDArray[np.float64], shades: NDArray[np.uint8] | None, field: str, count: int) -> _Placed:
    """A cloud of triangles (f, 3, 3), with the colours (f, 3, 3) of their corners."""
    if not np.isfinite(triangles).all():
        raise InvalidInput(field, "corners that are not finite", "a mesh of finite numbers")
    flat = triangles.reshape(-1, 3)
    middle, reach = (flat.min(0) + flat.max(0)) / 2, float(np.ptp(flat, axis=0).max()) or 1.0
    places = ((flat - middle) / reach).astype(np.float32)  # far from the origin, float32 would lose the shape
    faces = np.arange(len(places), dtype=np.int32).reshape(-1, 3)
    try:
        found, face, weights = sampled(places, faces, count)
    except ValueError:
        raise InvalidInput(field, "triangles without area", "a mesh with a surface") from None
    ends = places[faces[face]].astype(np.float64)
    across = np.cross(ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 0])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-300)
    a, b, c = (places[k::3].astype(np.float64) for k in range(3))
    if np.einsum("nd,nd->", a, np.cross(b, c)) < 0:  # wound inside out
        across = -across
    colours = None
    if shades is not None:
        mixed = np.einsum("nk,nkc->nc", weights, shades[face].astype(np.float64))
        colours = mixed.round().clip(0, 255).astype(np.uint8)
    return _Placed(Cloud(found, across.astype(np.float32), colours), middle, reach)


def _parts(made: Any, trimesh: Any) -> list[Any]:
    """The meshes and clouds of a scene, where they are in it."""
    if not isinstance(made, trimesh.Scene):
        return [made]
    parts, total = [], 0
    for node in made.graph.nodes_geometry:
        transform, geometry = made.graph[node]
        part = made.geometry[geometry].copy()
        total += len(getattr(part, "faces", ())) + len(getattr(part, "vertices", ()))
        if total > ELEMENTS:
            raise ValueError(f"a scene of more than {ELEMENTS // 1_000_000} million corners and triangles")
        part.apply_transform(transform)
        parts.append(part)
    return parts


def _loose(part: Any) -> _Placed:
    """A cloud that a file holds as such; a PLY's normals are beside it, unread, among the columns."""
    points = np.asarray(part.vertices, np.float64)
    raw: Any = part.metadata.get("_ply_raw", {}).get("vertex", {}).get("data") if part.metadata else None
    names = raw.dtype.names if isinstance(raw, np.ndarray) and raw.dtype.names else tuple(raw or ())
    normals = None
    if {"nx", "ny", "nz"} <= {*names}:
        normals = np.stack([np.asarray(raw[n], np.float32).reshape(-1) for n in ("nx", "ny", "nz")], 1)
    colours = np.asarray(part.colors) if len(getattr(part, "colors", ())) == len(points) else None
    return _near(points, normals, None if colours is None else colours[:, :3].astype(np.uint8))


def _near(points: NDArray[np.float64], normals: Floats | None, colours: NDArray[np.uint8] | None) -> _Placed:
    """Moved to the origin if it is far from it, where float32 would lose the shape; else as it is, to the last bit."""
    middle = np.where(np.isfinite(points), points, 0).mean(0)
    if np.abs(middle).max() <= 16 * np.ptp(points, axis=0).max(initial=0):
        middle = np.zeros(3)
    return _Placed(Cloud((points - middle).astype(np.float32), normals, colours), middle)


def _obj_points(data: bytes) -> Cloud:
    """The corners of an OBJ without faces, with their colours, and their normals where there are as many."""
    rows, across = [], []
    for line in data.decode("utf-8", "replace").splitlines():
        if line.startswith("v "):
            rows.append([float(word) for word in line.split()[1:7]])
        elif line.startswith("vn "):
            across.append([float(word) for word in line.split()[1:4]])
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError("no points and no triangles in it")
    table = np.array(rows)
    normals = np.array(across, np.float32) if len(across) == len(rows) else None
    colours = (table[:, 3:6] * 255).clip(0, 255).round().astype(np.uint8) if table.shape[1] == 6 else None
    return Cloud(table[:, :3].astype(np.float32), normals, colours)


# --- before anything is unpacked --------------------------------------------------------------------------------------


def _check_ply(data: bytes) -> None:
    head, found, _ = data[: 1 << 20].partition(b"end_header")
    if not found:
        raise ValueError("its header does not end")
    for line in head.decode("ascii", "replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "element":
            if not words[2].isdigit() or int(words[2]) > ELEMENTS:
                raise ValueError(f"{words[2][:20]} of element {words[1][:20]}, wanted at most {ELEMENTS}")
            if int(words[2]) > len(data):
                raise ValueError("it is cut short")


def _checked(found: _Placed, field: str, centre: bool) -> tuple[Cloud, list[str]]:
    """Thinned, and in its place, with what is to be said about it."""
    cloud = found.cloud
    count = len(cloud)
    if not np.isfinite(cloud.points).all():
        bad = int((~np.isfinite(cloud.points)).any(1).sum())
        raise InvalidInput(field, f"{bad} of {count} points that are not finite", "points of finite numbers")
    if count < LEAST:
        raise InvalidInput(field, f"{count} point" + "s" * (count != 1), f"a shape of at least {LEAST} points")
    said = []
    normals = cloud.normals
    if normals is not None:
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths < 1e-9).mean() > 0.01:
            normals = None
            said.append("its normals are missing or not finite, and are made anew")
        else:
            normals = (normals / np.maximum(lengths, 1e-9)).astype(np.float32)
    cloud = Cloud(cloud.points, normals, cloud.colours)
    if count > MOST:
        cloud = thinned(cloud, MOST)
        said.append(f"of its {count:,} points {len(cloud):,} are kept, evenly")
    try:
        middle = centred(cloud)
        if centre:
            return middle, said
        own = (cloud.points.astype(np.float64) * found.reach + found.middle).astype(np.float32)
        return Cloud(own, cloud.normals, cloud.colours), said
    except ValueError:
        raise InvalidInput(field, f"{count} points at one place", "a shape with an extent") from None


def thinned(cloud: Cloud, count: int) -> Cloud:
    """At most ``count`` points of a cloud, at most one of each cell of a grid, as fine as that allows."""
    points = cloud.points.astype(np.float64)
    low = points.min(0)
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    mixed = np.random.default_rng(0).permutation(len(points))
    fine, coarse, best = 4096.0, 4.0, mixed[:1]
    for _ in range(9):
        cells = np.sqrt(fine * coarse)
        place = ((points[mixed] - low) / extent * cells).astype(np.int64)
        _, first = np.unique((place[:, 0] * 8192 + place[:, 1]) * 8192 + place[:, 2], return_index=True)
        if len(first) > count:
            fine = cells
        else:
            coarse, best = cells, mixed[first]
    if len(best) < 0.6 * count:  # many points in few cells: as even as chance makes it
        best = mixed[:count]
    best = np.sort(best)
    return Cloud(
        cloud.points[best],
        None if cloud.normals is None else cloud.normals[best],
        None if cloud.colours is None else cloud.colours[best],
    )
