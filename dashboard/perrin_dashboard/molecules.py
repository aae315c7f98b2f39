"""Molecules to be turned with the mouse: an SDF file, read and drawn as balls and sticks.

The dashboard has no chemistry: atoms and bonds are where the file says they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import plotly.graph_objects as go

__all__ = ["Solid", "figure", "read_sdf"]

MOST = 500
"""Molecules of a file that are read to be shown."""

COLOURS = {
    "H": "#e4e6eb", "C": "#4a4f57", "N": "#3b62e0", "O": "#dc3b32", "F": "#58b368",
    "S": "#d9b310", "P": "#e07b29", "Cl": "#3fa34d", "Br": "#9a4a2c", "B": "#e5a3a3",
}  # fmt: skip
"""About those of Corey, Pauling and Koltun; any other element is pink."""

SIZES = {"H": 9, "C": 15, "N": 15, "O": 15, "F": 14}

APART = 0.09
"""In angstrom: half of the way between the lines of a double bond."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Solid:
    """A molecule in space.

    Attributes:
        name: its first line.
        atoms: element and place in angstrom.
        bonds: two atoms and the order.
        fields: what the file says about it.
    """

    name: str
    atoms: tuple[tuple[str, Point], ...]
    bonds: tuple[tuple[int, int, int], ...]
    fields: dict[str, str]


def read_sdf(data: bytes) -> list[Solid]:
    """The molecules of an SDF file of version V2000, as far as they can be read; at most 500."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    found = []
    for block in text.split("$$$$\n")[: MOST + 1]:
        try:
            if block.strip():
                found.append(_read(block.split("\n")))
        except (ValueError, IndexError):
            continue
    return found[:MOST]


def _read(lines: list[str]) -> Solid:
    atoms, bonds = int(lines[3][:3]), int(lines[3][3:6])
    end = 4 + atoms + bonds
    return Solid(
        lines[0].strip(),
        tuple(
            (line[31:34].strip(), (float(line[:10]), float(line[10:20]), float(line[20:30])))
            for line in lines[4 : 4 + atoms]
        ),
        tuple((int(line[:3]) - 1, int(line[3:6]) - 1, int(line[6:9])) for line in lines[4 + atoms : end]),
        dict(_fields(lines[end:])),
    )


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        if line.startswith(">") and "<" in line:
            yield line.split("<", 1)[1].split(">", 1)[0], lines[number + 1] if number + 1 < len(lines) else ""


def figure(solid: Solid) -> go.Figure:
    """Balls and sticks."""
    drawn = go.Figure()
    for colour, ends in _sticks(solid).items():
        x, y, z = ([value for a, b in ends for value in (a[k], b[k], None)] for k in range(3))
        drawn.add_scatter3d(
            x=x, y=y, z=z, mode="lines", line={"color": colour, "width": 7}, hoverinfo="skip", showlegend=False
        )
    places = [place for _, place in solid.atoms]
    drawn.add_scatter3d(
        x=[p[0] for p in places],
        y=[p[1] for p in places],
        z=[p[2] for p in places],
        mode="markers",
        marker={
            "size": [SIZES.get(element, 17) for element, _ in solid.atoms],
            "color": [COLOURS.get(element, "#e377c2") for element, _ in solid.atoms],
            "line": {"color": "#30343a", "width": 1},
            "opacity": 1.0,
        },
        text=[f"{element}{number}" for number, (element, _) in enumerate(solid.atoms, 1)],
        hovertemplate="%{text}: %{x:.2f}, %{y:.2f}, %{z:.2f} Å<extra></extra>",
        showlegend=False,
    )
    hidden = {"visible": False}
    drawn.update_layout(
        scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data", "dragmode": "orbit"},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=320,
        paper_bgcolor="rgba(0,0,0,0)",
    )
    return drawn


def _sticks(solid: Solid) -> dict[str, list[tuple[Point, Point]]]:
    """Lines by colour: each half of a bond has that of its atom; a bond of order 2 is two lines."""
    found: dict[str, list[tuple[Point, Point]]] = {}
    for i, j, order in solid.bonds:
        (first, a), (second, b) = solid.atoms[i], solid.atoms[j]
        aside = _aside(a, b)
        for k in range(order):
            shift = (2 * k - order + 1) * APART
            c, d = (tuple(p[n] + shift * aside[n] for n in range(3)) for p in (a, b))
            middle = tuple((c[n] + d[n]) / 2 for n in range(3))
            for element, end in ((first, c), (second, d)):
                line = (_point(end), _point(middle))
                found.setdefault(COLOURS.get(element, "#e377c2"), []).append(line)
    return found


def _point(values: tuple[float, ...]) -> Point:
    x, y, z = values
    return x, y, z


def _aside(a: Point, b: Point) -> Point:
    """A direction of length 1 across the line from ``a`` to ``b``."""
    along = [b[n] - a[n] for n in range(3)]
    axis = min(range(3), key=lambda n: abs(along[n]))
    other = [1.0 if n == axis else 0.0 for n in range(3)]
    across = [along[(n + 1) % 3] * other[(n + 2) % 3] - along[(n + 2) % 3] * other[(n + 1) % 3] for n in range(3)]
    length = sum(value * value for value in across) ** 0.5 or 1.0
    return across[0] / length, across[1] / length, across[2] / length
