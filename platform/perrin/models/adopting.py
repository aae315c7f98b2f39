"""Takes in somebody else's weight file that a plugin knows how to read.

A plugin names such a function under the entry point group ``perrin.weights``. It is called with the file and a folder
that does not exist yet, writes a model there and returns its card, or returns None if the file is none of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from perrin.errors import NotInstalled
from perrin.models.card import ModelCard, write_card
from perrin.models.library import add
from perrin.settings import Settings

__all__ = ["GROUP", "adopt"]

GROUP = "perrin.weights"


def adopt(
    file: Path,
    agree: Callable[[str, int, str], None] = lambda *_: None,
    name: str | None = None,
    licence: str | None = None,
    settings: Settings | None = None,
) -> ModelCard | None:
    """The model that a plugin made of ``file``, copied into PERRIN_HOME; None if no plugin knows it.

    Args:
        file: somebody else's weights.
        agree: called with title, bytes and licence before anything is copied; raises where they are not accepted.
        name, licence: instead of those that the plugin finds.
        settings: where PERRIN_HOME is.

    Raises:
        ModelError: a plugin knows it, and it is broken.
    """
    with tempfile.TemporaryDirectory() as aside:
        for number, point in enumerate(entry_points(group=GROUP)):
            try:
                card = point.load()(file, Path(aside) / str(number))
            except ModuleNotFoundError as error:
                raise NotInstalled("reading weights", "run") from error
            if card is None:
                continue
            instead = {"name": name, "licence": licence}
            card = write_card(card.model_copy(update={k: v for k, v in instead.items() if v}), card.folder)
            agree(card.title, sum((card.folder / part).stat().st_size for part in card.files), card.licence)
            return add(card.folder, settings)
    return None
