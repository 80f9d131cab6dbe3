"""The Board page: one row a method and config, the scores behind it, and what failed."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from lcbench import ranking
from lcbench.app.charts import KIND_TITLES, METRIC_UNITS, Style
from lcbench.app.page import MISSING, View, choose, open_page, table
from lcbench.app.results import load_comparable, load_scores

DEFAULT_COLUMNS = (
    *("quality", "coverage", "effective_context", "prefill_speed", "train_speed"),
    *("decode_speed", "memory", "state_bytes_per_token", "num_params", "failed", "pareto"),
)
STANDING = ("suite", "device_kind", "method", "config")
"""Columns that the filters and the method's label stand for."""
BY_LAYER = "pareto-layer"
HELP = {
    "pareto": "1: no method is better in quality, prefill speed and training memory at once.",
    "quality": "Normalised score: 0 is the task's floor, 1 its ceiling. Mean over tasks and "
    "contexts; what failed counts 0.",
    "coverage": "Share of the planned tasks, contexts and seeds that were measured.",
    "effective_context": "Longest context up to which every task keeps 85 % of its "
    "trained-context score; 0 where one never rose above its floor.",
    "train_speed": "Vanilla's time over the method's; above 1 is faster.",
    "prefill_speed": "Vanilla's time over the method's; above 1 is faster.",
    "decode_speed": "Vanilla's time over the method's; above 1 is faster.",
    "memory": "Peak of a training step over vanilla's.",
    "state_bytes_per_token": "Bytes that decoding keeps, a token of context.",
    "failed": "Measurements that ended without a value; listed below the board.",
}


def show() -> None:
    """Draw the page."""
    view = open_page(
        "Leaderboard",
        "How far back each method sees, and what a token of that costs. Sorted by Pareto layer "
        "of quality, prefill speed and training memory, then quality: nothing is weighted.",
    )
    columns = {column.name: column for column in ranking.board_columns()}
    offered = [name for name in columns if name not in STANDING]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sort = choose(
            "Sort by",
            [BY_LAYER, *offered],
            "sort",
            lambda name: "Pareto layer, quality" if name == BY_LAYER else columns[name].title,
            width=240,
        )
        reverse = st.toggle("Worst first", key="reverse", bind="query-params")
        chosen = _choose_columns(columns, offered)
    shown = sort_board(view.board, None if sort == BY_LAYER else columns[sort], reverse=reverse)
    table(
        board_table(shown, [columns[name] for name in chosen], view.results.styles),
        column_config=_column_config([columns[name] for name in chosen]),
        height="content",
        alt="Leaderboard",
    )
    _download(shown, view)
    _show_scores(view)
    _show_failures(view)


def sort_board(
    board: pd.DataFrame, column: ranking.BoardColumn | None, *, reverse: bool = False
) -> pd.DataFrame:
    """A board by one column, best first, or as it is ranked; what was not measured comes last."""
    if column is None:
        return board[::-1] if reverse else board
    ascending = column.higher_is_better is False
    return board.sort_values(column.name, ascending=ascending != reverse, kind="stable")


def board_table(
    board: pd.DataFrame, columns: Sequence[ranking.BoardColumn], styles: dict[str, Style]
) -> Styler:
    """A board as it is shown: titles with units, as many digits as its columns say."""
    shown = pd.DataFrame({" ": [styles[label].glyph for label in board["label"]]})
    shown["Method"] = board["label"].to_numpy()
    formats: dict[Any, Any] = {}
    for column in columns:
        title = column_title(column)
        shown[title] = board[column.name].to_numpy()
        formats[title] = f"{{:,.{column.digits or 0}f}}"
        if column.name == "quality" and board["quality_low"].notna().any():
            shown["95 % interval"] = [
                MISSING if pd.isna(low) else f"{low:.3f} to {high:.3f}"
                for low, high in zip(board["quality_low"], board["quality_high"], strict=True)
            ]
    colors = [f"color: {styles[label].color}" for label in board["label"]]
    return shown.style.format(formats, na_rep=MISSING).apply(lambda _: colors, subset=[" "])


