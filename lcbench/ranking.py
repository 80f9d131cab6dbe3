"""Rows to a leaderboard: pure functions of frames.

Each function first takes `comparable` rows, and nothing is weighted behind the reader's back: at
each length a task counts once in its family and a family once, a failure counts 0, and what was
never tried is told by `coverage`. Numbers that stand beside a method's name are its own (rivals
cannot change them, given the plan) except the ratios to `vanilla`, which are read at a context that
all rivals reached, its places and the Pareto layer.

This is the face of the modules below it: what a reader of rows needs is imported from here.
"""

import json
from typing import NamedTuple

import pandas as pd

from lcbench.costs import (
    ASYMPTOTIC_CONTEXT,
    costs_of,
    fit_exponents,
    roofline_share,
    rungs_of,
    time_exponents,
)
from lcbench.learning import CURVE_COLUMNS, MACHINE, equal_time, learning_curves, mean_curves
from lcbench.quality import LEVELS, intervals, length_curve, mean_quality, place_intervals
from lcbench.rows import (
    ENTRY,
    GROUP,
    TASK,
    Comparable,
    as_float,
    comparable,
    drafts,
    normalised,
    tell_put_aside,
)
from lcbench.scores import (
    KEEPS,
    PASSES,
    PLAN,
    SOLVED,
    by_context,
    context_gains,
    contexts_held,
    distance_curve,
    effective_contexts,
    generated_scores,
    lay_out,
    task_scores,
)
from lcbench.statistics import pareto_layers
from lcbench.store import STATUSES

__all__ = [
    "ASYMPTOTIC_CONTEXT",
    "COLUMNS",
    "CURVE_COLUMNS",
    "DISTANCE_COLUMNS",
    "ENTRY",
    "GENERATION_COLUMNS",
    "GROUP",
    "KEEPS",
    "LEVELS",
    "MACHINE",
    "PASSES",
    "PLAN",
    "SOLVED",
    "TASK",
    "BoardColumn",
    "Comparable",
    "board_columns",
    "comparable",
    "config_fields",
    "context_gains",
    "distance_curve",
    "drafts",
    "effective_contexts",
    "entry_labels",
    "equal_time",
    "fit_exponents",
    "generated_scores",
    "intervals",
    "leaderboard",
    "learning_curves",
    "length_curve",
    "mean_curves",
    "normalised",
    "pareto_layers",
    "roofline_share",
    "task_scores",
    "tell_put_aside",
]

COLUMNS = (
    *("suite", "suite_version", "device_kind", "method", "method_hash", "config", "dtype"),
    "kind",
    *("task", "task_version", "task_hash", "task_config", "data_hash", "train_context"),
    *("context", "seed", "batch", "status", "started_at", "metric", "score", "floor", "ceiling"),
    *("score_se", "step_ms", "vs_vanilla", "peak_bytes", "vanilla_peak_bytes", "state_bytes"),
    *("num_params", "flops", "touched_bytes", "matmul_flops_per_s", "copy_bytes_per_s"),
)
"""The columns of rows that ranking reads; `distance_curve` reads `DISTANCE_COLUMNS` too,
`generated_scores` `GENERATION_COLUMNS`, `learning_curves` and `equal_time` `CURVE_COLUMNS`."""
DISTANCE_COLUMNS = ("score_by_distance", "count_by_distance")
GENERATION_COLUMNS = ("generated_exact_match", "generated_chrf", "num_generated")


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
    BoardColumn("tier", "Tier"),
    BoardColumn("pareto", "Pareto layer", "", 0, False),
    BoardColumn("quality", "Quality", "", 3, True),
    BoardColumn("quality_low", "Quality, low", "", 3, True),
    BoardColumn("quality_high", "Quality, high", "", 3, True),
    BoardColumn("place_first", "First place", "", 0, False),
    BoardColumn("place_last", "Last place", "", 0, False),
    BoardColumn("coverage", "Coverage", "", 2, True),
    BoardColumn("effective_context", "Effective context", "tokens", 0, True),
    BoardColumn("passing_context", "Passing context", "tokens", 0, True),
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


