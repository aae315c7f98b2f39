"""Results by view kind. A kind that is not known here, or a file that is not of its kind, can be downloaded."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

import streamlit as st

from perrin.errors import PerrinError
from perrin.wire import ArtifactRecord
from perrin_dashboard import shapes
from perrin_dashboard.connection import artifact_bytes
from perrin_dashboard.molecules import figure, read_sdf
from perrin_dashboard.sounds import spectrogram

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


def _video(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type.startswith("video/"):
        st.video(data, format=record.media_type, loop=True, autoplay=True, muted=True, width="stretch")
    else:
        _image(record, data, caption)  # a GIF or WebP moves by itself


def _table(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type not in {"text/csv", "text/tab-separated-values"}:
        _file(record, data, caption)
        return
    separator = "," if record.media_type == "text/csv" else "\t"
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8", "replace")), delimiter=separator))
    st.dataframe(rows[:ROWS], hide_index=True)


def _molecule(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type.startswith("image/") or record.media_type == "text/csv":
        (_image if record.media_type.startswith("image/") else _table)(record, data, caption)
        return
    found = read_sdf(data) if record.media_type == "chemical/x-mdl-sdfile" else []
    if not found:
        _file(record, data, caption)
        return
    number = 1
    if len(found) > 1:
        number = st.slider("Molecule", 1, len(found), 1, key=f"molecule-{record.id}")
    solid = found[number - 1]
    st.plotly_chart(figure(solid), width="stretch", config={"displayModeBar": False}, key=f"solid-{record.id}-{number}")
    said = {name: value for name, value in solid.fields.items() if name not in ("perrin", "number")}
    st.caption(" · ".join(f"{name} {value}" for name, value in said.items()) or solid.name)


def _shape(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type.startswith("image/"):
        _image(record, data, caption)  # a GIF turns by itself
        return
    found = shapes.read_shape(data, record.media_type)
    if found is None:
        _file(record, data, caption)
        return
    drawn = shapes.figure(found)
    st.plotly_chart(drawn, width="stretch", config={"displayModeBar": False}, key=f"shape-{record.id}")
    st.caption(f"{found.said} · drag to turn")


def _audio(record: ArtifactRecord, data: bytes, caption: str) -> None:
    if record.media_type.startswith("image/"):
        _image(record, data, caption)
        return
    st.audio(data, format=record.media_type)
    picture = spectrogram(data)
    if picture is None:
        _file(record, data, caption)
    else:
        st.image(picture, width="stretch", alt=f"Spectrogram of {caption}")


def _file(record: ArtifactRecord, data: bytes, caption: str) -> None:
    size = f"{record.size / 1024:.0f} KiB" if record.size >= 1024 else f"{record.size} bytes"
    st.markdown(f":material/draft: **{record.name}**")
    st.caption(f"{record.media_type} · {size}")


VIEWS: Mapping[str, Callable[[ArtifactRecord, bytes, str], None]] = {
    "audio": _audio,
    "image": _image,
    "video": _video,
    "mesh": _shape,
    "molecule": _molecule,
    "points": _shape,
    "table": _table,
    "file": _file,
}
"""What draws each view kind."""
