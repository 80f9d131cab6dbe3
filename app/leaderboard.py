"""The leaderboard app: what `streamlit run` is given, and the pages there are.

`lcbench app` starts it. A page is a module of this folder with a function `show`, and one line of
`PAGES`.
"""

import importlib
from typing import NamedTuple

import streamlit as st

# Streamlit would fetch an icon of its own for the browser's tab from the network.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="#0077bb">'
    '<rect x="2" y="12" width="5" height="10" rx="1"/>'
    '<rect x="9.5" y="3" width="5" height="19" rx="1"/>'
    '<rect x="17" y="8" width="5" height="14" rx="1"/></svg>'
)


class Page(NamedTuple):
    """One page: its module, its title, and the name of its icon in Material Symbols."""

    module: str
    title: str
    icon: str

    @property
    def path(self) -> str:
        """What the page has in the URL."""
        return self.module.replace("_", "-")

    def show(self) -> None:
        """Draw it; its module is loaded when it is first asked for."""
        importlib.import_module(f"lcbench.app.{self.module}").show()


# In the order of the navigation; the first opens by itself. (A string below would be drawn on every
# page: Streamlit shows what stands alone in the file it is given.)
PAGES = (
    Page("board", "Board", "leaderboard"),
    Page("trade_off", "Trade-off", "scatter_plot"),
    Page("scaling", "Scaling", "show_chart"),
    Page("tasks", "Tasks", "grid_on"),
    Page("method", "Method", "psychology"),
    Page("compare", "Compare", "balance"),
    Page("runs", "Runs", "history"),
    Page("submit", "Submit", "upload_file"),
)
# Keys of the filters that a reader takes along from page to page.
FILTERS = ("suite", "device", "family", "dtype", "tier", "only", "at", "q")


def link(module: str, label: str | None = None, **state: str) -> None:
    """Draw a link to a page that shows it with such a state; in one step for the back button.

    Args:
        module: The page's module.
        label: What the link says; by default the page's title.
        **state: Of the page's widgets, by key, as the URL has it.
    """
    page = next(page for page in PAGES if page.module == module)
    st.page_link(_navigable(page), label=label, query_params=state)


def main() -> None:
    """Draw the navigation and the page that the reader is on."""
    st.set_page_config(page_title="lcbench", page_icon=ICON, layout="wide", menu_items={})
    shown = st.navigation([_navigable(page) for page in PAGES], position="hidden")
    # Streamlit's own navigation drops the filters: what put them into the URL again would be a
    # step of its own for the back button.
    carried = {key: st.query_params.get_all(key) for key in FILTERS if key in st.query_params}
    with st.container(horizontal=True, gap="small", key="navigation"):
        for page in PAGES:
            st.page_link(_navigable(page), query_params=carried)
    shown.run()


def _navigable(page: Page) -> st.Page:
    return st.Page(
        page.show,
        title=page.title,
        icon=f":material/{page.icon}:",
        url_path=page.path,
        default=page is PAGES[0],
    )


if __name__ == "__main__":
    main()
