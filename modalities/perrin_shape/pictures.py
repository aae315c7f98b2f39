"""Shapes to look at: a lit, anti-aliased picture of a mesh or a cloud, and a clip of it turning.

The shape stands on a ground that only its soft shadow shows. Light comes from an even sky (`perrin_shape.light`), which
is worked out once, and from a lamp beside the camera; so a turn costs a depth buffer a frame (`perrin_shape.raster`).
No graphics card and no OpenGL: NumPy alone, the same bytes for the same shape.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from perrin_shape.cloud import Cloud
from perrin_shape.light import looked_up, shade, sky, visible
from perrin_shape.mesh import Mesh, sampled, vertex_normals
from perrin_shape.raster import Hits, balls, triangles

__all__ = ["frames", "gif", "linear", "preview", "turntable"]

Floats = NDArray[np.float32]

PLAIN = (196, 204, 214)
"""sRGB of a shape without colours."""

FINE = 2
"""Samples along a pixel's side."""

AZIMUTH, ELEVATION = 35.0, 22.0
"""Degrees: from where a preview looks; azimuth 0 is from the front."""

AWAY = 4.6
"""Radii from the shape's middle to the camera."""

FILLED = 0.92
"""Of a picture's side: the shape's diameter."""

DENSE = 9000
"""Points of a surface that light is worked out by, at the least."""

MOST_FACES = 400_000
"""A mesh with more is shown as the points of its surface."""

DARKEST = 0.55
"""Of the shadow on the ground."""


@dataclass(frozen=True)
class _Scene:
    """A shape made ready: centred in its bounds, of radius ``radius``, its light from the sky worked out."""

    places: Floats
    normals: Floats
    colours: Floats
    faces: NDArray[np.int32] | None
    radii: Floats | None
    light: Floats
    surface: Floats
    shades: Floats
    radius: float
    ground: float
    closed: bool = False


def preview(thing: Cloud | Mesh, size: int = 256, background: str | None = "white", azimuth: float = AZIMUTH) -> bytes:
    """A PNG of ``size`` x ``size`` pixels.

    Args:
        thing: what to show.
        size: pixels along a side, 16 to 2048.
        background: a colour, or None for a transparent one.
        azimuth: degrees from the front, to the right.
    """
    picture = _picture(_scene(thing), size, azimuth)
    stream = io.BytesIO()
    _on(picture, background).save(stream, "PNG")
    return stream.getvalue()


def frames(thing: Cloud | Mesh, size: int = 256, count: int = 36) -> NDArray[np.uint8]:
    """A full turn: (count, size, size, 4), sRGB with straight alpha."""
    scene = _scene(thing)
    turns = (AZIMUTH + 360.0 * k / count for k in range(count))
    return np.stack([np.asarray(_picture(scene, size, turn)) for turn in turns])


def turntable(
    thing: Cloud | Mesh, size: int = 256, frames: int = 36, background: str = "white", seconds: float = 3.6
) -> bytes:
    """A GIF of a full turn, over and over."""
    scene = _scene(thing)
    made = [_on(_picture(scene, size, AZIMUTH + 360.0 * k / frames), background) for k in range(frames)]
    return gif(made, seconds)


