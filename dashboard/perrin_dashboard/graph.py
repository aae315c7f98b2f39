"""A group as a picture: a box for each job, in the colour of its state, and a line from each parent to its child.

Columns go by depth: a job stands one to the right of the deepest of its parents. Where nobody waits for anybody the
boxes stand in rows. They are links to their jobs, laid over a drawing of the lines, which is an image of its own:
Streamlit lets no SVG into a page.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from perrin.wire import JobRecord
from perrin_dashboard.words import BADGES, happening, prompt_of

__all__ = ["depths", "graph"]

WIDTH, HEIGHT, GAP_X, GAP_Y = 196, 56, 64, 16
MOST = 8
"""Boxes in a column; where there are more, the last says how many."""
BROAD = 5
"""Boxes in a row, where no job waits for another."""
LETTERS = 10
"""Of a parameter's name, beside the line to the job that takes it."""


def depths(jobs: Sequence[JobRecord]) -> dict[str, int]:
    """How many jobs of the group stand, one behind the other, before each of them."""
    known = {job.id: job for job in jobs}
    found: dict[str, int] = {}
    for job in jobs:
        path = [job.id]
        while path:  # parents first, without recursion: a chain may be as long as a group
            parents = [edge.job for edge in known[path[-1]].parents if edge.job in known]
            missing = [parent for parent in parents if parent not in found]
            if missing:
                path.append(missing[0])
            else:
                found[path.pop()] = 1 + max((found[parent] for parent in parents), default=-1)
    return found


def graph(jobs: Sequence[JobRecord]) -> str:
    """The picture, as HTML."""
    depth = depths(jobs)
    if any(depth.values()):
        boxes, lines, columns, rows = _layers(jobs, depth)
        gap = GAP_X
    else:
        boxes, lines, columns, rows = *_grid(jobs), min(BROAD, len(jobs)), min(MOST, -(-len(jobs) // BROAD))
        gap = GAP_Y
    width, height = columns * (WIDTH + gap) - gap, rows * (HEIGHT + GAP_Y) - GAP_Y
    return (
        f'<div class="perrin-graph"><div style="width: {width}px; height: {height}px">'
        f"{_drawing(lines, width, height)}{''.join(boxes)}</div></div>"
    )


def _grid(jobs: Sequence[JobRecord]) -> tuple[list[str], list[str]]:
    """Boxes of jobs none of which waits for another, in rows."""
    shown = jobs if len(jobs) <= BROAD * MOST else jobs[: BROAD * MOST - 1]
    places = [(n % BROAD * (WIDTH + GAP_Y), n // BROAD * (HEIGHT + GAP_Y)) for n in range(BROAD * MOST)]
    boxes = [_box(job, *place) for job, place in zip(shown, places, strict=False)]
    return boxes + ([_more(len(jobs) - len(shown), *places[-1])] if len(jobs) > len(shown) else []), []


def _layers(jobs: Sequence[JobRecord], depth: Mapping[str, int]) -> tuple[list[str], list[str], int, int]:
    """Boxes and lines of jobs that wait for each other; how many columns and rows they take."""
    columns = _columns(jobs, depth)
    rows = max(min(len(column), MOST) for column in columns)
    places: dict[str, tuple[int, int]] = {}
    boxes = []
    for x, column in enumerate(columns):
        left, count = x * (WIDTH + GAP_X), min(len(column), MOST)
        tops = [(2 * y + rows - count) * (HEIGHT + GAP_Y) // 2 for y in range(count)]
        shown = column if len(column) <= MOST else column[: MOST - 1]
        places |= {job.id: (left, top) for job, top in zip(shown, tops, strict=False)}
        boxes += [_box(job, *places[job.id]) for job in shown]
        if len(column) > MOST:
            boxes.append(_more(len(column) - len(shown), left, tops[-1]))
    lines = [_line(places, edge.job, job.id, edge.parameter) for job in jobs for edge in job.parents]
    return boxes, [line for line in lines if line], len(columns), rows


def _columns(jobs: Sequence[JobRecord], depth: Mapping[str, int]) -> list[list[JobRecord]]:
    """Jobs by depth, children beside their parents."""
    columns: list[list[JobRecord]] = [[] for _ in range(max(depth.values()) + 1)]
    for job in jobs:
        columns[depth[job.id]].append(job)
    row: dict[str, float] = {}
    for column in columns:
        column.sort(key=lambda job: _middle([row[edge.job] for edge in job.parents if edge.job in row]))
        row |= {job.id: place - len(column) / 2 for place, job in enumerate(column)}
    return columns


def _middle(rows: Sequence[float]) -> float:
    return sum(rows) / len(rows) if rows else 0.0


def _drawing(lines: Sequence[str], width: int, height: int) -> str:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" fill="none" stroke="#8a938f" '
        f'stroke-width="1.5" font-family="sans-serif" font-size="11.5" text-anchor="end">{"".join(lines)}</svg>'
    )
    data = base64.b64encode(svg.encode()).decode()
    count = f"{len(lines)} dependencies" if len(lines) != 1 else "1 dependency"
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{count}">' if lines else ""


def _place(x: int, y: int) -> str:
    return f"left: {x}px; top: {y}px; width: {WIDTH}px; height: {HEIGHT}px"


def _box(job: JobRecord, x: int, y: int) -> str:
    tip = f"{prompt_of(job)} ({job.modality}, {job.id})"
    return (
        f'<a href="jobs?job={quote(job.id)}" target="_self" class="perrin-node {job.state.value}" '
        f'style="{_place(x, y)}" title="{escape(tip)}"><strong>{escape(job.name or prompt_of(job))}</strong>'
        f"<span>{escape(_state(job))}</span></a>"
    )


def _state(job: JobRecord) -> str:
    label = BADGES[job.state][0]
    return happening(job) if job.state.value == "running" else f"{label}: {job.error.kind}" if job.error else label


def _more(count: int, x: int, y: int) -> str:
    return f'<div class="perrin-node more" style="{_place(x, y)}"><strong>and {count} more</strong></div>'


def _line(places: Mapping[str, tuple[int, int]], parent: str, child: str, parameter: str | None) -> str:
    """From the right edge of the parent to the left of the child; nothing where one of them is not drawn."""
    if parent not in places or child not in places:
        return ""
    (px, py), (cx, cy) = places[parent], places[child]
    x1, y1, x2, y2 = px + WIDTH, py + HEIGHT // 2, cx, cy + HEIGHT // 2
    bend = max(GAP_X // 2, (x2 - x1) // 2)
    path = f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"/>'
    if parameter is None:
        return path
    return path + f'<text x="{x2 - 8}" y="{y2 - 7}" stroke="none" fill="#8a938f">{escape(_short(parameter))}</text>'


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
