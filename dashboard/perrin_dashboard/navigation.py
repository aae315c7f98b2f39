"""Ways from page to page. The id of a job or group travels in the address, so that a refresh or a bookmark finds it."""

from __future__ import annotations

from typing import Any, NoReturn

import streamlit as st

__all__ = ["current_group", "current_job", "go", "set_pages", "show_group_here", "show_job_here"]


def set_pages(pages: dict[str, Any]) -> None:
    """Remember the pages of this run by name."""
    st.session_state["_pages"] = pages


def go(page: str, job: str | None = None, group: str | None = None) -> NoReturn:
    """Open a page, with a job or a group if one is named."""
    named = {name: value for name, value in (("job", job), ("group", group)) if value}
    st.switch_page(st.session_state["_pages"][page], query_params=named or None)


def current_job() -> str | None:
    """Id of the job that the address names."""
    return st.query_params.get("job")


def show_job_here(job: str | None) -> None:
    """Name another job in the address of this page."""
    if job is None:
        st.query_params.clear()
    else:
        st.query_params["job"] = job


def current_group() -> str | None:
    """Id of the group that the address names."""
    return st.query_params.get("group")


def show_group_here(group: str | None) -> None:
    """Name another group in the address of this page."""
    if group is None:
        st.query_params.clear()
    else:
        st.query_params["group"] = group
