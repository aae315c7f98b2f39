"""``perrin models``: list, show, card, verify, calibrate, measure, add, remove."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perrin.errors import InvalidInput

if TYPE_CHECKING:
    from perrin.models import ModelCard

__all__ = ["models"]

Name = Annotated[str, typer.Argument(help="The model's name.", metavar="NAME", show_default=False)]

DTYPES = ("float32", "float16", "bfloat16")

models = typer.Typer(help="The models of this installation.", add_completion=False, rich_markup_mode="rich")


@models.callback(invoke_without_command=True)
def _bare(ctx: typer.Context) -> None:
    """The models of this installation; with no subcommand, the list of them."""
    if ctx.invoked_subcommand is None:
        list_()


@models.command("list")
def list_() -> None:
    """List the models."""
    from rich.console import Console
    from rich.table import Table

    from perrin.models import broken
    from perrin.models import models as known

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "modality", "for", "title", "licence", "folder"):
        table.add_column(column, overflow="fold")
    for card in known().values():
        table.add_row(card.name, card.modality, card.base, card.title, card.licence, str(card.folder))
    Console().print(table if table.row_count else "no models; `perrin models add FOLDER` adds one")
    for error in broken():
        typer.echo(f"left out: {error.message}", err=True)


@models.command()
def show(name: Name) -> None:
    """Show what a model is, how it is sampled, and where it came from."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from perrin.models import find

    card = find(name)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "name": card.name,
        "modality": card.modality,
        "adapter for": card.base,
        "title": card.title,
        "summary": card.summary,
        "licence": card.licence,
        "sha256": card.sha256,
        "sizes": ", ".join(_size(side) for side in card.sizes),
        "upscaler": _upscaler(card),
        "defaults": ", ".join(f"{key} {value}" for key, value in card.preferred.items()),
        "metrics": ", ".join(f"{key} {value}" for key, value in card.metrics.items()),
        "made from": "\n".join(f"{a.source} ({a.licence})" for a in card.attributions),
        "recipe": card.recipe,
        "networks": "\n".join(_costs(card)),
        "folder": str(card.folder),
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, escape(value))
    Console().print(table)


