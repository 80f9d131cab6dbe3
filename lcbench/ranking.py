"""Rows to scores, curves and the leaderboard: pure functions of frames.

Each function first takes `comparable` rows, and nothing is weighted behind the reader's back: a
task counts once however many variants and contexts it has, a failure counts 0, and what was never
tried is told by `coverage`. Numbers that stand beside a method's name are its own (rivals cannot
change them, given the plan) except the ratios to `vanilla`, which are read at a context that all
rivals reached, and the Pareto layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lcbench.config import digest
from lcbench.store import REQUIRED_OF_QUALITY, STATUSES, latest

ANCHOR = "vanilla"
"""The method that speed and memory are relative to."""
KEEPS = 0.85
"""Share of its trained-context score that a method keeps within its effective context."""
SOLVED = 0.95
"""Normalised score from which a seed has solved its task."""
RESAMPLES = 1000
ASYMPTOTIC_CONTEXT = 2048
"""Context from which fixed costs no longer bend a log-log slope on any machine we measured."""

GROUP = ["suite", "device_kind"]
"""What a leaderboard is of: nothing is compared across suites or kinds of device."""
ENTRY = [*GROUP, "method", "config"]
"""What has a row of its own on a leaderboard."""
TASK = ["task", "task_config", "train_context"]
"""What a model is trained on."""
PLAN = ["suite", *TASK, "context", "seed"]
"""Columns of a plan; `device_kind` may be among them."""
_SLOT = [*ENTRY, "kind", *TASK, "context", "seed"]
_VERSIONS = {
    "suite_version": ["suite"],
    "task_version": [*GROUP, "task", "task_config"],
    "task_hash": [*GROUP, "task", "task_config"],
    "data_hash": [*GROUP, "task", "task_config"],
    "method_hash": ENTRY,
}
COLUMNS = (
    *("suite", "suite_version", "device_kind", "method", "method_hash", "config", "kind"),
    *("task", "task_version", "task_hash", "task_config", "data_hash", "train_context"),
    *("context", "seed", "batch", "status", "started_at", "metric", "score", "floor", "ceiling"),
    *("score_se", "step_ms", "vs_vanilla", "peak_bytes", "state_bytes", "num_params"),
)
"""The columns of rows that ranking reads; `distance_curve` reads `DISTANCE_COLUMNS` too."""
DISTANCE_COLUMNS = ("score_by_distance", "count_by_distance")


class Comparable(NamedTuple):
    """Rows that may stand side by side."""

    frame: pd.DataFrame
    put_aside: dict[str, int]
    """Rows left out: `incomplete`, older by the column that names a version, or `repeated`."""


class BoardColumn(NamedTuple):
    """How a column of the leaderboard is shown, in the terminal, the app and exports alike."""

    name: str
    title: str
    unit: str = ""
    digits: int | None = None
    """Decimals shown; None for text."""
    higher_is_better: bool | None = None
    """None where neither direction is better."""


_BOARD = (
    BoardColumn("suite", "Suite"),
    BoardColumn("device_kind", "Device"),
    BoardColumn("method", "Method"),
    BoardColumn("config", "Config"),
    BoardColumn("pareto", "Pareto layer", "", 0, False),
    BoardColumn("quality", "Quality", "", 3, True),
    BoardColumn("quality_low", "Quality, low", "", 3, True),
    BoardColumn("quality_high", "Quality, high", "", 3, True),
    BoardColumn("coverage", "Coverage", "", 2, True),
    BoardColumn("effective_context", "Effective context", "tokens", 0, True),
    BoardColumn("train_speed", "Training speed", "× vanilla", 2, True),
    BoardColumn("train_speed_context", "Training at", "tokens", 0),
    BoardColumn("prefill_speed", "Prefill speed", "× vanilla", 2, True),
    BoardColumn("prefill_speed_context", "Prefill at", "tokens", 0),
    BoardColumn("decode_speed", "Decoding speed", "× vanilla", 2, True),
    BoardColumn("decode_speed_context", "Decoding at", "tokens", 0),
    BoardColumn("memory", "Training memory", "× vanilla", 2, False),
    BoardColumn("state_bytes_per_token", "State", "B/token", 1, False),
    BoardColumn("num_params", "Parameters", "", 0),
    BoardColumn("train_exponent", "Training time exponent", "", 2, False),
    BoardColumn("prefill_exponent", "Prefill time exponent", "", 2, False),
    BoardColumn("decode_exponent", "Decoding time exponent", "", 2, False),
    BoardColumn("ok", "Rows ok", "", 0),
    BoardColumn("failed", "Rows failed", "", 0, False),
    *(BoardColumn(status, f"Rows {status}", "", 0) for status in STATUSES if status != "ok"),
)


def board_columns() -> list[BoardColumn]:
    """Every column of `leaderboard`, in its order."""
    return list(_BOARD)


def comparable(frame: pd.DataFrame) -> Comparable:
    """The rows that may stand side by side, and how many were put aside for what reason.

    Kept are, in turn, the highest `suite_version` of a suite; the highest `task_version`, then the
    newest `task_hash` and `data_hash`, of a task as configured, per kind of device; the newest
    `method_hash` of an entry; and of rows that fill the same place in the plan the newest. A row
    without a version or hash (it failed too early to know) goes with any.
    """
    is_quality = frame["kind"] == "quality"
    incomplete = is_quality & frame[list(REQUIRED_OF_QUALITY)].isna().any(axis=1)
    put_aside = {"incomplete": int(incomplete.sum())}
    frame = frame[~incomplete]
    # Codes are ordered as the values are, null is -1, and grouping by them is fast.
    names = dict.fromkeys([*_VERSIONS, *_SLOT, "started_at"])
    codes = pd.DataFrame({name: pd.factorize(frame[name], sort=True)[0] for name in names})
    for column, unit in _VERSIONS.items():
        keep = _is_newest(codes, column, unit)
        put_aside[column] = len(codes) - int(keep.sum())
        codes = codes[keep]
    newest = latest(codes, _SLOT)
    put_aside["repeated"] = len(codes) - len(newest)
    return Comparable(frame.iloc[newest.index.to_numpy()], put_aside)


def normalised(frame: pd.DataFrame) -> pd.Series:
    """Scores on the scale where the floor is 0 and the ceiling 1, clipped to it.

    Works for metrics of either direction. A quality row that failed, or lacks a score, is 0; other
    kinds of row are NaN.
    """
    score, floor, ceiling = (_float(frame, name) for name in ("score", "floor", "ceiling"))
    span = ceiling - floor
    scaled = ((score - floor) / span.where(span != 0)).clip(0, 1)
    scaled = scaled.where(frame["status"] == "ok").fillna(0.0)
    return scaled.where(frame["kind"] == "quality").rename("normalised")


def task_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores of each entry on each task at each context: means over the seeds it tried.

    `score` is the mean of the seeds that finished, in the task's metric; `normalised` that of all
    seeds tried, failures as 0. `se` is the larger of two standard errors of `normalised`: between
    seeds, and of the examples within them; `low` and `high` lie 1.96 of them to either side. `solved`
    is the share of seeds with a normalised score of at least `SOLVED`.
    """
    return _by_context(_quality(comparable(frame).frame))


