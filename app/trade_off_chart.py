"""The trade-off figure: entries over two columns of the leaderboard, frontier and labels."""

import html
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lcbench import ranking
from lcbench.app import charts

PLOT_WIDTH, PLOT_HEIGHT = 640.0, 380.0
"""Pixels that labels are laid out for."""


class Axis(NamedTuple):
    """A column of the leaderboard as an axis."""

    column: ranking.BoardColumn
    is_log: bool

    @property
    def title(self) -> str:
        """The column's title and unit, and which way is better."""
        unit = f", {self.column.unit}" if self.column.unit else ""
        better = "higher" if self.column.higher_is_better else "lower"
        return f"{self.column.title}{unit} ({better} is better)"


def trade_off_axes() -> dict[str, Axis]:
    """The columns of the leaderboard that can be traded for each other."""
    names = ("quality", "prefill_speed", "train_speed", "decode_speed", "memory")
    columns = {column.name: column for column in ranking.board_columns()}
    chosen = [columns[name] for name in (*names, "state_bytes_per_token")]
    return {column.name: Axis(column, column.name != "quality") for column in chosen}


def frontier(board: pd.DataFrame, x: Axis, y: Axis) -> pd.DataFrame:
    """The rows that no other beats on both axes, from left to right."""
    known = board.dropna(subset=[x.column.name, y.column.name])
    signs = [1 if axis.column.higher_is_better else -1 for axis in (x, y)]
    values = known[[x.column.name, y.column.name]].to_numpy(dtype=np.float64) * signs
    first = known[ranking.pareto_layers(values) == 1]
    return first.sort_values([x.column.name, y.column.name])


def trade_off(
    board: pd.DataFrame, x: Axis, y: Axis, styles: Mapping[str, charts.Style], ink: str
) -> go.Figure:
    """Entries as points over two columns of the leaderboard, with their Pareto frontier.

    Args:
        board: Rows of the leaderboard, with `label`.
        x: The axis across.
        y: The axis up.
        styles: By label.
        ink: The colour of the labels. What finds no room for one is told in a legend.
    """
    known = board.dropna(subset=[x.column.name, y.column.name])
    figure = go.Figure()
    edge = frontier(known, x, y)
    figure.add_scatter(
        x=edge[x.column.name],
        y=edge[y.column.name],
        mode="lines",
        line={
            "color": charts.NEUTRAL,
            "width": 1.5,
            "dash": "dot",
            "shape": "vh" if x.column.higher_is_better else "hv",
        },
        hoverinfo="skip",
        showlegend=False,
    )
    positions = _label_positions(known, edge, x, y)
    for row, position in zip(known.to_dict("records"), positions, strict=True):
        _add_point(figure, row, (x, y), styles[str(row["label"])], position, ink)
    for axis, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        update(**_axis_layout(axis, known[axis.column.name]))
    charts.lay_out(figure, positions.count(""))
    return figure


def _add_point(
    figure: go.Figure,
    row: Mapping[Any, Any],
    axes: tuple[Axis, Axis],
    style: charts.Style,
    position: str,
    ink: str,
) -> None:
    label = html.escape(str(row["label"]))
    lines = [f"<b>{label}</b>"]
    for axis in axes:
        column = axis.column
        lines.append(f"{column.title}: {row[column.name]:,.{column.digits}f} {column.unit}")
    bars = {
        f"error_{letter}": {
            "type": "data",
            "array": [row["quality_high"] - row["quality"]],
            "arrayminus": [row["quality"] - row["quality_low"]],
            "thickness": 1,
            "width": 3,
            "color": style.color,
        }
        for letter, axis in zip("xy", axes, strict=True)
        if axis.column.name == "quality" and not pd.isna(row["quality_low"])
    }
    figure.add_scatter(
        x=[row[axes[0].column.name]],
        y=[row[axes[1].column.name]],
        mode="markers+text" if position else "markers",
        marker={"color": style.color, "symbol": style.symbol, "size": 13},
        text=[f"  {label}  "],
        textposition=position or None,
        textfont={"size": 13, "color": ink},
        cliponaxis=False,
        name=label,
        showlegend=not position,
        hovertemplate="<br>".join(lines) + "<extra></extra>",
        **bars,
    )


