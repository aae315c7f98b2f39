"""Results by view kind. A kind that is not known here, or a file that is not of its kind, can be downloaded."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

import streamlit as st

from perrin.errors import PerrinError
from perrin.wire import ArtifactRecord
from perrin_dashboard.connection import artifact_bytes

__all__ = ["VIEWS", "show_artifact"]

ROWS = 1000
"""A table shows at most this many rows; the file holds all."""


def show_artifact(record: ArtifactRecord, view: str, caption: str) -> bytes | None:
    """Draw a result; its bytes, for a download, or None where it cannot be had.

    Args:
        record: the result.
        view: how its modality wants it shown.
        caption: what it shows, for those who cannot see it.
    """
    try:
        data = artifact_bytes(record.sha256, record)
    except PerrinError as error:
        st.warning(error.message, icon=":material/broken_image:")
        return None
    VIEWS.get(view, _file)(record, data, caption)
    return data


def _image(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type.startswith("image/"):
        st.image(data, width="stretch", alt=caption)
    else:
        _file(record, data, caption)


def _table(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type not in {"text/csv", "text/tab-separated-values"}:
        _file(record, data, caption)
        return
    separator = "," if record.media_type == "text/csv" else "\t"
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8", "replace")), delimiter=separator))
    st.dataframe(rows[:ROWS], hide_index=True)


def _file(record: ArtifactRecord, data: bytes, caption: str) -> None:
    size = f"{record.size / 1024:.0f} KiB" if record.size >= 1024 else f"{record.size} bytes"
    st.markdown(f":material/draft: **{record.name}**")
    st.caption(f"{record.media_type} · {size}")


VIEWS: Mapping[str, Callable[[ArtifactRecord, bytes, str], None]] = {"image": _image, "table": _table, "file": _file}
"""What draws each view kind."""
