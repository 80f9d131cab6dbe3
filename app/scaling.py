"""The Scaling page: speed, memory, state and score against the context."""

from typing import Any

import pandas as pd
import streamlit as st

from lcbench import ranking
from lcbench.app import charts, context_charts, data, page, url

QUANTITIES = {quantity.name: quantity for quantity in context_charts.QUANTITIES}


def show() -> None:
    """Draw the page."""
    view = page.open_page(
        "Scaling",
        "How cost and score change with the context. Marks below a chart say where a method ran "
        "out of memory or time, or failed otherwise.",
    )
    rows = view.part(data.load_comparable(view.results))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = url.choose(
            "Quantity", list(QUANTITIES), "quantity", lambda n: QUANTITIES[n].title, width=200
        )
        chosen = _choose_task(view) if name == "score" else _choose_step(rows, name)
    if chosen is None:
        st.info("Nothing of this was measured here.", icon=":material/hide_source:")
    elif name == "score":
        _show_scores(view, rows, chosen)
    else:
        _show_costs(view, rows, QUANTITIES[name], chosen)


def failed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that should have given a value and did not; `unsupported` is a method's own limit."""
    return rows[~rows["status"].isin(["ok", "unsupported"])]


def _choose_step(rows: pd.DataFrame, quantity: str) -> Any | None:
    kinds = set(_measured(rows, quantity)["kind"])
    offered = [kind for kind in charts.KIND_TITLES if kind in kinds]
    if not offered:
        return None
    return url.choose("Step", offered, "step", lambda kind: charts.KIND_TITLES[kind], width=200)


def _choose_task(view: page.View) -> Any | None:
    scores = view.part(data.load_scores(view.results))
    places = scores[ranking.TASK].drop_duplicates().to_dict("records")
    tasks = dict(zip(charts.task_names(places), places, strict=True))
    if not tasks:
        return None
    return tasks[url.choose("Task", sorted(tasks), "task", width=320)]


def _show_costs(
    view: page.View, rows: pd.DataFrame, quantity: context_charts.Quantity, kind: str
) -> None:
    points = _measured(rows, quantity.name)
    exponents = view.part(data.load_exponents(view.results, quantity.fitted))
    figure = context_charts.scaling(
        points[points["kind"] == kind],
        failed(rows[rows["kind"] == kind]),
        exponents[exponents["kind"] == kind],
        quantity,
        view.styles,
    )
    st.plotly_chart(figure, config=charts.CONFIG, alt=f"{quantity.title} against context")
    st.caption(
        f"T: the context. The exponent is that of {quantity.fitted_title} per sequence, fitted on"
        f" logarithmic axes to the rungs from {ranking.ASYMPTOTIC_CONTEXT:,} tokens up where there"
        " are three, else to the last three."
    )


def _show_scores(view: page.View, rows: pd.DataFrame, task: dict[str, object]) -> None:
    scores = _of_task(view.part(data.load_scores(view.results)), task)
    failures = failed(_of_task(rows[rows["kind"] == "quality"], task))
    figure = context_charts.score_curve(scores, failures, view.styles)
    st.plotly_chart(figure, config=charts.CONFIG, alt="Score against context")
    st.caption("Mean over seeds. The dashed line is the trained context.")


def _measured(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Rungs that have a value of a quantity which fits a logarithmic axis."""
    is_rung = (rows["kind"] != "quality") & (rows["status"] == "ok")
    return rows[is_rung & (rows[quantity] > 0).fillna(False)]


def _of_task(frame: pd.DataFrame, task: dict[str, object]) -> pd.DataFrame:
    same = [frame[name] == value for name, value in task.items()]
    return frame[same[0] & same[1] & same[2]]