def effective_contexts(frame: pd.DataFrame, plan: pd.DataFrame | None = None) -> pd.DataFrame:
    """How far each entry carries what it learned, per task.

    The effective context is the longest planned one up to which, from the trained context upwards
    and without a gap, the mean normalised score stays at `KEEPS` or more of that at the trained
    context; a failure, or a context not tried, ends it. It is 0 where the score at the trained context
    is not above the floor by two standard errors, and NaN where that context was not tried.
    """
    rows = comparable(frame).frame
    scores = _quality(rows)
    return _effective_contexts(_entries(rows), _by_context(scores), _planned(scores, plan))


def distance_curve(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores by distance between answer and evidence: [distance_from, 2 distance_from) tokens.

    Buckets of several seeds are pooled by their counts, so that each answer counts once.
    """
    rows = comparable(frame).frame
    rows = rows[(rows["kind"] == "quality") & (rows["status"] == "ok")]
    rows = rows[rows["score_by_distance"].notna() & rows["count_by_distance"].notna()]
    keys = [*ENTRY, *TASK, "context"]
    lengths = rows["score_by_distance"].map(len).to_numpy(dtype=np.int64)
    curve = rows[keys].loc[rows.index.repeat(lengths)].reset_index(drop=True)
    buckets = [np.arange(length) for length in lengths]
    for name, lists in (
        ("bucket", buckets),
        ("score", rows["score_by_distance"]),
        ("count", rows["count_by_distance"]),
    ):
        parts = [np.asarray(part, dtype=np.float64) for part in lists]
        curve[name] = np.concatenate(parts) if parts else np.zeros(0)
    curve = curve[curve["score"].notna() & (curve["count"] > 0)]
    curve = curve.assign(distance_from=2 ** curve["bucket"].astype("int64"))
    curve["score"] *= curve["count"]
    pooled = curve.groupby([*keys, "distance_from"], as_index=False)[["score", "count"]].sum()
    return pooled.assign(score=pooled["score"] / pooled["count"])


def fit_exponents(frame: pd.DataFrame, quantity: str = "step_ms") -> pd.DataFrame:
    """Exponents in the context of what each kind of step costs: least squares on log-log axes.

    Costs are per sequence. Fitted are the rungs from `ASYMPTOTIC_CONTEXT` up where there are three,
    else the last three; `num_rungs` says how many there were, and two are the least that give a slope.

    Args:
        frame: Rows.
        quantity: `step_ms`, `peak_bytes` or `state_bytes`.
    """
    return _exponents(_rungs(comparable(frame).frame), quantity)


def leaderboard(frame: pd.DataFrame, plan: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for each suite, kind of device, method and config; its columns are `board_columns`.

    - `quality`: mean over tasks of the mean over their planned variants and contexts of the mean
      over the seeds tried of the normalised score. A failure is 0, and so is a planned context of
      which no seed was tried; a seed not tried beside others that were only lowers `coverage`.
    - `quality_low`, `quality_high`: percentile interval (95 %) of `RESAMPLES` stratified bootstrap
      draws: tasks stay, being the suite and no sample of one; within each, seeds are drawn anew, a
      seed keeping its contexts together. NaN where a task tried has one seed.
    - `coverage`: share of planned (task, context, seed) that are `ok`.
    - `effective_context`: the smallest over tasks; NaN while one has not been tried.
    - `train_speed`, `prefill_speed`, `decode_speed`: `vs_vanilla` at the longest context that every
      entry of the board finished, entries that finished none left out; beside it that context.
    - `memory`: `peak_bytes` of a training step over vanilla's, at `train_speed_context`.
    - `state_bytes_per_token`: `state_bytes` over the context, at `decode_speed_context`.
    - `num_params`: of the largest model it trained, else of the largest it was timed in.
    - exponents: those of `fit_exponents` for time.
    - `ok`, `failed`, and a column for each status: rows. `unsupported` is not a failure.
    - `pareto`: 1 for what no entry beats in quality, prefill speed and training memory at once, 2
      for what only those beat, and so on; a missing value is worse than any.

    Sorted within each board by Pareto layer, then quality.

    Args:
        frame: Rows with at least `COLUMNS`.
        plan: Rows with at least `PLAN`; scores outside it are left out. By default everything that
            any entry of the board tried, so that a rival who tries more lowers coverage.
    """
    rows = comparable(frame).frame
    entries, scores, rungs = _entries(rows), _quality(rows), _rungs(rows)
    planned = _planned(scores, plan)
    scores = scores.merge(planned, on=[*GROUP, *TASK, "context", "seed"])
    cells = _by_context(scores)
    reach = _effective_contexts(entries, cells, planned)
    board = entries
    for part in (
        _mean_quality(entries, scores, cells, planned),
        reach.groupby(ENTRY)["effective_context"].min(skipna=False).reset_index(),
        _costs(rungs),
        _time_exponents(rungs),
        _counts(rows),
    ):
        board = board.merge(part, on=ENTRY, how="left")
    board["pareto"] = _pareto(board)
    board = board.sort_values(ENTRY).assign(worst=lambda b: -b["quality"].fillna(-1.0))
    board = board.sort_values([*GROUP, "pareto", "worst"], kind="stable", ignore_index=True)
    return board[[column.name for column in _BOARD]]


def pareto_layers(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The Pareto layer of each row of `[N, criteria]`, higher being better and NaN worst: 1 is the frontier."""
    worst_last = np.where(np.isnan(values), -np.inf, values)
    no_worse = (worst_last[:, None] >= worst_last[None]).all(axis=2)
    beats = no_worse & (worst_last[:, None] > worst_last[None]).any(axis=2)
    layers = np.zeros(len(values), dtype=np.int64)
    layer = 0
    while (layers == 0).any():
        layer += 1
        left = layers == 0
        layers[left & ~beats[left].any(axis=0)] = layer
    return layers


def _is_newest(codes: pd.DataFrame, column: str, unit: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows have the newest value of a column within their unit, or none."""
    known = codes[codes[column] >= 0]
    groups = known.groupby(list(unit), sort=False)
    order = column if column.endswith("_version") else "started_at"
    newest = known[column].loc[groups[order].idxmax()].to_numpy()
    keep = (codes[column] < 0).to_numpy()
    keep[~keep] = known[column].to_numpy() == newest[groups.ngroup().to_numpy()]
    return keep


def _float(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].astype("float64")


def _entries(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[ENTRY].drop_duplicates(ignore_index=True)


def _quality(rows: pd.DataFrame) -> pd.DataFrame:
    """Quality rows with their normalised score and its standard error over examples."""
    rows = rows[rows["kind"] == "quality"]
    span = (_float(rows, "ceiling") - _float(rows, "floor")).abs()
    integers = {name: rows[name].astype("int64") for name in ("train_context", "context", "seed")}
    return rows.assign(
        **integers,
        ok=rows["status"] == "ok",
        score=_float(rows, "score").where(rows["status"] == "ok"),
        normalised=normalised(rows),
        variance=((_float(rows, "score_se") / span.where(span > 0)) ** 2).fillna(0.0),
    )


def _planned(scores: pd.DataFrame, plan: pd.DataFrame | None) -> pd.DataFrame:
    """Each planned (group, task, context, seed)."""
    keys = [*GROUP, *TASK, "context", "seed"]
    if plan is None:
        return scores[keys].drop_duplicates(ignore_index=True)
    if "device_kind" not in plan:
        plan = plan.merge(scores[GROUP].drop_duplicates(), on="suite")
    return plan[keys].drop_duplicates(ignore_index=True)


def _by_context(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of each (entry, task, context) that was tried."""
    keys = [*ENTRY, *TASK, "context"]
    cells = (
        scores.assign(solved=scores["normalised"] >= SOLVED)
        .groupby(keys)
        .agg(
            score=("score", "mean"),
            normalised=("normalised", "mean"),
            spread=("normalised", "std"),
            variance=("variance", "sum"),
            num_seeds=("seed", "nunique"),
            solved=("solved", "mean"),
            metric=("metric", "first"),
            floor=("floor", "mean"),
            ceiling=("ceiling", "mean"),
        )
        .reset_index()
    )
    between_seeds = (cells.pop("spread") / np.sqrt(cells["num_seeds"])).fillna(0.0)
    of_examples = np.sqrt(cells.pop("variance")) / cells["num_seeds"]
    cells["se"] = np.maximum(between_seeds, of_examples)
    cells["low"] = (cells["normalised"] - 1.96 * cells["se"]).clip(lower=0.0)
    cells["high"] = (cells["normalised"] + 1.96 * cells["se"]).clip(upper=1.0)
    return cells


def _effective_contexts(
    entries: pd.DataFrame, cells: pd.DataFrame, planned: pd.DataFrame
) -> pd.DataFrame:
    keys = [*ENTRY, *TASK]
    wanted = entries.merge(planned.drop(columns="seed").drop_duplicates(), on=GROUP)
    wanted = wanted[wanted["context"] >= wanted["train_context"]]
    curve = wanted.merge(
        cells[[*keys, "context", "normalised", "se"]], on=[*keys, "context"], how="left"
    ).sort_values([*keys, "context"])
    trained = curve[curve["context"] == curve["train_context"]]
    trained = trained[[*keys, "normalised", "se"]]
    trained = trained.rename(columns={"normalised": "trained_score", "se": "trained_se"})
    curve = curve.merge(trained, on=keys, how="left")
    above_floor = curve["trained_score"] > 2 * curve["trained_se"]
    keeps = above_floor & (curve["normalised"] >= KEEPS * curve["trained_score"])
    unbroken = keeps.groupby([curve[key] for key in keys]).cummin()
    curve["effective_context"] = curve["context"].where(unbroken, 0).astype("float64")
    curve.loc[curve["trained_score"].isna(), "effective_context"] = np.nan
    columns = ["effective_context", "trained_score", "trained_se"]
    return curve.groupby(keys)[columns].max().reset_index()


def _mean_quality(
    entries: pd.DataFrame, scores: pd.DataFrame, cells: pd.DataFrame, planned: pd.DataFrame
) -> pd.DataFrame:
    """Quality, its interval and coverage of each entry."""
    pairs = planned.drop(columns="seed").drop_duplicates()
    num_tasks = pairs.groupby(GROUP)["task"].transform("nunique")
    pairs["weight"] = 1.0 / (num_tasks * pairs.groupby([*GROUP, "task"])["task"].transform("size"))
    cells = cells.merge(pairs, on=[*GROUP, *TASK, "context"])
    cells["share"] = cells["normalised"] * cells["weight"]
    num_planned = planned.groupby(GROUP).size().rename("num_planned").reset_index()
    part = entries.merge(num_planned, on=GROUP)
    quality = cells.groupby(ENTRY)["share"].sum().rename("quality").reset_index()
    num_ok = scores.groupby(ENTRY)["ok"].sum().rename("num_ok").reset_index()
    for one in (quality, num_ok):
        part = part.merge(one, on=ENTRY, how="left")
    part["quality"] = part["quality"].fillna(0.0)
    part["coverage"] = part.pop("num_ok").fillna(0) / part.pop("num_planned")
    return part.merge(_intervals(scores, cells), on=ENTRY, how="left")


def _intervals(scores: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Bootstrap intervals of quality; `cells` has the weight of each task and context."""
    seed_keys = [*ENTRY, *TASK, "seed"]
    means = cells[[*ENTRY, *TASK, "context", "normalised", "weight"]]
    seeds = scores[seed_keys].drop_duplicates().merge(means, on=[*ENTRY, *TASK])
    own = scores[[*seed_keys, "context", "normalised"]].rename(columns={"normalised": "own"})
    seeds = seeds.merge(own, on=[*seed_keys, "context"], how="left")
    # A context that a seed lacks takes the others' mean there, which leaves quality what it is.
    seeds["share"] = seeds["own"].fillna(seeds["normalised"]) * seeds["weight"]
    shares = seeds.groupby(seed_keys)["share"].sum().reset_index()
    shares["num_seeds"] = shares.groupby([*ENTRY, *TASK])["seed"].transform("size")
    part = _entries(shares)
    shares["entry"] = shares.groupby(ENTRY).ngroup()
    drawn = np.zeros((len(part), RESAMPLES))
    for key, stratum in shares.groupby([*GROUP, *TASK, "num_seeds"]):
        size = int(stratum["num_seeds"].iloc[0])
        rng = np.random.default_rng(int(digest(repr(tuple(map(str, key)))), 16))
        draws = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) / size  # [R, seeds]
        values = stratum["share"].to_numpy().reshape(-1, size)
        np.add.at(drawn, stratum["entry"].to_numpy()[::size], values @ draws.T)
    drawn[shares.groupby("entry")["num_seeds"].min().to_numpy() < 2] = np.nan
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1) if len(part) else (np.nan, np.nan)
    return part.assign(quality_low=low, quality_high=high)


def _rungs(rows: pd.DataFrame) -> pd.DataFrame:
    """Finished rungs of the cost ladder: medians of each (entry, kind, context)."""
    rows = rows[(rows["kind"] != "quality") & (rows["status"] == "ok")]
    names = ["batch", "step_ms", "vs_vanilla", "peak_bytes", "state_bytes"]
    values = rows.assign(**{name: _float(rows, name) for name in names})
    values["context"] = values["context"].astype("int64")
    return values.groupby([*ENTRY, "kind", "context"])[names].median().reset_index()


def _exponents(rungs: pd.DataFrame, quantity: str) -> pd.DataFrame:
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


def _time_exponents(rungs: pd.DataFrame) -> pd.DataFrame:
    fits = _exponents(rungs, "step_ms")
    return _side_by_side(fits, "exponent", "{}_exponent")


def _side_by_side(long: pd.DataFrame, value: str, title: str) -> pd.DataFrame:
    """One column for each kind of cost, named by the title with `train`, `prefill` or `decode`."""
    wide = long.set_index([*ENTRY, "kind"])[value].unstack("kind")
    wide = wide.reindex(columns=["train_step", "prefill", "decode"])
    wide.columns = [title.format(kind) for kind in ("train", "prefill", "decode")]
    return wide.reset_index()


def _costs(rungs: pd.DataFrame) -> pd.DataFrame:
    """Speed, memory and state of each entry at the longest context all entries finished."""
    ladder = [*GROUP, "kind"]
    finishers = rungs[[*ENTRY, "kind"]].drop_duplicates().groupby(ladder).size()
    finished = rungs.groupby([*ladder, "context"]).size().rename("num").reset_index()
    finished = finished.merge(finishers.rename("all").reset_index(), on=ladder)
    shared = finished[finished["num"] == finished["all"]]
    longest = shared.groupby(ladder)["context"].max().reset_index()
    at = rungs.merge(longest, on=[*ladder, "context"])
    at = at.merge(_anchor_bytes(at), on=ladder, how="left")
    at["memory"] = at["peak_bytes"] / at["anchor_bytes"]
    at["state_bytes_per_token"] = at["state_bytes"] / at["context"]
    memory = at.loc[at["kind"] == "train_step", [*ENTRY, "memory"]]
    state = at.loc[at["kind"] == "decode", [*ENTRY, "state_bytes_per_token"]]
    part = _side_by_side(at, "vs_vanilla", "{}_speed")
    for one in (_side_by_side(at, "context", "{}_speed_context"), memory, state):
        part = part.merge(one, on=ENTRY, how="left")
    return part


def _anchor_bytes(at: pd.DataFrame) -> pd.DataFrame:
    """Vanilla's peak bytes; of several configs the first by name that was measured."""
    anchor = at[(at["method"] == ANCHOR) & at["peak_bytes"].notna()].sort_values("config")
    anchor = anchor.drop_duplicates([*GROUP, "kind"])
    return anchor[[*GROUP, "kind", "peak_bytes"]].rename(columns={"peak_bytes": "anchor_bytes"})


def _counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of each status, and parameters."""
    counts = rows.groupby([*ENTRY, "status"]).size().unstack("status", fill_value=0)
    counts = counts.reindex(columns=list(STATUSES), fill_value=0)
    counts["failed"] = counts.drop(columns=["ok", "unsupported"]).sum(axis=1)
    params = _float(rows, "num_params")
    keys = [rows[key] for key in ENTRY]
    trained = params.where(rows["kind"] == "quality").groupby(keys).max()
    counts["num_params"] = trained.fillna(params.groupby(keys).max())
    return counts.reset_index()


def _pareto(board: pd.DataFrame) -> pd.Series:
    layers = pd.Series(0, index=board.index, dtype="int64")
    for _, group in board.groupby(GROUP):
        criteria = group[["quality", "prefill_speed", "memory"]].astype("float64").to_numpy()
        layers.loc[group.index] = pareto_layers(criteria * [1, 1, -1])
    return layers
