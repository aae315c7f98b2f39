"""``perrin generate`` and ``perrin submit``: one form for every modality, its options made from its parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from perrin import plugins
from perrin.cli import command_of
from perrin.commands.options import given, with_options
from perrin.errors import InvalidInput, UnknownName, Unreachable
from perrin.fields import read_fields

if TYPE_CHECKING:
    from perrin.modality import Modality

__all__ = ["generate", "submit"]

Out = Annotated[
    str | None, typer.Option("--out", "-o", help="Where to write; the ending chooses the format.", metavar="FILE")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:N, mps or auto.", metavar="DEVICE")]
Wait = Annotated[bool | None, typer.Option("--wait", help="Wait for the result.")]
Where = Annotated[
    str | None,
    typer.Option("--out", "-o", help="Wait, then write the result: a folder, or a file name.", metavar="DIR|FILE"),
]
FormatName = Annotated[str | None, typer.Option("--format", help="File format of the result.", metavar="FORMAT")]
Priority = Annotated[
    int | None, typer.Option("--priority", help="-100 to 100; higher runs earlier.", metavar="INTEGER")
]
Label = Annotated[str | None, typer.Option("--label", help="A note of your own, searchable.", metavar="TEXT")]
RunAfter = Annotated[
    str | None, typer.Option("--run-after", help="Not before: 10m, 2h, 1d from now, or a time.", metavar="TIME")
]
Deadline = Annotated[
    str | None, typer.Option("--deadline", help="It fails if it has not ended by then.", metavar="TIME")
]
Parents = Annotated[
    list[str] | None,
    typer.Option("--parent", help="A job to wait for; PARAMETER takes what it makes.", metavar="ID[:PARAMETER]"),
]
Group = Annotated[str | None, typer.Option("--group", help="Id of the group to add it to.", metavar="ID")]
Key = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="Submitting twice under one key makes one job.", metavar="TEXT"),
]


def _group(names: Callable[[], list[str]], command: Callable[[str], Any], about: str) -> typer.Typer:
    """A group that has a command for every modality, made when it is called."""

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return names()

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return command_of(cmd_name, command(cmd_name))

    holder = typer.Typer(
        cls=Group, help=about, subcommand_metavar="MODALITY [PROMPT]", add_completion=False, rich_markup_mode="rich"
    )

    @holder.callback(invoke_without_command=True)
    def need_modality(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            raise InvalidInput("modality", None, "one of " + (", ".join(names()) or "none installed"))

    return holder


def _local_names() -> list[str]:
    return list(plugins.modalities())


def _generate_command(name: str) -> Callable[..., None]:
    face = plugins.modality(name)
    fields = read_fields(face.schema())

    def run(**values: Any) -> None:
        _generate(face, given(fields, values), values["out_"], values["device_"])

    run.__doc__ = f"{face.summary}\n\nRuns in this process, with no services. Item i uses seed + i."
    return with_options(run, fields, {"out_": Out, "device_": Device})


def _generate(face: Modality, values: dict[str, Any], out: str | None, device: str | None) -> None:
    from perrin.files import check_free, check_writable, numbered
    from perrin.inputs import local_files
    from perrin.local import load
    from perrin.modality import validate
    from perrin.progress import StageBar
    from perrin.settings import Settings

    asked = validate(face, local_files(face.input_schema, values)[0])
    target = Path(out or "").expanduser()
    if not target.suffix:
        raise InvalidInput("out", out, "a file name that ends in " + " or ".join(f".{f.name}" for f in face.formats))
    kind = face.format(target.suffix)
    check_writable(numbered(target, 1 if kind.many else asked.count))
    check_free(target.parent, Settings().min_free_mb)
    with StageBar() as bar:
        results = load(face.name, model=asked.model, device=device)(format=kind.name, progress=bar.update, **values)
    for path in results.save(target):
        print(path)


def _submit_command(name: str) -> Callable[..., None]:
    try:
        face = plugins.modality(name)
        summary, schema = face.summary, face.schema()
    except UnknownName:
        summary, schema = _remote(name)
    fields = read_fields(schema)

    def run(**values: Any) -> None:
        parameters = given(fields, values)
        own = {key[:-1]: value for key, value in values.items() if key.endswith("_")}
        _submit(name, parameters, **own)

    run.__doc__ = (
        f"{summary}\n\nThe job runs on the platform. Prints its id, or with --out the files. Item i uses seed + i."
    )
    own = {"out_": Where, "wait_": Wait, "format_": FormatName, "priority_": Priority, "label_": Label, "key_": Key}
    own |= {"run_after_": RunAfter, "deadline_": Deadline, "parents_": Parents, "group_": Group}
    return with_options(run, fields, own)


def _remote(name: str) -> tuple[str, dict[str, Any]]:
    """Summary and schema of a modality that the platform has and this installation has not."""
    from perrin.client import Client

    local = _local_names()
    try:
        with Client() as client:
            there = {info.name: info for info in client.modalities()}
    except Unreachable:
        there = {}
    if name not in there:
        raise UnknownName("modality", name, "one of " + (", ".join(sorted({*local, *there})) or "none installed"))
    return there[name].summary, there[name].parameters


def _parent(text: str) -> Any:
    from perrin.wire import Parent

    job, _, parameter = text.partition(":")
    return Parent(job=job, parameter=parameter or None)


def _submit(
    modality: str,
    parameters: dict[str, Any],
    out: str | None,
    wait: bool | None,
    format: str | None,
    priority: int | None,
    label: str | None,
    key: str | None,
    run_after: str | None,
    deadline: str | None,
    parents: list[str] | None,
    group: str | None,
) -> None:
    from perrin.client import Client
    from perrin.commands.times import moment
    from perrin.files import check_target

    if out is not None:
        ending = "" if Path(out).is_dir() or out.endswith("/") else Path(out).suffix.lstrip(".").lower()
        format = format or ending or None
        check_target(out, format or "")
    with Client() as client:
        job = client.submit(
            modality,
            format=format,
            priority=priority or 0,
            label=label or "",
            run_after=moment("run-after", run_after),
            deadline=moment("deadline", deadline),
            parents=[_parent(text) for text in parents or ()],
            group=group,
            idempotency_key=key,
            **parameters,
        )
        print(job.id, file=sys.stderr if out else sys.stdout, flush=True)
        if wait or out:
            job.wait(progress=True)
        if out is not None:
            for path in job.save(out):
                print(path)


generate = _group(_local_names, _generate_command, "Make something in this process, with no services at all.")
submit = _group(_local_names, _submit_command, "Submit a job to the platform.")
