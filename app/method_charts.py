"""Figures of the Method page."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

SIZE = 300
"""Pixels of a picture's side."""
UNSEEN = "rgba(127, 136, 148, 0.13)"


def attention(rows: Sequence[str], color: str) -> go.Figure:
    """Who sees whom: a filled square where the output at a token moves when another changes.

    Args:
        rows: `#` in row i, column j where the output at token i moves when token j changes.
        color: The method's.
    """
    seen = [[mark == "#" for mark in row] for row in rows]
    told = [["sees" if value else "does not see" for value in row] for row in seen]
    figure = go.Figure()
    figure.add_heatmap(
        z=[[int(value) for value in row] for row in seen],
        customdata=told,
        zmin=0,
        zmax=1,
        colorscale=[[0, UNSEEN], [1, color]],
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="token %{y} %{customdata} token %{x}<extra></extra>",
    )
    ticks: dict[str, Any] = {
        "tickvals": [0, len(rows) // 2, len(rows) - 1],
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(
        **ticks, title_text="token that changes", side="top", constrain="domain", fixedrange=True
    )
    figure.update_yaxes(
        **ticks,
        title_text="output that moves",
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        fixedrange=True,
    )
    figure.update_layout(
        height=SIZE + 60, margin={"l": 8, "r": 8, "t": 8, "b": 8}, hovermode="closest"
    )
    return figure