def leaderboard(frame: pd.DataFrame, plan: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for each suite, kind of device, method and config; its columns are `board_columns`.

    - `quality`: normalised scores, averaged over the seeds tried, then at each length over tasks
      and over families, then over lengths (octaves of the context, so that long ones count as
      much as short ones). A failure is 0, and so is a planned context of which no seed was tried;
      a seed that it did not try beside others that it did only lowers `coverage`.
    - `quality_low`, `quality_high`: `intervals` at the levels of seed and examples: the suite's
      tasks stay as they are. NaN where a task tried has one seed.
    - `place_first`, `place_last`: the places it may hold by quality. Rivals share a place unless
      one is better in 97.5 % of paired draws at every level, so of families and tasks too; with
      one seed a task nobody can be told apart.
    - `coverage`: share that is `ok` of every planned (task, context) in each seed it tried at all.
    - `effective_context`: the smallest over tasks; NaN while one has not been tried.
    - `passing_context`: the longest length up to which quality stays at `PASSES`.
    - `train_speed`, `prefill_speed`, `decode_speed`: `vs_vanilla` at the longest context that every
      entry of the board finished, entries that finished none left out; beside it that context.
    - `memory`: `peak_bytes` of a training step over vanilla's, at `train_speed_context`.
    - `state_bytes_per_token`: `state_bytes` over the context, at `decode_speed_context`.
    - `num_params`: of the largest model it trained, else of the largest it was timed in.
    - exponents: those of `fit_exponents` for time.
    - `train_roofline`, `prefill_roofline`, `decode_roofline`: `roofline_share` at the context of
      the speeds.
    - `tier`: `local` or `published`, both where an entry has rows of both; None where the rows do
      not say where they were read from.
    - `ok`, `failed`, and a column for each status: rows. `unsupported` is not a failure.
    - `pareto`: 1 for what no entry beats in quality, prefill speed and training memory at once, 2
      for what only those beat, and so on; a missing value is worse than any.

    Sorted within each board by Pareto layer, then quality.

    Args:
        frame: Rows with at least `COLUMNS`.
        plan: Rows with at least `PLAN`; scores outside it are left out. By default everything that
            any entry of the same board tried: a rival who tries more tasks lowers all coverage.
    """
    rows = comparable(frame).frame
    measured, rungs = lay_out(rows, plan), rungs_of(rows)
    cells = by_context(measured.scores)
    reach = contexts_held(measured, cells)
    # A task not tried sorts before every context, so that it makes the smallest unknown.
    smallest = reach["effective_context"].fillna(-1.0).groupby(reach["entry"]).min().reset_index()
    smallest["effective_context"] = smallest["effective_context"].where(lambda s: s >= 0)
    board = measured.entries
    for part in (mean_quality(measured, cells), place_intervals(measured, cells), smallest):
        board = board.merge(part, on="entry", how="left")
    for part in (costs_of(rungs), time_exponents(rungs), _counts(rows), _tiers(rows)):
        board = board.merge(part, on=ENTRY, how="left")
    board["pareto"] = _pareto(board)
    board = board.sort_values(ENTRY).assign(worst=lambda b: -b["quality"].fillna(-1.0))
    board = board.sort_values([*GROUP, "pareto", "worst"], kind="stable", ignore_index=True)
    return board[[column.name for column in _BOARD]]


def _counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of each status, and parameters."""
    keys = [rows[key] for key in ENTRY]
    counts = pd.get_dummies(rows["status"], dtype="int64").groupby(keys).sum()
    counts = counts.reindex(columns=list(STATUSES), fill_value=0)
    counts["failed"] = counts.drop(columns=["ok", "unsupported"]).sum(axis=1)
    params = as_float(rows, "num_params")
    trained = params.where(rows["kind"] == "quality").groupby(keys).max()
    counts["num_params"] = trained.fillna(params.groupby(keys).max())
    return counts.reset_index()


def _tiers(rows: pd.DataFrame) -> pd.DataFrame:
    """Where the rows of each entry were read from."""
    tiers = rows.assign(tier=None) if "tier" not in rows else rows
    tiers = tiers[[*ENTRY, "tier"]].drop_duplicates().sort_values("tier")
    told = tiers.groupby(ENTRY)["tier"].agg(lambda own: ", ".join(own.dropna()) or None)
    return told.reset_index()


def _pareto(board: pd.DataFrame) -> pd.Series:
    layers = pd.Series(0, index=board.index, dtype="int64")
    for _, group in board.groupby(GROUP):
        criteria = group[["quality", "prefill_speed", "memory"]].astype("float64").to_numpy()
        layers.loc[group.index] = pareto_layers(criteria * [1, 1, -1])
    return layers


def config_fields(text: str) -> dict[str, object]:
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
        {**config_fields(config), "dtype": dtype}
        for config, dtype in zip(board["config"], dtypes, strict=True)
    ]
    labels: list[str] = []
    for method, form in zip(board["method"], forms, strict=True):
        rivals = [f for m, f in zip(board["method"], forms, strict=True) if m == method]
        apart = [name for name in form if any(rival.get(name) != form[name] for rival in rivals)]
        fields = ",".join(f"{name}={form[name]}" for name in apart)
        labels.append(f"{method}:{fields}" if fields else str(method))
    return labels
