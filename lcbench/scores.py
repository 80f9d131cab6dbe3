"""Scores of each entry on each task at each context, and how far back they hold."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lcbench.rows import ENTRY, GROUP, TASK, as_float, comparable, normalised

KEEPS = 0.85
"""Share of its trained-context score that a method keeps within its effective context."""
PASSES = 0.5
"""Normalised score, half way from floor to ceiling, that a method holds within its passing context.

RULER's bar, 0.856, is what one model of 7B parameters scores on RULER; a normalised score needs
none that is borrowed."""
SOLVED = 0.95
"""Normalised score from which a seed has solved its task."""
GAIN_START = 256
"""Bytes at the start of a text, where next to nothing has been read yet."""
PLAN = ["suite", *TASK, "context", "seed"]
"""Columns of a plan; `device_kind` and the task's `family` may be among them."""
PLACE = ["group", "trained", "context", "seed"]
CELL = ["entry", "trained", "context"]


class Measured(NamedTuple):
    """Quality rows with entries and tasks as codes, and what was planned."""

    scores: pd.DataFrame
    planned: pd.DataFrame
    """Each `PLACE`, with its `train_context`, `task` and `family`."""
    entries: pd.DataFrame
    tasks: pd.DataFrame


def task_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores of each entry on each task at each context: means over the seeds it tried.

    `score` is the mean of the seeds that finished, in the task's metric; `normalised` that of all
    seeds tried, failures as 0. `se` is the larger of two standard errors of `normalised`: between
    seeds, and of the examples within them; `low` and `high` lie 1.96 `se` to either side. `solved`
    is the share of seeds with a normalised score of at least `SOLVED`. `median`, `worst` and `best`
    are of the seeds' normalised scores: recall is bimodal, and a mean of 0.5 may be nobody's score.
    """
    measured = lay_out(comparable(frame).frame)
    return named(by_context(measured.scores), measured)


def effective_contexts(
    frame: pd.DataFrame, plan: pd.DataFrame | None = None, *, bar: float = PASSES
) -> pd.DataFrame:
    """How far each entry carries what it learned, per task, from the trained context upwards.

    Both are the longest planned context up to which, without a gap, the mean normalised score
    stays: `effective_context` at `KEEPS` or more of that at the trained context, and 0 where that
    is not above the floor by two standard errors; `passing_context` at `bar` or more, and 0 where
    it never was. A failure, or a context not tried, ends either. NaN where the trained context was
    not tried.
    """
    measured = lay_out(comparable(frame).frame, plan)
    return named(contexts_held(measured, by_context(measured.scores), bar), measured)


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


def context_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """Bits a byte saved by what was read: the first `GAIN_START` bytes' less the last half's.

    A row each (entry, task, context) of `bits_per_byte` beyond `GAIN_START` bytes, means over
    seeds, with both sides. Positions are kept by octave, so the last half is the finest end there
    is of a context that is a power of two; of others the last octave may be shorter.
    """
    rows = comparable(frame).frame
    rows = rows[(rows["status"] == "ok") & (rows["metric"] == "bits_per_byte")]
    rows = rows[rows["score_by_position"].notna()]
    by_octave = [np.asarray(scores, dtype=np.float64) for scores in rows["score_by_position"]]
    num_first = int(np.log2(GAIN_START))
    # Octave b holds 2^b positions, and the first also position 0.
    sizes = np.array([2, *(2**octave for octave in range(1, num_first))])
    long = np.array([len(scores) > num_first for scores in by_octave], dtype=bool)
    kept = [scores for scores in by_octave if len(scores) > num_first]
    rows = rows[long].assign(
        first=[float(scores[:num_first] @ sizes / GAIN_START) for scores in kept],
        last=[float(scores[-1]) for scores in kept],
    )
    gains = rows.groupby([*ENTRY, *TASK, "context"])[["first", "last"]].mean().reset_index()
    return gains.assign(gain=gains["first"] - gains["last"])


def generated_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """What models wrote by themselves: a row each (entry, task, context) where one did.

    `generated_exact_match` is a share of all seeds' passages, `num_generated` of them;
    `generated_chrf` the mean of the seeds that have it, NaN where none does.
    """
    rows = comparable(frame).frame
    rows = rows[(rows["status"] == "ok") & rows["num_generated"].notna()]
    count = as_float(rows, "num_generated")
    rows = rows.assign(
        num_generated=count,
        generated_exact_match=as_float(rows, "generated_exact_match") * count,
        generated_chrf=as_float(rows, "generated_chrf"),
    )
    groups = rows.groupby([*ENTRY, *TASK, "context"], as_index=False)
    pooled = groups.agg(
        generated_exact_match=("generated_exact_match", "sum"),
        generated_chrf=("generated_chrf", "mean"),
        num_generated=("num_generated", "sum"),
    )
    pooled["generated_exact_match"] /= pooled["num_generated"]
    return pooled


def lay_out(rows: pd.DataFrame, plan: pd.DataFrame | None = None) -> Measured:
    """Code entries and tasks as integers, fast to group by, and lay the plan over the scores.

    Args:
        rows: `comparable` rows.
        plan: Rows with at least `PLAN`; by default what any entry of the same group tried. A task
            whose `family` it does not tell is a family of its own.
    """
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
    planned = scores if plan is None else _of_groups(plan, entries).merge(tasks, on=TASK)
    family = planned["family"] if "family" in planned else planned["task"]
    planned = planned.assign(family=family.fillna(planned["task"]))
    planned = planned[[*PLACE, "train_context", "task", "family"]]
    planned = planned.drop_duplicates(PLACE, ignore_index=True)
    if plan is not None:
        scores = scores.merge(planned[PLACE], on=PLACE)
    # In one order, whatever that of the files, as sums round by it.
    scores = scores.sort_values([*CELL, "seed"], ignore_index=True)
    ok = scores["status"] == "ok"
    span = (as_float(scores, "ceiling") - as_float(scores, "floor")).abs()
    scores["normalised"] = normalised(scores)
    scores["score"] = as_float(scores, "score").where(ok)
    scores["variance"] = ((as_float(scores, "score_se") / span.where(span > 0)) ** 2).fillna(0.0)
    return Measured(scores.assign(ok=ok), planned, entries, tasks)


def _of_groups(plan: pd.DataFrame, entries: pd.DataFrame) -> pd.DataFrame:
    """The plan for each group it is of: for all devices of a suite where it names none."""
    shared = [name for name in GROUP if name in plan]
    groups = entries[[*GROUP, "group"]].drop_duplicates()
    wanted = [*PLAN, *shared[1:], *(["family"] if "family" in plan else [])]
    return plan[wanted].merge(groups, on=shared)


def named(coded: pd.DataFrame, measured: Measured) -> pd.DataFrame:
    """A frame with the names of entries and tasks before its values, instead of their codes."""
    full = coded.merge(measured.entries, on="entry").merge(measured.tasks, on="trained")
    values = [name for name in coded if name not in (*CELL, "group", "train_context")]
    place = ["context"] if "context" in coded else []
    return full[[*ENTRY, *TASK, *place, *values]]


def by_context(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of each (entry, task, context) that was tried."""
    scores = scores.assign(solved=scores["normalised"] >= SOLVED)
    groups = scores.groupby(CELL)
    names = ["score", "normalised", "solved", "floor", "ceiling"]
    cells = groups[names].mean().astype("float64")
    cells["metric"] = groups["metric"].first()
    cells["num_seeds"] = groups.size()
    of_seeds = groups["normalised"]
    cells["median"], cells["worst"], cells["best"] = (
        of_seeds.median(),
        of_seeds.min(),
        of_seeds.max(),
    )
    between_seeds = of_seeds.std().fillna(0.0) / np.sqrt(cells["num_seeds"])
    of_examples = np.sqrt(groups["variance"].sum()) / cells["num_seeds"]
    cells["se"] = np.maximum(between_seeds, of_examples)
    cells["low"] = (cells["normalised"] - 1.96 * cells["se"]).clip(lower=0.0)
    cells["high"] = (cells["normalised"] + 1.96 * cells["se"]).clip(upper=1.0)
    return cells.reset_index()


