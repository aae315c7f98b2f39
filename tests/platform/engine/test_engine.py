"""The engine, tick by tick: who shares a call, who waits, who ends, and that nobody's result changes."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import blend
import pytest
import torch
from blend import BAD_SHAPE, RAISES, BlendRuntime

import perrin
from perrin.engine import Doing, Engine, Event, Failed, Finished, Loaded, Preview, Progress, Request, Unloaded
from perrin.errors import Conflict, InvalidInput, NotFound, OutOfMemory, SamplingError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blend.install(monkeypatch, tmp_path / "home")


def request(name: str, *, owner: str = "", **values: Any) -> Request:
    own = {k: values.pop(k) for k in ("state", "priority", "deadline", "strict", "previews") if k in values}
    return Request(name, "blend", {"seed": 1, **values}, "json", owner=owner, **own)


def finish(engine: Engine, ticks: int = 1000) -> list[Event]:
    events: list[Event] = []
    for _ in range(ticks):
        if not engine.active:
            return events
        events += engine.tick()
    raise AssertionError(f"still busy after {ticks} ticks: {engine.requests}")


def still(**options: Any) -> Engine:
    """An engine whose time stands still unless a test moves it: how busy the machine is matters to no tick."""
    return Engine(**{"clock": Clock(), **options})


def run(*requests: Request, **options: Any) -> dict[str, Finished | Failed]:
    engine = still(**options)
    for one in requests:
        engine.admit(one)
    return ends(finish(engine))


def ends(events: Iterable[Event]) -> dict[str, Finished | Failed]:
    return {e.id: e for e in events if isinstance(e, Finished | Failed)}


def alone(one: Request) -> Any:
    end = run(one)[one.id]
    assert isinstance(end, Finished)
    return end.results


MIXED = [
    request("a", sampler="ddim", steps=3, value=0.5),
    request("b", sampler="dpmpp_2m", steps=5, value=-0.5, guidance=3.0, seed=4, count=3),
    request("c", sampler="ddpm", steps=7, value=0.1, guidance=2.0, low=0.5, seed=9),
    request("d", sampler="heun", steps=2, value=0.9, seed=11, count=2),
]


# --- one call for all -------------------------------------------------------------------------------------------------


def test_requests_of_different_samplers_steps_and_guidance_share_every_call() -> None:
    engine = still()
    for one in MIXED:
        engine.admit(one)
    for _ in range(3):
        engine.tick()
    assert [size for _, size in BlendRuntime.calls] == [1 + 2 * 3 + 2 + 2]
    rows = [e for e in engine.tick() if isinstance(e, Progress) and e.stage == "step"]
    assert [(e.id, e.done, e.total) for e in rows] == [("a", 2, 3), ("b", 2, 5), ("c", 2, 7), ("d", 2, 2)]
    assert len(BlendRuntime.calls) == 2


def test_each_result_has_the_bits_of_the_same_request_alone() -> None:
    together = run(*MIXED)
    for one in MIXED:
        end = together[one.id]
        assert isinstance(end, Finished)
        assert end.results == alone(one)


def test_outside_its_guidance_interval_a_request_costs_one_branch() -> None:
    run(request("a", guidance=2.0, low=0.5, steps=3), request("b", steps=3))
    sizes = [size for _, size in BlendRuntime.calls]
    assert sorted(set(sizes)) == [2, 3]
    assert sizes == sorted(sizes, reverse=True)


def test_other_shapes_and_strict_requests_have_calls_of_their_own() -> None:
    engine = still()
    for one in (request("a"), request("b"), request("long", length=7), request("strict", strict=True)):
        engine.admit(one)
    for _ in range(3):
        engine.tick()
    assert sorted(size for _, size in BlendRuntime.calls) == [1, 1, 2]
    assert set(ends(finish(engine))) == {"a", "b", "long", "strict"}


def test_gradient_guidance_runs_alone_beside_others() -> None:
    steered = request("s", prompt="steered", seed=3)
    together = run(request("a", steps=3), steered, request("b", seed=2, steps=3))
    assert [size for _, size in BlendRuntime.calls].count(2) == 3
    assert isinstance(together["s"], Finished)
    assert together["s"].results == alone(steered)


def test_a_network_that_cannot_take_a_mixed_batch_is_called_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def single(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise ZeroDivisionError("one time for the whole batch, please")
        return blend.analytic(x, t, c)

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(single))
    wanted = [request("a", steps=3), request("b", steps=5, seed=2)]
    together = run(*wanted)
    failed = [size for _, size in BlendRuntime.calls if size > 1]
    assert len(failed) == 1, "it was tried once, and not again"
    for one in wanted:
        assert isinstance(together[one.id], Finished)
        assert together[one.id].results == alone(one)


# --- time to first step -----------------------------------------------------------------------------------------------


def first_row(engine: Engine, name: str) -> int:
    """Ticks until the request's first row."""
    for tick in range(1, 50):
        for event in engine.tick():
            if isinstance(event, Progress) and (event.id, event.stage, event.done) == (name, "step", 1):
                return tick
    raise AssertionError("no first row")


