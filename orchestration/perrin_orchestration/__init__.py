"""Jobs: a store that is the truth, workers that claim from it, and a gateway that people reach it through.

::

    store/          job store on SQLAlchemy: the only place that knows SQL
    artifacts       results and sampler states by content, on fsspec
    transport       Celery, carrying hints and nothing else
    supervisor      one per machine: leases, cancels, crashes, telemetry
    engine_process  one per device: claims, runs, saves, commits
    gateway/        HTTP, as `perrin.wire` says
    platform_process, embedded, commands    starting and stopping all of it on one machine

Importing this package, or `perrin_orchestration.commands`, loads none of SQLAlchemy, Celery, FastAPI or torch.
"""
