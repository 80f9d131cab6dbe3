"""What all figures share: styles, units, ticks. Builders take frames and give Plotly figures.

Text that came from a results file is escaped, as Plotly reads a little HTML. Colours read on white
and on near-black; what a colour says a symbol says too. The theme (fonts, grid, background) is left
to whoever shows the figure.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

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


def log_ticks(values: pd.Series, in_bytes: bool) -> dict[str, Any]:
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


def lay_out(figure: go.Figure, num_series: int) -> None:
    """Give a figure its height and margins, and a legend above it of so many entries."""
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
