"""The dashboard's frame: its pages, its looks, what it says while the platform is away. Streamlit runs this file."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from perrin.errors import NotAllowed, PerrinError, Unreachable
from perrin_dashboard import create, gallery, groups, jobs, pools, workers
from perrin_dashboard.connection import client
from perrin_dashboard.navigation import set_pages
from perrin_dashboard.panel import empty

HERE = Path(__file__).parent


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="Perrin", page_icon=str(HERE / "icon.svg"), layout="wide")
    st.logo(str(HERE / "logo.svg"), size="large")
    st.html(HERE / "style.css")
    pages = {
        "create": st.Page(create.page, title="Create", icon=":material/auto_awesome:", url_path="", default=True),
        "jobs": st.Page(jobs.page, title="Jobs", icon=":material/list_alt:", url_path="jobs"),
        "groups": st.Page(groups.page, title="Groups", icon=":material/account_tree:", url_path="groups"),
        "gallery": st.Page(gallery.page, title="Gallery", icon=":material/grid_view:", url_path="gallery"),
        "pools": st.Page(pools.page, title="Pools", icon=":material/water:", url_path="pools"),
        "workers": st.Page(workers.page, title="Workers", icon=":material/memory:", url_path="workers"),
    }
    set_pages(pages)
    page = st.navigation(list(pages.values()), position="top")
    try:
        client().health()
        page.run()
    except Unreachable as error:
        _away(error)
    except NotAllowed:
        st.error(
            "The platform does not accept this dashboard's API key. Start the dashboard again with the right one: "
            "`perrin dashboard --api-key KEY`.",
            icon=":material/key_off:",
        )
    except PerrinError as error:
        st.error(error.message, icon=":material/error:")


def _away(error: Unreachable) -> None:
    empty("The platform is not answering", "This page comes back by itself as soon as it does.", tall=True)
    st.caption(error.message)
    st.fragment(_look_again, run_every=2.0)()


def _look_again() -> None:
    """The first time it is drawn with the page; from then on it only looks whether the platform is back."""
    if not st.session_state.setdefault("_away", False):
        st.session_state["_away"] = True
        return
    try:
        client.clear()
        client().health()
    except PerrinError:
        return
    st.session_state["_away"] = False
    st.rerun()


main()
