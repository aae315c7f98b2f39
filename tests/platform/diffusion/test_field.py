"""Laws of the parts around the loop: guidance, fields, categories, flows, likelihood, inversion, Langevin, fitting."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from perrin import diffusion as d
from perrin.diffusion import categorical, inversion, langevin, loss
from perrin.diffusion.denoiser import Output
from perrin.diffusion.likelihood import log_likelihood, variational_bound
from perrin.diffusion.ode import Flowing, rk45, sample_ode
from perrin.diffusion.state import Fields, inner, norm, zero_centre
from perrin.errors import InvalidInput, SamplingError, UnknownName

W, MU, S = (torch.tensor(v, dtype=torch.float64) for v in ([0.5, 0.3, 0.2], [-1.0, 0.5, 2.0], [0.25, 0.1, 0.5]))


class Mixture(d.Denoiser):
    """The exact denoiser of the Gaussian mixture that the samplers are measured on."""

    def __init__(self, process: d.process.Process) -> None:
        super().__init__(lambda x, t: x, process, "x0")

    def evaluate(self, x, point, condition):  # type: ignore[no-untyped-def]
        a, s = point.alpha[""], point.sigma[""]
        var = a * a * S * S + s * s
        weight = torch.softmax(torch.log(W) - 0.5 * (x[..., None] - a * MU) ** 2 / var - 0.5 * torch.log(var), -1)
        return Output((weight * (MU + a * S * S / var * (x[..., None] - a * MU))).sum(-1))


def _log_density(x: torch.Tensor, alpha: float = 1.0, sigma: float = 0.0) -> torch.Tensor:
    spread = torch.sqrt(alpha**2 * S**2 + sigma**2)
    return torch.logsumexp(
        torch.log(W) - 0.5 * ((x - alpha * MU) / spread) ** 2 - torch.log(spread * math.sqrt(2 * math.pi)), -1
    )


EVERY = [
    d.process.linear(), d.process.quadratic(), d.process.scaled_linear(), d.process.sigmoid(), d.process.cosine(),
    d.process.laplace(), d.process.vp(), d.process.sub_vp(), d.process.ve(), d.process.edm(), d.process.flow(),
    d.process.zero_terminal_snr(d.process.linear()),
]  # fmt: skip


@pytest.mark.parametrize("process", EVERY, ids=lambda p: type(p).__name__)
def test_every_process_inverts(process: d.process.Process) -> None:
    t = np.linspace(process.t_min, process.t_max, 2001)[1:-1]
    value = process.log_snr(t)
    assert (np.diff(value) < 0).all()
    assert_allclose(process.time(value), t, rtol=1e-10, atol=1e-10)
    alpha, sigma = process.scales(value)
    assert_allclose(2 * np.log(alpha / sigma), value, rtol=1e-10, atol=1e-10)
    assert_allclose(alpha, process.alpha(t), rtol=1e-9)
    assert_allclose(sigma, process.sigma(t), rtol=1e-9)


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_step() -> None:
    process = d.process.linear()
    stretched = d.process.zero_terminal_snr(process)
    assert stretched.alpha(999.0) == 0
    assert_allclose(stretched.alpha(0.0), process.alpha(0.0), rtol=1e-12)


def test_sub_vp_is_song_equation_29() -> None:
    process, t = d.process.sub_vp(), np.linspace(0.01, 1, 50)
    assert_allclose(process.sigma(t), 1 - process.alpha(t) ** 2, rtol=1e-12)


GRIDS = [
    (d.grid.linspace, "edm"), (d.grid.karras, "edm"), (d.grid.karras, "cosine"), (d.grid.log_snr, "linear"),
    (d.grid.exponential, "edm"), (d.grid.polyexponential, "edm"), (d.grid.beta, "flow"), (d.grid.beta, "linear"),
    (d.grid.linear_quadratic, "flow"), (d.grid.shifted, "flow"), (d.grid.trailing, "flow"), (d.grid.trailing, "linear"),
    (d.grid.leading, "cosine"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name"), GRIDS)
@pytest.mark.parametrize("steps", [2, 7, 40])
def test_grids_decrease_and_end_clean(make, name: str, steps: int) -> None:  # type: ignore[no-untyped-def]
    process = getattr(d.process, name)()
    grid = make(process, steps)
    assert len(grid) == steps
    assert (np.diff(grid.half_log_snr) > 0).all()
    assert (grid.alpha[-1], grid.sigma[-1]) == (1, 0)
    if make not in (d.grid.karras, d.grid.log_snr, d.grid.exponential, d.grid.polyexponential):
        assert_allclose(grid.sigma[:-1], process.sigma(grid.times))


def test_karras_grid_is_equation_5() -> None:
    sigma = d.grid.karras(d.process.edm(), 18).sigma[:-1]
    i = np.arange(18) / 17
    assert_allclose(sigma, (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rtol=1e-9)


def test_loss_weights_are_those_of_their_papers() -> None:
    snr = np.array([0.01, 1.0, 30.0])
    at = np.log(snr)
    assert_allclose(loss.weight("snr", at), snr)
    assert_allclose(loss.weight("truncated_snr", at), np.maximum(snr, 1))
    assert_allclose(loss.weight("min_snr", at), np.minimum(snr, 5))
    assert_allclose(loss.weight("p2", at), snr / (1 + snr))
    sigma = snr**-0.5
    edm = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    assert_allclose(loss.weight("edm", at), edm)
    assert_allclose(loss.weight("edm", at, most=6.0), np.minimum(edm, 6))
    assert edm.min() < 6 < edm.max()
    assert_allclose(loss.weight("sigmoid", at), snr / (1 + np.exp(at + 1)))
    with pytest.raises(UnknownName, match="one of uniform"):
        loss.weight("harmonic", at)


# --- guidance ---------------------------------------------------------------------------------------------------------


def _conditional(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return c * torch.ones_like(x) + 0.1 * x


FLOW = d.process.flow()
DENOISER = d.Denoiser(_conditional, FLOW, "x0")
NULL, SOME = {"c": torch.zeros(1, 1)}, {"c": torch.full((1, 1), 2.0)}


def _combine(guidance, x: torch.Tensor, t: float, memory=None):  # type: ignore[no-untyped-def]
    point = d.guidance.base.Point(t, {"": 1 - t}, {"": t})
    outputs = [o.clean for o in d.guidance.evaluate(guidance.branches(SOME, t), x, point)]
    return guidance.combine(outputs, x, t, memory or {})


X = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
COND, BARE = 2 + 0.1 * X, 0.1 * X


def test_classifier_free_interval_schedule_and_rescale() -> None:
    g = d.guidance.classifier_free
    assert_allclose(_combine(g(DENOISER, 3, NULL), X, 0.5).estimate, BARE + 3 * (COND - BARE), rtol=1e-6)
    assert len(g(DENOISER, 3, NULL, interval=(0.2, 0.4)).branches(SOME, 0.5)) == 1
    half = g(DENOISER, 3, NULL, schedule=lambda t: t)
    assert_allclose(_combine(half, X, 0.5).estimate, BARE + 2 * (COND - BARE), rtol=1e-6)
    rescaled = _combine(g(DENOISER, 3, NULL, rescale=1.0), X, 0.5).estimate
    assert_allclose(rescaled.std(dim=1), COND.std(dim=1), rtol=1e-5)


def test_cfg_plus_plus_renoises_along_the_null_estimate() -> None:
    out = _combine(d.guidance.cfg_plus_plus(DENOISER, 0.6, NULL), X, 0.5)
    assert_allclose(out.estimate, BARE + 0.6 * (COND - BARE), rtol=1e-6)
    assert_allclose(out.direction, BARE, rtol=1e-6)


def test_cfg_plus_plus_is_ddim_with_its_own_direction() -> None:
    plan = d.solvers.ddim(d.grid.explicit(FLOW, [0.8, 0.5]))
    run = d.start(d.guidance.cfg_plus_plus(DENOISER, 0.6, NULL), plan, shape=(2,), seeds=[1, 2], condition=SOME)
    x = run.state
    run.step()
    estimate, bare = 0.1 * x + 0.6 * 2, 0.1 * x
    assert_allclose(run.state, 0.5 * estimate + 0.5 * (x - 0.2 * bare) / 0.8, rtol=1e-5)


def test_apg_takes_the_parallel_part_away_and_remembers() -> None:
    guided = d.guidance.apg(DENOISER, 4.0, NULL, parallel=0.0, momentum=-0.5)
    first = _combine(guided, X, 0.5)
    assert_allclose(inner(first.estimate - COND, COND), [0, 0], atol=1e-4)
    second = _combine(guided, X, 0.5, first.memory)
    assert_allclose(second.memory["difference"], (COND - BARE) - 0.5 * (COND - BARE), rtol=1e-6)
    limited = d.guidance.apg(DENOISER, 4.0, NULL, parallel=1.0, momentum=0.0, threshold=0.5)
    assert_allclose(norm(_combine(limited, X, 0.5).estimate - COND), [1.5, 1.5], rtol=1e-5)


def test_cfg_zero_star_fits_the_null_velocity_first() -> None:
    guided = d.guidance.cfg_zero_star(DENOISER, 3.0, NULL, hold=0.9)
    v, u = X - COND, X - BARE
    fit_u = u * ((v * u).sum(1) / (u * u).sum(1))[:, None]
    assert_allclose(X - _combine(guided, X, 0.5).estimate, fit_u + 3 * (v - fit_u), rtol=1e-5)
    assert torch.equal(_combine(guided, X, 0.95).estimate, X)


def test_autoguidance_and_perturbation_go_away_from_the_worse() -> None:
    weak = d.Denoiser(lambda x, t, c: 0.2 * x, FLOW, "x0")
    out = _combine(d.guidance.autoguidance(DENOISER, weak, 2.0), X, 0.5).estimate
    assert_allclose(out, 0.2 * X + 2 * (COND - 0.2 * X), rtol=1e-5)
    out = _combine(d.guidance.perturbed(DENOISER, lambda x, t, c: 0.2 * x, 1.0), X, 0.5).estimate
    assert_allclose(out, 0.2 * X + 2 * (COND - 0.2 * X), rtol=1e-5)


def test_constraint_and_threshold() -> None:
    mask = torch.tensor([[1.0, 0.0]])
    known = torch.tensor([[7.0, 0.0]])
    out = _combine(d.guidance.constrained(DENOISER, known, mask), X, 0.5).estimate
    assert_allclose(out, torch.stack([torch.full((2,), 7.0), COND[:, 1]], dim=1), rtol=1e-6)
    big = d.guidance.thresholded(d.Denoiser(lambda x, t, c: 10 * x, FLOW, "x0"), 1.0)
    assert_allclose(_combine(big, X, 0.5).estimate.abs().max(dim=1).values, [1, 1], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_part_of_weight_one_changes_nothing_and_of_weight_nought_is_left_out(scale: float) -> None:
    guided = d.guidance.classifier_free(DENOISER, scale, NULL)
    here, without = SOME, {"c": torch.tensor([[-1.0]])}

    def estimate(guidance: d.guidance.Guidance, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        branches = guidance.branches(condition, 0.5)
        outputs = d.guidance.evaluate(branches, X, d.denoiser.Point(0.5, {}, {}))
        return guidance.combine([o.clean for o in outputs], X, 0.5, {}).estimate

    def weighted(weight: float) -> torch.Tensor:
        return estimate(d.guidance.weighted(guided, [without], [weight]), here)

    assert_allclose(weighted(1.0), estimate(guided, here), rtol=1e-6)
    assert_allclose(weighted(0.0), estimate(guided, without), rtol=1e-5)
    assert_allclose(weighted(2.0) - weighted(1.0), weighted(1.0) - weighted(0.0), rtol=1e-5)
    with pytest.raises(InvalidInput, match="one for each of 1"):
        d.guidance.weighted(guided, [without], [])


def test_a_known_part_comes_out_as_it_is() -> None:
    mask, known = torch.tensor([[1.0, 0, 0, 1.0]]), torch.tensor([[0.25, 9, 9, -0.75]])
    guided = d.guidance.constrained(Mixture(FLOW), known, mask)
    out = d.sample(guided, d.solvers.dpmpp_2m(d.grid.trailing(FLOW, 12)), shape=(4,), seeds=[1, 2], dtype=torch.float64)
    assert (out[:, [0, 3]] == known[:, [0, 3]].double()).all()


def test_classifier_guidance_is_bayes_rule() -> None:
    """Guiding N(0, 1) by the exact log p(y | x_t) of y = x_0 + noise samples the exact posterior's mean."""
    process = d.process.edm(0.002, 80)
    prior = d.Denoiser(lambda x, t: x / (1 + t.view(-1, 1) ** 2), process, "x0")
    y, tau = 1.5, 0.5

    def log_probability(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        variance = t**2 / (1 + t**2) + tau**2
        return -0.5 * (y - x[:, 0] / (1 + t**2)) ** 2 / variance

    guided = d.guidance.classifier(prior, log_probability, 1.0)
    plan = d.solvers.dpmpp_2m(d.grid.karras(process, 200))
    out = d.sample(guided, plan, shape=(1,), seeds=range(2000), dtype=torch.float64)
    assert abs(float(out.mean()) - y / (1 + tau**2)) < 0.03
    assert abs(float(out.var()) - tau**2 / (1 + tau**2)) < 0.03


@pytest.mark.parametrize(
    "grid", [d.grid.trailing(d.process.cosine(), 200), d.grid.karras(d.process.edm(), 200), d.grid.trailing(FLOW, 200)]
)
@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_scales_the_variance_of_gaussian_data(grid: d.grid.Grid, temperature: float) -> None:
    process = grid.process
    mean, spread = 0.0, 0.7

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = (torch.as_tensor(f(t.numpy())).view(-1, 1) for f in (process.alpha, process.sigma))
        return mean + a * spread**2 / (a**2 * spread**2 + s**2) * (x - a * mean)

    guided = d.guidance.tempered(d.Denoiser(network, process, "x0"), temperature, spread)
    out = d.sample(guided, d.solvers.dpmpp_2m(grid), shape=(1,), seeds=range(4000), dtype=torch.float64)
    assert_allclose(float(out.var()), temperature * spread**2, rtol=0.06)
    with pytest.raises(InvalidInput, match="temperature"):
        d.guidance.tempered(d.Denoiser(network, process, "x0"), 0.0)


def test_reconstruction_guidance_pulls_to_the_measurement() -> None:
    plan = d.solvers.ddim(d.grid.trailing(FLOW, 40))
    options = {"shape": (2,), "seeds": range(64), "dtype": torch.float64}
    measure, target = (lambda x: x[:, :1]), torch.full((1, 1), 2.0, dtype=torch.float64)
    free = d.sample(Mixture(FLOW), plan, **options)
    held = d.sample(d.guidance.reconstruction(Mixture(FLOW), measure, target, 20.0), plan, **options)
    assert (held[:, 0] - 2).abs().mean() < 0.5 * (free[:, 0] - 2).abs().mean()


SHORT_GRID = d.grid.trailing(FLOW, 4)
SHORT = d.solvers.ddim(SHORT_GRID)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: d.guidance.classifier_free(DENOISER, -1.0, NULL), "guidance"),
        (lambda: d.guidance.classifier_free(DENOISER, 2.0, NULL, rescale=2.0), "rescale"),
        (lambda: d.guidance.cfg_plus_plus(DENOISER, 7.5, NULL), "CFG\\+\\+"),
        (lambda: d.guidance.thresholded(DENOISER, 0.0), "percentile"),
        (lambda: d.grid.shifted(d.process.edm(), 5), "flow process"),
        (lambda: d.grid.linear_quadratic(FLOW, 1), "linear"),
        (lambda: d.process.edm(1.0, 0.5), "sigma_min"),
        (lambda: d.process.from_betas([0.1, 2.0]), "betas"),
        (lambda: categorical.absorbing(3, 3), "mask"),
        (lambda: categorical.uniform(3).plan([0.5, 0.2]), "keep"),
        (lambda: Fields({}), "fields"),
        (lambda: inversion.edict(d.grid.trailing(FLOW, 5), 0.2), "mix"),
        (lambda: inversion.ddim_inversion(d.grid.trailing(FLOW, 1)), "steps"),
        (lambda: SHORT.fit(DENOISER, d.solvers.ddpm(d.grid.trailing(FLOW, 9)), shape=(1,), seeds=[1]), "deterministic"),
        (lambda: d.plan.Plan.from_dict({"rows": 3}), "table"),
        (lambda: d.start(DENOISER, SHORT, shape=(1,), seeds=[1]).fork(d.solvers.lms(SHORT_GRID)), "registers"),
        (lambda: sample_ode(Mixture(FLOW), shape=(1,), seeds=[1], method="leapfrog"), "rk45"),
    ],
)
def test_bad_input(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput, match=message):
        make()


