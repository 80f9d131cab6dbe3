"""Rows to scores, curves and the leaderboard: pure functions of frames.

Each function first takes `comparable` rows, and nothing is weighted behind the reader's back: a
task counts once however many variants and contexts it has, a failure counts 0, and what was never
tried is told by `coverage`. Numbers that stand beside a method's name are its own (rivals cannot
change them, given the plan) except the ratios to `vanilla`, which are read at a context that all
rivals reached, and the Pareto layer.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lcbench.config import digest
from lcbench.store import REQUIRED_OF_QUALITY, STATUSES, latest

KEEPS = 0.85
"""Share of its trained-context score that a method keeps within its effective context."""
SOLVED = 0.95
"""Normalised score from which a seed has solved its task."""
RESAMPLES = 1000
ASYMPTOTIC_CONTEXT = 2048
"""Context from which fixed costs no longer bend a log-log slope on any machine we measured."""

GROUP = ["suite", "device_kind"]
"""What a leaderboard is of: nothing is compared across suites or kinds of device."""
ENTRY = [*GROUP, "method", "config", "dtype"]
"""What has a row of its own on a leaderboard."""
TASK = ["task", "task_config", "train_context"]
"""What a model is trained on."""
PLAN = ["suite", *TASK, "context", "seed"]
"""Columns of a plan; `device_kind` may be among them."""
_PLACE = ["group", "trained", "context", "seed"]
_CELL = ["entry", "trained", "context"]
_SLOT = [*ENTRY, "kind", *TASK, "context", "seed"]
_VERSIONS = {
    "suite_version": ["suite"],
    "task_version": [*GROUP, "task", "task_config"],
    "task_hash": [*GROUP, "task", "task_config"],
    "data_hash": [*GROUP, "task", "task_config"],
    "method_hash": ENTRY,
}
COLUMNS = (
    *("suite", "suite_version", "device_kind", "method", "method_hash", "config", "dtype"),
    "kind",
    *("task", "task_version", "task_hash", "task_config", "data_hash", "train_context"),
    *("context", "seed", "batch", "status", "started_at", "metric", "score", "floor", "ceiling"),
    *("score_se", "step_ms", "vs_vanilla", "peak_bytes", "vanilla_peak_bytes", "state_bytes"),
    *("num_params", "flops", "touched_bytes", "matmul_flops_per_s", "copy_bytes_per_s"),
)
"""The columns of rows that ranking reads; `distance_curve` reads `DISTANCE_COLUMNS` too."""
DISTANCE_COLUMNS = ("score_by_distance", "count_by_distance")


class Comparable(NamedTuple):
    """Rows that may stand side by side."""

    frame: pd.DataFrame
    put_aside: dict[str, int]
    """Rows left out: `incomplete`, older by the column that names a version, or `repeated`."""


class _Measured(NamedTuple):
    """Quality rows with entries and tasks as codes, and what was planned."""

    scores: pd.DataFrame
    planned: pd.DataFrame
    """Each `_PLACE`, with its `train_context` and `task`."""
    entries: pd.DataFrame
    tasks: pd.DataFrame


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
    BoardColumn("dtype", "Dtype"),
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
    BoardColumn("train_roofline", "Training roofline share", "", 2, True),
    BoardColumn("prefill_roofline", "Prefill roofline share", "", 2, True),
    BoardColumn("decode_roofline", "Decoding roofline share", "", 2, True),
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
    frame = frame.assign(dtype=frame["dtype"].fillna(""))
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
    kept = frame if len(newest) == len(frame) else frame.iloc[newest.index.to_numpy()]
    return Comparable(kept, put_aside)


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
    seeds, and of the examples within them; `low` and `high` lie 1.96 `se` to either side. `solved`
    is the share of seeds with a normalised score of at least `SOLVED`.
    """
    measured = _measured(comparable(frame).frame)
    return _named(_by_context(measured.scores), measured)


