"""The Board page: one row a method and config, the scores behind it, and what failed."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from lcbench import ranking, slices, tables
from lcbench.app import charts, data, page, url
from lcbench.disturbance import tell_disturbed

DEFAULT_COLUMNS = (
    *("tier", "pareto", "quality", "coverage", "failed", "effective_context", "prefill_speed"),
    *("train_speed", "decode_speed", "memory", "state_bytes_per_token", "num_params"),
)
STANDING = ("suite", "device_kind", "method", "config")
"""Columns that the filters and the method's label stand for."""
BY_LAYER = "pareto-layer"
COSTS = {"training": "train", "prefill": "prefill", "decoding": "decode"}
"""What the columns of each kind of step begin with."""
RATIO = "× vanilla"
"""The unit whose sign stands behind each number, so that columns stay narrow."""
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
    "tier": "Published: submitted and checked. Local: measured here.",
}
BY_TASK = {
    "score": "Scores in each task's own unit",
    "effective_context": "Effective context",
    "passing_context": "Passing context",
}
"""What is told task by task."""


def show() -> None:
    """Draw the page."""
    view = page.open_page(
        "Leaderboard",
        "How far back each method sees, and what a token of that costs. Sorted by Pareto layer "
        "of quality, prefill speed and training memory, then quality: nothing is weighted.",
    )
    columns = {column.name: column for column in ranking.board_columns()}
    offered = [name for name in columns if name not in STANDING]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = page.narrowed(view, page.choose_task(view), page.choose_context(view))
        sort = url.choose(
            "Sort by",
            [BY_LAYER, *offered],
            "sort",
            lambda name: "Pareto layer, quality" if name == BY_LAYER else columns[name].title,
            width=220,
        )
        reverse = url.toggle("Worst first", "reverse")
        chosen = _choose_columns(columns, offered)
    shown = sort_board(view.board, None if sort == BY_LAYER else columns[sort], reverse=reverse)
    page.table(
        board_table(shown, [columns[name] for name in chosen], view.styles, page.ink()),
        column_config=_column_config([columns[name] for name in chosen]),
        height="content",
        alt="Leaderboard",
    )
    _tell_what_counts(view)
    if told := tell_disturbed(view.part(data.load_comparable(view.results))):
        st.text(told)
    _download(board_download(shown, chosen), view)
    _show_by_task(view)
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
    board: pd.DataFrame,
    columns: Sequence[ranking.BoardColumn],
    styles: dict[str, charts.Style],
    ink: str,
) -> Styler:
    """A board as it is shown: titles with units, as many digits as its columns say."""
    shown = pd.DataFrame({"Method": board["label"].to_numpy()})
    shown[" "] = [styles[label].glyph for label in board["label"]]
    formats: dict[Any, Any] = {}
    for column in columns:
        title = column_title(column)
        if column.digits is None:
            shown[title] = board[column.name].to_numpy()
            continue
        # Rounded too, as a screen reader and a copied cell take the number behind the text.
        shown[title] = board[column.name].round(column.digits).to_numpy()
        suffix = "×" if column.unit == RATIO else ""
        formats[title] = f"{{:,.{column.digits}f}}{suffix}"
        if column.name == "quality" and board["quality_low"].notna().any():
            shown["95 % interval"] = [
                page.MISSING if pd.isna(low) else f"{low:.3f}–{high:.3f}"
                for low, high in zip(board["quality_low"], board["quality_high"], strict=True)
            ]
    colors = [f"color: {styles[label].color}" for label in board["label"]]
    styled = shown.style.format(formats, na_rep=page.MISSING)
    return styled.apply(lambda _: colors, subset=[" "]).set_properties(["Method"], color=ink)


def column_title(column: ranking.BoardColumn) -> str:
    """A column's title with its unit, unless that follows each of its numbers."""
    is_told = column.unit and column.unit != RATIO
    return f"{column.title} ({column.unit})" if is_told else column.title


