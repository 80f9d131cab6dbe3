"""The Trade-off page: any two columns of the leaderboard against each other."""

import streamlit as st

from lcbench import store
from lcbench.app import charts, page, trade_off_chart, url


def show() -> None:
    """Draw the page."""
    view = page.open_page(
        "Trade-off",
        "What a method gives for what it costs. The dotted line is the Pareto frontier: nothing "
        "shown is better on both axes at once.",
    )
    axes = trade_off_chart.trade_off_axes()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        across = url.choose(
            "Across", list(axes), "x", lambda name: axes[name].column.title, index=1, width=200
        )
        up = url.choose("Up", list(axes), "y", lambda name: axes[name].column.title, width=200)
        view = _at_contexts(view)
    known = view.board[[across, up]].notna().all(axis=1)
    if known.any():
        figure = trade_off_chart.trade_off(
            view.board[known], axes[across], axes[up], view.styles, page.ink()
        )
        st.plotly_chart(figure, config=charts.CONFIG, alt="Trade-off chart")
    else:
        st.info("No method was measured on both axes.", icon=":material/hide_source:")
    left_out = view.board.loc[~known, "label"]
    if len(left_out):
        st.caption(
            "Not drawn, as one of the two was not measured: " + ", ".join(map(page.code, left_out))
        )


def _at_contexts(view: page.View) -> page.View:
    """The view with quality and costs at the contexts that the reader chooses for each."""
    task = page.choose_task(view)
    scored = page.choose_context(view, "Quality at", kinds=["quality"])
    costs = [kind for kind in store.KINDS if kind != "quality"]
    weighed = page.choose_context(view, "Costs at", "cost_at", kinds=costs)
    board = page.narrowed(view, task, scored).board
    own = page.narrowed(view, None, weighed).board.set_index("label")
    columns = [name for name in trade_off_chart.trade_off_axes() if name != "quality"]
    board = board.assign(**{name: board["label"].map(own[name]) for name in columns})
    return view._replace(board=board, task=task, context=scored)
