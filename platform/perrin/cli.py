"""The ``perrin`` command.

Subcommands are found by name and imported when they are called: those of this package in `perrin.commands`, those of
other packages by the entry point group ``perrin.commands``. Whatever goes wrong on purpose ends as one line,
``perrin: message``, with the exit code of its class in `perrin.errors`; PERRIN_DEBUG=1 shows where it was raised.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from perrin import plugins
from perrin.errors import InvalidInput, PerrinError

__all__ = ["app", "command_of", "main"]

PANELS = {
    "Make something": ("generate", "submit"),
    "Look after jobs": ("jobs", "job", "cancel", "retry", "group", "pool", "workers"),
    "Run the platform": ("up", "down", "gateway", "worker", "dashboard", "db"),
    "Models": ("models", "train", "inspect"),
    "This installation": ("doctor", "version"),
}
"""The order of the help page. Commands that other packages add come after these."""

OWN = {
    "generate": "perrin.commands.make:generate",
    "submit": "perrin.commands.make:submit",
    "jobs": "perrin.commands.jobs:jobs",
    "job": "perrin.commands.jobs:job",
    "cancel": "perrin.commands.jobs:cancel",
    "retry": "perrin.commands.jobs:retry",
    "group": "perrin.commands.groups:group",
    "pool": "perrin.commands.pools:pool",
    "workers": "perrin.commands.jobs:workers",
    "models": "perrin.commands.models:models",
    "train": "perrin.commands.train:train",
    "inspect": "perrin.commands.inspect:inspect",
    "doctor": "perrin.commands.doctor:doctor",
    "version": "perrin.commands.doctor:version",
}


def command_of(name: str, target: Any) -> Any:
    """The command that a function with typer's annotations, or a `typer.Typer`, stands for."""
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    else:
        holder = typer.Typer(add_completion=False, rich_markup_mode="rich")
        holder.command(name)(target)
        command = typer.main.get_command(holder)
    command.name = name
    return command


class _InterruptError(PerrinError):
    """Somebody pressed Ctrl-C."""

    exit_code = 130


class _Commands(TyperGroup):
    """Imports a subcommand when it is asked for."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _InterruptError(str(error) or "interrupted") from error

    def list_commands(self, ctx: Any) -> list[str]:
        known = [name for names in PANELS.values() for name in names]
        others = plugins.commands()
        return [name for name in known if name in OWN or name in others] + sorted(set(others) - set(known))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            path = OWN.get(cmd_name)
            entry = plugins.commands().get(cmd_name) if path is None else None
            if path is None and entry is None:
                return None
            try:
                target = plugins.load_object(path) if path else entry.load() if entry else None
            except (ImportError, AttributeError) as error:
                target = _broken(cmd_name, error)
            command = command_of(cmd_name, target)
            command.rich_help_panel = next((title for title, names in PANELS.items() if cmd_name in names), "More")
            self.commands[cmd_name] = command
        return self.commands[cmd_name]


def _broken(name: str, error: Exception) -> Any:
    """Stands in for a command that cannot be imported, so that the others still work."""

    def command() -> None:
        raise PerrinError(f"`perrin {name}` cannot be loaded: {error}") from error

    command.__doc__ = f"Not available: {error}."
    return command


app = typer.Typer(cls=_Commands, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    """Generate images, video, audio, 3D shapes and molecules with diffusion models, on your own machines."""
    if version:
        from perrin import __version__

        print(__version__)
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code."""
    try:
        result = typer.main.get_command(app).main(
            list(sys.argv[1:] if args is None else args), prog_name="perrin", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except Exception as error:
        if os.environ.get("PERRIN_DEBUG", "0") not in {"", "0"}:
            raise
        message, code = _explained(error)
        print(f"perrin: {' '.join(message.split())}", file=sys.stderr)
        return code


def _explained(error: Exception) -> tuple[str, int]:
    """What went wrong in one line, and the exit code."""
    if isinstance(error, PerrinError):
        return error.message, error.exit_code
    if hasattr(error, "format_message"):  # the parser's own errors
        message = str(error.format_message()).rstrip(".")
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "perrin"
        return f"{message[:1].lower()}{message[1:]}; `{where} --help` lists what there is", 2
    if type(error).__name__ == "ValidationError" and getattr(error, "title", "") == "Settings":
        first = error.errors(include_url=False)[0]  # type: ignore[attr-defined]
        setting = "PERRIN_" + str(first["loc"][0]).upper()
        return InvalidInput(setting, first["input"], first["msg"].lower()).message, 2
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error), 1
    return f"internal error, {type(error).__name__}: {error} (PERRIN_DEBUG=1 shows where)", 1
