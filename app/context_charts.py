"""Figures over the context: what a quantity or a score becomes as it grows, and what failed."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lcbench.app import charts


class Quantity(NamedTuple):
    """What is drawn against the context."""

    name: str
    """A column of rows, or `score`."""
    title: str
    unit: str
    fitted: str = ""
    """The quantity of `ranking.fit_exponents` that belongs to it."""
    fitted_title: str = ""


QUANTITIES = (
    Quantity("tokens_per_s", "Throughput", "tokens/s", "step_ms", "time"),
    Quantity("peak_bytes", "Peak memory", "bytes", "peak_bytes", "memory"),
    Quantity("state_bytes", "Decoding state", "bytes", "state_bytes", "state"),
    Quantity("score", "Score", ""),
)


def scaling(
    points: pd.DataFrame,
    failures: pd.DataFrame,
    exponents: pd.DataFrame,
    quantity: Quantity,
    styles: Mapping[str, charts.Style],
) -> go.Figure:
    """A quantity against the context on logarithmic axes, a line an entry; failures below.

    Args:
        points: `label`, `context` and the quantity's column.
        failures: `label`, `context` and `status` of what gave no value.
        exponents: `label` and `exponent`.
        quantity: What is drawn.
        styles: By label.
    """
    figure = _with_failure_strip(failures)
    slopes = dict(zip(exponents["label"], exponents["exponent"], strict=True))
    parts = dict(list(points.sort_values("context").groupby("label")))
    for label in [label for label in styles if label in parts]:
        part = parts[label]
        values = part[quantity.name].astype("float64")
        name = _series_name(str(label), quantity, slopes.get(label))
        text = [_value_text(value, quantity) for value in values]
        _add_line(figure, part["context"], values, name, text, styles[str(label)], str(label))
    _add_failures(figure, failures, styles, set(points["label"]))
    _lay_out_contexts(figure, [*points["context"], *failures["context"]], 1 + (len(failures) > 0))
    values = points[quantity.name].astype("float64")
    figure.update_yaxes(
        title_text=f"{quantity.title}, {quantity.unit}",
        type="log",
        **charts.log_ticks(values, quantity.unit == "bytes"),
        row=1,
        col=1,
    )
    charts.lay_out(figure, points["label"].nunique())
    return figure


def score_curve(
    scores: pd.DataFrame, failures: pd.DataFrame, styles: Mapping[str, charts.Style]
) -> go.Figure:
    """Scores of one task against the context, with its floor and the trained context.

    Args:
        scores: Rows of `ranking.task_scores` of one task, with `label`.
        failures: `label`, `context` and `status` of what gave no value.
        styles: By label.
    """
    unit, factor, digits = charts.METRIC_UNITS.get(str(scores["metric"].iloc[0]), ("", 1.0, 3))
    figure = _with_failure_strip(failures)
    parts = dict(list(scores.sort_values("context").groupby("label")))
    for label in [label for label in styles if label in parts]:
        part = parts[label]
        values = factor * part["score"]
        text = [f"{value:.{digits}f} {unit}" for value in values]
        name = html.escape(str(label))
        _add_line(figure, part["context"], values, name, text, styles[str(label)], str(label))
    floors = scores.groupby("context")["floor"].mean() * factor
    figure.add_scatter(
        x=floors.index,
        y=floors,
        mode="lines",
        line={"color": charts.NEUTRAL, "dash": "dot", "width": 1.5},
        name="floor: a trivial solver",
        hovertemplate=f"floor %{{y:.{digits}f}} {unit}<extra></extra>",
        row=1,
        col=1,
    )
    _add_failures(figure, failures, styles, set(scores["label"]))
    for context in sorted(scores["train_context"].unique()):
        figure.add_shape(
            type="line",
            x0=float(context),
            x1=float(context),
            y0=0,
            y1=1,
            yref="y domain",
            line={"color": charts.NEUTRAL, "dash": "dash", "width": 1.5},
        )
    _lay_out_contexts(figure, [*scores["context"], *failures["context"]], 1 + (len(failures) > 0))
    lower = str(scores["metric"].iloc[0]) == "bits_per_byte"
    title = f"Score, {unit}" if unit else "Score"
    figure.update_yaxes(
        title_text=f"{title} ({'lower' if lower else 'higher'} is better)", row=1, col=1
    )
    charts.lay_out(figure, scores["label"].nunique() + 1)
    return figure


def _with_failure_strip(failures: pd.DataFrame) -> go.Figure:
    """An empty figure, with a strip below where something failed."""
    if failures.empty:
        return make_subplots(rows=1, cols=1)
    strip = 0.06 + 0.05 * failures["status"].nunique()
    return make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[1 - strip, strip], vertical_spacing=0.03
    )


def _add_line(
    figure: go.Figure,
    contexts: pd.Series,
    values: pd.Series,
    name: str,
    texts: Sequence[str],
    style: charts.Style,
    label: str,
) -> None:
    figure.add_scatter(
        x=contexts,
        y=values,
        mode="lines+markers",
        name=name,
        legendgroup=html.escape(label),
        line={"color": style.color, "dash": style.dash, "width": 2.2},
        marker={"symbol": style.symbol, "size": 9},
        customdata=[
            [charts.context_text(c), text] for c, text in zip(contexts, texts, strict=True)
        ],
        hovertemplate=f"<b>{html.escape(label)}</b><br>"
        "%{customdata[1]} at %{customdata[0]} tokens<extra></extra>",
        row=1,
        col=1,
    )


def _add_failures(
    figure: go.Figure, failures: pd.DataFrame, styles: Mapping[str, charts.Style], named: set[str]
) -> None:
    """A mark for each failure in the strip; those of one place stand side by side."""
    if failures.empty:
        return
    failures = failures.drop_duplicates(["label", "context", "status"])
    groups = failures.groupby(["context", "status"])["label"]
    failures = failures.assign(place=groups.cumcount() - (groups.transform("size") - 1) / 2)
    step = 1 + 0.035 * math.log(max(4.0, failures["context"].max() / 256))
    for label, part in failures.groupby("label"):
        style, name = styles[str(label)], html.escape(str(label))
        figure.add_scatter(
            x=part["context"].astype("float64") * step ** part["place"],
            y=part["status"].map(charts.STATUS_TITLES),
            mode="markers",
            marker={"symbol": style.symbol, "color": style.color, "size": 10},
            name=name,
            legendgroup=name,
            showlegend=str(label) not in named,
            customdata=[charts.context_text(context) for context in part["context"]],
            hovertemplate=f"<b>{name}</b><br>%{{y}} at %{{customdata}} tokens<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_yaxes(type="category", row=2, col=1)


def _series_name(label: str, quantity: Quantity, exponent: float | None) -> str:
    name = html.escape(label)
    if exponent is None or math.isnan(exponent):
        return name
    return f"{name}   {quantity.fitted_title} ∝ T<sup>{exponent:.2f}</sup>"


def _value_text(value: float, quantity: Quantity) -> str:
    if quantity.unit == "bytes":
        return charts.size_text(value)
    return f"{value:,.0f} {quantity.unit}"


def _lay_out_contexts(figure: go.Figure, contexts: Sequence[float], num_rows: int) -> None:
    ticks = sorted({int(context) for context in contexts})
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 10))]
    figure.update_xaxes(
        type="log",
        tickvals=ticks,
        ticktext=[charts.context_text(tick) for tick in ticks],
        showgrid=True,
    )
    figure.update_xaxes(title_text="Context, tokens", row=num_rows, col=1)
