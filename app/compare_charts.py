"""Figures of the Compare page: frames in, Plotly figures out.

What is right of zero speaks for the first entry in every row, whichever way its metric is better.
"""

import html
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lcbench import compare_text
from lcbench.app import charts
from lcbench.compare import Comparison

STEP_LINES = {
    "prefill": ("circle", "solid"),
    "train_step": ("square", "dash"),
    "decode": ("diamond", "dot"),
}
"""Symbol and dash of each kind of step: colours are the methods'."""
ROW_HEIGHT, AXIS_HEIGHT = 26, 76
"""Pixels of a line, and of an axis with its title."""


def differences(found: Comparison, styles: Mapping[str, charts.Style]) -> go.Figure:
    """The difference on each task and context with its interval, a panel for each unit.

    The broad bar behind a mark is what the data would have shown 4 times in 5: a difference within
    it may well be missed. A mark has the colour and symbol of the better one, or neither's.

    Args:
        found: The part of one suite and kind of device.
        styles: By label.
    """
    in_bits = found.scores["metric"] == "bits_per_byte"
    panels = [part for part in (found.scores[~in_bits], found.scores[in_bits]) if len(part)]
    lines = [ROW_HEIGHT * (len(part) + 0.5) for part in panels]
    height = sum(lines) + AXIS_HEIGHT * len(panels)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=lines,
        vertical_spacing=AXIS_HEIGHT / (height - AXIS_HEIGHT),
    )
    named: set[str] = set()
    for number, part in enumerate(panels, 1):
        _add_differences(figure, part, styles, named, number)
        unit, _, _ = compare_text.metric_scale(part["metric"].iloc[0])
        axis = f"Difference, {unit}" + ("" if unit == "%" else ", reversed: fewer are better")
        figure.update_xaxes(title_text=axis, zeroline=True, zerolinewidth=2, row=number, col=1)
        figure.update_xaxes(zerolinecolor=charts.NEUTRAL, row=number, col=1)
        if unit != "%":
            figure.update_xaxes(autorange="reversed", row=number, col=1)
        figure.update_yaxes(autorange="reversed", type="category", row=number, col=1)
    _lay_out(figure, height + 40)
    return figure


