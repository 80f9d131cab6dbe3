"""Whether a suite tells methods apart: what must hold of a task before its scores mean anything.

A synthetic task is worth asking where its oracle method, given the suite's budget, reaches
`SOLVES` of the way from floor to ceiling in `SHARE` of at least `FEWEST_SEEDS` seeds: a method that
fails there has failed at the task, not for want of steps.

A real one, which nothing solves, is worth asking where it separates two methods by more than their
seeds scatter. Methods of one seed are trained and scored on the same examples, and how hard those
happen to be moves all of them alike. So what scatters is the difference of the two within a seed:
it must be more than `BAR` of its standard deviations from zero, which of five seeds it can only be
where the same method is ahead in each. As the two are the farthest apart of all that were tried,
they must also be farther apart than the farthest two of as many methods that are alike.

Both are read at the trained context.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from lcbench import registry
from lcbench.ranking import comparable, entry_labels, normalised
from lcbench.rows import ENTRY, as_float
from lcbench.statistics import chance_separation

SOLVES = 0.9
SHARE = 0.8
FEWEST_SEEDS = 5
BAR = 2.0


class Oracle(NamedTuple):
    """What a task says of who must solve it."""

    method: str
    real: bool
    """Whether the task's examples come from a corpus, so that nothing solves it."""


class Pair(NamedTuple):
    """How far two methods lie apart on the same seeds, in the task's own score."""

    ahead: str
    """The one with the higher score, which in bits per byte is the worse."""
    behind: str
    seeds: int
    separation: float
    """Mean over seeds of the difference within a seed."""
    spread: float
    """Standard deviation over seeds of that difference; NaN of one seed."""

    @property
    def ratio(self) -> float:
        """Separation in units of the spread."""
        if self.spread:
            return self.separation / self.spread
        return float("inf") if self.separation else 0.0


COLUMNS = ("task", "method", "seeds", "worst", "median", "best", "separation", "spread", "verdict")


def gate(frame: pd.DataFrame, oracles: Mapping[str, Oracle]) -> pd.DataFrame:
    """A verdict on each task of one suite: a row each task and method.

    `worst`, `median` and `best` are of the seeds' normalised scores. `separation` and `spread` are
    those of the two methods that lie farthest apart, see `Pair`. The verdict stands in the row of
    the oracle method, of its best config if it has several, or in all rows of a real task; it is
    empty elsewhere.

    Args:
        frame: Quality rows of one suite.
        oracles: By task.
    """
    rows = trained_rows(frame)
    parts = [_judge(str(task), part, oracles[str(task)]) for task, part in rows.groupby("task")]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def trained_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Comparable quality rows at the trained context, `method` told apart by config where needed.

    With the columns `normalised` and, as numbers, `score`.
    """
    rows = comparable(frame).frame
    rows = rows[(rows["kind"] == "quality") & (rows["context"] == rows["train_context"])]
    rows = rows.assign(normalised=normalised(rows), score=as_float(rows, "score"))
    entries = rows[ENTRY].drop_duplicates()
    return rows.merge(entries.assign(label=entry_labels(entries)), on=ENTRY).assign(
        method=lambda merged: merged.pop("label")
    )


def pairs(rows: pd.DataFrame) -> list[Pair]:
    """Every two methods of one task that share a seed, the farthest apart first.

    Args:
        rows: One task's, as `trained_rows` gives them.
    """
    scores = rows.pivot_table(index="seed", columns="method", values="score")
    found: list[Pair] = []
    for one, other in itertools.combinations(scores, 2):
        within = (scores[one] - scores[other]).dropna().to_numpy(dtype=np.float64)
        if not len(within):
            continue
        ahead, behind = (one, other) if within.mean() >= 0 else (other, one)
        spread = float(within.std(ddof=1)) if len(within) > 1 else float("nan")
        found.append(Pair(str(ahead), str(behind), len(within), abs(within.mean()), spread))
    return sorted(found, key=lambda pair: -pair.separation)


def _judge(task: str, rows: pd.DataFrame, oracle: Oracle) -> pd.DataFrame:
    by_method = rows.groupby("method")["normalised"]
    table = by_method.agg(["count", "min", "median", "max"]).reset_index()
    table.columns = ["method", "seeds", "worst", "median", "best"]
    apart = pairs(rows)
    table["task"] = task
    table["separation"] = apart[0].separation if apart else float("nan")
    table["spread"] = apart[0].spread if apart else float("nan")
    if oracle.real:
        table["verdict"] = _real_verdict(apart)
    else:
        table["verdict"] = ""
        solved = {str(name): part >= SOLVES for name, part in by_method}
        # Of several configs the one that does best: with it the task can be solved.
        forms = [name for name in table["method"] if name.partition(":")[0] == oracle.method]
        if forms:
            best = max(forms, key=lambda name: solved[name].sum())
            verdict = _synthetic_verdict(solved[best])
            table.loc[table["method"] == best, "verdict"] = verdict
    return table[list(COLUMNS)]


def _synthetic_verdict(solved: "pd.Series[bool]") -> str:
    told = f"{int(solved.sum())} of {len(solved)} seeds solved it"
    if len(solved) < FEWEST_SEEDS:
        return f"undecided: {told}, {FEWEST_SEEDS} are needed"
    return f"pass: {told}" if solved.mean() >= SHARE else f"fail: {told}"


def _real_verdict(apart: list[Pair]) -> str:
    enough = [pair for pair in apart if pair.seeds >= FEWEST_SEEDS]
    if not enough:
        return f"undecided: {FEWEST_SEEDS} seeds of two methods are needed"
    widest = enough[0]
    methods = {name for pair in enough for name in (pair.ahead, pair.behind)}
    bar = max(BAR, chance_separation(len(methods), widest.seeds))
    told = (
        f"{widest.ahead} and {widest.behind} lie {widest.separation:.3g} apart, which within a seed"
        f" scatters by {widest.spread:.3g}: {widest.ratio:.2f} times, {bar:.2f} are needed"
    )
    return f"pass: {told}" if widest.ratio > bar else f"fail: {told}"


def judge_suite(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, bool]:
    """The verdicts on a suite of this installation, and whether each of its tasks passes.

    Raises:
        UsageError: No such suite or task.
    """
    suite = registry.load_suite(name)
    specs = {plan.task: registry.load_task(plan.task) for plan in suite.tasks}
    oracles = {task: Oracle(spec.oracle, spec.real) for task, spec in specs.items()}
    table = gate(asked_rows(frame, name), oracles)
    verdicts = table.loc[table["verdict"] != "", ["task", "verdict"]].drop_duplicates()
    passing = verdicts.loc[verdicts["verdict"].str.startswith("pass"), "task"]
    return table, set(passing) == set(specs) and len(passing) == len(verdicts)


def asked_rows(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows that answer what a suite asks, on the device it is meant for.

    Raises:
        UsageError: No such suite or task.
    """
    suite = registry.load_suite(name)
    configs = {
        plan.task: registry.load_task(plan.task).config().override(plan.config).canonical()
        for plan in suite.tasks
    }
    is_asked = frame["task"].map(configs) == frame["task_config"]
    return frame[is_asked & (frame["device_kind"] == suite.device_kind)]
