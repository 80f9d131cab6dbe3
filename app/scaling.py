"""The Scaling page: speed, memory, state and score against the context."""

import pandas as pd
import streamlit as st

from lcbench.app import charts
from lcbench.app.page import View, choose, open_page, table
from lcbench.app.results import load_comparable, load_exponents, load_scores


def show() -> None:
    """Draw the page."""
    view = open_page(
        "Scaling",
        "How cost and score change with the context. A cross below the chart marks where a method "
        "ran out of memory or time, or failed otherwise.",
    )
    quantities = {quantity.name: quantity for quantity in charts.QUANTITIES}
    rows = view.part(load_comparable(view.results))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = choose(
            "Quantity", list(quantities), "quantity", lambda n: quantities[n].title, width=200
        )
        if name == "score":
            _show_scores(view, rows)
            return
        quantity = quantities[name]
        measured = rows[(rows["kind"] != "quality") & rows[name].notna()]
        kinds = [kind for kind in charts.KIND_TITLES if kind in set(measured["kind"])]
        if kinds:
            kind = choose("Of", kinds, "of", lambda k: charts.KIND_TITLES[k], width=200)
    if not kinds:
        _say_nothing_measured()
        return
    failures = failed(rows[rows["kind"] == kind])
    exponents = view.part(load_exponents(view.results, str(quantity.fitted)))
    exponents = exponents[exponents["kind"] == kind]
    points = measured[measured["kind"] == kind]
    figure = charts.scaling(points, failures, exponents, quantity, view.results.styles)
    st.plotly_chart(figure, config={"displaylogo": False}, alt="Scaling chart")
    _show_exponents(exponents, quantity)
