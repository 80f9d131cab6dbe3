"""Figures: frames in, Plotly figures out.

Text that came from a results file is escaped, as Plotly reads a little HTML. Colours read on white
and on near-black; what a colour says a symbol says too. The theme (fonts, grid, background) is left
to whoever shows the figure.
"""

import html
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lcbench import ranking
from lcbench.suite import ANCHOR

PALETTE = ("#264aff", "#e67300", "#4c9959", "#b200b2", "#2693ff", "#cc0022")
ANCHOR_COLOR = "#6f7b8a"
"""Vanilla's. These seven have a contrast of 3 to white and to near-black, and stay apart for
readers who see no red or no green; the tests hold them to it."""
SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★",
    "triangle-down": "▼", "cross": "✚", "pentagon": "⬟",
}  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot")
KIND_TITLES = {
    "quality": "Quality",
    "train_step": "Training step",
    "prefill": "Prefill",
    "decode": "Decoding",
}
METRIC_UNITS = {"accuracy": ("%", 100.0, 1), "exact_match": ("%", 100.0, 1)} | {
    "bits_per_byte": ("bits/byte", 1.0, 3)
}
"""Unit, factor and decimals in which a metric is shown."""
STATUS_TITLES = {
    "oom": "out of memory",
    "timeout": "out of time",
    "crashed": "crashed",
    "error": "error",
    "invalid": "invalid",
}
NEUTRAL = "#7f8894"
"""Lines that belong to no method."""
HEIGHT = 460
PLOT_WIDTH, PLOT_HEIGHT = 640.0, 380.0
"""Pixels that labels are laid out for."""
CONFIG = {"displaylogo": False, "displayModeBar": False}
"""How Plotly's frame around a figure behaves."""


class Style(NamedTuple):
    """How an entry of the leaderboard is drawn on every page."""

    color: str
    symbol: str
    dash: str

    @property
    def glyph(self) -> str:
        """The symbol as a character."""
        return SYMBOLS[self.symbol]


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


def trade_off_axes() -> dict[str, Axis]:
    """The columns of the leaderboard that can be traded for each other."""
    names = ("quality", "prefill_speed", "train_speed", "decode_speed", "memory")
    columns = {column.name: column for column in ranking.board_columns()}
    chosen = [columns[name] for name in (*names, "state_bytes_per_token")]
    return {column.name: Axis(column, column.name != "quality") for column in chosen}