@pytest.mark.parametrize("others", [{}, {"strict": True}, {"length": 9}, {"prompt": "steered"}], ids=str)
def test_a_request_starts_within_two_ticks_whatever_else_is_in_flight(others: dict[str, Any]) -> None:
    engine = still()
    for number in range(10):
        engine.admit(request(f"old-{number}", steps=50, seed=number, **others))
    engine.admit(request("first"))
    assert first_row(engine, "first") <= 3, "two, and one for the load"
    engine.admit(request("late", seed=3))
    engine.admit(request("strict", seed=4, strict=True))
    assert first_row(engine, "strict") <= 2
    assert len(engine.requests) >= 10, "nobody had to finish first"


def test_a_model_being_loaded_keeps_nobody_waiting_for_the_one_after() -> None:
    engine = still()
    engine.admit(request("a", steps=50))
    assert first_row(engine, "a") == 3
    engine.admit(request("b", model="blend-2"))
    assert first_row(engine, "b") == 3


# --- one that fails ---------------------------------------------------------------------------------------------------

TROUBLE = {
    "nan": ({"prompt": "nan", "steps": 20}, SamplingError),
    "raises": ({"value": RAISES}, ZeroDivisionError),
    "raises with guidance": ({"value": RAISES, "guidance": 2.0, "count": 2}, ZeroDivisionError),
    "shape": ({"value": BAD_SHAPE}, RuntimeError),
    "shape of the estimate": ({"value": BAD_SHAPE, "guidance": 2.0}, RuntimeError),
    "start": ({"prompt": "start"}, ZeroDivisionError),
    "branches": ({"prompt": "branches"}, ZeroDivisionError),
    "decode": ({"prompt": "decode"}, ZeroDivisionError),
    "state": ({"state": b"no state"}, InvalidInput),
}


@pytest.mark.parametrize(("values", "error"), TROUBLE.values(), ids=TROUBLE.keys())
def test_a_request_that_fails_ends_alone_with_its_reason(values: dict[str, Any], error: type[Exception]) -> None:
    neighbours = [request("a", steps=22, guidance=2.0, seed=5), request("b", steps=6, sampler="ddpm", count=2)]
    together = run(neighbours[0], request("guilty", **values), neighbours[1])
    assert isinstance(together["guilty"], Failed)
    assert isinstance(together["guilty"].error, error)
    for one in neighbours:
        end = together[one.id]
        assert isinstance(end, Finished)
        assert end.results == alone(one)


def test_bad_parameters_never_enter() -> None:
    engine = still()
    with pytest.raises(InvalidInput, match="sampler"):
        engine.admit(request("a", sampler="magic"))
    with pytest.raises(InvalidInput, match="model"):
        engine.admit(request("a", model="nothing"))
    assert engine.requests == ()
    engine.admit(request("a"))
    with pytest.raises(Conflict, match="request a is in flight already"):
        engine.admit(request("a"))


def test_a_hanging_plugin_is_named_before_it_is_called() -> None:
    told: list[Doing] = []
    clock = Clock()
    engine = Engine(report=told.append, clock=clock)
    seen: list[Doing | None] = []

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        seen.append(engine.doing)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlendRuntime, "network", staticmethod(network))
        engine.admit(request("a", steps=1))
        engine.admit(request("b", steps=1))
        clock.now = 7.0
        finish(engine)
    assert seen == [Doing("step", ("a", "b"), 7.0)]
    assert [(d.stage, d.requests) for d in told] == [
        ("load", ("a",)),
        ("encode", ("a",)),
        ("encode", ("b",)),
        ("step", ("a", "b")),
        ("decode", ("a",)),
        ("decode", ("b",)),
        ("write", ("a",)),
        ("write", ("b",)),
    ]
    assert engine.doing is None


# --- cancel, pause, save, resume --------------------------------------------------------------------------------------