# --- fields and categories --------------------------------------------------------------------------------------------


def test_fields_share_a_run_and_padding_never_matters() -> None:
    """Positions without a centre and a second field, on the same rows; a masked point changes nothing."""
    process = d.process.cosine()

    def network(x: Fields, t: torch.Tensor) -> dict[str, torch.Tensor]:
        kept = torch.ones_like(x["pos"][..., :1]) if x.mask is None else x.mask[..., None].to(x["pos"])
        total = (x["pos"] * kept).sum(1, keepdim=True)
        return {"pos": torch.tanh(x["pos"] + total) * kept, "charge": torch.sin(x["charge"]) * kept}

    denoiser = d.Denoiser(network, process, "v")
    plan = d.solvers.ddpm(d.grid.trailing(process, 20))

    def go(points: int, mask: torch.Tensor | None) -> Fields:
        noise_like = {"pos": (points, 3), "charge": (points, 1)}
        run = d.start(
            denoiser, {"pos": plan, "charge": plan}, shape=noise_like, seeds=[1, 2], mask=mask,
            spaces={"pos": zero_centre}, dtype=torch.float64,
        )  # fmt: skip
        state: Fields = run.run()
        return state

    out = go(5, None)
    assert_allclose(out["pos"].sum(1), torch.zeros(2, 3), atol=1e-12)
    masked = go(5, torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    assert (masked["pos"][1, 3:] == 0).all()
    assert_allclose(masked["pos"].sum(1), torch.zeros(2, 3), atol=1e-12)
    assert_allclose(masked["pos"][0], out["pos"][0], rtol=1e-12)


@pytest.mark.parametrize("make", [categorical.uniform, categorical.absorbing])
def test_categories_with_an_exact_belief_end_in_the_data(make) -> None:  # type: ignore[no-untyped-def]
    """Beside a Gaussian field, on every second row only, from an exact belief to the exact marginal."""
    chances = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    process, count = make(4), 4000
    keep = np.linspace(0, 1, 21)
    noise = torch.tensor(process.noise, dtype=torch.float64)
    plan = d.solvers.ddim(d.grid.trailing(FLOW, 40))
    marks = np.arange(40) % 2 == 0
    level = iter(np.repeat(keep[:-1], 2))

    def network(x: Fields, t: torch.Tensor) -> dict[str, torch.Tensor]:
        a = next(level)
        likelihood = a * torch.nn.functional.one_hot(x["kind"], 4) + (1 - a) * noise[x["kind"]][..., None]
        return {"kind": torch.log(likelihood * chances), "pos": x["pos"]}

    denoiser = d.Denoiser(network, FLOW, {"kind": "logits", "pos": "x0"})
    out = d.sample(
        denoiser,
        {"pos": plan, "kind": process.plan(keep, marks)},
        shape={"pos": (2,), "kind": (5,)},
        seeds=range(count),
    )
    share = torch.bincount(out["kind"].flatten(), minlength=4) / (5 * count)
    assert_allclose(share, chances, atol=0.015)


def test_fields_resume_to_the_bit() -> None:
    process = categorical.absorbing(3)

    def network(x: Fields, t: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(x["kind"], 3).double() + torch.tensor([0.3, 0.1, -30.0])
        return {"kind": logits, "pos": torch.tanh(x["pos"])}

    denoiser = d.Denoiser(network, FLOW, {"kind": "logits", "pos": "x0"})
    plans = {"pos": d.solvers.ddpm(d.grid.trailing(FLOW, 8)), "kind": process.plan(np.linspace(0, 1, 9))}
    options = {"shape": {"pos": (3,), "kind": (4,)}, "seeds": [5, 6]}
    whole = d.sample(denoiser, plans, **options)
    first = d.start(denoiser, plans, **options)
    for _ in range(3):
        first.step()
    second = d.start(denoiser, plans, **options)
    second.restore(first.save())
    out = second.run()
    assert torch.equal(out["pos"], whole["pos"])
    assert torch.equal(out["kind"], whole["kind"])
    assert out["kind"].dtype == torch.int64


def test_a_network_that_recalls_is_told_its_last_estimate() -> None:
    """From the second row on: of a tensor as ``estimate``, of fields by their names; both branches the same one."""
    seen: list[dict[str, torch.Tensor]] = []

    def network(x: torch.Tensor, t: torch.Tensor, scale: torch.Tensor, **told: torch.Tensor) -> torch.Tensor:
        seen.append(told)
        return torch.tanh(x) * scale + 0.1 * told.get("estimate", torch.zeros_like(x))

    plan = d.solvers.ddim(d.grid.trailing(FLOW, 3))
    denoiser = d.Denoiser(network, FLOW, "x0", recall=True)
    told, bare = ({"scale": torch.full((1, 1), value)} for value in (0.9, 0.5))
    run = d.start(d.guidance.classifier_free(denoiser, 2.0, bare), plan, shape=(3,), seeds=[1, 2], condition=told)
    estimates = []
    while not run.done:
        run.step()
        estimates.append(run.clean)
    assert [sorted(one) for one in seen[: len(seen) // 3]] == [[]] * (len(seen) // 3)
    rows = np.array_split(np.arange(len(seen)), 3)
    for row, before in zip(rows[1:], estimates, strict=False):
        for number in row:
            for part in seen[number]["estimate"].split(2):
                assert torch.equal(part, before)
    plain = d.start(d.Denoiser(network, FLOW, "x0"), plan, shape=(3,), seeds=[1, 2], condition=told).run()
    assert not torch.equal(plain, d.start(denoiser, plan, shape=(3,), seeds=[1, 2], condition=told).run())


def test_what_is_recalled_survives_a_save() -> None:
    process = categorical.uniform(3)

    def network(x: Fields, t: torch.Tensor, **told: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(x["kind"], 3).double() + 3 * told.get("estimate.kind", torch.zeros(3))
        return {"kind": logits, "pos": torch.tanh(x["pos"]) + told.get("estimate.pos", 0.0)}

    denoiser = d.Denoiser(network, FLOW, {"kind": "logits", "pos": "x0"}, recall=True)
    plans = {"pos": d.solvers.ddpm(d.grid.trailing(FLOW, 8)), "kind": process.plan(np.linspace(0, 1, 9))}
    options = {"shape": {"pos": (3,), "kind": (4,)}, "seeds": [5, 6]}
    whole = d.sample(denoiser, plans, **options)
    for rows in (1, 3, 7):
        first, second = (d.start(denoiser, plans, **options) for _ in range(2))
        for _ in range(rows):
            first.step()
        second.restore(first.save())
        out = second.run()
        assert all(torch.equal(out[name], whole[name]) for name in whole)


# --- beside the loop --------------------------------------------------------------------------------------------------

STARTS = torch.tensor([[NormalDist().inv_cdf((i + 0.5) / 64)] for i in range(64)], dtype=torch.float64)
ENDS = {0: -1.5385821343, 31: -0.4646373316, 63: 2.8802696405}


def test_adaptive_solvers_end_where_dop853_does() -> None:
    flow = Flowing(Mixture(d.process.edm()))
    begin, end = flow.angle(80.0), flow.angle(0.002)
    ends = rk45(flow, STARTS * math.sin(begin), begin, end, rtol=1e-11, atol=1e-11).value / math.cos(end)
    for index, value in ENDS.items():
        assert abs(float(ends[index]) - value) < 1e-8
    options = {"shape": (1,), "seeds": range(64), "noise": STARTS, "dtype": torch.float64}
    exact = sample_ode(Mixture(d.process.edm()), rtol=1e-10, atol=1e-10, **options).value
    rough = sample_ode(Mixture(d.process.edm()), method="dpm_adaptive", rtol=1e-3, atol=1e-4, **options)
    assert float((rough.value - exact).abs().max()) < 0.01
    with pytest.raises(SamplingError, match="slope is not finite"):
        sample_ode(d.Denoiser(lambda x, t: x * math.nan, d.process.edm(), "x0"), shape=(1,), seeds=[1])


@pytest.mark.parametrize("process", [d.process.edm(0.002, 1e7), FLOW, d.process.ve(0.01, 1e7)])
def test_likelihood_is_the_exact_density(process: d.process.Process) -> None:
    x = torch.linspace(-2, 3, 13, dtype=torch.float64)[:, None]
    alpha, sigma = float(process.alpha(process.t_min)), float(process.sigma(process.t_min))
    got = log_likelihood(Mixture(process), x, rtol=1e-10, atol=1e-10)
    exact = _log_density(x * alpha, alpha, sigma) + math.log(alpha)
    assert float((got - exact).abs().max()) < 1e-7


def test_hutchinson_is_exact_in_one_dimension_and_right_on_average() -> None:
    x = torch.linspace(-1.5, 2.5, 5, dtype=torch.float64)[:, None]
    one = log_likelihood(Mixture(FLOW), x, exact=False, rtol=1e-8, atol=1e-8)
    assert_allclose(one, log_likelihood(Mixture(FLOW), x, rtol=1e-8, atol=1e-8), atol=1e-6)


def test_variational_bound_bounds() -> None:
    """Averaged over noise it lies above the entropy of the data; finer steps bring it closer."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, 400, p=W.numpy())
    x = torch.as_tensor(MU.numpy()[kind] + S.numpy()[kind] * rng.standard_normal(400))[:, None]
    entropy = float(-_log_density(x).mean()) / math.log(2)
    grids = [np.linspace(3.0, -6.0, steps) for steps in (20, 160)]
    betas = [1 - np.append(b[0], b[1:] / b[:-1]) for b in (1 / (1 + np.exp(-2 * g)) for g in grids)]
    rough, fine = (float(variational_bound(Mixture(d.process.from_betas(b)), x).mean()) for b in betas)
    assert entropy < fine < rough
    assert fine - entropy < 0.4 * (rough - entropy)


def test_edict_comes_back_and_ddim_nearly() -> None:
    process = d.process.cosine()
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = d.Denoiser(lambda x, t: 0.5 * torch.tanh(x @ matrix), process, "v")
    grid = d.grid.trailing(process, 50)
    options = {"shape": (6,), "seeds": [1, 2, 3], "dtype": torch.float64}
    forth = d.start(denoiser, inversion.edict(grid), **options)
    noise = forth.state
    forth.run()
    back = d.start(denoiser, inversion.edict_inversion(grid), initial=forth.copies, **options)
    assert float((back.run() - noise).abs().max()) < 1e-8
    # A sample that is not ours: two copies of it go to noise and come back to it.
    mine = forth.result + 0.1
    away = d.start(denoiser, inversion.edict_inversion(grid), initial=mine, **options)
    away.run()
    again = d.start(denoiser, inversion.edict(grid), **options)
    for number, copy in enumerate(away.copies):
        again._registers[""][number] = copy
    assert float((again.run() - mine).abs().max()) < 1e-5
    rough = d.start(denoiser, inversion.ddim_inversion(grid), initial=forth.result, **options).run()
    assert 1e-6 < float((rough - noise).abs().max()) < 0.5


def test_langevin_keeps_the_distribution() -> None:
    process = d.process.edm(0.01, 20)
    plan = d.solvers.ddpm(d.grid.karras(process, 60))
    out = langevin.predictor_corrector(Mixture(process), plan, shape=(1,), seeds=range(2000), dtype=torch.float64)
    mean, second = float((W * MU).sum()), float((W * (MU**2 + S**2)).sum())
    assert abs(float(out.mean()) - mean) < 0.08
    assert abs(float(out.square().mean()) - second) < 0.15
    walked = langevin.annealed(
        Mixture(process), d.grid.karras(process, 25), shape=(1,), seeds=range(600), steps=12, size=2e-5,
        dtype=torch.float64,
    )  # fmt: skip
    assert abs(float(walked.mean()) - mean) < 0.15
    two = d.solvers.dpmpp_2m(d.grid.karras(process, 5))
    with pytest.raises(InvalidInput, match="one register"):
        langevin.predictor_corrector(Mixture(process), two, shape=(1,), seeds=[1])


def test_a_fitted_plan_beats_forty_evaluations_with_eight() -> None:
    """On seeds that the fit has not seen, against DPM-Solver++(2M) on a Karras grid."""
    process = d.process.edm()
    model, reference = Mixture(process), d.solvers.dpmpp_2m(d.grid.karras(process, 1000))
    options = {"shape": (1,), "dtype": torch.float64}
    start = d.solvers.dpmpp_2m(d.grid.karras(process, 8))
    made = start.fit(model, reference, seeds=range(256), iterations=25, **options)
    assert len(made) == 8
    kept = d.plan.Plan.from_dict(json.loads(json.dumps(made.to_dict())))
    assert kept == made
    assert kept.digest == made.digest

    def error(plan: d.plan.Plan) -> float:
        unseen = range(10**6, 10**6 + 2000)
        ends = [d.sample(model, p, seeds=unseen, **options) for p in (plan, reference)]
        return float((ends[0] - ends[1]).square().mean().sqrt())

    assert error(made) < error(d.solvers.dpmpp_2m(d.grid.karras(process, 40)))