def method_styles(board: pd.DataFrame) -> dict[str, Style]:
    """A style for each label: colours by method, dashes and symbols by config too."""
    methods = sorted(set(board["method"]) - {ANCHOR})
    symbols = list(SYMBOLS)
    entries = board.drop_duplicates("label").sort_values("label")
    variants = entries.groupby("method").cumcount()
    styles: dict[str, Style] = {}
    for label, method, variant in zip(entries["label"], entries["method"], variants, strict=True):
        number = methods.index(method) + 1 if method != ANCHOR else 0
        styles[label] = Style(
            PALETTE[(number - 1) % len(PALETTE)] if number else ANCHOR_COLOR,
            symbols[(number + variant) % len(symbols)],
            DASHES[(variant + max(0, number - 1) // len(PALETTE)) % len(DASHES)],
        )
    return styles


def size_text(count: float) -> str:
    """Bytes with a binary unit and three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.3g} {unit}" if abs(count) < 1000 else f"{count:,.0f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def count_text(count: float) -> str:
    """A number with at most three digits and k, M or G."""
    for unit in ("", "k", "M", "G"):
        if abs(count) < 1000 or unit == "G":
            return f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def context_text(context: float) -> str:
    """Tokens as the field says them: 512, 4k, 1M."""
    if context >= 2**20 and context % 2**20 == 0:
        return f"{context / 2**20:.0f}M"
    if context >= 1024 and context % 1024 == 0:
        return f"{context / 1024:.0f}k"
    return f"{context:,.0f}"


def task_names(places: Sequence[Mapping[Any, Any]]) -> list[str]:
    """A name for each row of `ranking.TASK`: `mqar, trained at 64`, with what sets it apart."""
    configs = [json.loads(place["task_config"]) for place in places]
    names: list[str] = []
    for place, config in zip(places, configs, strict=True):
        rivals = [c for p, c in zip(places, configs, strict=True) if p["task"] == place["task"]]
        apart = [key for key in config if any(rival.get(key) != config[key] for rival in rivals)]
        trained = f"trained at {context_text(place['train_context'])}"
        fields = [f"{key}={config[key]}" for key in apart]
        names.append(", ".join([str(place["task"]), trained, *fields]))
    return names


def frontier(board: pd.DataFrame, x: Axis, y: Axis) -> pd.DataFrame:
    """The rows that no other beats on both axes, from left to right."""
    known = board.dropna(subset=[x.column.name, y.column.name])
    signs = [1 if axis.column.higher_is_better else -1 for axis in (x, y)]
    values = known[[x.column.name, y.column.name]].to_numpy(dtype=np.float64) * signs
    first = known[ranking.pareto_layers(values) == 1]
    return first.sort_values([x.column.name, y.column.name])


def trade_off(
    board: pd.DataFrame, x: Axis, y: Axis, styles: Mapping[str, Style], ink: str
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
            "color": NEUTRAL,
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
    _lay_out(figure, positions.count(""))
    return figure


def scaling(
    points: pd.DataFrame,
    failures: pd.DataFrame,
    exponents: pd.DataFrame,
    quantity: Quantity,
    styles: Mapping[str, Style],
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
        **_log_ticks(values, quantity.unit == "bytes"),
        row=1,
        col=1,
    )
    _lay_out(figure, points["label"].nunique())
    return figure


def score_curve(
    scores: pd.DataFrame, failures: pd.DataFrame, styles: Mapping[str, Style]
) -> go.Figure:
    """Scores of one task against the context, with its floor and the trained context.

    Args:
        scores: Rows of `ranking.task_scores` of one task, with `label`.
        failures: `label`, `context` and `status` of what gave no value.
        styles: By label.
    """
    unit, factor, digits = METRIC_UNITS.get(str(scores["metric"].iloc[0]), ("", 1.0, 3))
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
        line={"color": NEUTRAL, "dash": "dot", "width": 1.5},
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
            line={"color": NEUTRAL, "dash": "dash", "width": 1.5},
        )
    _lay_out_contexts(figure, [*scores["context"], *failures["context"]], 1 + (len(failures) > 0))
    lower = str(scores["metric"].iloc[0]) == "bits_per_byte"
    title = f"Score, {unit}" if unit else "Score"
    figure.update_yaxes(
        title_text=f"{title} ({'lower' if lower else 'higher'} is better)", row=1, col=1
    )
    _lay_out(figure, scores["label"].nunique() + 1)
    return figure


def _add_point(
    figure: go.Figure,
    row: Mapping[Any, Any],
    axes: tuple[Axis, Axis],
    style: Style,
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
    ticks = _log_ticks(known, in_bytes=False)
    return layout | {"type": "log", "range": [low - margin, high + margin], **ticks}


def _log_ticks(values: pd.Series, in_bytes: bool) -> dict[str, Any]:
    """Ticks at powers of two for bytes, else at 1, 2 and 5, thinned to about eight."""
    known = values[values > 0]
    if known.empty:
        return {}
    low, high = known.min() / 2, known.max() * 2
    if in_bytes:
        ticks = [2.0**e for e in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
        ticks = ticks[:: max(1, math.ceil(len(ticks) / 8))]
        return {"tickvals": ticks, "ticktext": [size_text(tick) for tick in ticks]}
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
    ticks = [step * 10.0**e for e in exponents for step in steps]
    return {"tickvals": ticks, "ticktext": [count_text(tick) for tick in ticks]}


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
    style: Style,
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
        customdata=[[context_text(c), text] for c, text in zip(contexts, texts, strict=True)],
        hovertemplate=f"<b>{html.escape(label)}</b><br>"
        "%{customdata[1]} at %{customdata[0]} tokens<extra></extra>",
        row=1,
        col=1,
    )


def _add_failures(
    figure: go.Figure, failures: pd.DataFrame, styles: Mapping[str, Style], named: set[str]
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
            y=part["status"].map(STATUS_TITLES),
            mode="markers",
            marker={"symbol": style.symbol, "color": style.color, "size": 10},
            name=name,
            legendgroup=name,
            showlegend=str(label) not in named,
            customdata=[context_text(context) for context in part["context"]],
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
        return size_text(value)
    return f"{value:,.0f} {quantity.unit}"


def _lay_out_contexts(figure: go.Figure, contexts: Sequence[float], num_rows: int) -> None:
    ticks = sorted({int(context) for context in contexts})
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 10))]
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[context_text(tick) for tick in ticks], showgrid=True
    )
    figure.update_xaxes(title_text="Context, tokens", row=num_rows, col=1)


def _lay_out(figure: go.Figure, num_series: int) -> None:
    figure.update_layout(
        height=HEIGHT + 14 * num_series,
        margin={"l": 8, "r": 16, "t": 24, "b": 8},
        legend={
            "orientation": "h",
            "y": 1.04,
            "yanchor": "bottom",
            "x": 0,
            "xanchor": "left",
            "entrywidth": 0,
            "font": {"size": 13},
        },
        hovermode="closest",
    )