def gif(pictures: list[Image.Image], seconds: float) -> bytes:
    """An endless GIF of opaque pictures that lasts ``seconds``; one palette for all, so that no colour flickers."""
    some = pictures[:: max(1, len(pictures) // 8)]
    sheet = np.concatenate([np.asarray(picture.convert("RGB")) for picture in some], 1)
    palette = Image.fromarray(sheet).quantize(256, Image.Quantize.MEDIANCUT)
    reduced = [p.convert("RGB").quantize(256, palette=palette, dither=Image.Dither.NONE) for p in pictures]
    edges = np.rint(np.linspace(0, 100 * seconds, len(pictures) + 1)).astype(int)
    stream = io.BytesIO()
    reduced[0].save(
        stream, "GIF", save_all=True, append_images=reduced[1:], loop=0, optimize=False,
        duration=[max(20, 10 * int(n)) for n in np.diff(edges)],
    )  # fmt: skip
    return stream.getvalue()


# --- made ready -------------------------------------------------------------------------------------------------------


def _scene(thing: Cloud | Mesh) -> _Scene:
    if isinstance(thing, Mesh) and len(thing.faces) > MOST_FACES:
        thing = _as_cloud(thing, 30_000)
    whole = thing.points if isinstance(thing, Cloud) else thing.vertices[np.unique(thing.faces)]
    middle = ((whole.min(0).astype(np.float64) + whole.max(0)) / 2).astype(np.float32)
    radius = max(float(np.linalg.norm(whole - middle, axis=1).max()), 1e-6)
    if isinstance(thing, Cloud):
        return _cloud_scene(thing, middle, radius)
    return _mesh_scene(thing, middle, radius)


def _mesh_scene(mesh: Mesh, middle: Floats, radius: float) -> _Scene:
    places, faces, colours = (
        (mesh.vertices - middle) / np.float32(radius),
        mesh.faces,
        _own(mesh.colours, len(mesh.vertices)),
    )
    normals = mesh.normals
    while len(faces) < DENSE and _longest(places, faces) > 0.12:
        places, faces, colours, normals = _halved(places, faces, colours, normals)
    if normals is None:
        normals = vertex_normals(places, faces)
    surface = places if len(places) >= DENSE else np.concatenate([places, sampled(places, faces, DENSE)[0]])
    ground = float(places[:, 1].min())
    light = sky(surface, places, normals, 1.01)
    return _Scene(
        places, normals, colours, faces, None, light, surface, shade(surface, ground, 1.0), 1.0, ground, mesh.watertight
    )


def _cloud_scene(cloud: Cloud, middle: Floats, radius: float) -> _Scene:
    places = (cloud.points - middle) / np.float32(radius)
    if len(places) > 60_000:
        chosen = np.random.default_rng(0).permutation(len(places))[:60_000]
        cloud = Cloud(*(None if v is None else v[chosen] for v in (cloud.points, cloud.normals, cloud.colours)))  # type: ignore[arg-type]
        places = places[chosen]
    near = cKDTree(places).query(places, k=min(5, len(places)))[0][:, -1] if len(places) > 1 else np.full(1, 0.05)
    radii = np.full(len(places), np.clip(0.5 * np.median(near), 0.006, 0.08), np.float32)
    places, radii = places / (1 + radii[0]), radii / (1 + radii[0])
    normals = cloud.normals if cloud.normals is not None else np.zeros_like(places)
    ground = float((places[:, 1] - radii).min())
    up = normals if cloud.normals is not None else _outward(places)
    light = sky(places, places, up, 1.01)
    return _Scene(
        places, normals, _own(cloud.colours, len(places)), None, radii, light, places,
        shade(places, ground, 1.0), 1.0, ground,
    )  # fmt: skip


def _outward(places: Floats) -> Floats:
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    return np.asarray(places / np.maximum(lengths, 1e-9), np.float32)


def _as_cloud(mesh: Mesh, count: int) -> Cloud:
    points, face, weights = sampled(mesh.vertices, mesh.faces, count)
    corners = mesh.vertices[mesh.faces[face]]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)
    colours = None
    if mesh.colours is not None:
        colours = np.einsum("nk,nkc->nc", weights, mesh.colours[mesh.faces[face]].astype(np.float32)).round()
    return Cloud(points, normals.astype(np.float32), None if colours is None else colours.astype(np.uint8))


def _longest(places: Floats, faces: NDArray[np.int32]) -> float:
    corners = places[faces]
    return float(np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).max(initial=0))


