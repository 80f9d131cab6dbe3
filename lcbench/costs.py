"""What methods cost: the rungs of the ladder they finished, and exponents in the context."""

import numpy as np
import pandas as pd

from lcbench.rows import ENTRY, GROUP, as_float, comparable

ASYMPTOTIC_CONTEXT = 2048
"""Context from which fixed costs no longer bend a log-log slope on any machine we measured."""


def fit_exponents(frame: pd.DataFrame, quantity: str = "step_ms") -> pd.DataFrame:
    """Exponents in the context of what each kind of step costs: least squares on log-log axes.

    Costs are per sequence. Fitted are the rungs from `ASYMPTOTIC_CONTEXT` up where there are three,
    else the last three; `num_rungs` says how many there were, and one gives no slope.

    Args:
        frame: Rows.
        quantity: `step_ms`, `peak_bytes` or `state_bytes`.
    """
    return exponents_of(rungs_of(comparable(frame).frame), quantity)


def roofline_share(rows: pd.DataFrame) -> pd.Series:
    """The least time a machine of such peaks needs for a call, over the time the call took.

    The least is the longer of two: doing the counted operations at the rate of the machine's best
    matrix products, and moving the bytes the call touches, each once, at the rate of its copies.
    Near 1 nothing is left to gain but by doing less. It may pass 1 where caches hold what is
    touched, as the weights of a small layer; it is NaN where the machine's peaks were not measured.
    """
    flops, touched = as_float(rows, "flops"), as_float(rows, "touched_bytes")
    computing = flops / as_float(rows, "matmul_flops_per_s")
    moving = touched / as_float(rows, "copy_bytes_per_s")
    least_s = computing.where(computing >= moving, moving)
    least_s = least_s.where(computing.notna())  # unknown where either is
    return (least_s / (as_float(rows, "step_ms") / 1e3)).rename("roofline")


def rungs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Finished rungs of the cost ladder: medians of each (entry, kind, context)."""
    rows = rows[(rows["kind"] != "quality") & (rows["status"] == "ok")]
    names = ["batch", "step_ms", "vs_vanilla", "peak_bytes", "vanilla_peak_bytes", "state_bytes"]
    values = rows.assign(**{name: as_float(rows, name) for name in names})
    values["context"] = values["context"].astype("int64")
    values["roofline"] = roofline_share(rows)
    names.append("roofline")
    return values.groupby([*ENTRY, "kind", "context"])[names].median().reset_index()


def exponents_of(rungs: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """`fit_exponents` of rungs that are at hand."""
    keys = [*ENTRY, "kind"]
    rungs = rungs[rungs[quantity] > 0].sort_values([*keys, "context"])
    is_long = rungs["context"] >= ASYMPTOTIC_CONTEXT
    num_long = is_long.groupby([rungs[key] for key in keys]).transform("sum")
    from_end = rungs.groupby(keys).cumcount(ascending=False)
    fitted = rungs[(is_long & (num_long >= 3)) | ((num_long < 3) & (from_end < 3))]
    fitted = fitted.assign(
        x=np.log(fitted["context"]), y=np.log(fitted[quantity] / fitted["batch"].fillna(1.0))
    )
    means = fitted.groupby(keys)[["x", "y"]].transform("mean")
    dx, dy = fitted["x"] - means["x"], fitted["y"] - means["y"]
    sums = fitted[keys].assign(xx=dx * dx, xy=dx * dy, num_rungs=1)
    fits = sums.groupby(keys)[["xx", "xy", "num_rungs"]].sum().reset_index()
    fits["exponent"] = fits["xy"] / fits["xx"].where(fits["num_rungs"] > 1)
    return fits[[*keys, "exponent", "num_rungs"]]


def time_exponents(rungs: pd.DataFrame) -> pd.DataFrame:
    """Exponents of time, a column for each kind of step."""
    fits = exponents_of(rungs, "step_ms")
    return _side_by_side(fits, "exponent", "{}_exponent")


def _side_by_side(long: pd.DataFrame, value: str, title: str) -> pd.DataFrame:
    """One column for each kind of cost, named by the title with `train`, `prefill` or `decode`."""
    wide = long.pivot_table(value, index=ENTRY, columns="kind", dropna=False)
    wide = wide.reindex(columns=["train_step", "prefill", "decode"])
    wide.columns = [title.format(kind) for kind in ("train", "prefill", "decode")]
    return wide.reset_index()


def costs_of(rungs: pd.DataFrame) -> pd.DataFrame:
    """Speed, memory and state of each entry at the longest context all entries finished."""
    ladder = [*GROUP, "kind"]
    finishers = rungs[[*ENTRY, "kind"]].drop_duplicates().groupby(ladder).size()
    finished = rungs.groupby([*ladder, "context"]).size().rename("num").reset_index()
    finished = finished.merge(finishers.rename("all").reset_index(), on=ladder)
    shared = finished[finished["num"] == finished["all"]]
    longest = shared.groupby(ladder)["context"].max().reset_index()
    at = rungs.merge(longest, on=[*ladder, "context"])
    at["memory"] = at["peak_bytes"] / at["vanilla_peak_bytes"]
    at["state_bytes_per_token"] = at["state_bytes"] / at["context"]
    memory = at.loc[at["kind"] == "train_step", [*ENTRY, "memory"]]
    state = at.loc[at["kind"] == "decode", [*ENTRY, "state_bytes_per_token"]]
    part = _side_by_side(at, "vs_vanilla", "{}_speed")
    roofline = _side_by_side(at, "roofline", "{}_roofline")
    for one in (_side_by_side(at, "context", "{}_speed_context"), memory, state, roofline):
        part = part.merge(one, on=ENTRY, how="left")
    return part
