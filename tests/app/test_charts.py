import math

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly")

from lcbench.app import charts, context_charts, trade_off_chart

WHITE, NEAR_BLACK = "#ffffff", "#11161d"
# Machado, Oliveira and Fernandes (2009), severity 1: how colours look without green or red cones.
DEUTERANOPIA = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
]
PROTANOPIA = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
COLORS = (*charts.PALETTE, charts.ANCHOR_COLOR)


def linear(color: str) -> np.ndarray:
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted(float((TO_XYZ @ linear(color))[1]) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def board(**columns: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame({"quality_low": math.nan, "quality_high": math.nan, **columns})
    return frame.assign(label=frame["method"])


@pytest.mark.parametrize("background", [WHITE, NEAR_BLACK])
def test_colours_stand_out_in_both_themes(background: str):
    assert min(contrast(color, background) for color in COLORS) >= 3


@pytest.mark.parametrize("seen", [np.eye(3), DEUTERANOPIA, PROTANOPIA])
def test_colours_stay_apart_for_colour_blind_readers(seen: list[list[float]]):
    points = [lab(np.array(seen) @ linear(color)) for color in COLORS]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]]
    assert min(apart) > 20


def test_styles_differ_between_entries_and_do_not_depend_on_what_is_shown():
    names = ["vanilla", *(f"m{i:02}" for i in range(23))]
    frame = pd.DataFrame({"method": names, "config": "{}", "label": names})
    styles = charts.method_styles(frame)
    assert len({(style.color, style.symbol) for style in styles.values()}) == 24
    assert styles["vanilla"].color == charts.ANCHOR_COLOR
    assert charts.method_styles(frame[::-1]) == styles


def test_configs_of_a_method_share_its_colour_and_differ_in_symbol_and_dash():
    labels = ["m:w=1", "m:w=2"]
    frame = pd.DataFrame({"method": "m", "config": ['{"w":1}', '{"w":2}'], "label": labels})
    one, two = charts.method_styles(frame).values()
    assert one.color == two.color
    assert one.symbol != two.symbol
    assert one.dash != two.dash


def test_the_frontier_has_what_nothing_beats_on_both_axes():
    frame = board(
        method=["best", "cheap", "beaten", "unknown"],
        quality=[0.9, 0.5, 0.4, 0.99],
        memory=[2.0, 0.5, 0.6, math.nan],
    )
    axes = trade_off_chart.trade_off_axes()
    edge = trade_off_chart.frontier(frame, axes["memory"], axes["quality"])
    assert edge["method"].tolist() == ["cheap", "best"]


def test_names_from_files_are_no_html_in_a_figure():
    name = "<a href='http://x'>m</a>"
    frame = board(method=[name], quality=[0.5], memory=[1.0])
    axes = trade_off_chart.trade_off_axes()
    styles = charts.method_styles(frame.assign(config="{}"))
    figure = trade_off_chart.trade_off(frame, axes["memory"], axes["quality"], styles, "#000")
    points = pd.DataFrame({"label": [name], "context": [512], "tokens_per_s": [1.0]})
    failures = pd.DataFrame({"label": [name], "context": [1024], "status": ["oom"]})
    exponents = pd.DataFrame({"label": [name], "exponent": [1.5]})
    curve = context_charts.scaling(
        points, failures, exponents, context_charts.QUANTITIES[0], styles
    )
    for drawn in (figure, curve):
        assert "&lt;a href" in drawn.to_json().replace("\\u003c", "<").replace("\\u0026", "&")
        assert "<a href" not in drawn.to_json().replace("\\u003c", "<")


def test_scaling_tells_the_exponent_and_marks_what_ran_out():
    label = ["m", "m"]
    points = pd.DataFrame({"label": label, "context": [512, 1024], "tokens_per_s": [2e3, 1e3]})
    failures = pd.DataFrame({"label": label, "context": [2048, 4096], "status": ["oom", "timeout"]})
    exponents = pd.DataFrame({"label": ["m"], "exponent": [1.987]})
    styles = charts.method_styles(pd.DataFrame({"method": ["m"], "label": ["m"]}))
    figure = context_charts.scaling(
        points, failures, exponents, context_charts.QUANTITIES[0], styles
    )
    line, marks = figure.data
    assert "T<sup>1.99</sup>" in line.name
    assert list(zip(marks.x, marks.y, strict=True)) == [
        (2048, "out of memory"),
        (4096, "out of time"),
    ]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1000, "1,000 B"), (1536, "1.5 KiB"), (2**40, "1,024 GiB")]
)
def test_bytes_are_told_with_three_digits(count: float, text: str):
    assert charts.size_text(count) == text
