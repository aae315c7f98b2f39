"""Draws clouds as a camera far away would see them, on white: what training shows to the network that sees pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perrin_shape.cloud import Cloud

__all__ = ["picture", "sheet"]

LIGHT = np.array([0.35, 0.6, 0.72], np.float32)
GREY = 170


def picture(cloud: Cloud, azimuth: float = 30.0, elevation: float = 20.0, side: int = 128) -> NDArray[np.uint8]:
    """(side, side, 3), the camera at ``azimuth`` degrees around y from the front and ``elevation`` degrees up."""
    a, e = np.radians([azimuth, elevation])
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    view = (tilt @ turn).astype(np.float32)
    points = cloud.points @ view.T
    colours = np.full((len(points), 3), GREY, np.float32) if cloud.colours is None else cloud.colours
    shade = np.ones(len(points), np.float32)
    if cloud.normals is not None:
        shade = 0.4 + 0.6 * np.clip(cloud.normals @ view.T @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    shown = (colours * shade[:, None]).clip(0, 255).astype(np.uint8)
    flat = (points[:, :2] * [1, -1] + 1.03) / 2.06 * side
    radius = max(1, round(side * 1.4 / len(points) ** 0.5))
    steps = np.arange(radius) - (radius - 1) / 2
    offsets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    offsets = offsets[np.linalg.norm(offsets, axis=1) <= radius / 2 + 0.25]
    at = np.clip(np.floor(flat[:, None] + offsets), 0, side - 1).astype(int)
    order = np.argsort(points[:, 2], kind="stable")
    out = np.full((side, side, 3), 255, np.uint8)
    where = (at[..., 1] * side + at[..., 0])[order]
    out.reshape(-1, 3)[where.ravel()] = np.repeat(shown[order], where.shape[1], 0)
    return out


def sheet(clouds: Sequence[Cloud], columns: int, side: int = 128) -> Image.Image:
    """Pictures of clouds in rows."""
    rows = -(-len(clouds) // columns)
    page = Image.new("RGB", (columns * side, rows * side), "white")
    for k, cloud in enumerate(clouds):
        page.paste(Image.fromarray(picture(cloud, side=side)), (k % columns * side, k // columns * side))
    return page