def effective_contexts(frame: pd.DataFrame, plan: pd.DataFrame | None = None) -> pd.DataFrame:
    """How far each entry carries what it learned, per task.

    The effective context is the longest planned one up to which, from the trained context upwards
    and without a gap, the mean normalised score stays at `KEEPS` or more of that at the trained
    context; a failure, or a context not tried, ends it. It is 0 where the score at the trained
    context is not above the floor by two standard errors, NaN where that context was not tried.
    """
    measured = _measured(comparable(frame).frame, plan)
    return _named(_effective_contexts(measured, _by_context(measured.scores)), measured)


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
    else the last three; `num_rungs` says how many there were, and one gives no slope.

    Args:
        frame: Rows.
        quantity: `step_ms`, `peak_bytes` or `state_bytes`.
    """
    return _exponents(_rungs(comparable(frame).frame), quantity)


def roofline_share(rows: pd.DataFrame) -> pd.Series:
    """The least time a machine of such peaks needs for a call, over the time the call took.

    The least is the longer of two: doing the counted operations at the rate of the machine's best
    matrix products, and moving the bytes the call touches, each once, at the rate of its copies.
    Near 1 nothing is left to gain but by doing less. It may pass 1 where caches hold what is
    touched, as the weights of a small layer; it is NaN where the machine's peaks were not measured.
    """
    flops, touched = _float(rows, "flops"), _float(rows, "touched_bytes")
    computing = flops / _float(rows, "matmul_flops_per_s")
    moving = touched / _float(rows, "copy_bytes_per_s")
    least_s = computing.where(computing >= moving, moving)
    least_s = least_s.where(computing.notna())  # unknown where either is
    return (least_s / (_float(rows, "step_ms") / 1e3)).rename("roofline")


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
    - `train_roofline`, `prefill_roofline`, `decode_roofline`: `roofline_share` at the context of
      the speeds.
    - `ok`, `failed`, and a column for each status: rows. `unsupported` is not a failure.
    - `pareto`: 1 for what no entry beats in quality, prefill speed and training memory at once, 2
      for what only those beat, and so on; a missing value is worse than any.

    Sorted within each board by Pareto layer, then quality.

    Args:
        frame: Rows with at least `COLUMNS`.
        plan: Rows with at least `PLAN`; scores outside it are left out. By default everything that
            any entry of the same board tried: then a rival who tries more lowers all coverage.
    """
    rows = comparable(frame).frame
    measured, rungs = _measured(rows, plan), _rungs(rows)
    cells = _by_context(measured.scores)
    reach = _effective_contexts(measured, cells)
    # A task not tried sorts before every context, so that it makes the smallest unknown.
    smallest = reach["effective_context"].fillna(-1.0).groupby(reach["entry"]).min().reset_index()
    smallest["effective_context"] = smallest["effective_context"].where(lambda s: s >= 0)
    board = measured.entries
    for part in (_mean_quality(measured, cells), smallest):
        board = board.merge(part, on="entry", how="left")
    for part in (_costs(rungs), _time_exponents(rungs), _counts(rows)):
        board = board.merge(part, on=ENTRY, how="left")
    board["pareto"] = _pareto(board)
    board = board.sort_values(ENTRY).assign(worst=lambda b: -b["quality"].fillna(-1.0))
    board = board.sort_values([*GROUP, "pareto", "worst"], kind="stable", ignore_index=True)
    return board[[column.name for column in _BOARD]]


