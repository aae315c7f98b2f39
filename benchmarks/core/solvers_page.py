"""The page and the picture that bench_solvers.py writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from perrin.diffusion.solvers import SOLVERS

__all__ = ["COUNTS", "Result", "write"]

DOCS = Path(__file__).parents[2] / "docs"
COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024)
REGRESSED = slice(COUNTS.index(64), None)


@dataclass(frozen=True)
class Result:
    """Of one solver in one library, for each of COUNTS steps."""

    errors: tuple[float, ...]
    evaluations: tuple[int, ...]

    @property
    def slope(self) -> float:
        """Of log error over log steps from 64 on, sign turned; NaN where an error is."""
        errors = np.asarray(self.errors[REGRESSED])
        if not np.isfinite(errors).all():
            return math.nan
        return float(-np.polyfit(np.log(COUNTS[REGRESSED]), np.log(errors), 1)[0])

    @property
    def cost(self) -> str:
        """Evaluations in terms of steps, "2N + 1"."""
        each = (self.evaluations[-1] - self.evaluations[0]) // (COUNTS[-1] - COUNTS[0])
        more = self.evaluations[0] - each * COUNTS[0]
        assert self.evaluations == tuple(each * count + more for count in COUNTS)
        return f"{each if each > 1 else ''}N" + (f" + {more}" if more else "")


Results = Mapping[str, Mapping[str, Result]]
"""By solver and library, ours first."""

HEAD = """\
# Every deterministic solver, beside diffusers and k-diffusion

Written in one run, with {versions}, by

```bash
pip install diffusers scipy && pip install --no-deps k-diffusion
python benchmarks/core/bench_solvers.py
```

The root mean square error on the one-dimensional Gaussian mixture w = (.5, .3, .2), mu = (-1, .5, 2), s = (.25, .1,
.5), whose exact denoiser stands for the network: 64 starts 80 Phi^-1((i + 1/2) / 64) go from sigma 80 to 0.002 in N
steps on levels even in sigma^(1/7), and are compared with DOP853. All have the same levels (diffusers rounds them to
float32) and compute in float64. Evaluations of the network are counted as they happen. A singlestep method (2S, 3S)
spends as many grid points as its step has evaluations; k-diffusion's place their nodes themselves, even in log-SNR.
Multistep methods begin as they do in use, with fewer values. The slope is that of log error over log N from 64 to 1024.
`flow_euler` and `flow_heun` run on rectified flow only and are not here.

On reading it: diffusers' DPMSolverMultistepScheduler and EulerDiscreteScheduler also round the state to float32 at
every step. The third-order multistep DPM-Solver and DPM-Solver++ of diffusers, and k-diffusion's 3M, count half of the
second derivative and so are of order 2 ([test_samplers.py](../tests/peers/test_samplers.py)). diffusers' ones, DEIS
among them, lower the order of the last step where there are fewer than 15. Its DPM-Solver-3S is our variant `midpoint`;
ours here is the paper's.

