"""The leaderboard app: what `streamlit run` is given. `lcbench app` starts it."""

import streamlit as st

from lcbench.app import board, scaling, trade_off

st.set_page_config(
    page_title="lcbench", page_icon=":material/leaderboard:", layout="wide", menu_items={}
)
st.navigation(
    [
        st.Page(
            board.show,
            title="Board",
            icon=":material/leaderboard:",
            url_path="board",
            default=True,
        ),
        st.Page(
            trade_off.show, title="Trade-off", icon=":material/scatter_plot:", url_path="trade-off"
        ),
        st.Page(
            scaling.show, title="Scaling", icon=":material/show_chart:", url_path="scaling"
        ),
    ],
    position="top",
).run()
