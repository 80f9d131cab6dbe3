"""Figures of the Tasks page: frames in, Plotly figures out; text from results files is escaped."""

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from lcbench.app import charts

COLORS = "Cividis"
"""Even in lightness, so that it reads without colour too, and far from both backgrounds."""
FAILED = "rgba(204, 0, 34, 0.22)"
MISSING = "rgba(127, 136, 148, 0.10)"
FAILED_SIGN, MISSING_SIGN = "✕", "–"
ROW_HEIGHT, LINE_HEIGHT = 34, 16
"""Pixels of a method in the heat map, and of a line of its name."""
SLANTED = 6
"""Tasks beyond which their titles rarely fit beside each other."""
LINE_LENGTH = 22
"""Characters of a method's name in a line, so that a narrow window has room for the squares."""


class Square(NamedTuple):
    """One method on one task: what the heat map shows of it."""

    value: float | None
    """Normalised score; None where there is none."""
    sign: str
    told: str
    """What hovering tells, escaped."""
    has_failed: bool


class _Look(NamedTuple):
    """Squares that are drawn alike."""

    takes: Callable[[Square], bool]
    ink: str
    fill: str | None = None
    """One colour for all; None for that of the value."""


_LOOKS = (
    _Look(lambda square: square.value is None and not square.has_failed, charts.NEUTRAL, MISSING),
    _Look(lambda square: square.value is None and square.has_failed, "#d9364f", FAILED),
    _Look(lambda square: square.value is not None and square.value < 0.5, "#ffffff"),
    _Look(lambda square: square.value is not None and square.value >= 0.5, "#000000"),
)
_COLORBAR = {
    "title": {"text": "normalised score", "side": "top"},
    "orientation": "h",
    "thickness": 10,
    "len": 1,
    "y": -0.02,
    "yanchor": "top",
    "tickvals": [0, 0.25, 0.5, 0.75, 1],
}


def squares(
    scores: pd.DataFrame, failures: pd.DataFrame, labels: Sequence[str], tasks: Sequence[str]
) -> list[list[Square]]:
    """The squares of a heat map: a list each label, of one square each task.

    Args:
        scores: Rows of `ranking.task_scores`, with `label` and `title` (the task's name); at most
            one of each pair.
        failures: `label`, `title`, `status` and `seed` of what gave no score there.
        labels: Methods, from the top.
        tasks: Titles of tasks, from the left.
    """
    found = {(row["label"], row["title"]): row for row in scores.to_dict("records")}
    groups = failures.groupby(["label", "title"])["status"]
    failed = {key: dict(part.value_counts()) for key, part in groups}
    return [
        [
            _square(label, task, found.get((label, task)), failed.get((label, task)))
            for task in tasks
        ]
        for label in labels
    ]


def heat_map(
    rows: Sequence[Sequence[Square]],
    labels: Sequence[str],
    tasks: Sequence[str],
    styles: Mapping[str, charts.Style],
) -> go.Figure:
    """Normalised scores, methods down and tasks across; failed and not measured stand apart."""
    figure = go.Figure()
    for look in _LOOKS:
        _add_layer(figure, rows, look)
    shared: dict[str, Any] = {"showgrid": False, "zeroline": False, "fixedrange": True}
    figure.update_xaxes(
        tickvals=list(range(len(tasks))),
        ticktext=[html.escape(task) for task in tasks],
        side="top",
        autotickangles=[0, -35, -90],
        ticklabeloverflow="allow",
        range=[-0.5, len(tasks) - 0.5],
        **shared,
    )
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=[_tick(label, styles[label]) for label in labels],
        range=[len(labels) - 0.5, -0.5],
        **shared,
    )
    num_lines = max(len(_lines(label)) for label in labels)
    figure.update_layout(
        height=130 + max(ROW_HEIGHT, LINE_HEIGHT * num_lines) * len(labels),
        # A slanted title of the last task reaches beyond its column.
        margin={"l": 8, "r": 8 if len(tasks) <= SLANTED else 64, "t": 8, "b": 8},
        hovermode="closest",
        coloraxis={"colorscale": COLORS, "cmin": 0, "cmax": 1, "colorbar": _COLORBAR},
    )
    return figure


