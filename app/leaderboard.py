"""The leaderboard app: what `streamlit run` is given. `lcbench app` starts it."""

import streamlit as st

from lcbench.app import board, scaling, trade_off

# Streamlit would fetch an icon of its own for the browser's tab from the network.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="#0077bb">'
    '<rect x="2" y="12" width="5" height="10" rx="1"/>'
    '<rect x="9.5" y="3" width="5" height="19" rx="1"/>'
    '<rect x="17" y="8" width="5" height="14" rx="1"/></svg>'
)

st.set_page_config(page_title="lcbench", page_icon=ICON, layout="wide", menu_items={})
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
        st.Page(scaling.show, title="Scaling", icon=":material/show_chart:", url_path="scaling"),
    ],
    position="top",
).run()
