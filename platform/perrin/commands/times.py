"""Times as people write them: from now (``90s``, ``10m``, ``2h``, ``1d``), or of a clock (``2030-05-01T12:00``)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from perrin.errors import InvalidInput

__all__ = ["moment"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(field: str, text: str | None) -> datetime | None:
    """The time that ``text`` means; None for None. A time without a zone is this machine's.

    Raises:
        InvalidInput: it means none.
    """
    if text is None:
        return None
    if found := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])", text.strip()):
        return datetime.now(UTC) + timedelta(seconds=float(found[1]) * UNITS[found[2]])
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        raise InvalidInput(field, text, "90s, 10m, 2h or 1d from now, or a time such as 2030-05-01T12:00") from None
