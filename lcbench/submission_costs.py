"""The rules for costs: summaries of timings, rates, memory, and what no device could do.

A device's roofline is not the submitter's to say, so the bounds here are of the fastest device of
its kind there is, several times over for those not named: they catch a slipped unit, a call that
did nothing and an invented number, not a tenth of a percent.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcbench.submission_rules import Findings
from lcbench.suite import ANCHOR, Cell, read_cost_recipe

AGREE = 1e-6
"""Relative: the same arithmetic, whatever the order of its steps."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}

FLOPS_OF_A_CORE = {"float32": 5e11, "bfloat16": 8e12}
"""Operations a second of one CPU core: two 512-bit multiply-adds a cycle at 6 GHz come to 3.8e11,
matrix units in bfloat16 to some 5e12."""
READ_BYTES_OF_A_CORE = 1e12
"""Bytes a second of one CPU core, from its own cache: 128 a cycle at 6 GHz come to 8e11."""
FLOPS_OF_A_GPU = {
    r"\b(T4|P100|V100)\b": 2e14,
    r"\b(A10|A30|A40|L4|L40S?|A6000)\b": 8e14,
    r"\bA100\b": 4e14,
    r"\b(H100|H200|H800|GH200)\b": 1.2e15,
}
"""Operations a second of GPUs by name, dense matrix products at the width lcbench uses or below."""
FLOPS_OF_ANY_GPU, BYTES_OF_ANY_GPU = 1e16, 3e13
"""Beyond what is made: a B300's dense bfloat16 is 2.5e15, its memory 8e12 bytes a second."""
FLOPS_OF_ANY_MPS, BYTES_OF_ANY_MPS = 2e14, 5e12
LEAST_FLOPS_A_WEIGHT = 2
"""Operations that training does for a weight and a token: six for one that is multiplied, none for
an embedding that is looked up."""
MOST_LOOKED_UP = 0.9
"""Share of a small model's weights that may be an embedding."""


def check_costs(
    rows: Sequence[dict[str, Any] | None], cells: Mapping[int, Cell], findings: Findings
) -> None:
    """Recompute what every row says of time and memory, as far as it is ok.

    Args:
        rows: The rows of a file.
        cells: The cell of each row whose recipe can be read.
        findings: Where a broken rule is noted.
    """
    for number, row in enumerate(rows):
        if row is None or row["status"] != "ok":
            continue
        if row["kind"] == "quality":
            _check_training(row, number, findings)
            continue
        _check_timings(row, number, findings)
        _check_beside(row, number, findings)
        _check_roofline(row, row["flops"], row["step_ms"] / 1e3, number, findings)
        if cell := cells.get(number):
            _check_memory(row, cell, number, findings)


def flops_bound(row: dict[str, Any]) -> float:
    """Operations a second that no device of this kind and name reaches."""
    if row["device_kind"] == "cpu":
        return FLOPS_OF_A_CORE[row["dtype"]] * row["threads"]
    if row["device_kind"] == "mps":
        return FLOPS_OF_ANY_MPS
    named = [rate for name, rate in FLOPS_OF_A_GPU.items() if re.search(name, row["device"])]
    return max(named, default=FLOPS_OF_ANY_GPU)


def bytes_bound(row: dict[str, Any]) -> float:
    """Bytes a second that no device of this kind reads."""
    if row["device_kind"] == "cpu":
        return READ_BYTES_OF_A_CORE * row["threads"]
    return BYTES_OF_ANY_MPS if row["device_kind"] == "mps" else BYTES_OF_ANY_GPU


