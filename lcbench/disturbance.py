"""Timings that something else on the machine disturbed, told in one line."""

import pandas as pd

from lcbench.rows import as_float

DISTURBANCE_COLUMNS = (
    *("kind", "status", "method", "context"),
    *("warning", "throttled", "step_ms", "step_ms_iqr"),
)
"""The columns of rows read here."""
NOISY = "noisy"
"""What the warning of a row has in it whose repeats scatter widely."""


def disturbed(rows: pd.DataFrame) -> pd.DataFrame:
    """The timings that were noisy or throttled, the widest scatter first.

    `noisy` and `is_throttled` say which, and `scatter` is the IQR over the median.
    """
    timed = rows[(rows["kind"] != "quality") & (rows["status"] == "ok")]
    timed = timed.assign(
        noisy=timed["warning"].astype("object").fillna("").str.contains(NOISY, regex=False),
        is_throttled=timed["throttled"].fillna(value=False).astype(bool),
        scatter=as_float(timed, "step_ms_iqr") / as_float(timed, "step_ms"),
    )
    found = timed[timed["noisy"] | timed["is_throttled"]]
    return found.sort_values("scatter", ascending=False, kind="stable")


def tell_disturbed(rows: pd.DataFrame) -> str:
    """One sentence on the timings that were noisy or throttled, empty where none were."""
    found = disturbed(rows)
    if found.empty:
        return ""
    timed = int(((rows["kind"] != "quality") & (rows["status"] == "ok")).sum())
    noisy, throttled = int(found["noisy"].sum()), int(found["is_throttled"].sum())
    parts = [f"{noisy:,} noisy"] * bool(noisy) + [f"{throttled:,} throttled"] * bool(throttled)
    sentence = f"{len(found):,} of {timed:,} timings were disturbed ({', '.join(parts)})"
    worst = found.iloc[0]
    if pd.isna(worst["scatter"]):
        return f"{sentence}."
    step = str(worst["kind"]).replace("_", " ")
    return (
        f"{sentence}; the worst is {worst['method']}, {step} at {worst['context']:,}: the"
        f" middle half of its repeats spans {worst['scatter']:.0%} of the median."
    )