def learning_curve(
    curves: pd.DataFrame, over: str, styles: Mapping[str, charts.Style]
) -> go.Figure:
    """Training loss of one task as training goes on, a line an entry.

    Args:
        curves: Rows of `ranking.mean_curves`, with `label`.
        over: `steps` or `seconds`; the latter mean something on one machine only.
        styles: By label.
    """
    figure = go.Figure()
    then = "%{customdata[0]:,} steps" + (", %{x:,.1f} s" if over == "seconds" else "")
    parts = dict(list(curves.sort_values("steps").groupby("label")))
    for label in [label for label in styles if label in parts]:
        part, style, name = parts[label], styles[label], html.escape(label)
        figure.add_scatter(
            x=part[over].tolist(),
            y=part["loss_nats"].tolist(),
            mode="lines+markers",
            name=name,
            line={"color": style.color, "dash": style.dash, "width": 2.2},
            marker={"symbol": style.symbol, "size": 6},
            customdata=part[["steps", "num_seeds"]],
            hovertemplate=f"<b>{name}</b><br>%{{y:.3f}} nats after {then}"
            "<br>seeds: %{customdata[1]}<extra></extra>",
        )
    title = "Steps" if over == "steps" else "Training time, s"
    figure.update_xaxes(title_text=title, rangemode="tozero")
    figure.update_yaxes(title_text="Training loss, nats (lower is better)")
    charts.lay_out(figure, len(parts))
    return figure


def mark_trained(figure: go.Figure, contexts: Sequence[int]) -> None:
    """Write at the lines of trained contexts what they are."""
    for context in contexts:
        figure.add_annotation(
            x=math.log10(context),  # where annotations lie on a logarithmic axis
            y=1,
            yref="y domain",
            text="trained here ",
            showarrow=False,
            xanchor="left" if context == min(contexts) else "right",
            yanchor="bottom",
            font={"size": 12, "color": charts.NEUTRAL},
        )


def _square(
    label: str, task: str, row: Mapping[Any, Any] | None, failed: Mapping[str, int] | None
) -> Square:
    head = f"<b>{html.escape(label)}</b> on {html.escape(task)}"
    if row is None:
        return Square(None, MISSING_SIGN, f"{head}<br>not measured", has_failed=False)
    seeds = int(row["num_seeds"])
    at = f"at {row['context']:,} tokens, {seeds} seed{'s' if seeds > 1 else ''}"
    lines = [head, at]
    reasons = [
        f"{number} of {seeds} {charts.STATUS_TITLES.get(status, status)}"
        for status, number in (failed or {}).items()
    ]
    if pd.isna(row["score"]):
        return Square(None, FAILED_SIGN, "<br>".join([*lines, *reasons]), has_failed=True)
    unit, factor, digits = charts.METRIC_UNITS.get(str(row["metric"]), ("", 1.0, 3))
    lines.append(f"{factor * row['score']:.{digits}f} {unit}")
    lines.append(f"floor {factor * row['floor']:.{digits}f} {unit}")
    interval = f" ({row['low']:.2f}–{row['high']:.2f})"
    lines.append(f"normalised {row['normalised']:.3f}{interval}")
    sign = f"{row['normalised']:.2f}" + (f" {FAILED_SIGN}" if reasons else "")
    value = float(row["normalised"])
    return Square(value, sign, "<br>".join([*lines, *reasons]), has_failed=bool(reasons))


def _add_layer(figure: go.Figure, rows: Sequence[Sequence[Square]], look: _Look) -> None:
    """The squares of one look; the others of the layer stay empty."""
    kept = [[square if look.takes(square) else None for square in row] for row in rows]
    if not any(square for row in kept for square in row):
        return
    scale = (
        {"coloraxis": "coloraxis"}
        if look.fill is None
        else {"colorscale": [[0, look.fill], [1, look.fill]], "showscale": False}
    )
    figure.add_heatmap(
        z=[[square and (square.value or 0.0) for square in row] for row in kept],
        text=[[square.sign if square else "" for square in row] for row in kept],
        customdata=[[square.told if square else "" for square in row] for row in kept],
        texttemplate="%{text}",
        textfont={"color": look.ink},
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=3,
        ygap=3,
        **scale,
    )


def _tick(label: str, style: charts.Style) -> str:
    glyph = f'<span style="color:{style.color}">{style.glyph}</span>'
    return f"{'<br>'.join(html.escape(line) for line in _lines(label))} {glyph} "


def _lines(label: str) -> list[str]:
    """A method's name in lines, cut behind the signs that part its fields."""
    lines = [""]
    for part in re.split(r"(?<=[:,])", label):
        if lines[-1] and len(lines[-1]) + len(part) > LINE_LENGTH:
            lines.append("")
        lines[-1] += part
    return lines