def pareto_layers(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The Pareto layer, 1 the frontier, of each row of `[N, criteria]`; higher wins, NaN loses."""
    worst_last = np.where(np.isnan(values), -np.inf, values)
    ours, theirs = worst_last[:, None], worst_last[None]
    beats = np.all(ours >= theirs, axis=2) & np.any(ours > theirs, axis=2)  # [N, N]
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
    keep = codes[column].lt(0).to_numpy(copy=True)
    keep[~keep] = known[column].to_numpy() == newest[groups.ngroup().to_numpy()]
    return keep


def _float(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].astype("float64")


def _measured(rows: pd.DataFrame, plan: pd.DataFrame | None = None) -> _Measured:
    """Code entries and tasks as integers, fast to group by, and lay the plan over the scores."""
    entries = rows[ENTRY].drop_duplicates().sort_values(ENTRY, ignore_index=True)
    entries["group"] = entries.groupby(GROUP).ngroup()
    entries["entry"] = entries.index
    scores = rows[rows["kind"] == "quality"]
    scores = scores.astype(dict.fromkeys(["train_context", "context", "seed"], "int64"))
    planned = scores if plan is None else plan
    # Sorted, so that sums over tasks round alike whatever other rows there are.
    tasks = pd.concat([scores[TASK], planned[TASK]]).drop_duplicates()
    tasks = tasks.sort_values(TASK, ignore_index=True)
    tasks["trained"] = tasks.index
    scores = scores.merge(entries, on=ENTRY).merge(tasks, on=TASK)
    if plan is None:
        planned = scores
    else:
        shared = [name for name in GROUP if name in plan]
        groups = entries[[*GROUP, "group"]].drop_duplicates()
        planned = plan[[*PLAN, *shared[1:]]].merge(groups, on=shared).merge(tasks, on=TASK)
    planned = planned[[*_PLACE, "train_context", "task"]].drop_duplicates(ignore_index=True)
    if plan is not None:
        scores = scores.merge(planned[_PLACE], on=_PLACE)
    ok = scores["status"] == "ok"
    span = (_float(scores, "ceiling") - _float(scores, "floor")).abs()
    scores["normalised"] = normalised(scores)
    scores["score"] = _float(scores, "score").where(ok)
    scores["variance"] = ((_float(scores, "score_se") / span.where(span > 0)) ** 2).fillna(0.0)
    return _Measured(scores.assign(ok=ok), planned, entries, tasks)


def _named(coded: pd.DataFrame, measured: _Measured) -> pd.DataFrame:
    """A frame with the names of entries and tasks before its values, instead of their codes."""
    named = coded.merge(measured.entries, on="entry").merge(measured.tasks, on="trained")
    values = [name for name in coded if name not in (*_CELL, "group", "train_context")]
    place = ["context"] if "context" in coded else []
    return named[[*ENTRY, *TASK, *place, *values]]


def _by_context(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of each (entry, task, context) that was tried."""
    scores = scores.assign(solved=scores["normalised"] >= SOLVED)
    groups = scores.groupby(_CELL)
    names = ["score", "normalised", "solved", "floor", "ceiling"]
    cells = groups[names].mean().astype("float64")
    cells["metric"] = groups["metric"].first()
    cells["num_seeds"] = groups.size()
    between_seeds = groups["normalised"].std().fillna(0.0) / np.sqrt(cells["num_seeds"])
    of_examples = np.sqrt(groups["variance"].sum()) / cells["num_seeds"]
    cells["se"] = np.maximum(between_seeds, of_examples)
    cells["low"] = (cells["normalised"] - 1.96 * cells["se"]).clip(lower=0.0)
    cells["high"] = (cells["normalised"] + 1.96 * cells["se"]).clip(upper=1.0)
    return cells.reset_index()


def _effective_contexts(measured: _Measured, cells: pd.DataFrame) -> pd.DataFrame:
    keys = ["entry", "trained"]
    wanted = measured.planned.drop(columns=["seed", "task"]).drop_duplicates()
    wanted = measured.entries[["entry", "group"]].merge(wanted, on="group")
    curve = wanted.merge(cells[[*_CELL, "normalised", "se"]], on=_CELL, how="left")
    start = curve.loc[curve["context"] == curve["train_context"], [*keys, "normalised", "se"]]
    start = start.rename(columns={"normalised": "trained_score", "se": "trained_se"})
    curve = curve[curve["context"] >= curve["train_context"]].merge(start, on=keys, how="left")
    curve = curve.sort_values([*keys, "context"])
    above_floor = curve["trained_score"] > 2 * curve["trained_se"]
    keeps = above_floor & (curve["normalised"] >= KEEPS * curve["trained_score"])
    unbroken = keeps.groupby([curve[key] for key in keys]).cummin()
    reached = curve["context"].where(unbroken, 0).astype("float64")
    curve["effective_context"] = reached.where(curve["trained_score"].notna())
    columns = ["effective_context", "trained_score", "trained_se"]
    return curve.groupby(keys)[columns].max().reset_index()


def _mean_quality(measured: _Measured, cells: pd.DataFrame) -> pd.DataFrame:
    """Quality, its interval and coverage of each entry that has a plan."""
    planned = measured.planned
    pairs = planned.drop(columns="seed").drop_duplicates()
    num_tasks = pairs.groupby("group")["task"].transform("nunique")
    num_pairs = pairs.groupby(["group", "task"])["task"].transform("size")
    pairs["weight"] = 1.0 / (num_tasks * num_pairs)
    cells = cells.merge(measured.entries[["entry", "group"]], on="entry")
    cells = cells.merge(pairs[["group", "trained", "context", "weight"]])
    quality = (cells["normalised"] * cells["weight"]).groupby(cells["entry"]).sum()
    num_ok = measured.scores.groupby("entry")["ok"].sum()
    part = measured.entries[["entry", "group"]]
    part = part[part["group"].isin(planned["group"])].set_index("entry")
    num_planned = part.pop("group").map(planned.groupby("group").size())
    part["quality"] = quality.reindex(part.index, fill_value=0.0)
    part["coverage"] = num_ok.reindex(part.index, fill_value=0) / num_planned
    return part.join(_intervals(measured, cells)).reset_index()


def _intervals(measured: _Measured, cells: pd.DataFrame) -> pd.DataFrame:
    """Bootstrap intervals of quality; `cells` has the weight of each task and context."""
    keys = ["entry", "trained", "seed"]
    own = measured.scores[[*keys, "context", "normalised"]].rename(columns={"normalised": "own"})
    seeds = own[keys].drop_duplicates().merge(cells[[*_CELL, "group", "normalised", "weight"]])
    seeds = seeds.merge(own, how="left")
    # A context that a seed lacks takes the others' mean there, which leaves quality what it is.
    seeds["share"] = seeds["own"].fillna(seeds["normalised"]) * seeds["weight"]
    shares = seeds.groupby([*keys, "group"])["share"].sum().reset_index()
    shares["num_seeds"] = shares.groupby(["entry", "trained"])["seed"].transform("size")
    entries, shares["row"] = np.unique(shares["entry"], return_inverse=True)
    drawn = np.zeros((len(entries), RESAMPLES))
    for _, stratum in shares.groupby(["trained", "num_seeds"]):
        task, size = stratum["trained"].iloc[0], int(stratum["num_seeds"].iloc[0])
        # Drawn by the task's name, so that neither rivals nor other tasks change the draws.
        name = measured.tasks.loc[task, TASK].to_json()
        rng = np.random.default_rng(int(digest(name), 16))
        draws = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) / size  # [R, seeds]
        values = stratum["share"].to_numpy().reshape(-1, size)
        # Not a matrix product: how BLAS rounds a row depends on how many rows there are.
        drawn[stratum["row"].to_numpy()[::size]] += np.einsum("ns,rs->nr", values, draws)
    drawn[shares.loc[shares["num_seeds"] < 2, "row"]] = np.nan
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    return pd.DataFrame({"quality_low": low, "quality_high": high}, index=entries)


