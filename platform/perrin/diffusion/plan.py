r"""A sampler is a table.

Every fixed-grid sampler is, per network evaluation, linear in states, predictions and noise. A `Plan` writes that down:
one `Row` per evaluation, float64, no tensor in sight. With registers r, the network's input x, the clean estimate D,
the direction E to re-noise along (D itself unless a guidance says otherwise) and standard normal draws n, a row means

.. math::
    x   &= \textstyle\sum_j a_j r_j + \sum_k a'_k n_k \\
    D,E &= \mathrm{denoiser}(x;\, t) \\
    r_i &\leftarrow \textstyle\sum_j w_{ij} r_j + w_{ix}\,x + w_{iD}\,D + w_{iE}\,E + \sum_k w_{ik}\,n_k

Register 0 starts as ``start * draw 0`` and holds the result after the last row. Sums run in the order of `Row` terms,
so the same row gives the same bits in any batch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any, Literal

from perrin.errors import InvalidInput

__all__ = ["Draw", "Plan", "Row", "Source", "Terms", "Weight", "row"]


@dataclass(frozen=True, order=True)
class Draw:
    """Standard normal noise number ``index`` of a sample; rows that name the same index share it."""

    index: int


Source = int | Literal["x", "estimate", "direction"] | Draw
"""Register number, the network's input, the clean estimate, the direction, or a draw."""

Weight = float | tuple[float, ...]
"""A number, or one per channel."""

Terms = tuple[tuple[Source, Weight], ...]


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Attributes:
        t: the time the network is told.
        alpha: signal scale of the network's input, a number or one per channel.
        sigma: noise scale of the network's input, likewise.
        input: terms that make the input.
        writes: (register, terms) for every register that changes; all right-hand sides are read before any write.
        learned: (log-variance at -1, at +1) between which the network's second output chooses for each element; the
            draws of this row are then scaled by the standard deviation that comes out.
    """

    t: float
    alpha: Weight
    sigma: Weight
    input: Terms
    writes: tuple[tuple[int, Terms], ...]
    learned: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """A compiled sampler. ``len(plan)`` is its number of function evaluations.

    Attributes:
        solver: name of the solver that made it.
        rows: one per evaluation.
        registers: how many registers the rows use.
        start: scale of draw 0 in register 0 before the first row.
        signal: scale of a clean sample that a run starts from; the first row's alpha if None.
        copies: how many of the registers begin like register 0; the others begin at zero.
    """

    solver: str
    rows: tuple[Row, ...]
    registers: int
    start: Weight
    signal: Weight | None = None
    copies: int = 1

    def __post_init__(self) -> None:
        if not self.rows:
            raise InvalidInput("plan", 0, "at least one row")
        for number, item in enumerate(self.rows):
            used = [s for s, _ in item.input] + [s for i, terms in item.writes for s in (i, *(t[0] for t in terms))]
            if any(isinstance(s, int) and not 0 <= s < self.registers for s in used):
                raise InvalidInput("plan", f"row {number}", f"registers 0 to {self.registers - 1}")

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def undirected(self) -> tuple[tuple[tuple[int, Terms], ...], ...]:
        """The writes of every row where the direction is the estimate: their terms made one."""

        def one(terms: Terms) -> Terms:
            weights = dict(terms)
            here, along = weights.get("estimate"), weights.pop("direction", None)
            if along is None:
                return terms
            weights["estimate"] = along if here is None else _plus(here, along)
            return tuple(weights.items())

        return tuple(tuple((register, one(terms)) for register, terms in r.writes) for r in self.rows)

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """Numbers of the draws, each once, in the order that the rows want them; the starting noise, 0, is not one."""
        wanted = [
            s.index
            for r in self.rows
            for _, terms in ((0, r.input), *r.writes)
            for s, _ in terms
            if isinstance(s, Draw)
        ]
        return tuple(dict.fromkeys(wanted))

    @property
    def digest(self) -> str:
        """SHA-256 of the whole table: two plans with one digest compute the same thing."""
        table = self.to_dict()
        table["signal"] = self.rows[0].alpha if self.signal is None else self.signal
        del table["solver"]
        return hashlib.sha256(json.dumps(table, separators=(",", ":")).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON has it; floats survive to the bit."""

        def plain(terms: Terms) -> list[list[Any]]:
            return [[{"draw": s.index} if isinstance(s, Draw) else s, weight] for s, weight in terms]

        rows = [
            {
                "t": r.t, "alpha": r.alpha, "sigma": r.sigma, "input": plain(r.input),
                "writes": [[register, plain(terms)] for register, terms in r.writes],
                **({} if r.learned is None else {"learned": r.learned}),
            }
            for r in self.rows
        ]  # fmt: skip
        return {
            "solver": self.solver, "registers": self.registers, "copies": self.copies, "start": self.start,
            "signal": self.signal, "rows": rows,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote down.

        Raises:
            InvalidInput: ``table`` is not one.
        """

        def weight(value: Any) -> Any:
            return tuple(float(v) for v in value) if isinstance(value, list | tuple) else float(value)

        def terms(made: Any) -> Terms:
            return tuple((Draw(s["draw"]) if isinstance(s, dict) else s, weight(w)) for s, w in made)

        try:
            rows = tuple(
                Row(
                    float(r["t"]), weight(r["alpha"]), weight(r["sigma"]), terms(r["input"]),
                    tuple((register, terms(written)) for register, written in r["writes"]),
                    weight(r["learned"]) if "learned" in r else None,
                )
                for r in table["rows"]
            )  # fmt: skip
            signal = None if table["signal"] is None else weight(table["signal"])
            return cls(table["solver"], rows, table["registers"], weight(table["start"]), signal, table["copies"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                "plan", type(error).__name__, f"a plan's table, as to_dict writes it ({error})"
            ) from None

    def fit(self, guidance: Any, reference: Plan, **options: Any) -> Plan:
        """This plan's times, moved and given the weights that end nearest to ``reference``; see `perrin.diffusion.fit`.

        Args:
            guidance: a guided denoiser, or a denoiser as it is, whose process is not one per field.
            reference: a fine deterministic plan that starts at the same time.
            options: ``iterations``, ``ridge`` and ``progress`` of the fit; the others are `Run`'s (shape, seeds, ...).
        """
        fit_plan = importlib.import_module("perrin.diffusion.fit").fit_plan  # by name: it needs torch, plans do not
        made: Plan = fit_plan(self, guidance, reference, **options)
        return made


def _plus(a: Weight, b: Weight) -> Weight:
    if isinstance(a, float) and isinstance(b, float):
        return a + b
    pairs = zip(a if isinstance(a, tuple) else cycle([a]), b if isinstance(b, tuple) else cycle([b]), strict=False)
    return tuple(x + y for x, y in pairs)


def row(
    t: float,
    alpha: float,
    sigma: float,
    writes: Mapping[int, Mapping[Source, float]],
    input: Mapping[Source, float] | None = None,
    learned: tuple[float, float] | None = None,
) -> Row:
    """A `Row` from mappings; terms of weight 0 are dropped. The input defaults to register 0 as it is."""

    def terms(weights: Mapping[Source, float]) -> Terms:
        return tuple((source, float(weight)) for source, weight in weights.items() if weight != 0)

    made = tuple((register, terms(weights)) for register, weights in sorted(writes.items()))
    return Row(float(t), float(alpha), float(sigma), terms(input if input is not None else {0: 1.0}), made, learned)
