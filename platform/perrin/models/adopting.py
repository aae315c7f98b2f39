"""Takes in somebody else's weight file that a plugin knows how to read.

A plugin names such a function under the entry point group ``perrin.weights``. It is called with the file and a folder
that does not exist yet, writes a model there and returns its card, or returns None if the file is none of its own.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import entry_points
from pathlib import Path

from perrin.errors import ModelError, NotInstalled
from perrin.models.card import ModelCard
from perrin.models.library import add
from perrin.settings import Settings

__all__ = ["GROUP", "adopt"]

GROUP = "perrin.weights"


def adopt(file: Path, settings: Settings | None = None) -> ModelCard:
    """The model that a plugin made of ``file``, copied into PERRIN_HOME.

    Raises:
        ModelError: no plugin knows it, or it is broken.
    """
    with tempfile.TemporaryDirectory() as aside:
        for number, point in enumerate(entry_points(group=GROUP)):
            try:
                card = point.load()(file, Path(aside) / str(number))
            except ModuleNotFoundError as error:
                raise NotInstalled("reading weights", "run") from error
            if card is not None:
                return add(card.folder, settings)
    raise ModelError(f"{file.name} is no weight file that an installed modality knows how to read")