def _halved(places: Floats, faces: NDArray[np.int32], colours: Floats, normals: Floats | None) -> Any:
    """Every triangle in four, by the middles of its sides."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    unique, back = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = np.split(back.reshape(-1).astype(np.int32) + len(places), 3)
    a, b, c = faces.T
    parts = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    smaller = np.concatenate([np.stack(part, 1) for part in parts]).astype(np.int32)

    def more(values: Floats) -> Floats:
        return np.concatenate([values, values[unique].mean(1)]).astype(np.float32)

    if normals is not None:
        normals = more(normals)
        normals = (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return more(places), smaller, more(colours), normals


# --- drawn ------------------------------------------------------------------------------------------------------------


def _picture(scene: _Scene, size: int, azimuth: float) -> Image.Image:
    """RGBA with straight alpha."""
    side = size * FINE
    turn, tilt = np.radians(azimuth), np.radians(ELEVATION)
    # Columns are the camera's right, up and back, in the shape's space.
    right = np.array([np.cos(turn), 0, -np.sin(turn)])
    back = np.array([np.sin(turn) * np.cos(tilt), np.sin(tilt), np.cos(turn) * np.cos(tilt)])
    camera = np.stack([right, np.cross(back, right), back], 1).astype(np.float32)
    seen = scene.places @ camera
    depth = np.float32(AWAY) - seen[:, 2]
    zoom = np.float32(FILLED / 2 * side * AWAY)
    across, down = side / 2 + zoom * seen[:, 0] / depth, side / 2 - zoom * seen[:, 1] / depth
    places = np.stack([across, down], 1).astype(np.float32)
    lamp = camera @ np.array([-0.5, 0.62, 0.6], np.float32)
    lamp /= np.linalg.norm(lamp)
    corners = None
    if scene.faces is not None:
        hits = triangles(places, depth, scene.faces, side, side, scene.closed)
        corners = scene.faces[hits.items]
    else:
        hits = balls(places, depth, (scene.radii * zoom / depth).astype(np.float32), side, side)  # type: ignore[operator]
    shadow = visible(scene.surface, scene.places, lamp.astype(np.float64), 1.01, 0.05)
    shaded = _shaded(scene, hits, corners, camera, lamp, shadow)
    sheet = np.zeros((side * side, 4), np.float32)
    sheet[hits.pixels, :3], sheet[hits.pixels, 3] = shaded, 1
    sheet = sheet.reshape(size, FINE, size, FINE, 4).mean((1, 3))
    dark = DARKEST * _ground(scene, size, camera)
    alpha = sheet[..., 3] + (1 - sheet[..., 3]) * dark
    colour = sheet[..., :3] / np.maximum(alpha, 1e-6)[..., None]
    whole = np.concatenate([colour, alpha[..., None]], 2)
    return Image.fromarray((whole * 255).round().clip(0, 255).astype(np.uint8))


def _shaded(scene: _Scene, hits: Hits, corners: Any, camera: Floats, lamp: Floats, shadow: Floats) -> Floats:
    """sRGB from 0 to 1 of what is seen: (k, 3)."""
    if corners is None:
        ball = hits.where @ camera.T
        normal = scene.normals[hits.items]
        told = (np.abs(normal).sum(1, keepdims=True) > 0).astype(np.float32)
        normal = told * (0.75 * normal + 0.25 * ball) + (1 - told) * ball
        colour, sky_light, lit = scene.colours[hits.items], scene.light[hits.items], shadow[hits.items]
    else:
        weights = hits.where

        def mixed(values: Floats) -> Floats:
            return np.asarray(np.einsum("nk,nk...->n...", weights, values[corners]), np.float32)

        at = scene.places[corners]
        flat = np.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0])
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-20)
        normal = mixed(scene.normals)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        bent = (np.einsum("nd,nd->n", normal, flat)[:, None] - 0.7) / 0.2  # an edge, which normals would round
        smooth = bent.clip(0, 1)
        normal = smooth * normal + (1 - smooth) * flat
        colour, sky_light, lit = mixed(scene.colours), mixed(scene.light), mixed(shadow)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    facing = normal @ camera[:, 2]
    normal = np.where((facing < 0)[:, None] & (scene.faces is not None), -normal, normal)  # an open surface's inside
    direct = (normal @ lamp).clip(0) * lit
    half = lamp + camera[:, 2]
    half /= np.linalg.norm(half)
    gloss = (normal @ half).clip(0) ** 40 * lit
    rim = (1 - np.abs(facing).clip(0, 1)) ** 3
    bright = 0.62 * sky_light + 0.58 * direct
    linear = colour * bright[:, None] + (0.08 * gloss + 0.05 * rim * sky_light)[:, None]
    return np.asarray(_srgb(linear), np.float32)


def _ground(scene: _Scene, size: int, camera: Floats) -> Floats:
    """(size, size): the shade that each pixel's ray finds on the ground."""
    step = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    zoom = FILLED / 2 * AWAY
    ray = np.stack(np.broadcast_arrays(step[None, :] / zoom, -step[:, None] / zoom, np.float32(-1)), 2) @ camera.T
    eye = AWAY * camera[:, 2]
    down = ray[..., 1]
    far = np.where(down < -1e-6, (scene.ground - eye[1]) / np.minimum(down, -1e-6), 0)
    x, z = eye[0] + far * ray[..., 0], eye[2] + far * ray[..., 2]
    found = looked_up(scene.shades, x.astype(np.float32), z.astype(np.float32), scene.radius)
    return np.where(down < -1e-6, found, 0).astype(np.float32)


def _on(picture: Image.Image, background: str | None) -> Image.Image:
    if background is None:
        return picture
    sheet = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(sheet, picture).convert("RGB")


def linear(colours: NDArray[np.uint8]) -> Floats:
    """Linear light, from 0 to 1, of sRGB (n, 3) (IEC 61966-2-1)."""
    value = colours.astype(np.float32) / 255
    return np.asarray(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4), np.float32)


def _own(colours: NDArray[np.uint8] | None, count: int) -> Floats:
    """`linear` of colours, or of `PLAIN` where there are none."""
    return linear(np.broadcast_to(np.array(PLAIN, np.uint8), (count, 3)) if colours is None else colours[:, :3])


def _srgb(linear: Floats) -> Floats:
    value = linear.clip(0, 1)
    return np.asarray(np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055), np.float32)
