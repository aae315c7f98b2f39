"""The long run: a thousand kills and thirty of each server fault on every backend, and a table of what came of it.

::

    make faults
    make faults FAULTS="--backend sqlite --kills 100 --faults 3 --seed 7"

Ctrl-C ends it early and still prints the table. The exit code is 1 if anything was lost, duplicated, stale, wrong,
blamed on the innocent or slower than promised; then the history is kept, and its place printed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from guard import Guard
from harness.breaking import server_faults
from harness.checker import Verdict, judge
from harness.clients import Clients, learn
from harness.cluster import BACKENDS, LEASE_SECONDS, Backend, Cluster
from harness.storm import storm
from outside import install
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- made by make faults: begin -->", "<!-- made by make faults: end -->"
NAMES = {
    "sqlite": "SQLite, `filesystem://`",
    "redis": "PostgreSQL, Redis",
    "rabbitmq": "PostgreSQL, RabbitMQ",
}


@dataclass
class Outcome:
    """What came of one backend's run."""

    backend: str
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0
    kept: Path | None = None

    @property
    def kills(self) -> int:
        """Processes that were killed."""
        return sum(count for kind, count in self.verdict.faults.items() if kind.startswith("kill"))


class Stop:
    """Ctrl-C once: end in good order."""

    def __init__(self) -> None:
        self.asked, self._at = False, 0.0
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        if self.asked and time.monotonic() - self._at > 2:  # what is sent to a group of processes may arrive twice
            raise KeyboardInterrupt
        self.asked, self._at = True, time.monotonic()

    def __call__(self) -> bool:
        return self.asked


def run(name: str, options: argparse.Namespace, plugin: Path, progress: Progress, stop: Stop) -> Outcome:
    """One backend."""
    outcome, rng, began = Outcome(name), random.Random(f"{options.seed} {name}"), time.monotonic()
    total = options.kills + options.faults * len(server_faults(name))
    bar = progress.add_task(name, total=total, what="starts")
    told: Counter[str] = Counter()

    def tell(kind: str) -> None:
        told[kind] += 1
        progress.update(bar, advance=1, what=kind)

    with Guard() as guard, Cluster(guard, Backend(name, guard), plugin, workers=options.workers) as cluster:
        learn(cluster)
        clients = Clients(cluster, rng, target=options.jobs)
        clients.start()
        broken: list[BaseException] = []
        try:
            storm(cluster, rng, options.kills, options.faults, tell=tell, stop=stop)
        except Exception as error:  # the table is printed all the same
            broken.append(error)
        progress.update(bar, what="ends")
        clients.stop()
        cluster.settle()
        outcome.verdict = judge(cluster.history)
        outcome.verdict.wrong += [f"the run itself broke: {error!r}" for error in (*broken, *clients.errors)]
        outcome.seconds = time.monotonic() - began
        if not outcome.verdict.ok:
            outcome.kept = Path(tempfile.mkdtemp(prefix=f"perrin-faults-{name}-"))
            cluster.history.write(outcome.kept / "history.json")
            for log in cluster.home.glob("*.log"):
                shutil.copy(log, outcome.kept)
    progress.update(bar, what="over")
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """What came of it, as Markdown."""
    columns = [NAMES[outcome.backend] for outcome in outcomes]
    verdicts = [outcome.verdict for outcome in outcomes]
    kinds = sorted({kind for verdict in verdicts for kind in verdict.faults})
    kinds.sort(key=lambda kind: not kind.startswith("kill"))
    rows: list[tuple[str, list[object]]] = [("jobs submitted", [verdict.submitted for verdict in verdicts])]
    states = ("succeeded", "cancelled", "quarantined", "failed")
    rows += [(f"... {state}", [verdict.states[state] for verdict in verdicts]) for state in states]
    rows += [("processes killed", [outcome.kills for outcome in outcomes])]
    rows += [(f"... {kind}", [verdict.faults[kind] or "-" for verdict in verdicts]) for kind in kinds]
    rows += [
        ("**lost**", [len(verdict.lost) for verdict in verdicts]),
        ("**duplicated**", [len(verdict.duplicated) for verdict in verdicts]),
        ("**stale writes**", [len(verdict.stale) for verdict in verdicts]),
        ("wrong bytes or contradictions", [len(verdict.wrong) for verdict in verdicts]),
        ("quarantined without three crashes", [len(verdict.unjust) for verdict in verdicts]),
        ("recoveries", [len(verdict.recoveries) for verdict in verdicts]),
        ("... slower than promised", [len(verdict.slow) for verdict in verdicts]),
        ("... median, seconds", [f"{verdict.median:.2f}" for verdict in verdicts]),
        ("... worst, seconds", [f"{verdict.worst:.2f}" for verdict in verdicts]),
        ("minutes", [f"{outcome.seconds / 60:.1f}" for outcome in outcomes]),
    ]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(str(value) for value in values) + " |" for name, values in rows]
    return "\n".join(lines)


def write_page(outcomes: list[Outcome], options: argparse.Namespace) -> None:
    """Put the table between its marks in docs/faults.md."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    how = f"{options.kills} kills, {options.faults} of each server fault, leases of {LEASE_SECONDS:g} s, "
    how += f"{options.workers} workers, seed {options.seed}; {time.strftime('%Y-%m-%d')}"
    PAGE.write_text(f"{before}{BEGIN}\n{how}\n\n{table(outcomes)}\n{END}{after}")


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["all", *BACKENDS], default="all")
    parser.add_argument("--kills", type=int, default=1000, help="processes to kill, on each backend")
    parser.add_argument("--faults", type=int, default=30, help="of each server fault, on each backend")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=8, help="jobs that the clients keep in the cluster")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--write", action="store_true", help="write the table into docs/faults.md")
    options = parser.parse_args(given)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**31)
    return options


def main(given: list[str]) -> int:
    """Run it; the exit code."""
    options, console, stop = arguments(given), Console(), Stop()
    console.print(f"seed {options.seed}")
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[what]}"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
    outcomes = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(*columns, console=console) as progress,
    ):
        plugin = install(Path(folder))
        for name in BACKENDS if options.backend == "all" else (options.backend,):
            if not stop():
                outcomes.append(run(name, options, plugin, progress, stop))
    console.print(table(outcomes), markup=False, highlight=False, soft_wrap=True)
    for outcome in outcomes:
        if not outcome.verdict.ok:
            console.print(f"\n{outcome.backend}, seed {options.seed}; history and logs: {outcome.kept}", markup=False)
            console.print(str(outcome.verdict), markup=False, soft_wrap=True)
    if options.write:
        write_page(outcomes, options)
    return 0 if all(outcome.verdict.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