def _check_timings(row: dict[str, Any], number: int, findings: Findings) -> None:
    timings = np.array(row["timings_ns"], dtype=np.float64)
    low, middle, high = np.percentile(timings, [25, 50, 75]) / 1e6
    _expect("timing", "step_ms", row["step_ms"], float(middle), number, findings)
    _expect("timing", "step_ms_iqr", row["step_ms_iqr"], float(high - low), number, findings)
    tokens = row["batch"] * (1 if row["kind"] == "decode" else row["context"])
    rate = tokens / row["step_ms"] * 1e3
    _expect("rate", "tokens_per_s", row["tokens_per_s"], rate, number, findings)
    timed_s = float(timings.sum()) / 1e9
    if row["vanilla_step_ms"] is not None and row["method"] != ANCHOR:
        # At least half of the anchor's calls, as many as the method's, took its median or longer.
        timed_s += row["vanilla_step_ms"] / 1e3 * len(timings) / 2
    if timed_s > row["wall_s"]:
        message = f"its calls took {timed_s:.3g} s of the cell's {row['wall_s']:.3g}"
        findings.add("wall-clock", message, number, about="timings")


def _check_beside(row: dict[str, Any], number: int, findings: Findings) -> None:
    if row["vs_vanilla"] is None or row["vanilla_step_ms"] is None:
        return
    ratio = row["vanilla_step_ms"] / row["step_ms"]
    _expect("timing", "vs_vanilla", row["vs_vanilla"], ratio, number, findings)


def _check_training(row: dict[str, Any], number: int, findings: Findings) -> None:
    if row["train_s"] > row["wall_s"]:
        message = f"train_s is {row['train_s']:.3g} of the cell's {row['wall_s']:.3g} s"
        findings.add("wall-clock", message, number, about="train_s")
    weights = row["num_params"] * (1 - MOST_LOOKED_UP)
    least = LEAST_FLOPS_A_WEIGHT * weights * row["train_tokens"]
    _check_roofline(row, least, row["train_s"], number, findings)


def _check_roofline(
    row: dict[str, Any], flops: float | None, seconds: float, number: int, findings: Findings
) -> None:
    seconds = max(seconds, 1e-9)
    if flops is not None and flops / seconds > flops_bound(row):
        message = f"{flops / seconds:.3g} operations a second, above {flops_bound(row):.3g}"
        findings.add("roofline", message, number, about="flops")
    touched = row["touched_bytes"]
    if touched is not None and touched / seconds > bytes_bound(row):
        message = f"{touched / seconds:.3g} bytes a second, above {bytes_bound(row):.3g}"
        findings.add("roofline", message, number, about="bytes")


def _check_memory(row: dict[str, Any], cell: Cell, number: int, findings: Findings) -> None:
    plan = read_cost_recipe(cell)
    width = DTYPE_BYTES[row["dtype"]]
    tokens = plan.batch * (1 if row["kind"] == "decode" else row["context"])
    # Figures are one layer's share of all that were measured together, which give one output.
    least = tokens * plan.d_model * width // cell.num_layers
    if row["kind"] == "train_step":
        least = max(least, row["num_params"] * width)
    peaks = [row["peak_bytes"]]
    if row["method"] == ANCHOR:
        peaks.append(row["vanilla_peak_bytes"])
    for peak in peaks:
        if peak is not None and peak < least:
            message = f"a {row['kind']} peaks at {peak:,} bytes and must hold {least:,} at least"
            findings.add("memory", message, number, about=f"{row['kind']} least")
    for column in ("peak_bytes", "vanilla_peak_bytes", "state_bytes", "asked_bytes"):
        said = row[column]
        if said is not None and column != "asked_bytes" and said > row["device_bytes"]:
            message = f"{column} is {said:,}, the device has {row['device_bytes']:,}"
            findings.add("memory", message, number, about=column)
    if row["state_bytes"] is None and row["kind"] == "decode":
        findings.add("memory", "state_bytes is null of a decode", number)


def _expect(
    rule: str, column: str, said: float, value: float, number: int, findings: Findings
) -> None:
    if not math.isclose(said, value, rel_tol=AGREE, abs_tol=1e-9):
        message = f"{column} is {said:.9g}, its timings give {value:.9g}"
        findings.add(rule, message, number, about=column)
