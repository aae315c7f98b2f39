"""A folder, on this machine's disk or a share that several machines mount: write, sync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perrin.errors import StorageError
from perrin_orchestration.artifacts.place import STAGING, Item, Tell, nobody

__all__ = ["Folder"]


class Folder:
    """Keys are paths below ``root``, which is made when it is first written to."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        """Make the folder, if need be, and make sure that it can be written to."""
        with _refusals("cannot be used"):
            self._root.mkdir(parents=True, exist_ok=True)
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, f"{self._root} is write-protected")

    def check_answers(self) -> None:
        """A folder that is gone says so when it is written to."""

    def free(self) -> int | None:
        """Bytes that are left on its disk."""
        at = self._root
        while not at.exists():
            at = at.parent
        stat = os.statvfs(at)
        return stat.f_bavail * stat.f_frsize

    def draft(self, name: str, key: str, data: bytes, *, durable: bool = True, tell: Tell = nobody) -> None:
        """Write and, if it is to last, sync a file in ``staging/``."""
        path = self._root / STAGING / name
        with _refusals("cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())

    def finish(self, name: str, key: str) -> None:
        """Rename it, so that it survives a power cut."""
        target = self._root / key
        with _refusals("cannot be written"):
            self._make(target.parent)
            (self._root / STAGING / name).replace(target)
            _sync(target.parent)

    def drop_drafts(self, start: str) -> None:
        """Remove files from ``staging/``."""
        self.remove([item.key for item in self.page(STAGING + start)])

    def read(self, key: str, tell: Tell = nobody) -> bytes | None:
        """The file's bytes."""
        with _refusals("cannot be read"):
            try:
                return (self._root / key).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, keys: Sequence[str]) -> None:
        """Remove files, and the folder of a job's with its last one."""
        with _refusals("cannot be written"):
            for key in keys:
                (self._root / key).unlink(missing_ok=True)
            for folder in {Path(key).parent for key in keys}:
                if len(folder.parts) > 1:
                    with contextlib.suppress(OSError):  # it is not empty
                        (self._root / folder).rmdir()

    def retire(self, key: str, before: float) -> bool:
        """Move the file aside and look at it there: what was renewed meanwhile is put back."""
        path, aside = self._root / key, self._root / STAGING / f"removed-{uuid.uuid4().hex}"
        try:
            if path.stat().st_mtime >= before:
                return False
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
            if aside.stat().st_mtime >= before:
                aside.replace(path)
                return False
            aside.unlink()
        except OSError:
            return False
        return True

    def put_back(self, key: str) -> None:
        """A file that was retired is gone."""

    def page(self, start: str, after: str = "", limit: int = 1000) -> list[Item]:
        """Files in the order of their names, folder by folder."""
        folder, _, begins = start.rpartition("/")
        found: list[Item] = []
        with _refusals("cannot be read"):
            for path in self._walk(self._root / folder, begins, tuple(after.split("/"))):
                with contextlib.suppress(FileNotFoundError):  # renamed or removed just now
                    found.append(Item(path.relative_to(self._root).as_posix(), path.stat().st_mtime))
                if len(found) == limit:
                    break
        return found

    def _walk(self, folder: Path, begins: str, after: tuple[str, ...]) -> Iterator[Path]:
        try:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        depth = len(folder.relative_to(self._root).parts)
        for name, is_folder in names:
            if not name.startswith(begins):
                continue
            path = folder / name
            parts = path.relative_to(self._root).parts
            if is_folder and parts >= after[: depth + 1]:
                yield from self._walk(path, "", after)
            elif not is_folder and parts > after:
                yield path

    def tidy(self, before: float) -> int:
        """There are none."""
        return 0

    def _make(self, folder: Path) -> None:
        """Make a folder whose name survives a power cut."""
        if folder.exists():
            return
        self._make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[Any]:
    """An operating system's refusal, in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError("the artifact store's disk is full: free some space and submit again") from error
        raise StorageError(f"the artifact store {what}: {error.strerror or error}") from error