def column_title(column: ranking.BoardColumn) -> str:
    """A column's title with its unit."""
    return f"{column.title} ({column.unit})" if column.unit else column.title


def scores_table(scores: pd.DataFrame, board: pd.DataFrame) -> Styler:
    """Scores in each task's own unit, a column for each task and context, floors last."""
    places = scores.drop_duplicates([*ranking.TASK, "context"])
    places = places.sort_values([*ranking.TASK, "context"])
    keys = [*ranking.TASK, "context"]
    by_place = {
        (row["label"], *(row[key] for key in keys)): row for row in scores.to_dict("records")
    }
    labels = [*board["label"], "floor: a trivial solver"]
    shown = pd.DataFrame({"Method": labels})
    formats: dict[Any, Any] = {}
    for place in places.to_dict("records"):
        unit, factor, digits = METRIC_UNITS.get(place["metric"], ("", 1.0, 3))
        star = "*" if place["context"] == place["train_context"] else ""
        title = f"{place['task']}, {unit} at {place['context']:,}{star}".replace(",  at", " at")
        while title in shown:
            title += " "
        found = [by_place.get((label, *(place[key] for key in keys))) for label in board["label"]]
        values = [float("nan") if row is None else factor * row["score"] for row in found]
        shown[title] = [*values, factor * place["floor"]]
        formats[title] = f"{{:.{digits}f}}"
    return shown.style.format(formats, na_rep=MISSING)


def failures_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that gave no value, with their reason; a method's own limits come last."""
    failed = rows[rows["status"] != "ok"]
    failed = failed.assign(limit=failed["status"] == "unsupported")
    failed = failed.sort_values(["limit", "label", "kind", "context"])
    return pd.DataFrame(
        {
            "Method": failed["label"],
            "Status": failed["status"],
            "Measurement": failed["kind"].map(KIND_TITLES),
            "Task": failed["task"],
            "Context": failed["context"],
            "Seed": failed["seed"],
            "Stage": failed["stage"],
            "Reason": failed["error"],
        }
    )


def _choose_columns(columns: dict[str, ranking.BoardColumn], offered: Sequence[str]) -> list[str]:
    with st.popover("Columns", icon=":material/view_column:"):
        chosen = st.multiselect(
            "Columns",
            offered,
            default=[name for name in DEFAULT_COLUMNS if name in offered],
            format_func=lambda name: columns[name].title,
            key="columns",
            bind="query-params",
            label_visibility="collapsed",
            width=420,
        )
    return list(chosen)


def _column_config(columns: Sequence[ranking.BoardColumn]) -> dict[str, Any]:
    config: dict[str, Any] = {
        " ": st.column_config.TextColumn(width=24, pinned=True),
        "Method": st.column_config.TextColumn(pinned=True),
    }
    for column in columns:
        title = column_title(column)
        config[title] = st.column_config.NumberColumn(title, help=HELP.get(column.name))
    return config


def _download(shown: pd.DataFrame, view: View) -> None:
    st.download_button(
        "Download CSV",
        shown[[column.name for column in ranking.board_columns()]].to_csv(index=False),
        file_name=f"lcbench-{view.suite}-{view.device_kind}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        help="The rows above with every column, as `lcbench leaderboard --format csv` gives them.",
    )


def _show_scores(view: View) -> None:
    scores = view.part(load_scores(view.results))
    if scores.empty:
        return
    st.subheader("Scores", anchor=False)
    st.caption("Mean over seeds, in each task's own unit. * is the trained context.")
    table(
        scores_table(scores, view.board),
        column_config={"Method": st.column_config.TextColumn(pinned=True)},
        height="content",
        alt="Scores by task and context",
    )


def _show_failures(view: View) -> None:
    rows = view.part(load_comparable(view.results))
    failures = failures_table(rows)
    st.subheader("Failures", anchor=False)
    if failures.empty:
        st.caption(f"None: all {len(rows):,} measurements gave a value.")
        return
    st.caption(f"{len(failures):,} of {len(rows):,} measurements gave no value.")
    table(failures, alt="Failures")