def test_a_cancelled_request_is_heard_of_no_more() -> None:
    engine = still(capacity=1)
    engine.admit(request("a"))
    engine.admit(request("in line"))
    engine.tick()
    engine.cancel("a")
    engine.cancel("in line")
    engine.cancel("never heard of")
    assert engine.requests == ()
    assert engine.tick() == []
    assert not engine.active


def test_a_paused_request_stands_still_and_goes_on_to_the_same_bits() -> None:
    engine = still()
    engine.admit(request("a", sampler="dpmpp_2m", steps=6))
    first_row(engine, "a")
    engine.pause("a")
    assert not engine.active
    assert engine.tick() == []
    assert engine.save("a") is not None
    with pytest.raises(NotFound, match="not in flight"):
        engine.pause("a")
    engine.resume("a")
    with pytest.raises(NotFound, match="not paused"):
        engine.resume("a")
    end = ends(finish(engine))["a"]
    assert isinstance(end, Finished)
    assert end.results == alone(request("a", sampler="dpmpp_2m", steps=6))


def test_a_saved_request_goes_on_in_another_engine_from_its_row() -> None:
    one = request("a", sampler="ddpm", steps=6, guidance=2.0)
    engine = still()
    engine.admit(one)
    assert engine.save("a") is None
    for _ in range(3):
        first_row(engine, "a") if engine.save("a") is None else engine.tick()
    state = engine.save("a")
    assert state is not None
    other = still()
    other.admit(request("a", sampler="ddpm", steps=6, guidance=2.0, state=state))
    events = finish(other)
    rows = [e.done for e in events if isinstance(e, Progress) and e.stage == "step"]
    assert rows == [3, 4, 5, 6]
    assert ends(events)["a"].results == alone(one)  # type: ignore[union-attr]


def test_previews_come_at_their_own_pace() -> None:
    clock = Clock()
    engine = Engine(preview_seconds=2.0, clock=clock)
    engine.admit(request("a", steps=9, previews=True))
    engine.admit(request("b", steps=9, seed=2))
    seen = []
    while engine.active:
        seen += [e for e in engine.tick() if isinstance(e, Preview)]
        clock.now += 1.0
    assert [(e.id, e.step) for e in seen] == [("a", step) for step in (3, 5, 7)]


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_the_line_is_fair_between_owners() -> None:
    engine = still(capacity=2)
    for number in range(6):
        engine.admit(request(f"ann-{number}", owner="ann"))
    for number in range(2):
        engine.admit(request(f"bob-{number}", owner="bob"))
    order = [e.id for e in finish(engine) if isinstance(e, Progress) and (e.stage, e.done) == ("load", 0)]
    assert order[:4] == ["ann-0", "bob-0", "ann-1", "bob-1"]
    assert engine.free == 2


