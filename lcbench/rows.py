"""Which rows may stand side by side, and the one scale on which their scores lie."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lcbench.store import REQUIRED_OF_QUALITY, latest
from lcbench.suite import DRAFT

GROUP = ["suite", "device_kind"]
"""What a leaderboard is of: nothing is compared across suites or kinds of device."""
ENTRY = [*GROUP, "method", "config", "dtype"]
"""What has a row of its own on a leaderboard."""
TASK = ["task", "task_config", "train_context"]
"""What a model is trained on."""
_SLOT = [*ENTRY, "kind", *TASK, "context", "seed"]
_VERSIONS = {
    "suite_version": ["suite"],
    "task_version": [*GROUP, "task", "task_config"],
    "task_hash": [*GROUP, "task", "task_config"],
    "data_hash": [*GROUP, "task", "task_config"],
    "method_hash": ENTRY,
}
REASONS = {
    "incomplete": "lack what a row of their kind must have",
    "suite_version": "of an older version of their suite",
    "task_version": "of an older version of their task",
    "task_hash": "of an older text of their task",
    "data_hash": "on another corpus than the newest rows of their task",
    "method_hash": "of an older text of their method",
    "repeated": "measured again since",
}
"""Why rows are put aside, by the keys of `Comparable.put_aside`, in the words of a sentence."""


class Comparable(NamedTuple):
    """Rows that may stand side by side."""

    frame: pd.DataFrame
    put_aside: dict[str, int]
    """Rows left out: `incomplete`, older by the column that names a version, or `repeated`."""


def comparable(frame: pd.DataFrame) -> Comparable:
    """The rows that may stand side by side, and how many were put aside for what reason.

    Kept are, in turn, the highest `suite_version` of a suite; the highest `task_version`, then the
    newest `task_hash` and `data_hash`, of a task as configured, per kind of device; the newest
    `method_hash` of an entry; and of rows that fill the same place in the plan the newest. A row
    without a version or hash (it failed too early to know) goes with any.
    """
    frame = frame.assign(dtype=frame["dtype"].fillna(""))
    reasons = put_aside_reasons(frame)
    kept = reasons.isna()
    counts = reasons.value_counts().to_dict()
    return Comparable(
        frame if kept.all() else frame[kept], {why: int(counts.get(why, 0)) for why in REASONS}
    )


def put_aside_reasons(frame: pd.DataFrame) -> pd.Series:
    """Why `comparable` puts each row aside, by the keys of `REASONS`; null for those it keeps."""
    frame = frame.assign(dtype=frame["dtype"].fillna(""))
    is_quality = frame["kind"] == "quality"
    incomplete = is_quality & frame[list(REQUIRED_OF_QUALITY)].isna().any(axis=1)
    reasons = np.full(len(frame), None, dtype=object)
    reasons[incomplete] = "incomplete"
    place = np.flatnonzero(~incomplete)
    frame_left = frame[~incomplete]
    # Codes are ordered as the values are, null is -1, and grouping by them is fast.
    names = dict.fromkeys([*_VERSIONS, *_SLOT, "started_at"])
    codes = pd.DataFrame({name: pd.factorize(frame_left[name], sort=True)[0] for name in names})
    for column, unit in _VERSIONS.items():
        keep = _is_newest(codes, column, unit)
        reasons[place[codes.index[~keep]]] = column
        codes = codes[keep]
    repeated = codes.index.difference(latest(codes, _SLOT).index)
    reasons[place[repeated]] = "repeated"
    return pd.Series(reasons, index=frame.index, name="reason")


def _is_newest(codes: pd.DataFrame, column: str, unit: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows have the newest value of a column within their unit, or none."""
    known = codes[codes[column] >= 0]
    groups = known.groupby(list(unit), sort=False)
    order = column if column.endswith("_version") else "started_at"
    newest = known[column].loc[groups[order].idxmax()].to_numpy()
    keep = codes[column].lt(0).to_numpy(copy=True)
    keep[~keep] = known[column].to_numpy() == newest[groups.ngroup().to_numpy()]
    return keep


def drafts(frame: pd.DataFrame) -> set[str]:
    """The suites of which only a draft was measured, one cut by `--limit` among them."""
    newest = frame.groupby("suite")["suite_version"].max()
    return set(newest.index[newest == DRAFT])


def tell_put_aside(put_aside: dict[str, int]) -> str:
    """One sentence on the rows left out, empty where none were."""
    counts = {reason: number for reason, number in put_aside.items() if number}
    if not counts:
        return ""
    parts = [f"{number:,} {REASONS[reason]}" for reason, number in counts.items()]
    total = sum(counts.values())
    return f"{total:,} row{'s' if total > 1 else ''} put aside: {'; '.join(parts)}."


def as_float(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column as float64, null as NaN."""
    return frame[name].astype("float64")


def on_scale(frame: pd.DataFrame) -> pd.Series:
    """Scores on the scale where the floor is 0 and the ceiling 1, beyond both too.

    Works for metrics of either direction; a row without a score is NaN.
    """
    score, floor, ceiling = (as_float(frame, name) for name in ("score", "floor", "ceiling"))
    span = ceiling - floor
    return (score - floor) / span.where(span != 0)


def normalised(frame: pd.DataFrame) -> pd.Series:
    """Scores on the scale where the floor is 0 and the ceiling 1, clipped to it.

    A quality row that failed, or lacks a score, is 0; other kinds of row are NaN.
    """
    scaled = on_scale(frame).clip(0, 1)
    scaled = scaled.where(frame["status"] == "ok").fillna(0.0)
    return scaled.where(frame["kind"] == "quality").rename("normalised")