![Error over network evaluations of twelve solvers](pictures/solvers.svg)
"""


def write(results: Results) -> None:
    """Write docs/solvers.md and docs/pictures/solvers.svg."""
    (DOCS / "solvers.md").write_text("\n".join(_page(results)) + "\n")
    (DOCS / "pictures" / "solvers.svg").write_text("\n".join(_picture(results)) + "\n")


def _page(results: Results) -> Iterator[str]:
    yield HEAD.format(versions=", ".join(f"{name} {version(name)}" for name in ("diffusers", "k-diffusion", "torch")))
    counts = " | ".join(f"N = {count}" if count == COUNTS[0] else str(count) for count in COUNTS)
    ruler = "|".join(["--:"] * len(COUNTS))
    yield "## Errors\n"
    yield f"| solver | order | | evaluations | slope | {counts} |"
    yield f"|---|--:|---|--:|--:|{ruler}|"
    late = []
    for name, each in results.items():
        order = SOLVERS[name].order
        for library, result in each.items():
            ours = library == "Perrin"
            first = f"`{name}` | {order or ''}" if ours else " | "
            errors = " | ".join(f"{error:.2e}" for error in result.errors)
            yield f"| {first} | {library} | {result.cost} | {result.slope:.3f} | {errors} |"
            if ours and order and result.slope < order - 0.1:
                late.append(f"`{name}` {result.slope:.3f} of {order}")
    yield f"\nOurs whose slope from 64 steps is more than 0.1 below the declared order: {', '.join(late) or 'none'}."
    yield "\n## Our error over theirs, at equal evaluations\n"
    yield f"| solver | | largest | {counts} |"
    yield f"|---|---|--:|{ruler}|"
    for name, each in results.items():
        for library, ratios in _ratios(each):
            largest = max((r for r in ratios if not math.isnan(r)), default=math.nan)
            yield f"| `{name}` | {library} | {largest:.2f} | {' | '.join(f'{r:.2f}' for r in ratios)} |"


def _ratios(each: Mapping[str, Result]) -> Iterator[tuple[str, list[float]]]:
    (_, ours), *others = each.items()
    for library, theirs in others:
        assert ours.evaluations == theirs.evaluations
        yield library, [a / b for a, b in zip(ours.errors, theirs.errors, strict=True)]


SHOWN = (
    *("euler", "heun", "lms", "dpm_solver_3m"),
    *("dpmpp_2m", "dpmpp_2s", "dpm_solver_3s", "dpmpp_3m"),
    *("deis_3", "unipc_2", "unipc_3", "eab4"),
)
TITLE = "RMS error over network evaluations (grey: the declared order)"
COLUMNS, WIDTH, HEIGHT, LEFT, ABOVE = 4, 236, 196, 44, 62
PLOT = (184, 148)
X, Y = (math.log10(6), math.log10(4000)), (-9.0, 0.5)
# Blue, vermilion and green of Okabe and Ito, told apart by shape as well.
STYLE = {"Perrin": "#0072B2", "diffusers": "#D55E00", "k-diffusion": "#009E73"}
MARKS = {
    "Perrin": '<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{c}"/>',
    "diffusers": '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.6" fill="none" stroke="{c}" stroke-width="1.3"/>',
    "k-diffusion": '<path d="M{x:.1f} {y:.1f}m-4 -4l8 8m0 -8l-8 8" stroke="{c}" stroke-width="1.2"/>',
}


def _picture(results: Results) -> Iterator[str]:
    width, height = LEFT + COLUMNS * WIDTH, ABOVE + len(SHOWN) // COLUMNS * HEIGHT
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="font: 11px sans-serif">'
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    yield f'<text x="{LEFT}" y="22" style="font-size: 14px">{TITLE}</text>'
    for k, (library, colour) in enumerate(STYLE.items()):
        x = width - 320 + 105 * k
        yield MARKS[library].format(x=x, y=18, c=colour)
        yield f'<text x="{x + 10}" y="22" fill="{colour}">{library}</text>'
    for k, name in enumerate(SHOWN):
        yield f'<g transform="translate({LEFT + k % COLUMNS * WIDTH} {ABOVE + k // COLUMNS * HEIGHT})">'
        yield from _panel(name, results[name])
        yield "</g>"
    yield "</svg>"


def _panel(name: str, each: Mapping[str, Result]) -> Iterator[str]:
    yield f'<text x="4" y="-6" font-weight="bold">{name}</text>'
    for power in range(-8, 1, 2):
        _, y = _at(1, 10.0**power)
        yield f'<path d="M0 {y:.1f}H{PLOT[0]}" stroke="#e4e4e4"/>'
        yield f'<text x="-5" y="{y + 4:.1f}" text-anchor="end" fill="#555">1e{power}</text>'
    for count in (10, 100, 1000):
        x, _ = _at(count, 1)
        yield f'<path d="M{x:.1f} 0V{PLOT[1]}" stroke="#e4e4e4"/>'
        yield f'<text x="{x:.1f}" y="{PLOT[1] + 14}" text-anchor="middle" fill="#555">{count}</text>'
    ours, order = each["Perrin"], SOLVERS[name].order or 0
    first, last = ours.evaluations[2], ours.evaluations[-1]
    declared = [(n, ours.errors[-1] * (last / n) ** order) for n in (first, last)]
    yield _line(declared, "#999", 1.0, "4 3")
    yield _line(list(zip(ours.evaluations, ours.errors, strict=True)), STYLE["Perrin"], 1.6)
    for library, result in each.items():
        for count, error in zip(result.evaluations, result.errors, strict=True):
            if math.isfinite(error):
                x, y = _at(count, error)
                yield MARKS[library].format(x=x, y=y, c=STYLE[library])


def _at(count: float, error: float) -> tuple[float, float]:
    """Where a point of a panel is drawn."""
    across = (math.log10(count) - X[0]) / (X[1] - X[0])
    down = (Y[1] - math.log10(error)) / (Y[1] - Y[0])
    return across * PLOT[0], down * PLOT[1]


def _line(points: list[tuple[int, float]], colour: str, width: float, dashes: str = "none") -> str:
    path = "L".join("{:.1f} {:.1f}".format(*_at(count, error)) for count, error in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'
