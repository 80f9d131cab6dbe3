"""The Trade-off page: any two columns of the leaderboard against each other."""

import streamlit as st

from lcbench.app import charts, page, url


def show() -> None:
    """Draw the page."""
    view = page.open_page(
        "Trade-off",
        "What a method gives for what it costs. The dotted line is the Pareto frontier: nothing "
        "shown is better on both axes at once.",
    )
    axes = charts.trade_off_axes()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        across = url.choose(
            "Across", list(axes), "x", lambda name: axes[name].column.title, index=1, width=220
        )
        up = url.choose("Up", list(axes), "y", lambda name: axes[name].column.title, width=220)
    known = view.board[[across, up]].notna().all(axis=1)
    if known.any():
        figure = charts.trade_off(
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