def contexts_held(measured: Measured, cells: pd.DataFrame, bar: float = PASSES) -> pd.DataFrame:
    """`effective_contexts` of means that are at hand, by the codes of entry and task."""
    keys = ["entry", "trained"]
    wanted = measured.planned[["group", "trained", "context", "train_context"]].drop_duplicates()
    wanted = measured.entries[["entry", "group"]].merge(wanted, on="group")
    curve = wanted.merge(cells[[*CELL, "normalised", "se"]], on=CELL, how="left")
    start = curve.loc[curve["context"] == curve["train_context"], [*keys, "normalised", "se"]]
    start = start.rename(columns={"normalised": "trained_score", "se": "trained_se"})
    curve = curve[curve["context"] >= curve["train_context"]].merge(start, on=keys, how="left")
    curve = curve.sort_values([*keys, "context"])
    above_floor = curve["trained_score"] > 2 * curve["trained_se"]
    held = {
        "effective_context": above_floor & (curve["normalised"] >= KEEPS * curve["trained_score"]),
        "passing_context": curve["normalised"] >= bar,
    }
    for name, holds in held.items():
        unbroken = holds.groupby([curve[key] for key in keys]).cummin()
        reached = curve["context"].where(unbroken, 0).astype("float64")
        curve[name] = reached.where(curve["trained_score"].notna())
    columns = [*held, "trained_score", "trained_se"]
    return curve.groupby(keys)[columns].max().reset_index()
