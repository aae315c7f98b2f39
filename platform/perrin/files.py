"""Output files: where a path leads, whether it can be written, and writing that leaves a whole file or none.

A request's files are named after one path that a person gave: ``apple.png`` for one file, ``apple-0.png``,
``apple-1.png`` ... for several. Everything that can be wrong with the path is found before any work starts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from perrin.errors import Conflict, InvalidInput, StorageError

__all__ = ["check_free", "check_target", "check_writable", "numbered", "write_files"]


def check_target(path: str | Path, format: str) -> tuple[Path, bool]:
    """Where files of ``format`` are to go, and whether that is a folder: one that exists, or a name without ending.

    Raises:
        InvalidInput: the ending is of another format, or it cannot be written.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        check_writable([target / f"0.{format}"])
        return target, True
    if str(path).endswith("/") or not target.suffix:
        return target, True
    if target.suffix.lower() != f".{format}":
        raise InvalidInput("out", str(path), f"a folder, or a name that ends in .{format}, the job's format")
    check_writable([target])
    return target, False


def numbered(path: Path, count: int) -> tuple[Path, ...]:
    """``path`` itself for one file; with ``-0``, ``-1`` ... before the ending for more."""
    if count == 1:
        return (path,)
    return tuple(path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(count))


def check_writable(paths: Sequence[Path], field: str = "out") -> None:
    """Check that every one of ``paths`` can be written.

    Raises:
        InvalidInput: naming ``field`` and what is in the way.
    """
    for path in paths:
        folder = path.parent
        if path.is_dir():
            raise InvalidInput(field, str(path), "a file name, this is a folder")
        if not folder.is_dir():
            raise InvalidInput(field, str(path), f"a file in a folder that exists: there is no folder {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidInput(field, str(path), f"a file in a folder you may write to: {folder} is not")
        if path.exists() and not os.access(path, os.W_OK):
            raise InvalidInput(field, str(path), "a file you may overwrite: this one is write-protected")


def check_free(folder: Path, least_mb: int) -> None:
    """Check that at least ``least_mb`` MiB are free on the disk of ``folder``.

    Raises:
        Conflict: with what is free.
    """
    free = shutil.disk_usage(folder).free // 2**20
    if free < least_mb:
        raise Conflict(
            f"disk nearly full: {free} MiB free on the disk of {folder.resolve()}, wanted at least {least_mb} MiB; "
            "make room, or lower PERRIN_MIN_FREE_MB"
        )


def write_files(contents: Mapping[Path, bytes]) -> tuple[Path, ...]:
    """Write every file, or none: all bytes are on the disk under other names before the first file gets its own.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    parts: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            parts[path] = Path(name)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise StorageError(f"{error.filename or next(iter(contents))} cannot be written: {error.strerror}") from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return tuple(contents)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
