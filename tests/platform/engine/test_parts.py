"""The engine's parts by themselves: stacks and padding, curves, memory, the line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion.denoiser import Output, Point
from perrin.diffusion.guidance.base import Branch
from perrin.diffusion.sampling import Evaluation
from perrin.diffusion.state import Fields
from perrin.engine.batch import Keys, Member, Stacker
from perrin.engine.cost import Curve, Stopwatch
from perrin.engine.events import Request
from perrin.engine.fair import Line, interleave
from perrin.engine.memory import Models, Working, is_out_of_memory, weight_bytes
from perrin.engine.stack import bucket
from perrin.errors import OutOfMemory

FLOW = d.process.flow()


def direct(key: Any, samples: int, run: Any) -> Any:
    return run()


def together(stacker: Stacker, runs: list[d.Run], padding: Any = None) -> list[Any]:
    members = []
    for run in runs:
        evaluation = run.request()
        members.append(Member(evaluation, Keys(padding).of(evaluation)))
    return stacker.evaluate(members, [10**6], 10**6, direct)


# --- keys -------------------------------------------------------------------------------------------------------------


def key(denoiser: d.Denoiser, x: Any, **condition: Any) -> Any:
    point = Point(0.5, {"": 0.5}, {"": 0.5})
    return Keys().of(Evaluation([Branch(denoiser, condition)], x, point))[0]


def test_pieces_share_if_and_only_if_they_can_be_stacked() -> None:
    denoiser = d.Denoiser(lambda x, t, **c: x, FLOW, "x0")
    x = torch.zeros(2, 3)
    same = key(denoiser, x, c=torch.zeros(1, 4), name="a")
    assert same is not None
    assert same == key(denoiser, torch.zeros(5, 3), c=torch.ones(5, 4), name="a"), "the batch size is nobody's business"
    for other in (
        key(d.Denoiser(denoiser.network, FLOW, "x0"), x, c=torch.zeros(1, 4), name="a"),
        key(denoiser, torch.zeros(2, 4), c=torch.zeros(1, 4), name="a"),
        key(denoiser, x.double(), c=torch.zeros(1, 4), name="a"),
        key(denoiser, x, c=torch.zeros(1, 5), name="a"),
        key(denoiser, x, c=torch.zeros(1, 4).double(), name="a"),
        key(denoiser, x, c=torch.zeros(1, 4), name="b"),
        key(denoiser, x, c=torch.zeros(1, 4)),
    ):
        assert other is not None
        assert other != same
    assert key(denoiser, x, c=[torch.zeros(1, 4)]) is None
    assert key(d.guidance.tempered(denoiser, 0.5), x) is None


def test_runs_that_recall_share_calls_and_stay_as_they_are_alone() -> None:
    """Rows of one call may be anywhere, except that a first row, which recalls nothing, is not stacked with others."""
    calls: list[int] = []

    def network(x: Tensor, t: Tensor, c: Tensor, **told: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.tanh(x * c) + 0.5 * told.get("estimate", torch.zeros_like(x))

    denoiser = d.Denoiser(network, FLOW, "x0", recall=True)

    def begun(number: int) -> d.Run:
        plan = d.solvers.ddim(d.grid.linspace(FLOW, 4 + number))
        return d.start(denoiser, plan, shape=(3,), seeds=[number], condition={"c": torch.full((1, 1), 0.5 + number)})

    alone = [begun(number).run() for number in range(2)]
    calls.clear()
    stacker, runs = Stacker(), [begun(number) for number in range(2)]
    runs[1].step()
    while going := [run for run in runs if not run.done]:
        evaluations = [run.request() for run in going]
        members = [Member(one, Keys(None).of(one)) for one in evaluations]
        for run, one, outputs in zip(
            going, evaluations, stacker.evaluate(members, [10**6], 10**6, direct), strict=True
        ):
            run.apply(one, outputs)
    assert calls[:3] == [1, 1, 1]
    assert calls[3:] == [2] * 3
    for run, wanted in zip(runs, alone, strict=True):
        assert torch.equal(run.result, wanted)


def test_channel_processes_and_learned_variances_share_too() -> None:
    denoiser = d.Denoiser(lambda x, t: torch.cat([x * t[:, None], x], 1), FLOW, "x0", variance=True)
    plans = [d.solvers.ddim(d.grid.linspace(FLOW, steps)) for steps in (3, 5)]
    runs = [d.start(denoiser, plan, shape=(4,), seeds=[i, i + 5]) for i, plan in enumerate(plans)]
    for run, (output,) in zip(runs, together(Stacker(), runs), strict=True):
        evaluation = run.request()
        alone = denoiser.evaluate(evaluation.x, evaluation.point, {})
        assert torch.equal(output.clean, alone.clean)
        assert output.variance is not None
        assert torch.equal(output.variance, alone.variance)


# --- padding ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000))
def test_a_bucket_pads_little(length: int) -> None:
    top = bucket(length)
    assert top >= length
    assert bucket(top) == top
    assert (top - length) / top < 0.2


def atoms(x: Fields, t: Tensor) -> Fields:
    """Every atom is pulled to the mean of its molecule; every pair by the count of atoms."""
    mask = torch.ones(x["at"].shape[:2], dtype=torch.bool) if x.mask is None else x.mask
    kept = mask[..., None].double()
    mean = (x["at"] * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
    return Fields({"at": x["at"] * 0.5 + mean * t[:, None, None], "pair": x["pair"] * kept.sum((1, 2))[:, None, None]})


def molecule(denoiser: d.Denoiser, count: int, seeds: list[int], steps: int) -> d.Run:
    plan = d.solvers.ddim(d.grid.linspace(FLOW, steps))
    shapes = {"at": (count, 3), "pair": (count, count)}
    return d.start(denoiser, {"at": plan, "pair": plan}, shape=shapes, seeds=seeds, dtype=torch.float64)


def test_sizes_of_one_bucket_share_a_call_under_a_mask_and_waste_is_measured() -> None:
    calls = []

    def network(x: Fields, t: Tensor) -> Fields:
        calls.append(tuple(x["at"].shape))
        return atoms(x, t)

    padding = {"at": (1,), "pair": (1, 2)}
    denoiser = d.Denoiser(network, FLOW, "x0")
    runs = [molecule(denoiser, n, seeds, steps) for n, seeds, steps in ((9, [1], 4), (10, [2, 3], 6), (9, [4], 5))]
    alone = [molecule(denoiser, *args).run() for args in ((9, [1], 4), (10, [2, 3], 6), (9, [4], 5))]
    calls.clear()
    stacker = Stacker(padding)
    while active := [run for run in runs if not run.done]:
        for run, outputs in zip(active, together(stacker, active, padding), strict=True):
            run.apply(run.request(), outputs)
    assert calls[0] == (4, 10, 3)
    for run, wanted in zip(runs, alone, strict=True):
        for name in wanted:
            torch.testing.assert_close(run.result[name], wanted[name], rtol=1e-12, atol=1e-12)
    assert 0 < stacker.padded / stacker.entries < 0.06
    assert Keys(padding).of(molecule(denoiser, 11, [1], 4).request()) != Keys(padding).of(runs_first(denoiser))


def runs_first(denoiser: d.Denoiser) -> Evaluation:
    return molecule(denoiser, 10, [1], 4).request()


def test_a_plain_tensor_is_padded_under_a_mask_in_the_condition() -> None:
    masks = []

    def frames(x: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        kept = torch.ones(len(x), x.shape[2]) if mask is None else mask.float()
        masks.append(mask)
        return x + (x * kept[:, None]).sum((1, 2), keepdim=True)

    denoiser = d.Denoiser(frames, FLOW, "x0")
    padding = {"": (2,)}
    plan = d.solvers.ddim(d.grid.linspace(FLOW, 3))
    runs = [d.start(denoiser, plan, shape=(2, n), seeds=[n]) for n in (9, 10)]
    outputs = together(Stacker(padding), runs, padding)
    assert masks[0].sum(1).tolist() == [9, 10]
    for run, (output,) in zip(runs, outputs, strict=True):
        evaluation = run.request()
        torch.testing.assert_close(output.clean, denoiser.evaluate(evaluation.x, evaluation.point, {}).clean)


# --- memory short inside a stack --------------------------------------------------------------------------------------


def test_a_batch_is_split_down_to_the_sample_that_does_not_fit() -> None:
    denoiser = d.Denoiser(lambda x, t: x * t[:, None], FLOW, "x0")
    plan = d.solvers.ddim(d.grid.linspace(FLOW, 3))
    runs = [d.start(denoiser, plan, shape=(2,), seeds=range(n)) for n in (3, 2, 4)]
    sizes = []

    def call(key: Any, samples: int, run: Any) -> Output:
        sizes.append(samples)
        if samples > 2:
            raise torch.OutOfMemoryError("too large")
        answer: Output = run()
        return answer

    members = [Member(e, Keys().of(e)) for e in (run.request() for run in runs)]
    answers = Stacker().evaluate(members, [100], 100, call)
    for run, answer in zip(runs, answers, strict=True):
        assert not isinstance(answer, Exception)
        e = run.request()
        assert torch.equal(answer[0].clean, denoiser.evaluate(e.x, e.point, {}).clean)
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    sizes.clear()
    Stacker().evaluate(members, [100], 2, call)
    assert max(sizes) == 2, "told beforehand, it does not try"


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(OutOfMemory("a sample", 2**31, 2**20))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert str(OutOfMemory("a sample", 2**31, 2**20)) == "a sample needs 2.00 GiB, and there is 1.0 MiB"


# --- cost -------------------------------------------------------------------------------------------------------------


def learned(latency: Any, sizes: Any, times: int = 4) -> Curve:
    curve = Curve()
    for size in sizes:
        for _ in range(times):
            curve.note(size, latency(size))
    return curve


def test_the_chosen_size_is_the_cheapest_that_was_measured() -> None:
    sizes = [1, 2, 4, 8, 16, 32]
    assert learned(lambda n: 1 + 0.1 * n, sizes).choose(32) == [32]
    assert learned(lambda n: n**1.5, sizes).choose(32) == [1] * 32
    assert learned(lambda n: 1 + 0.1 * n + 0.1 * max(0, n - 8) ** 2, sizes).choose(30) == [8, 8, 8, 6]
    assert Curve().choose(7) == [7], "nothing is known: together"


@given(st.integers(1, 200), st.integers(1, 300))
def test_calls_add_up(samples: int, decisions: int) -> None:
    curve = Curve()
    for _ in range(decisions):
        calls = curve.choose(samples)
        assert sum(calls) == samples
        assert min(calls) > 0
        for size in calls:
            curve.note(size, 0.1 + size)


def test_a_few_batches_teach_every_size() -> None:
    curve = Curve()
    for _ in range(20):
        for size in curve.choose(48):
            curve.note(size, float(size) ** 1.1)
    assert {1, 2, 4, 8, 16, 32, 48} <= curve.measured.keys()
    assert curve.choose(48) == [1] * 48


def test_a_first_call_and_a_single_outlier_do_not_count() -> None:
    curve = Curve()
    for seconds in (50.0, 1.0, 1.1, 90.0, 1.05):
        curve.note(4, seconds)
    assert 1.0 <= curve.seconds(4) <= 1.1


def test_between_measured_sizes_latency_is_interpolated() -> None:
    curve = learned(lambda n: 2.0 + n, [2, 10])
    assert curve.seconds(6) == pytest.approx(8.0)
    assert curve.total(25, 10) == pytest.approx(2 * 12 + 7)


def test_passengers_cost_the_urgent_ones_little() -> None:
    flat = learned(lambda n: 10 + 0.01 * n, [1, 32])
    assert flat.passengers(1, 32) == 32
    steep = learned(lambda n: float(n), [1, 2, 32])
    assert steep.passengers(2, 32) == 2


def test_an_accelerator_is_timed_without_waiting_and_the_host_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended device: events pass when somebody waits for them."""

    class Passing:
        now, waits = 0.0, 0

        def __init__(self, enable_timing: bool) -> None:
            self.at = -1.0

        def record(self) -> None:
            Passing.now += 1.0
            self.at = Passing.now

        def query(self) -> bool:
            return False

        def synchronize(self) -> None:
            Passing.waits += 1

        def elapsed_time(self, end: Passing) -> float:
            return 1000 * (end.at - self.at)

    monkeypatch.setattr(torch, "pretended", SimpleNamespace(Event=Passing), raising=False)
    watch, noted = Stopwatch("pretended:0", lambda: 0.0), []
    for _ in range(5):
        assert watch.time(lambda: 42, noted.append) == 42
    assert (noted, Passing.waits) == ([], 0)
    watch.keep_pace(3)
    assert (noted, Passing.waits) == ([1.0, 1.0], 2)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_working_memory_limits_a_call_by_what_was_measured() -> None:
    working = Working()
    assert working.limit("k", 64, lambda: 0.0) == 64, "nothing is known"
    working.note("k", 8, 800)
    assert working.limit("k", 8, lambda: 0.0) == 8
    assert working.limit("k", 64, lambda: 2000.0) == 20
    assert working.needed("k", 3) == 300
    working.exceeded("k", 16)
    assert working.limit("k", 64, lambda: 1e9) == 8
    working.relax()
    assert working.limit("k", 64, lambda: 1e9) == 64