def test_priority_goes_first_in_the_line_and_none_is_forgotten() -> None:
    engine = still(capacity=1)
    for name, priority in (("low", -1), ("normal", 0), ("high", 5)):
        engine.admit(request(name, priority=priority))
    order = [e.id for e in finish(engine) if isinstance(e, Finished)]
    assert order == ["high", "normal", "low"]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A network on a machine of its own time: a second a sample, whatever the batch."""
    clock = Clock()

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        clock.now += len(x)
        return blend.analytic(x, t, c)

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(network))
    return clock


def rows_of(engine: Engine, ticks: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in range(ticks):
        for event in engine.tick():
            if isinstance(event, Progress) and event.stage == "step" and event.done:
                counts[event.id] = counts.get(event.id, 0) + 1
    return counts


def test_turns_alternate_between_owners_where_a_tick_has_no_time_for_all(slow: Clock) -> None:
    engine = Engine(tick_seconds=1.5, clock=slow)
    for number in range(9):
        engine.admit(request(f"ann-{number}", owner="ann", strict=True, steps=500))
    engine.admit(request("bob", owner="bob", strict=True, steps=500))
    rows_of(engine, 20)
    counts = rows_of(engine, 90)
    ann = [count for name, count in counts.items() if name.startswith("ann")]
    assert counts["bob"] >= 80
    assert min(ann) >= max(ann) - 1 > 0


def test_requests_that_cannot_share_take_turns(slow: Clock) -> None:
    engine = Engine(tick_seconds=0.5, clock=slow)
    for number in range(5):
        engine.admit(request(f"r-{number}", length=4 + number, steps=500))
    rows_of(engine, 10)
    assert set(rows_of(engine, 50).values()) == {10}


def test_a_tick_keeps_its_time(slow: Clock) -> None:
    engine = Engine(tick_seconds=4.0, clock=slow)
    for number in range(20):
        engine.admit(request(f"r-{number}", seed=number, steps=900))
    rows_of(engine, 300)
    began = slow.now
    counts = rows_of(engine, 30)
    assert (slow.now - began) / 30 <= 5.0
    assert max(counts.values()) - min(counts.values()) <= 1


def test_priority_and_deadlines_trade_throughput_for_latency(slow: Clock) -> None:
    engine = Engine(tick_seconds=100.0, clock=slow)
    for number in range(8):
        engine.admit(request(f"r-{number}", seed=number, steps=400))
    rows_of(engine, 10)
    engine.admit(request("urgent", steps=400, priority=1))
    engine.tick()
    counts = rows_of(engine, 40)
    assert counts["urgent"] == 40
    assert counts["r-0"] == 10, "one tick of four is everybody's"
    engine.cancel("urgent")
    now = slow.now
    engine.admit(request("dated", steps=40, deadline=now + 170.0))
    finished = None
    while finished is None:
        finished = ends(engine.tick()).get("dated")
    assert slow.now < now + 170.0, "in the others' pace it would take 360 seconds"


# --- batch size -------------------------------------------------------------------------------------------------------


def test_a_network_that_loses_by_batching_ends_up_called_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        clock.now += 0.001 * len(x) ** 1.5
        return blend.analytic(x, t, c)

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(network))
    engine = Engine(clock=clock)
    for number in range(8):
        engine.admit(request(f"r-{number}", seed=number, steps=1000))
    rows_of(engine, 250)
    BlendRuntime.calls.clear()
    rows_of(engine, 100)
    sizes = [size for _, size in BlendRuntime.calls]
    assert sizes.count(1) > 0.95 * len(sizes)


def test_a_network_that_gains_is_called_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        clock.now += 0.01 + 0.0001 * len(x)
        return blend.analytic(x, t, c)

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(network))
    engine = Engine(clock=clock)
    for number in range(8):
        engine.admit(request(f"r-{number}", seed=number, steps=1000))
    rows_of(engine, 100)
    BlendRuntime.calls.clear()
    rows_of(engine, 100)
    assert [size for _, size in BlendRuntime.calls].count(8) >= 99, "but for one that looks again"


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples fit into memory at once."""

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        if len(x) > 3 or (c == 99.0).any():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return blend.analytic(x, t, c)

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(network))


@pytest.mark.usefixtures("small")
def test_out_of_memory_splits_the_batch_and_is_remembered() -> None:
    engine = still()
    wanted = [request(f"r-{n}", seed=n, steps=4, count=1 + n) for n in range(5)]
    for one in wanted:
        engine.admit(one)
    together = ends(finish(engine))
    tried = [size for _, size in BlendRuntime.calls]
    assert max(tried[3:]) <= max(3, 5), "a batch too large is tried once"
    assert sum(size > 3 for size in tried) <= 6
    for one in wanted:
        end = together[one.id]
        assert isinstance(end, Finished)
        assert end.results == alone(one)


@pytest.mark.usefixtures("small")
def test_what_does_not_fit_alone_fails_alone_with_what_it_needs() -> None:
    together = run(request("a", seed=2), request("huge", value=99.0), request("b", count=3))
    assert isinstance(together["huge"], Failed)
    assert isinstance(together["huge"].error, OutOfMemory)
    assert "one sample on cpu needs" in str(together["huge"].error)
    assert isinstance(together["a"], Finished)
    assert isinstance(together["b"], Finished)


def test_idle_models_make_room_for_a_sample_before_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = still()
    engine.admit(request("a"))
    finish(engine)

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        if len(engine.loaded) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(network))
    engine.admit(request("b", model="blend-2"))
    events = finish(engine)
    assert isinstance(ends(events)["b"], Finished)
    assert [e.model for e in events if isinstance(e, Unloaded)] == ["blend-1"]


def loaded(engine: Engine) -> list[str]:
    return [name.partition("@")[0] for name in engine.loaded]


