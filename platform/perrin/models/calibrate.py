"""Calibrates a model: fits a plan to it, judges it on other seeds, and keeps it beside the weights. Imports torch.

The fitted plan should end where a fine run of the model's own default sampler ends; see `perrin.diffusion.fit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perrin import plugins
from perrin.diffusion import Run
from perrin.diffusion.fit import fit
from perrin.diffusion.grid import explicit
from perrin.diffusion.plan import Plan
from perrin.errors import InvalidInput
from perrin.modality import Progress, validate
from perrin.models.card import ModelCard
from perrin.models.plans import CALIBRATED

__all__ = ["Calibration", "calibrate"]

UNSEEN = 10**6
"""Added to the seeds that a plan is judged on."""


@dataclass(frozen=True)
class Calibration:
    """A plan fitted to a model.

    Attributes:
        plan: the fitted plan.
        errors: root mean square distance, on seeds that the fit has not seen, from the default sampler's own result
            with ``reference`` steps: of the fitted plan (under "calibrated") and of the default sampler by steps.
        reference: steps of the reference.
    """

    plan: Plan
    errors: dict[str, float]
    reference: int


def calibrate(
    card: ModelCard,
    steps: int,
    requests: Sequence[Mapping[str, Any]],
    *,
    seeds: int = 4,
    reference: int = 200,
    iterations: int = 12,
    device: str = "cpu",
    progress: Progress = lambda done, total, label: None,
) -> Calibration:
    """Fit a plan of ``steps`` evaluations to the model of ``card``.

    Args:
        card: of the model.
        steps: evaluations of the plan.
        requests: what to make, one mapping of parameters each; their seeds are ignored.
        seeds: how many to fit on for every request, and how many others to judge on.
        reference: steps of the default sampler that are taken for exact.
        iterations: of the fit.
        device: where to run.
        progress: told how it goes.

    Raises:
        InvalidInput: no requests, or a default sampler that is stochastic or evaluates more than once a step.
    """
    if not requests:
        raise InvalidInput("requests", 0, "at least one thing to make")
    face = plugins.modality(card.modality)
    model = plugins.runtime(face).load(card, device)
    sampler = card.defaults.get("sampler")
    if sampler is None or sampler == CALIBRATED:
        raise InvalidInput("sampler", sampler, f"a default sampler in the card of {card.name}, to calibrate against")

    def start(values: Mapping[str, Any], count: int, seed: int) -> Run:
        asked = {**values, "model": card.name, "sampler": sampler, "steps": count, "seed": seed, "count": seeds}
        return model.start(validate(face, asked).resolved(card))

    def runs(begin: int) -> list[Run]:
        return [start(values, steps, begin + seeds * number) for number, values in enumerate(requests)]

    known, unseen = runs(0), runs(UNSEEN)
    process = known[0].request().branches[0].denoiser.process_of("")
    fine = start(requests[0], reference, 0).plan
    grid = explicit(process, [row.t for row in known[0].plan.rows])
    made = fit(known, process, grid, fine, iterations=iterations, progress=progress)
    plans = {CALIBRATED: made.plan} | {
        f"{sampler} {n * steps}": start(requests[0], n * steps, 0).plan for n in (1, 2, 3)
    }
    totals = dict.fromkeys(plans, 0.0)
    for number, run in enumerate(unseen):
        exact = run.under(fine).run()
        for name, plan in plans.items():
            totals[name] += float((run.under(plan).run() - exact).double().square().mean()) / len(unseen)
        progress(number + 1, len(unseen), "judge")
    return Calibration(made.plan, {name: total**0.5 for name, total in totals.items()}, reference)
