"""The Compare page: two methods side by side, on the same examples and the same rungs."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from lcbench import compare_text, ranking, store
from lcbench.app import charts, compare_charts, data, page, url
from lcbench.compare import EXAMPLE_COLUMNS, Comparison, as_frame, compare_entries
from lcbench.rows import tell_put_aside
from lcbench.suite import ANCHOR

RATIOS = (
    ("speed", "**Speed**, above 1 is faster"),
    ("memory", "**Peak memory**, below 1 is less"),
    ("state", "**Decoding state**, below 1 is less"),
)
"""Column of the costs, and what it is called."""
WORDS = ("Task", "Step", "Better")
"""Titles of columns that hold words; the others are set to the right."""


def show() -> None:
    """Draw the page."""
    view = page.open_page(
        "Compare",
        "Two methods on the same examples and beside the same vanilla: where each wins, by how "
        "much, and what difference these data could have shown.",
    )
    labels = list(view.board["label"])
    if len(labels) < 2:
        st.info("A comparison needs two methods; the filters leave one.", icon=":material/balance:")
        st.stop()
    a, b = _choose_two(view.board)
    found = compare_text.part_of(load_comparison(view, a, b), view.suite, view.device_kind)
    if found.scores.empty and found.costs.empty:
        st.info(
            "These two share no example and no rung: neither the same task, context and seed, nor "
            "the same kind of step and context.",
            icon=":material/hide_source:",
        )
        st.code(_run_command(view, (a, b)), language="shell")
        st.stop()
    _show_verdict(found)
    _show_scores(found, view)
    _show_distances(found, view)
    _show_costs(found)
    _show_small_print(found, view)


def load_comparison(view: page.View, a: str, b: str) -> Comparison:
    """`compare.compare_entries` of two labels, all suites and devices; both sides cached."""
    return _compare(view.results.stamp, a, b, view.results)


def sheet_frame(sheet: compare_text.Sheet) -> pd.DataFrame:
    """A sheet as a frame of text."""
    titles = [str(title) for title in sheet.titles]
    return pd.DataFrame([list(cells) for cells in sheet.cells], columns=titles)


def _choose_two(board: pd.DataFrame) -> tuple[str, str]:
    """The labels of the two; by default the best against vanilla."""
    labels = list(board["label"])
    anchors = list(board.loc[board["method"] == ANCHOR, "label"])
    rivals = [label for label in labels if label not in anchors]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = labels.index((rivals or labels)[0])
        a = url.choose("Method", labels, "a", index=first, width=300)
        others = [label for label in labels if label != a]
        known = [label for label in anchors if label in others]
        second = others.index((known or others)[0])
        b = url.choose("Against", others, "b", index=second, width=300)
    return a, b


def _show_verdict(found: Comparison) -> None:
    with st.container(border=True, gap="small"):
        first, *rest = compare_text.verdict(found)
        # Plain text, as names may come from anyone's file.
        st.text(first)
        if rest:
            st.text("\n".join(rest))


def _show_scores(found: Comparison, view: page.View) -> None:
    if found.scores.empty:
        st.caption("No example that both were scored on, so nothing is said of quality.")
        return
    st.subheader("Scores on the same examples", anchor=False)
    st.plotly_chart(
        compare_charts.differences(found, view.styles),
        config=charts.CONFIG,
        alt="Differences by task and context, with intervals",
    )
    st.caption(
        f"{page.code(found.a)} less {page.code(found.b)}: right of zero speaks for the first. The "
        "bar on a mark is 1.96 standard errors to either "
        "side; the broad grey one is what these data would not have shown 4 times in 5."
    )
    _table(compare_text.score_sheet(found), "Scores of both, with tests")


def _show_distances(found: Comparison, view: page.View) -> None:
    if found.distances.empty:
        return
    st.subheader("By distance to the evidence", anchor=False)
    places = found.distances.drop_duplicates([*ranking.TASK, "context"]).to_dict("records")
    names = {_place_name(place): place for place in places}
    trained = [name for name, place in names.items() if place["context"] == place["train_context"]]
    options = [*trained, *(name for name in names if name not in trained)]
    place = names[url.choose("Task and context", options, "at", width=360)]
    keys = [*ranking.TASK, "context"]
    same = (found.distances[keys] == pd.Series({key: place[key] for key in keys})).all(axis=1)
    points = found.distances[same]
    figure = compare_charts.distances(points, found, view.styles)
    st.plotly_chart(figure, config=charts.CONFIG, alt="Right answers by distance")
    _table(compare_text.distance_sheet(found._replace(distances=points)), "Scores by distance")
    st.caption(
        "Intervals take each answer for itself, or seeds where those lie further apart; each "
        "bucket for itself, not corrected for their number."
    )


def _place_name(place: Mapping[Any, Any]) -> str:
    trained = "" if place["context"] == place["train_context"] else ", longer than trained"
    config = "" if place["task_config"] == "{}" else f" {place['task_config']}"
    return f"{place['task']}{config} at {place['context']:,} tokens{trained}"


def _show_costs(found: Comparison) -> None:
    if found.costs.empty:
        st.caption("No rung of the cost ladder that both finished.")
        return
    st.subheader("Cost, the first over the second", anchor=False)
    known = [ratio for ratio in RATIOS if found.costs[ratio[0]].notna().any()]
    for column, (name, title) in zip(st.columns(len(known) or 1), known, strict=False):
        column.markdown(title)
        column.plotly_chart(
            compare_charts.ratios(found.costs, name, page.ink()),
            config=charts.CONFIG,
            key=f"ratio-{name}",
            alt=f"Ratio of {name} by context",
        )
    _table(compare_text.cost_sheet(found), "Ratios of cost")


def _show_small_print(found: Comparison, view: page.View) -> None:
    page.download(
        "Download CSV",
        lambda: page.csv(as_frame(found)),
        f"lcbench-compare-{view.suite}-{view.device_kind}.csv",
        "Every line above, unrounded, as `lcbench compare --format csv` gives them.",
    )
    st.text(compare_text.legend(found))
    if aside := tell_put_aside(found.put_aside):
        st.caption(aside)
    command = ["lcbench", "compare", found.a, found.b, "--suite", view.suite]
    st.code(" ".join(map(shlex.quote, command)), language="shell")


def _run_command(view: page.View, labels: tuple[str, str]) -> str:
    methods = [shlex.quote(label) for label in labels]
    return " ".join(["lcbench run", *(f"--method {m}" for m in methods), "--suite", view.suite])


def _table(sheet: compare_text.Sheet, alt: str) -> None:
    config = {
        title: st.column_config.TextColumn(alignment="left" if title in WORDS else "right")
        for title in sheet.titles
    }
    page.table(sheet_frame(sheet), column_config=config, height="content", alt=alt)


@st.cache_resource(max_entries=16, show_spinner="Comparing …")
def _compare(stamp: data.Stamp, a: str, b: str, _results: data.Results) -> Comparison:
    entries = _results.board.drop_duplicates("label").set_index("label", drop=False)
    rows = data.load_comparable(_results)
    rows = rows[rows["label"].isin([a, b])]
    ours = [entries.loc[label].to_dict() for label in (a, b)]
    lists = _read_lists(stamp, tuple(map(str, data.results_paths())))
    wanted = lists["method"].to_pandas().isin([str(entry["method"]) for entry in ours])
    own = lists.filter(pa.array(wanted)).drop_columns(["method"])
    rows = rows.merge(own.to_pandas(), on=list(store.ROW_KEY), how="left", suffixes=("_", ""))
    return compare_entries(rows, ours[0], ours[1], _put_aside(stamp, _results))


@st.cache_resource(max_entries=1, show_spinner="Reading examples …")
def _read_lists(stamp: data.Stamp, paths: tuple[str, ...]) -> pa.Table:
    """The scores of single examples, and by distance: the heavy columns, and no other."""
    wanted = [*store.ROW_KEY, "method", *EXAMPLE_COLUMNS]
    return store.read_table([Path(path) for path in paths], wanted).table


@st.cache_resource(max_entries=2, show_spinner=False)
def _put_aside(stamp: data.Stamp, _results: data.Results) -> dict[str, int]:
    return ranking.comparable(_results.rows).put_aside
