"""Archives of package registries, pinned: a file counts as present only when its SHA-256 equals the pin written here.

The ordinary clients do the downloading (`npm pack NAME@VERSION`, `apt-get download NAME=VERSION`), so whatever
registry or mirror they are set up for serves the files; the pin makes the answer the same everywhere.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from perrin.errors import PerrinError

__all__ = ["Source", "extract", "fetch", "sha256_of", "unpacked"]


@dataclass(frozen=True)
class Source:
    """One archive of a package registry.

    Attributes:
        kind: "npm" or "apt".
        package: name in that registry.
        version: exact version.
        sha256: hex digest of the archive.
        members: what is unpacked: path prefixes inside the archive.
    """

    kind: str
    package: str
    version: str
    sha256: str
    members: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the archive and of the unpacked folder in the cache."""
        return f"{self.package.replace('@', '').replace('/', '-')}-{self.version.replace(':', '_')}"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpacked(item: Source, folder: Path) -> Path:
    """The folder of what is wanted of `item`, fetched and unpacked below `folder` where it is not there yet."""
    return extract(item, fetch(item, folder / "downloads"), folder / "unpacked")


def fetch(item: Source, downloads: Path, download: Callable[[Source, Path], Path] | None = None) -> Path:
    """Return the archive of `item` in `downloads`, downloading it where it is not there yet.

    Args:
        item: what to fetch.
        downloads: folder of the archives; created where missing.
        download: `(item, folder) -> file`, by default the registry's own client.

    Raises:
        PerrinError: the client is missing or failed, or the digest is not the pinned one (the file is then removed).
    """
    downloads.mkdir(parents=True, exist_ok=True)
    path = downloads / (item.key + (".tgz" if item.kind == "npm" else ".deb"))
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=downloads) as folder:
            (download or _download)(item, Path(folder)).replace(path)
    found = sha256_of(path)
    if found != item.sha256:
        path.unlink()
        raise PerrinError(
            f"{item.package} {item.version} has SHA-256 {found}, the recipe wants {item.sha256}. "
            "The file was removed; run again, and if it stays so, the registry serves another file than the one this "
            "recipe was made with."
        )
    return path


def _download(item: Source, folder: Path) -> Path:
    if item.kind == "npm":
        command = ["npm", "pack", f"{item.package}@{item.version}", "--silent"]
    else:
        command = ["apt-get", "download", f"{item.package}={item.version}"]
    if shutil.which(command[0]) is None:
        raise PerrinError(
            f"{command[0]} was not found; it is needed to fetch {item.package} {item.version}. "
            "Install it and run again."
        )
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    files = sorted(folder.iterdir())
    if result.returncode != 0 or len(files) != 1:
        raise PerrinError(
            f"`{' '.join(command)}` failed with status {result.returncode}: {result.stderr.strip()[-400:]}"
        )
    return files[0]


def extract(item: Source, archive: Path, folder: Path) -> Path:
    """Unpack the wanted members of `archive` into `folder/<key>` once and return that folder.

    Raises:
        PerrinError: a member points outside the folder, or `dpkg-deb` is missing for an apt source.
    """
    target = folder / item.key
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary) / "files"
        root.mkdir()
        if item.kind == "npm":
            with tarfile.open(archive) as tar:
                tar.extractall(root, members=_wanted(tar, item.members), filter="data")
        else:
            if shutil.which("dpkg-deb") is None:
                raise PerrinError(
                    f"dpkg-deb was not found; it is needed to unpack {item.package}. Install it and run again."
                )
            subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
        root.replace(target)
    return target


def _wanted(tar: tarfile.TarFile, prefixes: tuple[str, ...]) -> Iterable[tarfile.TarInfo]:
    for member in tar:
        if member.isfile() and member.name.startswith(prefixes):
            yield member
