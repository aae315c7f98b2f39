"""Ways from page to page. A job's id travels in the address, so that a refresh or a bookmark comes back to it."""

from __future__ import annotations

from typing import Any, NoReturn

import streamlit as st

__all__ = ["current_job", "go", "set_pages", "show_job_here"]


def set_pages(pages: dict[str, Any]) -> None:
    """Remember the pages of this run by name."""
    st.session_state["_pages"] = pages


def go(page: str, job: str | None = None) -> NoReturn:
    """Open a page, with a job if one is named."""
    st.switch_page(st.session_state["_pages"][page], query_params={"job": job} if job else None)


def current_job() -> str | None:
    """Id of the job that the address names."""
    return st.query_params.get("job")


def show_job_here(job: str | None) -> None:
    """Name another job in the address of this page."""
    if job is None:
        st.query_params.clear()
    else:
        st.query_params["job"] = job
