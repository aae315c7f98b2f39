"""The ``filesystem://`` broker, with messages that appear whole.

kombu's own writes a message into the file that its reader looks for, so a reader may find it empty, which ends its
worker's loop ("Unrecoverable error"). Here a message is written beside its place and renamed.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

__all__ = ["Transport", "install"]


class Channel(filesystem.Channel):  # type: ignore[misc]
    """A channel whose `_put` is atomic."""

    def _put(self, queue: str, payload: Any, **_options: Any) -> None:
        place = Path(self.data_folder_out) / f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        part = place.with_name(place.name + ".part")
        try:
            part.write_text(dumps(payload))
            part.replace(place)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ChannelError(f"cannot add {place.name} to {place.parent}: {error.strerror}") from error


class Transport(filesystem.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = Channel


def install() -> None:
    """Make it what ``filesystem://`` means in this process."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:{Transport.__name__}"
