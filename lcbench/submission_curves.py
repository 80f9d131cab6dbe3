"""The rules for learning curves: whole, in order, and within what the row says of its training."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lcbench.store import CURVE
from lcbench.submission_rules import Findings

CLOCKS_AGREE = 0.01
"""Relative: a device's clock, which may time the curve, and the host's, which times training."""


def check_curves(
    rows: Sequence[dict[str, Any] | None], findings: Findings, *, may_be_older: bool
) -> None:
    """Hold the learning curve of every quality row that is ok to the rules.

    Args:
        rows: The rows of a file, None for what other rules forbid to reckon with.
        findings: Where a broken rule is noted.
        may_be_older: Whether rows may be from before there were curves.
    """
    for number, row in enumerate(rows):
        if row is None or row["kind"] != "quality" or row["status"] != "ok":
            continue
        given = [row[name] is not None for name in CURVE]
        if all(given):
            _check_curve(row, number, findings)
        elif any(given) or not may_be_older:
            message = f"{', '.join(CURVE)} are there together in every quality row that is ok"
            findings.add("nulls", message, number, about="curve")


def _check_curve(row: dict[str, Any], number: int, findings: Findings) -> None:
    steps, seconds = row["curve_steps"], row["curve_s"]
    lengths = [len(row[name]) for name in CURVE]
    if len(set(lengths)) > 1:
        message = f"{', '.join(CURVE)} have {lengths} points"
        findings.add("curve", message, number, about="points")
    if any(after <= before for before, after in pairwise(steps)):
        findings.add("curve", "curve_steps does not rise", number)
    if any(after < before for before, after in pairwise(seconds)):
        findings.add("curve", "curve_s goes back", number)
    if steps[-1] != row["train_steps"]:
        message = f"curve_steps ends at {steps[-1]:,} of {row['train_steps']:,} train_steps"
        findings.add("curve", message, number, about="end")
    if seconds[-1] > row["train_s"] * (1 + CLOCKS_AGREE):
        message = f"curve_s ends at {seconds[-1]:.3g} of {row['train_s']:.3g} train_s"
        findings.add("wall-clock", message, number, about="curve_s")