def _label_positions(board: pd.DataFrame, edge: pd.DataFrame, x: Axis, y: Axis) -> list[str]:
    """Where each label goes so that it covers no other, no point and no line; empty for nowhere."""
    scaled = [_unit_scale(board[axis.column.name], axis.is_log) for axis in (x, y)]
    places = np.stack(scaled, axis=1) * [PLOT_WIDTH, PLOT_HEIGHT]
    taken = [(px - 8, px + 8, py - 8, py + 8) for px, py in places]
    corners = places[board.index.get_indexer(edge.index)]
    taken += _staircase(corners, vertical_first=x.column.higher_is_better is True)
    chosen: list[str] = []
    for (px, py), label in zip(places, board["label"], strict=True):
        length = 7.2 * len(str(label)) + 8
        offers = {
            "middle right": (px + 9, px + 9 + length, py - 9, py + 9),
            "top center": (px - length / 2, px + length / 2, py + 9, py + 27),
            "bottom center": (px - length / 2, px + length / 2, py - 27, py - 9),
            "middle left": (px - 9 - length, px - 9, py - 9, py + 9),
            "top left": (px - length, px, py + 9, py + 27),
            "bottom left": (px - length, px, py - 27, py - 9),
            "top right": (px, px + length, py + 9, py + 27),
            "bottom right": (px, px + length, py - 27, py - 9),
        }
        is_right = px > 0.7 * PLOT_WIDTH
        free = [
            name
            for name, box in sorted(offers.items(), key=lambda o: is_right and "left" not in o[0])
            if not any(_overlap(box, other) for other in taken)
            and box[0] > -0.14 * PLOT_WIDTH
            and box[1] < 1.14 * PLOT_WIDTH
        ]
        chosen.append(free[0] if free else "")
        if free:
            taken.append(offers[free[0]])
    return chosen


def _staircase(corners: np.ndarray, *, vertical_first: bool) -> list[tuple[float, ...]]:
    """The boxes that the lines of a frontier lie in."""
    boxes: list[tuple[float, ...]] = []
    for (ax, ay), (bx, by) in itertools.pairwise(corners.tolist()):
        turn = (ax, by) if vertical_first else (bx, ay)
        for cx, cy in ((ax, ay), (bx, by)):
            left, right = sorted((cx, turn[0]))
            low, high = sorted((cy, turn[1]))
            boxes.append((left - 1, right + 1, low - 1, high + 1))
    return boxes


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _unit_scale(values: pd.Series, is_log: bool) -> np.ndarray:
    scaled = values.to_numpy(dtype=np.float64)
    scaled = np.log(np.maximum(scaled, 1e-12)) if is_log else scaled
    span = np.ptp(scaled) if len(scaled) else 0.0
    return (scaled - scaled.min()) / span if span > 0 else np.full(len(scaled), 0.5)


def _axis_layout(axis: Axis, values: pd.Series) -> dict[str, Any]:
    layout: dict[str, Any] = {"title_text": axis.title, "zeroline": False}
    if not axis.is_log:
        margin = max(0.08, 0.12 * float(values.max() - values.min()))
        low, high = max(-0.05, values.min() - margin), min(1.05, values.max() + margin)
        return layout | {"range": [low, high]}
    known = values[values > 0]
    if known.empty:
        return layout | {"type": "log"}
    low, high = math.log10(known.min()), math.log10(known.max())
    margin = max(0.12, 0.14 * (high - low))
    ticks = charts.log_ticks(known, in_bytes=False)
    return layout | {"type": "log", "range": [low - margin, high + margin], **ticks}
