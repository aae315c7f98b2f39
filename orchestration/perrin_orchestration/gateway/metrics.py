"""What Prometheus is told: jobs and workers as the store has them at that moment, and the gateway's own requests."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perrin_orchestration.store import JobStore

__all__ = ["Metrics", "Timing"]


class Metrics:
    """A registry of its own, so that two gateways in one process do not meet."""

    def __init__(self, store: JobStore) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Store(store))
        self.requests = Counter(
            "perrin_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "perrin_http_request_seconds", "Seconds until the answer began.", ("route",), registry=self._registry
        )

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)


class _Store(Collector):
    """Asks the store when it is scraped."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing in advance: registering asks the store nothing."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Jobs and workers now."""
        jobs = GaugeMetricFamily("perrin_jobs", "Jobs by state and pool.", labels=("state", "pool"))
        age = GaugeMetricFamily("perrin_oldest_queued_seconds", "Age of the oldest queued job.", labels=("pool",))
        for state, pool, count, oldest in self._store.counts():
            jobs.add_metric((state, pool), count)
            if state == "queued":
                age.add_metric((pool,), max(0.0, time.time() - oldest))
        yield jobs
        yield age
        yield GaugeMetricFamily("perrin_workers", "Workers heard of lately.", value=self._store.workers.live())


class Timing:
    """Counts requests by route, not by path: identifiers never become label values."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(scope["method"], route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counting)
