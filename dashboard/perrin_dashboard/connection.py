"""The gateway, as the pages ask for it: one client for all of them, and what seldom changes kept for a while."""

from __future__ import annotations

import streamlit as st

from perrin.client import Artifact, Client
from perrin.wire import ArtifactRecord, ModalityInfo, ModelInfo

__all__ = ["artifact_bytes", "client", "modalities", "modality", "models", "worker_name"]


@st.cache_resource(show_spinner=False)
def client() -> Client:
    """The client; its address and key come from the environment or from the platform on this machine.

    Raises:
        Unreachable: no address is known.
    """
    return Client(timeout=10)


@st.cache_data(ttl=30, show_spinner=False)
def modalities() -> list[ModalityInfo]:
    """What the platform can make."""
    return client().modalities()


@st.cache_data(ttl=30, show_spinner=False)
def models() -> list[ModelInfo]:
    """The models it has."""
    return client().models()


@st.cache_data(max_entries=300, show_spinner=False)
def artifact_bytes(sha256: str, _record: ArtifactRecord) -> bytes:
    """The bytes of a result, checked; kept by their hash."""
    return Artifact(client(), _record).bytes()


def modality(name: str) -> ModalityInfo | None:
    """The modality called ``name``, if the platform still has it."""
    return next((info for info in modalities() if info.name == name), None)


@st.cache_data(ttl=10, show_spinner=False)
def _worker_names() -> dict[str, str]:
    return {worker.id: f"{worker.host} ({worker.device})" for worker in client().workers()}


def worker_name(worker_id: str) -> str:
    """What a person calls a worker: its machine and device; the start of its id when it is no longer known."""
    return _worker_names().get(worker_id, worker_id[:8])
