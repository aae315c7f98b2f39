"""A process per channel: each channel's schedule is compiled, and the plans become one with a weight per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan, Row, Terms, Weight
from perrin.diffusion.process import PerChannel
from perrin.errors import InvalidInput

__all__ = ["by_channel", "channels"]


def channels(grid: Grid) -> list[Grid]:
    """The grids of the channels, all of the same times."""
    if not isinstance(grid.process, PerChannel):
        raise InvalidInput("grid", f"levels of shape {grid.alpha.shape}", "(N + 1,), or a process per channel")
    each = zip(grid.process.processes, grid.alpha.T, grid.sigma.T, strict=True)
    return [Grid(process, grid.times, alpha, sigma) for process, alpha, sigma in each]


def by_channel(plans: Sequence[Plan]) -> Plan:
    """One plan of the channels' plans.

    Raises:
        InvalidInput: they evaluate at different times (a node between grid points, at a log-SNR of its own), or would
            learn a variance.
    """
    first = plans[0]
    columns = list(zip(*(plan.rows for plan in plans), strict=True)) if len({len(p) for p in plans}) == 1 else []
    if not columns or any(row.t != rows[0].t or row.learned for rows in columns for row in rows):
        raise InvalidInput("sampler", first.solver, "one whose rows are at grid points and learn no variance")
    made = [_row(rows) for rows in columns]
    return replace(first, rows=tuple(made), start=_weights([plan.start for plan in plans]))


def _row(rows: Sequence[Row]) -> Row:
    registers = sorted({register for row in rows for register, _ in row.writes})
    writes = [dict(row.writes) for row in rows]
    return Row(
        rows[0].t,
        _weights([row.alpha for row in rows]),
        _weights([row.sigma for row in rows]),
        _terms([row.input for row in rows]),
        tuple((register, _terms([each.get(register, ()) for each in writes])) for register in registers),
    )


def _terms(parts: Sequence[Terms]) -> Terms:
    """All sources of any channel, in the order of their first appearance; a channel without one weighs it by 0."""
    tables = [dict(terms) for terms in parts]
    sources = dict.fromkeys(source for terms in parts for source, _ in terms)
    return tuple((source, _weights([table.get(source, 0.0) for table in tables])) for source in sources)


def _weights(values: Sequence[Weight]) -> Weight:
    """One number where all channels agree."""
    numbers = [value for value in values if isinstance(value, float)]
    return numbers[0] if len(set(numbers)) == 1 else tuple(numbers)
