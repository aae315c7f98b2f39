"""The gateway's application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from perrin import __version__
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.gateway import answers
from perrin_orchestration.gateway.context import Catalogue, Context, Keys
from perrin_orchestration.gateway.metrics import Metrics, Timing
from perrin_orchestration.gateway.routes import router
from perrin_orchestration.gateway.uploads import PATH as UPLOADS
from perrin_orchestration.gateway.uploads import router as uploads
from perrin_orchestration.store import JobStore, schema
from perrin_orchestration.transport import HintSender, make_app

__all__ = ["create_app"]


def create_app(settings: Settings) -> FastAPI:
    """The gateway of the platform that ``settings`` describe.

    Raises:
        SchemaMismatch: the store is not one for this Perrin.
        Unreachable: the database does not answer.
        StorageError: there is no folder or bucket for the artifacts, or it may not be used.
    """
    store = JobStore(settings.store_url)
    revision = schema.check(store.database)
    artifacts = ArtifactStore(settings.artifacts_path, settings.min_free_mb)
    artifacts.check()
    context = Context(
        settings,
        store,
        artifacts,
        HintSender(make_app(settings), store),
        Catalogue(settings),
        Keys(store.people),
        Metrics(store),
        revision,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        context.hints.start()
        yield
        context.hints.stop()
        store.close()

    app = FastAPI(
        title="Perrin",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.context = context
    answers.install(app)
    app.add_middleware(answers.BodyLimit, apart=UPLOADS)
    app.add_middleware(Timing, metrics=context.metrics)
    app.include_router(router)
    app.include_router(uploads)
    return app
