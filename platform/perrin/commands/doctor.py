"""``perrin doctor`` and ``perrin version``: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perrin.settings import Settings

__all__ = ["doctor", "version"]


@dataclass(frozen=True)
class Finding:
    """What one check found. ``fine`` is None where nothing is wrong but something is absent."""

    what: str
    fine: bool | None
    found: str
    todo: str = ""


def version() -> None:
    """Print the versions of Perrin, Python and torch."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    from perrin import __version__

    print(f"perrin {__version__}")
    print(f"python {platform.python_version()}")
    try:
        print(f"torch {of('torch')}")
    except PackageNotFoundError:
        print("torch not installed")


def doctor() -> None:
    """Check this installation; exit code 1 if something is wrong."""
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from perrin.settings import Settings

    settings = Settings()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    wrong = False
    for check in CHECKS:
        for finding in check(settings):
            wrong = wrong or finding.fine is False
            mark = {True: "[green]ok[/]", False: "[red]wrong[/]", None: "[dim]none[/]"}[finding.fine]
            table.add_row(mark, finding.what, escape(finding.found), escape(finding.todo))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    if wrong:
        raise typer.Exit(1)


def _python(settings: Settings) -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch(settings: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", None, "not installed", "to run models here: pip install 'perrin[run]'")
        return
    try:
        torch = importlib.import_module("torch")  # by name: this command works without it
    except Exception as error:  # a broken installation may raise anything
        yield Finding("torch", False, f"does not import: {error}", "install it again: pip install 'perrin[run]'")
        return
    yield Finding("torch", True, torch.__version__)
    devices = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    yield Finding("devices", True, ", ".join([*devices, f"cpu with {os.cpu_count()} cores"]))


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home_path
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    writable = os.access(there, os.W_OK)
    todo = "" if writable else "make it writable, or set PERRIN_HOME to another folder"
    yield Finding("PERRIN_HOME", writable, f"{home}{'' if home.exists() else ' (not made yet)'}", todo)
    free = shutil.disk_usage(there).free // 2**20
    enough = free >= settings.min_free_mb
    yield Finding("free disk", enough, f"{free} MiB", "" if enough else f"make room for {settings.min_free_mb} MiB")


def _store(settings: Settings) -> Iterator[Finding]:
    import socket
    import sqlite3
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(settings.store_url)
    todo = "see `perrin db --help`; `perrin up` makes backups under PERRIN_HOME"
    if parts.scheme.startswith("sqlite"):
        path = unquote(parts.path)[1:]
        if not os.path.exists(path):  # noqa: PTH110 - a URL's path, read as SQLite reads it
            yield Finding("store", None, "not made yet", "`perrin up` makes it")
            return
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            yield Finding("store", False, f"{path}: {error}", todo)
            return
        yield Finding(
            "store", answer == "ok", path if answer == "ok" else f"{path}: {answer}", "" if answer == "ok" else todo
        )
        return
    where = f"{parts.hostname}:{parts.port or 5432}"
    try:
        socket.create_connection((parts.hostname or "", parts.port or 5432), timeout=3).close()
    except OSError as error:
        yield Finding("store", False, f"{where}: {error}", "start the database, or correct PERRIN_DATABASE_URL")
        return
    yield Finding("store", True, f"{where} answers")


def _gateway(settings: Settings) -> Iterator[Finding]:
    from perrin.client import Client
    from perrin.errors import PerrinError, Unreachable

    if settings.url is None and not settings.run_file.exists():
        yield Finding("gateway", None, "not running here", "start the platform: perrin up")
        return
    try:
        with Client(timeout=3) as client:
            health = client.health()
    except Unreachable as error:
        yield Finding("gateway", False, error.message, "start the platform: perrin up")
        return
    except PerrinError as error:
        yield Finding("gateway", False, error.message, "check PERRIN_URL and PERRIN_API_KEY")
        return
    found = f"{client.url}, version {health.version}, {health.workers} workers, {health.queued} jobs queued"
    todo = "" if health.workers else "start a worker: perrin worker"
    yield Finding("gateway", health.ok and health.workers > 0, found, todo)


def _models(settings: Settings) -> Iterator[Finding]:
    from perrin.errors import PerrinError
    from perrin.models import models, verify

    try:
        known = models(settings)
    except (PerrinError, ImportError, AttributeError) as error:
        yield Finding("models", False, str(error), "install the model or the package again")
        return
    for card in known.values():
        try:
            verify(card)
        except PerrinError as error:
            yield Finding("model", False, error.message, "install it again, or `perrin models remove` it")
        else:
            yield Finding("model", True, f"{card.name}: {len(card.files)} files as their card says")
        if card.upscaler and card.upscaler not in known:
            found = f"{card.upscaler}, which makes results of {card.name} larger, is not installed"
            yield Finding("model", None, found, f"put {card.upscaler} into the folder `models` under PERRIN_HOME")
    if not known:
        yield Finding("models", None, "none", "put one into the folder `models` under PERRIN_HOME")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_python, _torch, _home, _store, _gateway, _models)
