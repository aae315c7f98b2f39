"""Calibrated plans against the default sampler, on seeds and prompts that the fit has not seen.

    python benchmarks/core/bench_calibrated.py

First the Gaussian mixture of the solver benchmark, fitted here; then the shipped image model with the plan that lies
beside its weights, on the 64 committed test prompts, against its own result with 1,000 steps (about ten minutes).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

import torch
import yaml
from bench_solvers import NETWORK
from rich.progress import track

from perrin import diffusion as d
from perrin import plugins
from perrin.local import device_of
from perrin.modality import validate
from perrin.models import find
from perrin.models.plans import CALIBRATED

SEED = 5 * 10**6


def main() -> None:
    """Measure and print."""
    process = d.process.edm()
    denoiser = d.Denoiser(NETWORK, process, "x0")
    fine = d.solvers.dpmpp_2m(d.grid.karras(process, 1000))
    options = {"shape": (1,), "dtype": torch.float64}
    fitted = d.solvers.dpmpp_2m(d.grid.karras(process, 8)).fit(
        denoiser, fine, seeds=range(256), iterations=40, **options
    )
    unseen = d.start(denoiser, fine, seeds=range(SEED, SEED + 2000), **options)
    plans = {f"dpmpp_2m {n}": d.solvers.dpmpp_2m(d.grid.karras(process, n)) for n in (8, 16, 24, 40, 48)}
    show("Gaussian mixture, 2,000 seeds", [unseen], fine, {f"{CALIBRATED} 8": fitted} | plans)

    face = plugins.modality("image")
    card = find(face.default_model)
    model = plugins.runtime(face).load(card, device_of("cpu", 0))

    def start(prompt: str, sampler: str, steps: int, seed: int = 0) -> d.Run:
        asked = {"prompt": prompt, "model": card.name, "sampler": sampler, "steps": steps, "seed": seed}
        return model.start(validate(face, asked).resolved(card))

    sections = yaml.safe_load((files("perrin_image") / "recipes" / "prompts-64.yaml").read_text())
    prompts = [prompt for section in ("as_captioned", "reworded", "recombined") for prompt in sections[section]]
    default = card.defaults["sampler"]
    asked = [(CALIBRATED, n) for n in card.plans] + [(default, n) for n in (8, 12, 16, 20, 24)]
    plans = {f"{sampler} {n}": start(prompts[0], sampler, n).plan for sampler, n in asked}
    runs = [start(prompt, default, 8, SEED + number) for number, prompt in enumerate(prompts)]
    show(f"{card.name}, {len(runs)} prompts", track(runs), start(prompts[0], default, 1000).plan, plans)


def show(title: str, runs: Iterable[d.Run], fine: d.plan.Plan, plans: dict[str, d.plan.Plan]) -> None:
    """Print the root mean square distance of every plan's end from the fine one's."""
    squares: dict[str, list[float]] = {name: [] for name in plans}
    for run in runs:
        exact = run.under(fine).run()
        for name, plan in plans.items():
            squares[name].append(float((run.under(plan).run() - exact).double().square().mean()))
    print(f"\n{title}, distance from {len(fine)} steps of {fine.solver}")
    for name, values in squares.items():
        print(f"{name:16} {(sum(values) / len(values)) ** 0.5:.4f}")


if __name__ == "__main__":
    main()