def board_download(board: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """What is shown of a board, as `lcbench leaderboard --columns` gives it: nothing rounded.

    With quality comes its interval, which has a column of its own on the page.
    """
    names: list[str] = []
    for name in columns:
        names += [name, "quality_low", "quality_high"] if name == "quality" else [name]
    return board[list(dict.fromkeys([*tables.ENTRY_COLUMNS, *names]))]


def contexts_table(held: pd.DataFrame, board: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Effective or passing context in tokens, a row an entry and a column a task."""
    places = held.drop_duplicates(ranking.TASK).sort_values(ranking.TASK).to_dict("records")
    table = pd.DataFrame({"Method": board["label"].to_numpy()})
    for place, name in zip(places, charts.task_names(places), strict=True):
        own = held[(held[ranking.TASK] == [place[key] for key in ranking.TASK]).all(axis=1)]
        by_label = own.set_index("label")[quantity]
        table[f"{name} (tokens)"] = by_label.reindex(table["Method"]).to_numpy()
    return table


def scores_table(scores: pd.DataFrame, board: pd.DataFrame) -> Styler:
    """Scores in each task's own unit, a column for each task and context, floors last."""
    keys = [*ranking.TASK, "context"]
    places = scores.drop_duplicates(keys).sort_values(keys).to_dict("records")
    found = {(row["label"], *(row[key] for key in keys)): row for row in scores.to_dict("records")}
    columns: dict[tuple[str, str], list[Any]] = {
        ("", "Method"): [*board["label"], "floor: a trivial solver"]
    }
    formats: dict[Any, Any] = {}
    for place, name in zip(places, charts.task_names(places), strict=True):
        unit, factor, digits = charts.METRIC_UNITS.get(place["metric"], ("", 1.0, 3))
        group = name + (f", {unit}" if unit else "")
        star = "*" if place["context"] == place["train_context"] else ""
        title = (group, f"at {place['context']:,}{star}")
        own = [found.get((label, *(place[key] for key in keys))) for label in board["label"]]
        scored = [float("nan") if row is None else factor * row["score"] for row in own]
        columns[title] = [round(value, digits) for value in (*scored, factor * place["floor"])]
        formats[title] = f"{{:.{digits}f}}"
    return pd.DataFrame(columns).style.format(formats, na_rep=page.MISSING)


def failures_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that gave no value, with their reason; a method's own limits come last."""
    failed = rows[rows["status"] != "ok"]
    failed = failed.assign(limit=failed["status"] == "unsupported")
    failed = failed.sort_values(["limit", "label", "kind", "context"])
    return pd.DataFrame(
        {
            "Method": failed["label"],
            "Status": failed["status"],
            "Measurement": failed["kind"].map(charts.KIND_TITLES),
            "Task": failed["task"],
            "Context": failed["context"],
            "Seed": failed["seed"],
            "Stage": failed["stage"],
            "Reason": failed["error"],
        }
    )


def _choose_columns(columns: dict[str, ranking.BoardColumn], offered: Sequence[str]) -> list[str]:
    with st.popover("Columns", icon=":material/view_column:"):
        return url.choose_some(
            "Columns",
            offered,
            "columns",
            lambda name: columns[name].title,
            default=DEFAULT_COLUMNS,
            label_visibility="collapsed",
            width=420,
        )


def _column_config(columns: Sequence[ranking.BoardColumn]) -> dict[str, Any]:
    config: dict[str, Any] = {
        " ": st.column_config.TextColumn(width=32),
        "Method": st.column_config.TextColumn(pinned=True),
    }
    for column in columns:
        title = column_title(column)
        kind = (
            st.column_config.TextColumn if column.digits is None else st.column_config.NumberColumn
        )
        config[title] = kind(title, help=HELP.get(column.name))
    return config


def _tell_what_counts(view: page.View) -> None:
    """Where the ratios were read, as that is chosen by what all could run."""
    at = [
        f"{name} at {context:,.0f}"
        for name in ("training", "prefill", "decoding")
        if (context := view.board[f"{COSTS[name]}_speed_context"].max()) > 0
    ]
    told = f"Speed and memory: {', '.join(at)} tokens, which all rivals finished. " if at else ""
    only = [str(part) for part in (view.task, view.context and f"{view.context:,} tokens") if part]
    if only:
        told += f"Everything counts {' at '.join(only)} only, effective context too."
    if told:
        st.caption(told)


def _download(shown: pd.DataFrame, view: page.View) -> None:
    name = f"lcbench-{view.suite}-{view.device_kind}"
    told = "The rows and columns above, as `lcbench leaderboard --columns` gives them."
    with st.container(horizontal=True):
        page.download("Download CSV", lambda: page.csv(shown), f"{name}.csv", told)
        page.download("Parquet", lambda: shown.to_parquet(index=False), f"{name}.parquet", told)


def _show_by_task(view: page.View) -> None:
    scores = slices.narrow(view.part(data.load_scores(view.results)), view.task, view.context)
    if scores.empty:
        return
    st.subheader("By task", anchor=False)
    what = url.choose("Shown", list(BY_TASK), "by_task", lambda name: BY_TASK[name], width=280)
    if what == "score":
        st.caption("Mean over seeds. * is the trained context.")
        page.table(
            scores_table(scores, view.board), height="content", alt="Scores by task and context"
        )
        return
    held = slices.narrow(view.part(data.load_contexts_held(view.results)), view.task)
    st.caption(
        f"The longest context up to which a method keeps {ranking.KEEPS:.0%} of its "
        "trained-context score; 0 where that is not above the floor."
        if what == "effective_context"
        else "The longest context up to which a method stays half way from floor to ceiling."
    )
    page.table(contexts_table(held, view.board, what), height="content", alt=BY_TASK[what])


def _show_failures(view: page.View) -> None:
    rows = view.part(data.load_comparable(view.results))
    rows = slices.narrow(rows, view.task, view.context)
    failures = failures_table(rows)
    st.subheader("Failures", anchor=False)
    if failures.empty:
        st.caption(f"None: all {len(rows):,} measurements gave a value.")
        return
    st.caption(f"{len(failures):,} of {len(rows):,} measurements gave no value.")
    page.table(failures, alt="Failures")
