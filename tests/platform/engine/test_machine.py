"""Any order of arrivals, cancels, pauses, saves and resumes leaves every request with the bits it has alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import blend
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from perrin.engine import Engine, Failed, Finished, Request

VALUES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "steps": st.integers(2, 7),
        "sampler": st.sampled_from(["ddim", "ddpm", "dpmpp_2m", "heun"]),
        "guidance": st.sampled_from([1.0, 2.5]),
        "low": st.sampled_from([0.0, 0.5]),
        "count": st.integers(1, 3),
        "value": st.sampled_from([0.0, 0.4, blend.RAISES]),
        "length": st.sampled_from([4, 5]),
        "model": st.sampled_from(["blend-1", "blend-2"]),
    }
)
ALONE: dict[str, Any] = {}
"""Results by request: each is made alone once."""


def alone(values: dict[str, Any]) -> Any:
    key = repr(sorted(values.items()))
    if key not in ALONE:
        engine = Engine()
        engine.admit(Request("alone", "blend", values, "json"))
        events = []
        while engine.active:
            events += engine.tick()
        ALONE[key] = events[-1].results if isinstance(events[-1], Finished) else None
    return ALONE[key]


class Machine(RuleBasedStateMachine):
    """Two engines: what is saved in one goes on in the other."""

    known = Bundle("known")
    paused = Bundle("paused")

    def __init__(self) -> None:
        super().__init__()
        self.engines = [Engine(capacity=5), Engine(capacity=3)]
        self.asked: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.number = 0

    def name(self) -> str:
        self.number += 1
        return f"r-{self.number}"

    @rule(target=known, values=VALUES, owner=st.sampled_from("ab"), strict=st.booleans(), priority=st.integers(0, 1))
    def admit(self, values: dict[str, Any], owner: str, strict: bool, priority: int) -> str:
        name = self.name()
        self.asked[name] = values
        self.engines[0].admit(Request(name, "blend", values, "json", owner=owner, strict=strict, priority=priority))
        return name

    @rule(engine=st.integers(0, 1), ticks=st.integers(1, 4))
    def tick(self, engine: int, ticks: int) -> None:
        for _ in range(ticks):
            for event in self.engines[engine].tick():
                assert event.id not in self.gone, "heard of after its end"
                if isinstance(event, Finished | Failed):
                    self.gone.add(event.id)
                    wanted = alone(self.asked[event.id])
                    assert (event.results if isinstance(event, Finished) else None) == wanted

    @rule(name=consumes(known))
    def cancel(self, name: str) -> None:
        for engine in self.engines:
            engine.cancel(name)
        self.gone.add(name)

    @rule(target=paused, name=consumes(known))
    def pause(self, name: str) -> Any:
        for engine in self.engines:
            if name in engine._flights:
                engine.pause(name)
                return name
        return multiple()

    @rule(target=known, name=consumes(paused))
    def resume(self, name: str) -> Any:
        for engine in self.engines:
            if name in engine._paused:
                engine.resume(name)
                return name
        return multiple()

    @rule(target=known, name=consumes(known))
    def move(self, name: str) -> Any:
        """Save in one engine, go on in the other under a new name."""
        for here, there in (self.engines, self.engines[::-1]):
            state = here.save(name)
            if state is not None:
                here.cancel(name)
                self.gone.add(name)
                new = self.name()
                self.asked[new] = self.asked[name]
                there.admit(Request(new, "blend", self.asked[new], "json", state=state))
                return new
        return name

    @invariant()
    def at_most_its_capacity_is_in_flight(self) -> None:
        for engine in self.engines:
            assert len(engine._flights) + len(engine._paused) <= engine.capacity

    def teardown(self) -> None:
        for engine in self.engines:
            for name in tuple(engine._paused):
                engine.resume(name)
        for number, engine in enumerate(self.engines):
            for _ in range(500):
                if not engine.active:
                    break
                self.tick(number, 1)
            assert engine.requests == (), "all end"


@pytest.fixture(autouse=True)
def _plugin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as home:
        blend.install(patch, Path(home))
        yield


Machine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMachine = Machine.TestCase