def test_what_does_not_fit_an_accelerator_is_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")

    class Held:
        def __init__(self) -> None:
            self.network = torch.nn.Linear(4, 4)

    class Runtime:
        @classmethod
        def load(cls, card: Any, device: str) -> Held:
            assert device == "cpu", "not onto the device"
            return Held()

    class Full:
        def room(self) -> float:
            return 10.0

        def used(self) -> int:
            return 0

        def peak(self) -> int:
            return 0

        def release(self) -> None:
            pass

    monkeypatch.setattr("perrin.plugins.runtime", lambda face: Runtime)
    here = Path(__file__)
    card: Any = SimpleNamespace(name="m", sha256="0", folder=here.parent, files={here.name: ""}, upscaler="", image="")
    pretended = "meta"  # a device that is not the CPU and needs no hardware
    models = Models(pretended, None, Full(), lambda: 0.0)
    events: list[Any] = []
    assert models.load("r", None, card, (), events)  # type: ignore[arg-type]
    assert [event.offloaded for event in events] == [True]
    network = models.use("m@0").network  # type: ignore[attr-defined]
    assert network.weight.device.type == "meta", "its weights are on the host, and come for a call"
    assert type(network._hf_hook).__name__ in ("AlignDevicesHook", "SequentialHook")


def test_weights_are_counted_once() -> None:
    holder = SimpleNamespace(a=torch.nn.Linear(10, 10), b=1)
    holder.c = torch.nn.Sequential(holder.a, torch.nn.Linear(5, 1))
    assert weight_bytes(holder) == 4 * (110 + 6)