def _rungs(rows: pd.DataFrame) -> pd.DataFrame:
    """Finished rungs of the cost ladder: medians of each (entry, kind, context)."""
    rows = rows[(rows["kind"] != "quality") & (rows["status"] == "ok")]
    names = ["batch", "step_ms", "vs_vanilla", "peak_bytes", "vanilla_peak_bytes", "state_bytes"]
    values = rows.assign(**{name: _float(rows, name) for name in names})
    values["context"] = values["context"].astype("int64")
    values["roofline"] = roofline_share(rows)
    names.append("roofline")
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
    wide = long.pivot_table(value, index=ENTRY, columns="kind", dropna=False)
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
    at["memory"] = at["peak_bytes"] / at["vanilla_peak_bytes"]
    at["state_bytes_per_token"] = at["state_bytes"] / at["context"]
    memory = at.loc[at["kind"] == "train_step", [*ENTRY, "memory"]]
    state = at.loc[at["kind"] == "decode", [*ENTRY, "state_bytes_per_token"]]
    part = _side_by_side(at, "vs_vanilla", "{}_speed")
    roofline = _side_by_side(at, "roofline", "{}_roofline")
    for one in (_side_by_side(at, "context", "{}_speed_context"), memory, state, roofline):
        part = part.merge(one, on=ENTRY, how="left")
    return part


def _counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of each status, and parameters."""
    keys = [rows[key] for key in ENTRY]
    counts = pd.get_dummies(rows["status"], dtype="int64").groupby(keys).sum()
    counts = counts.reindex(columns=list(STATUSES), fill_value=0)
    counts["failed"] = counts.drop(columns=["ok", "unsupported"]).sum(axis=1)
    params = _float(rows, "num_params")
    trained = params.where(rows["kind"] == "quality").groupby(keys).max()
    counts["num_params"] = trained.fillna(params.groupby(keys).max())
    return counts.reset_index()


def _pareto(board: pd.DataFrame) -> pd.Series:
    layers = pd.Series(0, index=board.index, dtype="int64")
    for _, group in board.groupby(GROUP):
        criteria = group[["quality", "prefill_speed", "memory"]].astype("float64").to_numpy()
        layers.loc[group.index] = pareto_layers(criteria * [1, 1, -1])
    return layers


def _config_fields(text: str) -> dict[str, object]:
    """A config's fields; none for text that lcbench did not write."""
    try:
        fields = json.loads(text)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def entry_labels(board: pd.DataFrame) -> list[str]:
    """A name for each row: the method, and where it has several forms what sets them apart."""
    dtypes = board["dtype"] if "dtype" in board else [None] * len(board)
    forms = [
        {**_config_fields(config), "dtype": dtype}
        for config, dtype in zip(board["config"], dtypes, strict=True)
    ]
    labels: list[str] = []
    for method, form in zip(board["method"], forms, strict=True):
        rivals = [f for m, f in zip(board["method"], forms, strict=True) if m == method]
        apart = [name for name in form if any(rival.get(name) != form[name] for rival in rivals)]
        fields = ",".join(f"{name}={form[name]}" for name in apart)
        labels.append(f"{method}:{fields}" if fields else str(method))
    return labels
