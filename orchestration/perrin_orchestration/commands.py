"""The commands that this package adds to ``perrin``. Importing them loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from perrin.settings import Settings

__all__ = ["db", "down", "gateway", "up", "worker"]

Home = Annotated[
    Path | None, typer.Option(help="Folder that holds everything that persists (PERRIN_HOME).", show_default=False)
]


def _settings(**given: Any) -> Settings:
    from perrin.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def up(
    home: Home = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the gateway (PERRIN_PORT); 0 takes a free one.")
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start the dashboard as well.")] = True,
    dashboard_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the dashboard (PERRIN_DASHBOARD_PORT); 0: a free one.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay here until Ctrl-C, then stop everything.")] = False,
) -> None:
    """Start gateway, worker and dashboard on this machine; `perrin down` stops them."""
    from perrin_orchestration import embedded

    settings = _settings(home=home, port=port, dashboard_port=dashboard_port)
    running = embedded.start(settings, dashboard=dashboard, bound=wait)
    if running.run.dashboard_url:
        typer.echo(f"dashboard  {running.run.dashboard_url}")
    typer.echo(f"gateway    {running.run.url}")
    typer.echo(f"home       {settings.home_path}")
    if not wait:
        typer.echo("stop with  perrin down")
        return
    typer.echo("stop with  Ctrl-C")
    try:
        running.process.wait()
    except KeyboardInterrupt:
        embedded.stop(settings)
    finally:
        running.channel.close()


def down(home: Home = None) -> None:
    """Stop what `perrin up` started. Running jobs are finished or saved, and go on with the next `perrin up`."""
    from perrin_orchestration import embedded

    settings = _settings(home=home)
    typer.echo("stopped" if embedded.stop(settings) else f"nothing runs under {settings.home_path}")


def gateway(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Interface to listen on (PERRIN_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on (PERRIN_PORT); 0 takes a free one.")
    ] = None,
) -> None:
    """Run the HTTP gateway in this process."""
    from perrin_orchestration.gateway.serve import serve

    serve(_settings(home=home, host=host, port=port))


def worker(
    home: Home = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU, whatever else is there.")] = False,
    gpus: Annotated[
        str | None, typer.Option(help="`all`, or numbers such as 0,1: one engine process each.", show_default=False)
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(help="Pool to work for (PERRIN_POOLS); may be given again. Default: every modality here."),
    ] = None,
) -> None:
    """Run a worker in this process: it claims jobs from the store and runs them."""
    from importlib.metadata import entry_points

    from perrin_orchestration import supervisor, telemetry
    from perrin_orchestration.pools import check_pools, pools_for

    settings = _settings(home=home)
    known = sorted({entry.name for entry in entry_points(group="perrin.modalities")})
    named = pool or [name.strip() for name in settings.pools.split(",") if name.strip()]
    check_pools(named, known)
    on = supervisor.devices(settings, cpu=cpu, gpus=gpus)
    supervisor.run(settings, on, tuple(named) or pools_for(known, telemetry.device_memory(on)))


db = typer.Typer(help="Look after the job store.", no_args_is_help=True)


@db.command("upgrade")
def _upgrade(
    home: Home = None,
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="A PostgreSQL store has been backed up with pg_dump.")
    ] = False,
) -> None:
    """Bring the job store to this Perrin's revision. A SQLite store is backed up first."""
    from perrin_orchestration.prepare import prepare_store
    from perrin_orchestration.runfile import make_home
    from perrin_orchestration.store import schema

    settings = _settings(home=home)
    make_home(settings)
    copy = prepare_store(settings, backed_up=backed_up)
    if copy is not None:
        typer.echo(f"backed up to {copy}")
    typer.echo(f"the job store is at revision {schema.newest()}")


@db.command("backup")
def _backup(
    file: Annotated[Path | None, typer.Argument(help="Where to; under home/backups if left out.")] = None,
    home: Home = None,
) -> None:
    """Copy a SQLite job store while it is in use. PostgreSQL has pg_dump for this."""
    from perrin_orchestration.store import schema
    from perrin_orchestration.store.database import Database

    settings = _settings(home=home)
    database = Database(settings.store_url)
    target = file or settings.home_path / "backups" / schema.backup_name(database)
    typer.echo(f"backed up to {schema.backup(database, target)}")


@db.command("restore")
def _restore(file: Annotated[Path, typer.Argument(help="What `perrin db backup` wrote.")], home: Home = None) -> None:
    """Put a backup in the place of a SQLite job store, and queue again what was held. Nothing may be running."""
    from perrin.errors import Conflict
    from perrin_orchestration.runfile import is_running
    from perrin_orchestration.store import schema
    from perrin_orchestration.store.database import Database

    settings = _settings(home=home)
    if is_running(settings):
        raise Conflict(f"Perrin runs on {settings.home_path}: `perrin down` first")
    queued = schema.restore(Database(settings.store_url), file)
    typer.echo(f"restored from {file}; {queued} jobs that were being worked on are queued again")


@db.command("settle")
def _settle(home: Home = None) -> None:
    """Queue again every job that somebody holds. After pg_restore, before any worker is started."""
    from perrin.errors import Conflict
    from perrin_orchestration.store import JobStore, schema

    store = JobStore(_settings(home=home).store_url)
    schema.check(store.database)
    if live := store.workers.live():
        raise Conflict(f"{live} workers have been seen on this store a moment ago: stop them, wait, and try again")
    typer.echo(f"{len(store.let_go('restored from a backup'))} jobs that were being worked on are queued again")


@db.command("clean")
def _clean(home: Home = None) -> None:
    """Delete jobs that ended longer ago than PERRIN_KEEP_DAYS, and files that belong to no job."""
    from perrin_orchestration.artifacts import ArtifactStore
    from perrin_orchestration.retention import Sweeper, clean
    from perrin_orchestration.store import JobStore, schema

    settings = _settings(home=home)
    store, artifacts = JobStore(settings.store_url), ArtifactStore(settings.artifacts_path)
    schema.check(store.database)
    artifacts.check()
    jobs = 0
    while some := clean(store, artifacts, settings):
        jobs += some
    files = Sweeper(store, artifacts).all()
    typer.echo(f"deleted {jobs} jobs, and {files} files that belonged to none")


@db.command("key")
def _key(
    name: Annotated[str, typer.Argument(help="A user, made if there is none of this name.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="Lets the user pause, drain and resume pools as well.")
    ] = False,
    home: Home = None,
) -> None:
    """Make an API key for a user and print it. It is shown this once: the store has only its hash."""
    from perrin_orchestration.store import JobStore, schema
    from perrin_orchestration.store.people import new_api_key

    store = JobStore(_settings(home=home).store_url)
    schema.check(store.database)
    key = new_api_key()
    store.people.allow(store.people.add(name, operator=operator), key, "perrin db key")
    typer.echo(key)


@db.command("share")
def _share(
    name: Annotated[str | None, typer.Argument(help="A user.")] = None,
    share: Annotated[float | None, typer.Argument(help="2: twice the GPU-seconds of a user with share 1.")] = None,
    home: Home = None,
) -> None:
    """Show what each user has had of the GPUs, or set a user's share of them."""
    from perrin_orchestration.store import JobStore, schema

    store = JobStore(_settings(home=home).store_url)
    schema.check(store.database)
    if name is not None and share is not None:
        store.people.share(name, share)
    for account in store.people.accounts():
        if name in (None, account.user):
            typer.echo(f"{account.user}  share {account.share:g}  {account.used * account.share:.1f} GPU-seconds")