def ratios(costs: pd.DataFrame, name: str, ink: str) -> go.Figure:
    """A ratio of costs against the context on logarithmic axes, a line for each kind of step.

    Args:
        costs: Rows of `Comparison.costs` of one suite and kind of device.
        name: A column of it.
        ink: The colour of the lines.
    """
    known = costs[costs[name].notna()].sort_values("context")
    figure = go.Figure()
    for kind, (symbol, dash) in STEP_LINES.items():
        part = known[known["kind"] == kind]
        if part.empty:
            continue
        step = compare_text.step_name(kind)
        texts = [
            [charts.context_text(context), compare_text.ratio_text(ratio)]
            for context, ratio in zip(part["context"], part[name], strict=True)
        ]
        figure.add_scatter(
            x=part["context"],
            y=part[name],
            mode="lines+markers",
            name=step,
            line={"color": ink, "dash": dash, "width": 1.8},
            marker={"symbol": symbol, "size": 9, "color": ink},
            customdata=texts,
            hovertemplate=f"{step}<br>%{{customdata[1]}} at %{{customdata[0]}} tokens"
            "<extra></extra>",
        )
    figure.add_hline(y=1, line={"color": charts.NEUTRAL, "width": 1.5})
    ticks = sorted({int(context) for context in known["context"]})
    ticks = ticks[:: max(1, -(-len(ticks) // 6))]
    figure.update_xaxes(
        type="log",
        tickvals=ticks,
        ticktext=[charts.context_text(tick) for tick in ticks],
        title_text="Context, tokens",
    )
    figure.update_yaxes(type="log", **_ratio_axis(known[name].to_list()))
    _lay_out(figure, 340)
    figure.update_layout(showlegend=True)
    return figure


def distances(
    points: pd.DataFrame, found: Comparison, styles: Mapping[str, charts.Style]
) -> go.Figure:
    """Shares of right answers of both by distance to the evidence, for one task and context."""
    points = points.sort_values("distance_from")
    buckets = [compare_text.bucket_text(int(start)) for start in points["distance_from"]]
    figure = go.Figure()
    for label, side in ((found.a, "a"), (found.b, "b")):
        style, name = styles[label], html.escape(label)
        figure.add_scatter(
            x=buckets,
            y=100 * points[f"score_{side}"],
            mode="lines+markers",
            name=name,
            line={"color": style.color, "dash": style.dash, "width": 2.2},
            marker={"symbol": style.symbol, "size": 9},
            hovertemplate=f"<b>{name}</b><br>%{{y:.1f}} % right, %{{x}} tokens back<extra></extra>",
        )
    figure.update_xaxes(type="category", title_text="Distance to the evidence, tokens")
    figure.update_yaxes(title_text="Right answers, %", range=[-4, 104])
    _lay_out(figure, 380)
    return figure


def _add_differences(
    figure: go.Figure,
    part: pd.DataFrame,
    styles: Mapping[str, charts.Style],
    named: set[str],
    row: int,
) -> None:
    rows = part.sort_values(["task", "train_context", "context"]).to_dict("records")
    for line in rows:
        _, factor, digits = compare_text.metric_scale(line["metric"])
        y = [f"{_short(line['task'])} {charts.context_text(line['context'])}"]
        seen = factor * line["smallest_effect"]
        figure.add_scatter(
            x=[-seen, seen],
            y=y * 2,
            mode="lines",
            line={"color": "rgba(127, 136, 148, 0.28)", "width": 13},
            name="would not have shown",
            legendgroup="unseen",
            showlegend="unseen" not in named,
            hoverinfo="skip",
            row=row,
            col=1,
        )
        named.add("unseen")
        better = line["better"] if isinstance(line["better"], str) else None
        name = f"{html.escape(better)} is better" if better else compare_text.UNDECIDED
        color = styles[better].color if better else charts.NEUTRAL
        reach = factor * (line["high"] - line["difference"])
        figure.add_scatter(
            x=[factor * line["difference"]],
            y=y,
            mode="markers",
            marker={
                "color": color,
                "symbol": styles[better].symbol if better else "circle-open",
                "size": 11,
            },
            error_x={"array": [reach], "color": color, "thickness": 2, "width": 4},
            name=name,
            legendgroup=name,
            showlegend=name not in named,
            hovertemplate=f"%{{y}} tokens: %{{x:.{digits}f}} ± {reach:.{digits}f}<br>{name}"
            "<extra></extra>",
            row=row,
            col=1,
        )
        named.add(name)


def _ratio_axis(values: list[float]) -> dict[str, Any]:
    """Ticks at powers of two or, of a wider range, of ten; never finer than a factor of two."""
    low, high = min([*values, 0.5]) / 1.15, max([*values, 2.0]) * 1.15
    step = 2.0 if high / low < 64 else 10.0
    ticks = [step**exponent for exponent in range(-12, 13)]
    shown = [tick for tick in ticks if low <= tick <= high]
    return {
        "tickvals": shown,
        "ticktext": [f"{tick:g}×" for tick in shown],
        "range": [math.log10(low), math.log10(high)],
    }


def _short(name: object, length: int = 24) -> str:
    text = str(name)
    return html.escape(text if len(text) <= length else f"{text[: length - 1]}…")


def _lay_out(figure: go.Figure, height: float) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 16, "t": 24, "b": 8},
        legend={
            "orientation": "h",
            "y": 1.0,
            "yanchor": "bottom",
            "x": 0,
            "xanchor": "left",
            "entrywidth": 0,
            "font": {"size": 13},
        },
        hovermode="closest",
    )