def _size(sides: tuple[int, ...]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else "x".join(map(str, sides))


def _upscaler(card: ModelCard) -> str:
    """The model that makes this one's results larger, with what it weighs."""
    from perrin.models import upscaler_of

    found = upscaler_of(card)
    if found is None:
        return f"{card.upscaler}, which is not installed" if card.upscaler else ""
    size = sum((found.folder / name).stat().st_size for name in found.files)
    return f"{found.name}: {size / 2**20:.1f} MiB, {found.licence}"


def _costs(card: ModelCard) -> Iterator[str]:
    """A line for each network: parameters, and work and memory of one evaluation; nothing where torch is missing."""
    from perrin import plugins

    try:
        costs = plugins.load_object("perrin.models.costs:costs")(card)  # by name: it needs torch
    except ModuleNotFoundError:
        return
    for name, cost in costs.items():
        line = f"{name}: {cost.parameters / 1e6:.1f} M parameters"
        if cost.flops:
            line += f", {cost.flops / 1e9:.2f} GFLOP and {cost.inference_bytes / 2**20:.0f} MiB an evaluation"
            line += f", {cost.training_bytes / 2**20:.0f} MiB kept in training"
        yield line


@models.command()
def card(name: Name) -> None:
    """Print a model's card as it stands."""
    from perrin.models import find
    from perrin.models.card import CARD

    print((find(name).folder / CARD).read_text(), end="")


@models.command()
def verify(name: Annotated[str | None, typer.Argument(help="Default: all.", metavar="[NAME]")] = None) -> None:
    """Check every file of a model, or of all models, against its card."""
    from perrin.models import find
    from perrin.models import models as known
    from perrin.models import verify as check

    for found in [find(name)] if name else known().values():
        check(found)
        print(f"{found.name}: {len(found.files)} files as their card says")


@models.command()
def calibrate(
    name: Name,
    steps: Annotated[int, typer.Option(min=2, max=64, help="Evaluations of the plan.")] = 8,
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line. Default: the modality's examples.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=64, help="Seeds to fit on, for each prompt.")] = 4,
    reference: Annotated[int, typer.Option(min=50, max=1000, help="Steps that are taken for exact.")] = 200,
    iterations: Annotated[int, typer.Option(min=1, max=100, help="Iterations of the fit.")] = 12,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")] = None,
) -> None:
    """Fit a sampler plan to a model and keep it beside the weights, where it becomes the model's default."""
    from rich.console import Console
    from rich.table import Table

    from perrin import plugins
    from perrin.errors import NotInstalled
    from perrin.local import device_of
    from perrin.models import find
    from perrin.models.plans import CALIBRATED, save_plan
    from perrin.progress import StageBar
    from perrin.settings import Settings

    card = find(name)
    settings = Settings()
    requests = [dict(example) for example in plugins.modality(card.modality).examples]
    if prompts is not None:
        try:
            lines = [line.strip() for line in prompts.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput("prompts", str(prompts), f"a text file that can be read ({error})") from None
        requests = [{"prompt": line} for line in lines if line and not line.startswith("#")]
    if not os.access(card.folder, os.W_OK):
        raise InvalidInput("name", name, f"a model whose folder can be written; {card.folder} cannot")
    try:
        run = plugins.load_object("perrin.models.calibrate:calibrate")  # by name: it needs torch
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "perrin":
            raise
        raise NotInstalled("calibrating a model", "run") from error
    with StageBar() as bar:
        made = run(
            card, steps, requests, seeds=seeds, reference=reference, iterations=iterations,
            device=device_of(device or settings.device, settings.threads), progress=bar.update,
        )  # fmt: skip
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("sampler and steps")
    table.add_column(f"distance from {made.reference} steps, other seeds", justify="right")
    for label, distance in made.errors.items():
        table.add_row(f"{label} {steps}" if label == CALIBRATED else label, f"{distance:.4f}")
    Console().print(table)
    save_plan(card, made.plan)
    print(f"{name} is calibrated for {steps} steps; that is its default now")


@models.command()
def measure(
    name: Name,
    size: Annotated[str | None, typer.Option(help="Of a picture. Default: the model's own.", metavar="SIZE")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Keep the precision of the weights.")] = False,
) -> None:
    """Find out how a checkpoint runs fastest on this machine, and remember it."""
    from perrin import plugins
    from perrin.errors import NotInstalled
    from perrin.local import device_of
    from perrin.models import find
    from perrin.settings import Settings

    card, settings = find(name), Settings()
    if card.checkpoint is None or card.base or not card.sizes:
        raise InvalidInput("name", name, "a checkpoint that draws pictures; the others have nothing to choose")
    width, _, height = (size or "").lower().partition("x")
    try:
        sides = (int(width), int(height or width)) if size else card.sizes[0]
    except ValueError:
        raise InvalidInput("size", size, "a side, or width and height, such as 768x512") from None
    try:
        run = plugins.load_object("perrin.models.checkpoints.pipelines:measured")
    except ModuleNotFoundError as error:
        raise NotInstalled("measuring a checkpoint", "hub") from error
    found = run(card, device_of(device or settings.device, settings.threads), sides, exact, print)
    chosen = [
        found.dtype,
        *(word for word in ("channels_last", "xformers", "compiled", "tiled") if getattr(found, word)),
    ]
    print(f"{name} runs as {', '.join(chosen).replace('_', ' ')} from now on")


@models.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with card.yaml; or somebody else's checkpoint: a folder as diffusers saves it, a file of "
            "weights, or its id on the hub, owner/name.",
            metavar="PATH",
            show_default=False,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What to call it. Default: as its file or folder is called.")] = None,
    accept: Annotated[bool, typer.Option("--accept-licence", help="Accept the licence that is shown.")] = False,
    licence: Annotated[str | None, typer.Option(help="Its licence, where no file of it says.")] = None,
    base: Annotated[str | None, typer.Option(help="Of an adapter: the model that it belongs to.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of a control network: edge, scribble, depth or picture.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Where a part lies that it lacks.", metavar="PART=FOLDER")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Of its weights, such as fp16.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Store its numbers as float32, float16 or bfloat16.")] = None,
) -> None:
    """Copy a model into PERRIN_HOME, its files checked: one of Perrin's, or somebody else's checkpoint."""
    from perrin.errors import ModelError
    from perrin.models import add as copy
    from perrin.models.adopting import adopt
    from perrin.models.card import CARD
    from perrin.models.checkpoints import Options, look, take_in
    from perrin.models.checkpoints.hub import fetched, is_hub_id
    from perrin.settings import Settings

    path = Path(source).expanduser()
    settings = Settings()
    if (path / CARD).is_file():
        _added(copy(path, settings))
        return
    if is_hub_id(source):
        path, name = fetched(source, variant), name or source.rpartition("/")[2]
    if not path.exists():
        raise ModelError(f"{source} is not there: wanted a folder, a file of weights, or an id such as owner/name")

    def agree(title: str, size: int, licence: str) -> None:
        print(f"{path.name}: {title}, {size / 2**20:.1f} MiB. Licence: {licence}")
        if not (accept or (sys.stdin.isatty() and typer.confirm("Do you accept it?"))):
            raise InvalidInput(
                "accept-licence", False, "--accept-licence, which says that you may use it under its licence"
            )

    added = adopt(path, agree, name, licence, settings) if path.is_file() else None
    if added is None:
        options = Options(name, variant, _one_of("dtype", dtype, DTYPES), _parts(part), base, kind, licence)
        found = look(path, options, settings)
        agree(found.title, found.bytes, found.card.licence)
        added = take_in(found, settings)
    _added(added)


def _added(card: ModelCard) -> None:
    print(f"{card.name} added: {len(card.files)} files in {card.folder}")


def _one_of(field: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is not None and value not in known:
        raise InvalidInput(field, value, f"one of {', '.join(known)}")
    return value


def _parts(given: list[str] | None) -> dict[str, Path]:
    found = {}
    for text in given or ():
        name, _, where = text.partition("=")
        folder = Path(where).expanduser()
        if not where or not folder.exists():
            raise InvalidInput("part", text, "PART=FOLDER, a part's name and where it lies, such as vae=my-vae")
        found[name] = folder
    return found


@models.command()
def remove(name: Name) -> None:
    """Delete a model that was added to PERRIN_HOME."""
    from perrin.models import remove as delete

    delete(name)
    print(f"{name} removed")
