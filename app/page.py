"""What every page has around its own: the banner, the way out of an empty folder, the filters."""

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from lcbench import ranking, store, tables
from lcbench.app import charts, data, url

MISSING = "–"
"""Shown for what was not measured."""


class View(NamedTuple):
    """The part of the results that a page shows: one board."""

    results: data.Results
    suite: str
    device_kind: str
    board: pd.DataFrame
    """Rows of `Results.board` that pass the filters."""
    task: str | None = None
    """The only task that the board counts, if the reader asked for one."""
    context: int | None = None
    """The only context that it counts."""

    @property
    def styles(self) -> dict[str, charts.Style]:
        """How each entry of the board is drawn, in the board's order."""
        return {label: self.results.styles[label] for label in self.board["label"]}

    def part(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a frame with `suite`, `device_kind` and `label` that the view shows."""
        return frame[
            (frame["suite"] == self.suite)
            & (frame["device_kind"] == self.device_kind)
            & frame["label"].isin(self.board["label"])
        ]


MIMES = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet"}
INK = {"light": "#000000", "dark": "#ffffff"}


def ink() -> str:
    """The colour of text in the reader's theme."""
    return INK.get(st.context.theme.type or "light", INK["light"])


def code(text: object) -> str:
    """Text from a file as a Markdown code span, inside of which nothing is markup."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def open_page(title: str, summary: str) -> View:
    """Draw a page's head and filters; where there is nothing to show, say so and end the run."""
    results = open_results(title, summary)
    view = _choose(results)
    if view.suite in ranking.drafts(results.rows):
        st.warning(tables.DRAFT_NOTE, icon=":material/draft:")
    if view.board.empty:
        st.info("No method matches the filters.", icon=":material/search_off:")
        st.stop()
    return view


def open_results(title: str, summary: str) -> data.Results:
    """Draw the head of a page that shows all there is; where that is nothing, end the run."""
    results = data.load_results()
    st.header(title, anchor=False)
    st.caption(summary)
    _show_problems(results.problems)
    if results.board.empty:
        _show_empty()
        st.stop()
    return results


def table(frame: Any, **rest: Any) -> None:
    """A table in which missing values read alike everywhere."""
    st.dataframe(frame, hide_index=True, placeholder=MISSING, **rest)


def download(title: str, content: Callable[[], bytes], file_name: str, told: str) -> None:
    """A button that saves `content()`, made when it is clicked.

    What is made beforehand is forgotten by the server as soon as a page is drawn anew, and a
    browser that was just about to ask for it, as it does for each, is told that nothing is there.
    """
    st.download_button(
        title,
        content,
        file_name=file_name,
        mime=MIMES[PurePath(file_name).suffix],
        icon=":material/download:",
        on_click="ignore",
        help=told,
    )


def csv(frame: pd.DataFrame) -> bytes:
    """A frame's lines, its index left out."""
    return frame.to_csv(index=False).encode()


def choose_task(view: View) -> str | None:
    """The only task that counts, by the reader's choice; None for all."""
    rows = view.results.rows
    tasks = sorted(rows.loc[rows["suite"] == view.suite, "task"].dropna().unique())
    chosen = url.choose("Task", ["all", *tasks], "only", width=150)
    return None if chosen == "all" else chosen


def choose_context(
    view: View, label: str = "Context", key: str = "at", *, kinds: Sequence[str] = store.KINDS
) -> int | None:
    """The only context that counts, by the reader's choice; None for all.

    Args:
        view: What the page shows.
        label: What stands above the choice.
        key: Of the widget, and in the URL.
        kinds: Of the rows whose contexts are offered.
    """
    rows = view.results.rows
    shown = (rows["suite"] == view.suite) & (rows["device_kind"] == view.device_kind)
    contexts = rows.loc[shown & rows["kind"].isin(kinds), "context"].dropna().unique()
    offered = sorted(int(context) for context in contexts)
    chosen: str | int = url.choose(label, ["all", *offered], key, _context_title, width=130)
    return None if isinstance(chosen, str) else chosen


def _context_title(context: str | int) -> str:
    return context if isinstance(context, str) else f"{context:,}"


def narrowed(view: View, task: str | None, context: int | None) -> View:
    """The view with a board that counts one task and one context only."""
    board = data.load_board(view.results, view.suite, view.device_kind, task, context)
    board = board[board["label"].isin(view.board["label"])]
    return view._replace(board=board, task=task, context=context)


def _choose(results: data.Results) -> View:
    board = results.board
    newest = results.rows.groupby("suite")["started_at"].max().sort_values(ascending=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        suite = url.choose("Suite", list(newest.index), "suite", width=180)
        devices = list(board.loc[board["suite"] == suite, "device_kind"].unique())
        device = url.choose("Device", devices, "device", width=130)
        part = board[(board["suite"] == suite) & (board["device_kind"] == device)]
        wanted = url.search(
            "Find a method", "q", type="search", placeholder="name or config", width=240
        )
        part = _choose_kinds(part)
    if wanted:
        names = part["method"] + " " + part["label"] + " " + part["config"]
        part = part[names.str.contains(wanted, case=False, regex=False)]
    return View(results, suite, device, part)


def _choose_kinds(board: pd.DataFrame) -> pd.DataFrame:
    """The rows of a board whose family, dtype and tier the reader wants: all, unless some."""
    active = sum(key in st.query_params for key in ("family", "dtype", "tier"))
    title = f"Filters ({active})" if active else "Filters"
    kept = pd.Series(True, index=board.index)
    with st.popover(title, icon=":material/filter_list:"):
        for key, label in (("family", "Family"), ("dtype", "Dtype"), ("tier", "Tier")):
            # An entry with rows of both tiers belongs to either.
            own = [set(str(value or "").split(", ")) for value in board[key]]
            offered = sorted(set().union(*own) - {""})
            chosen = set(url.choose_some(label, offered, key, placeholder="all", width=320))
            if chosen:
                kept &= pd.Series([bool(chosen & values) for values in own], board.index)
    return board[kept]


def _show_problems(problems: Sequence[tuple[str, str]]) -> None:
    if not problems:
        return
    count = "1 file could" if len(problems) == 1 else f"{len(problems)} files could"
    shown = [f"- {code(where)}: {code(reason)}" for where, reason in problems[:5]]
    if len(problems) > 5:
        shown.append(f"- and {len(problems) - 5} more")
    st.warning(
        "\n".join([f"{count} not be read; the rest is shown.", "", *shown]),
        icon=":material/broken_image:",
    )


def _show_empty() -> None:
    st.subheader("No results yet", anchor=False)
    st.markdown("Measure every method on this machine, in about a minute or thoroughly:")
    st.code("lcbench run --method all --suite smoke\nlcbench run --method all", language="shell")
    st.markdown("Then reload this page. It reads these folders:")
    st.code("\n".join(str(path) for path in data.results_paths()), language=None)
