"""A gateway over real HTTP on a store of its own; the tests play the worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.gateway import create_app
from perrin_orchestration.prepare import prepare_store
from perrin_orchestration.sockets import address, bind
from perrin_orchestration.store import Job, JobStore, Move, NewArtifact


@dataclass
class Served:
    """A gateway, and the store beneath it, where the tests play the worker."""

    url: str
    settings: Settings
    store: JobStore
    artifacts: ArtifactStore

    def client(self, user: str) -> httpx.Client:
        self.store.people.allow(self.store.people.add(user), f"key-of-{user}")
        headers = {"Authorization": f"Bearer key-of-{user}"}
        return httpx.Client(base_url=self.url + "/v1", headers=headers, trust_env=False, timeout=60)

    def run(self, finish: bool = True) -> Job:
        (job,) = self.store.claim("o", "w", ["dots"], 1, 30.0)
        self.store.start(job.lease)
        self.store.progress([Move(job.lease, "step", 1, 2, 30.0)])
        if finish:
            self.store.committing(job.lease)
            staged = self.artifacts.stage(job.lease, 0, b"P5 picture")
            self.artifacts.publish(staged)
            files = [NewArtifact('0";\r\nx.pgm', "image/x-portable-graymap", 10, staged.sha256, (0,), {"seed": 3})]
            self.store.commit(job.lease, files)
        return job


def serve(settings: Settings) -> Iterator[Served]:
    prepare_store(settings)
    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        store = JobStore(settings.store_url)
        yield Served(address(listener), settings, store, ArtifactStore(settings.artifacts_path))
        server.should_exit = True
        thread.join(60)
        store.close()


def submit(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"modality": "dots", "parameters": parameters})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"kind", "field", "message"}
    assert "\n" not in body["error"]["message"]
    assert "Traceback" not in answer.text
    return dict(body["error"])
