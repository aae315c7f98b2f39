"""Hints on every broker: they arrive, they do not pile up, and they arrive again after the broker was away."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from ear import Ear, listen
from platforms import PATIENCE

from perrin_orchestration.transport import HintSender, make_app, queue_name


class NoOutbox:
    def pending_hints(self) -> dict[str, int]:
        return {}

    def hinted(self, pool: str, last: int) -> None:
        raise AssertionError


@pytest.fixture
def app(carrier: Any) -> Iterator[Any]:
    made = make_app(carrier.settings)
    yield made
    made.close()


@pytest.fixture
def pool() -> str:
    """A queue that no other test uses."""
    return f"p{uuid.uuid4().hex[:8]}"


def hear(sender: HintSender, pool: str, ear: Ear) -> float:
    """Seconds until a hint is heard, one being sent each tenth of a second."""
    began = time.monotonic()
    while (heard := ear.wait(0.1)) is None:
        sender.send(pool)
        assert time.monotonic() - began < PATIENCE, "no hint arrived"
    return heard - began


def waiting(app: Any, pool: str) -> int:
    """Messages in the pool's queue."""
    with app.connection_for_read() as connection:
        declared = connection.default_channel.queue_declare(queue=queue_name(pool), durable=True, auto_delete=False)
        return int(declared.message_count)


def test_a_hint_arrives_within_a_moment(carrier: Any, app: Any, pool: str) -> None:
    sender = HintSender(app, NoOutbox())
    with listen(pool, carrier.environment) as ear:
        hear(sender, pool, ear)
        times = []
        for _ in range(20):
            time.sleep(0.01)
            ear.clear()
            began = time.monotonic()
            assert sender.send(pool)
            heard = ear.wait(PATIENCE)
            assert heard is not None
            times.append(heard - began)
        assert sorted(times)[10] < 1.0, "a tenth of a second, and a machine that does other things"


def test_hints_that_nobody_hears_do_not_pile_up(carrier: Any, app: Any, pool: str) -> None:
    sender, other = HintSender(app, NoOutbox()), HintSender(make_app(carrier.settings), NoOutbox())
    count = 5_000

    def hammer() -> None:
        for _ in range(count):
            assert other.send(pool)

    thread = threading.Thread(target=hammer)
    thread.start()
    for _ in range(count):
        assert sender.send(pool)
    thread.join()
    assert 1 <= waiting(app, pool) <= 10
    with listen(pool, carrier.environment) as ear:  # what is left there is no obstacle to those who come later
        for _ in range(3):
            hear(sender, pool, ear)
        end = time.monotonic() + PATIENCE
        while waiting(app, pool) > 1:
            assert time.monotonic() < end, "nobody takes them"
            time.sleep(0.05)


def test_hints_arrive_again_after_the_broker_was_away(carrier: Any, app: Any, pool: str) -> None:
    sender = HintSender(app, NoOutbox())
    with listen(pool, carrier.environment) as ear:
        hear(sender, pool, ear)
        carrier.stop()
        if carrier.server is not None:
            assert not sender.send(pool)
            time.sleep(1.0)
        carrier.start()
        ear.clear()
        hear(sender, pool, ear)


def test_celery_answers_pings_and_questions_and_is_told_to_shut_down(carrier: Any, app: Any, pool: str) -> None:
    with listen(pool, carrier.environment) as ear:
        hear(HintSender(app, NoOutbox()), pool, ear)
        (answer,) = app.control.ping(destination=[ear.name], timeout=PATIENCE, limit=1)
        assert answer == {ear.name: {"ok": "pong"}}
        (queues,) = app.control.inspect([ear.name], timeout=PATIENCE, limit=1).active_queues().values()
        assert {queue["name"] for queue in queues} == {queue_name(pool), f"perrin.worker.{ear.name}"}
        ear.clear()
        app.control.shutdown(destination=[ear.name])
        assert ear.wait(PATIENCE) is not None
        assert ear.last == "shutdown"