# --- fairness ---------------------------------------------------------------------------------------------------------


def waiting(name: str, owner: str, priority: int = 0) -> Request:
    return Request(name, "m", {}, "f", owner=owner, priority=priority)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=30))
def test_the_line_lets_everybody_in_by_priority_then_by_owner(people: list[tuple[str, int]]) -> None:
    line = Line()
    for number, (owner, priority) in enumerate(people):
        line.join(waiting(str(number), owner, priority))
    out = []
    while len(line):
        taken = line.take({})
        assert taken is not None
        out.append(taken)
    assert line.take({}) is None
    assert sorted(int(r.id) for r in out) == list(range(len(people)))
    assert [r.priority for r in out] == sorted((p for _, p in people), reverse=True)
    for owner in "abc":
        for priority in range(3):
            mine = [int(r.id) for r in out if (r.owner, r.priority) == (owner, priority)]
            assert mine == sorted(mine)


def test_who_has_most_in_flight_waits() -> None:
    line = Line()
    for name, owner in (("1", "ann"), ("2", "ann"), ("3", "bob")):
        line.join(waiting(name, owner))
    first = line.take({"ann": 2, "bob": 1})
    assert first is not None
    assert first.id == "3"
    assert "3" not in line
    assert list(line) == ["1", "2"]


def test_turns_interleave_owners() -> None:
    flights = [
        SimpleNamespace(request=waiting(n, n[0]), served=s) for n, s in (("a1", 1), ("a2", 1), ("a3", 0), ("b1", 1))
    ]
    assert [f.request.id for f in interleave(flights)] == ["a3", "b1", "a1", "a2"]