def test_the_model_used_longest_ago_goes_and_pinned_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlendRuntime, "weights", 100)  # 400 bytes
    clock = Clock()
    engine = Engine(memory=1000, clock=clock)
    monkeypatch.setattr(BlendRuntime, "loading", staticmethod(lambda: setattr(clock, "now", clock.now + 3.0)))
    engine.pin("blend-1")
    events = []
    for number, model in enumerate(("blend-1", "blend-2", "blend-3", "blend-3")):
        engine.admit(request(f"r-{number}", model=model))
        events += finish(engine)
    assert loaded(engine) == ["blend-1", "blend-3"]
    assert [e for e in events if isinstance(e, Loaded | Unloaded)] == [
        Loaded("r-0", "blend-1", 400, 3.0),
        Loaded("r-1", "blend-2", 400, 3.0),
        Unloaded("r-2", "blend-2", 400, 0.0),
        Loaded("r-2", "blend-3", 400, 3.0),
    ]
    engine.unpin("blend-1")
    engine.admit(request("again", model="blend-2"))
    finish(engine)
    assert loaded(engine) == ["blend-3", "blend-2"]


def test_a_model_in_use_stays_and_whoever_waits_for_room_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlendRuntime, "weights", 100)
    engine = still(memory=500)
    engine.admit(request("a", steps=5))
    engine.tick()
    engine.tick()
    engine.admit(request("b", model="blend-2", steps=2))
    engine.tick()
    for number in range(3):  # these would keep the first model busy for ever
        engine.tick()
        engine.admit(request(f"a-{number}", steps=5))
    order = [e.id for e in finish(engine) if isinstance(e, Finished)]
    assert order[:2] == ["a", "b"]
    assert sorted(order) == ["a", "a-0", "a-1", "a-2", "b"]
    assert len(BlendRuntime.loads) == 3


def test_a_model_larger_than_memory_fails_with_what_it_needs() -> None:
    end = run(request("a"), memory=100)["a"]
    assert isinstance(end, Failed)
    assert "model blend-1 on cpu needs 0.0 MiB, and there is" in str(end.error)


def test_memory_is_flat_over_many_requests() -> None:
    engine = still(capacity=8)

    def many(count: int) -> None:
        for number in range(count):
            engine.admit(request(f"r-{number}", steps=2, seed=number))
        finish(engine, 100_000)
        BlendRuntime.calls.clear()

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        many(500)
        many(500)
        before = traced()
        many(500)
        grown = traced() - before
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000, "a request that stayed would take some 10 kB; there were 500"


# --- in this process --------------------------------------------------------------------------------------------------


def test_a_list_shares_calls_and_gives_what_each_alone_gives() -> None:
    generate = perrin.load("blend", device="cpu")
    progress: list[tuple[int, int, str]] = []
    three = generate(
        [{"value": 0.5}, {"value": 0.2, "steps": 6}, {"prompt": "x"}],
        seed=3,
        progress=lambda *args: progress.append(args),
    )
    assert max(size for _, size in BlendRuntime.calls) == 3
    assert [r.parameters.steps for r in three] == [4, 6, 4]
    assert progress == [(1, 3, "list"), (2, 3, "list"), (3, 3, "list")]
    assert three[1].files[0].data == generate(value=0.2, steps=6, seed=3).files[0].data
    assert generate([]) == []
    with pytest.raises(InvalidInput, match="steps"):
        generate([{}, {"steps": 0}])


def test_threads_share_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = perrin.load("blend", device="cpu")
    started = threading.Event()

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        started.set()
        if max(size for _, size in BlendRuntime.calls) < 2:
            time.sleep(0.01)  # the first caller's 500 rows then last for seconds
        return blend.analytic(x, t, c)

    monkeypatch.setattr(BlendRuntime, "network", staticmethod(network))
    made: dict[int, Any] = {}

    def call(seed: int) -> None:
        made[seed] = generate(value=0.3, seed=seed, steps=500)

    threads = [threading.Thread(target=call, args=[seed]) for seed in range(3)]
    threads[0].start()
    assert started.wait(60)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert max(size for _, size in BlendRuntime.calls) >= 2
    for seed, results in made.items():
        assert results.files[0].data == generate(value=0.3, seed=seed, steps=500).files[0].data


def test_what_interrupts_a_plugin_reaches_its_caller_and_nobody_else() -> None:
    generate = perrin.load("blend", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        generate("interrupt")
    with pytest.raises(ZeroDivisionError):
        generate(["", "start"])
    assert len(generate("fine")) == 1


def test_a_driver_ends_its_thread_with_itself() -> None:
    generate = perrin.load("blend", device="cpu")
    generate("")
    thread = generate._driver._thread
    assert thread is not None
    assert thread.is_alive()
    del generate
    thread.join(30)
    assert not thread.is_alive()
