"""Calibrated plans: tables fitted to one model, kept beside its weights as ``plan-STEPS.json``.

A request that names neither sampler nor steps gets the model's calibrated plan, if it has one. Needs NumPy, no torch.
"""

from __future__ import annotations

import json

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers import solver
from perrin.errors import InvalidInput, ModelError
from perrin.models.card import CALIBRATED, ModelCard, write_card

__all__ = ["CALIBRATED", "check_steps", "plan_of", "plan_of_rest", "save_plan"]


def check_steps(card: ModelCard, sampler: str, steps: int) -> None:
    """Raise `InvalidInput` if ``sampler`` cannot do ``steps`` steps on this model."""
    if sampler != CALIBRATED:
        solver(sampler).check(steps)
    elif not card.plans:
        raise InvalidInput("sampler", sampler, f"another: model {card.name} has no calibrated plan")
    elif steps not in card.plans:
        there = ", ".join(map(str, card.plans))
        raise InvalidInput("steps", steps, f"one of {there}, for which {card.name} is calibrated; or another sampler")


def plan_of(card: ModelCard, sampler: str, grid: Grid) -> Plan:
    """What ``sampler`` makes of ``grid`` on this model.

    Raises:
        UnknownName: no such sampler.
        InvalidInput: the sampler cannot do that many steps.
        ModelError: the calibrated plan's file is missing, changed or broken.
    """
    check_steps(card, sampler, len(grid))
    if sampler != CALIBRATED:
        return solver(sampler)(grid)
    name = file_name(len(grid))
    try:
        return Plan.from_dict(json.loads(card.read(name)))
    except (ValueError, InvalidInput) as error:
        raise ModelError(f"model {card.name}: {name} is not a plan: {error}") from None


def plan_of_rest(card: ModelCard, sampler: str, grid: Grid, strength: float | None) -> tuple[Plan, bool]:
    """`plan_of` the tail of ``grid`` that a run from a given sample at ``strength`` takes; None is the whole grid.

    Returns:
        The plan, and whether it begins later than the grid: such a run begins at the given sample, noised.

    Raises:
        InvalidInput: the sampler cannot do with what is left, in terms of ``strength``; and as `plan_of`.
    """
    rest = grid if strength is None else grid.tail(strength)
    try:
        return plan_of(card, sampler, rest), len(rest) < len(grid)
    except InvalidInput as error:
        if len(rest) == len(grid):
            raise
        left = f"more, or more steps: {len(rest)} of {len(grid)} are left, and {sampler} wants {error.wanted}"
        raise InvalidInput("strength", strength, left) from None


def save_plan(card: ModelCard, plan: Plan) -> ModelCard:
    """Put ``plan`` beside the model's weights, and its hash into the card; the new card."""
    table = plan.to_dict()
    rows = ",\n  ".join(json.dumps(row) for row in table.pop("rows"))  # one a line
    (card.folder / file_name(len(plan))).write_text(f'{json.dumps(table)[:-1]}, "rows": [\n  {rows}\n]}}\n')
    return write_card(card, card.folder)


def file_name(steps: int) -> str:
    """Of the plan with so many steps."""
    return f"plan-{steps}.json"
