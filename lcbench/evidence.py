"""What results say of a suite, as the tables of `docs/validity.md`: Markdown from rows alone.

Scores with their intervals and floors, whether a task orders methods alike in every seed, which
methods it tells apart, which tasks say the same, and where in the context answers were found.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lcbench import ranking, registry
from lcbench.gate import BAR, FEWEST_SEEDS, asked_rows, judge_suite, pairs, trained_rows
from lcbench.rows import ENTRY, on_scale
from lcbench.statistics import chance_separation, concordance

_PLACE = ["task", "task_config", "train_context", "context"]


def report(frame: pd.DataFrame, name: str) -> str:
    """Markdown of all there is to say of one suite's results.

    Raises:
        UsageError: No such suite or task.
    """
    # What is older than the newest version of the suite is not told of, and not counted.
    rows = ranking.comparable(asked_rows(frame, name)).frame
    if rows.empty:
        return f"No results of what `{name}` asks on the device it is meant for."
    trained = trained_rows(rows)
    # What is normalised ends at the floor, where methods that differ would seem alike.
    trained = trained.assign(on_scale=on_scale(trained))
    sections = [
        ("Scores", _scores(rows)),
        ("Seeds", _seeds(trained)),
        ("Told apart", _told_apart(_often_tried(trained))),
        ("Order of methods in every seed", _orders(_often_tried(trained))),
        ("Agreement between tasks", _agreement(trained)),
        ("Score by distance", _distances(rows)),
        ("Gate", _verdicts(frame, name)),
    ]
    version = int(rows["suite_version"].max())
    lines = [f"# `{name}`, version {version}: what its results say", "", _origin(rows, name), ""]
    for title, part in sections:
        lines += [f"## {title}", "", *part, ""]
    return "\n".join(lines).rstrip()


def _origin(rows: pd.DataFrame, name: str) -> str:
    seeds, methods = rows["seed"].nunique(), rows["method"].nunique()
    days = pd.to_datetime(rows["started_at"], utc=True).dt.date
    return (
        f"Written by `lcbench suites {name} --gate --format markdown` from {len(rows)} rows of"
        f" {methods} methods and up to {seeds} seeds, measured {days.min()} to {days.max()}."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text, the others numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(row) + " |" for row in [header, rule, *rows]]


def _scores(rows: pd.DataFrame) -> Iterator[str]:
    """Means with intervals in each task's own unit, by task and context, the floor beside them."""
    scores = _labelled(ranking.task_scores(rows))
    names = sorted(scores["label"].unique())
    yield (
        "Means over seeds in each task's own unit, with 1.96 standard errors of seeds or of"
        " examples, whichever is larger. The floor is the best trivial solver; * is the trained"
        " context."
    )
    yield ""
    lines: list[list[str]] = []
    for (task, _, trained, context), part in scores.groupby(_PLACE, dropna=False):
        own = part.set_index("label")
        star = "*" if trained == context else ""
        line = [f"{task} at {context:,}{star}", _in_unit(own["floor"].mean(), own)]
        lines.append(line + [_interval(own, name) for name in names])
    yield from _table(["task", "floor", *names], lines)


def _labelled(scores: pd.DataFrame) -> pd.DataFrame:
    entries = scores[ENTRY].drop_duplicates()
    return scores.merge(entries.assign(label=ranking.entry_labels(entries)), on=ENTRY)


def _in_unit(value: float, own: pd.DataFrame) -> str:
    if (own["metric"] == "bits_per_byte").any():
        return f"{value:.3f} bits/byte"
    return f"{100 * value:.1f} %"


def _interval(own: pd.DataFrame, name: str) -> str:
    rows = own[(own.index == name) & own["score"].notna()].to_dict("records")
    if not rows:
        return "–"
    (row,) = rows
    # The interval is of the normalised score: its width in the task's unit is that of the scale.
    width = 1.96 * row["se"] * abs(row["ceiling"] - row["floor"])
    if row["metric"] == "bits_per_byte":
        return f"{row['score']:.3f} ± {width:.3f}"
    return f"{100 * row['score']:.1f} ± {100 * width:.1f} %"


def _seeds(trained: pd.DataFrame) -> Iterator[str]:
    """Median, range and the share of seeds that solved it: a mean of recall may be nobody's."""
    yield (
        "Normalised scores at the trained context (0 is the floor, 1 the ceiling): recall is learnt"
        f" or not, so the median, the range and the share of seeds at {ranking.SOLVED} or more tell"
        " more than the mean."
    )
    yield ""
    lines: list[list[str]] = []
    for (task, method), part in trained.groupby(["task", "method"]):
        own = part["normalised"]
        solved = int((own >= ranking.SOLVED).sum())
        span = f"{own.min():.3f} to {own.max():.3f}"
        lines.append([f"{task}, {method}", f"{own.median():.3f}", span, f"{solved} of {len(own)}"])
    yield from _table(["task, method", "median", "range", "seeds that solved it"], lines)


def _often_tried(trained: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods in enough seeds to tell them apart; all, where there are none."""
    seeds = trained.groupby(["task", "method"])["seed"].transform("nunique")
    enough = trained[seeds >= FEWEST_SEEDS]
    return trained if enough.empty else enough


def _told_apart(trained: pd.DataFrame) -> Iterator[str]:
    """Each pair of methods on each task: how many times its scatter within a seed it lies apart."""
    methods = sorted(trained["method"].unique())
    columns = list(itertools.combinations(methods, 2))
    yield (
        "How far two methods lie apart at the trained context, in standard deviations of their"
        f" difference within a seed. Bold where more than {BAR:g} of at least {FEWEST_SEEDS} seeds"
        " and more than the farthest two of as many methods that are alike would show. Methods in"
        " fewer seeds than others are left out."
    )
    yield ""
    lines: list[list[str]] = []
    for task, part in trained.groupby("task"):
        ratios: dict[frozenset[str], str] = {}
        for pair in pairs(part):
            ratios[frozenset((pair.ahead, pair.behind))] = _ratio(pair, part["method"].nunique())
        lines.append([str(task), *(ratios.get(frozenset(column), "–") for column in columns)])
    yield from _table(["task", *(" / ".join(column) for column in columns)], lines)


def _ratio(pair: Any, methods: int) -> str:
    if pair.seeds < FEWEST_SEEDS:
        return f"{pair.seeds} seeds"
    bar = max(BAR, chance_separation(methods, pair.seeds))
    return f"**{pair.ratio:.1f}**" if pair.ratio > bar else f"{pair.ratio:.1f}"


def _orders(trained: pd.DataFrame) -> Iterator[str]:
    """Kendall's W of each task: whether its seeds put the methods in one order."""
    yield (
        "Kendall's W over seeds: 1 where every seed puts the methods in one order, 0 for none. The"
        " order is that of the scores, below the floor too."
    )
    yield ""
    lines: list[list[str]] = []
    for task, part in trained.groupby("task"):
        scores = part.pivot_table(index="seed", columns="method", values="on_scale").dropna()
        if min(scores.shape) < 2:
            continue
        order = " > ".join(scores.mean().sort_values(ascending=False).index)
        value = f"{concordance(scores.to_numpy(dtype=np.float64)):.2f}"
        lines.append([str(task), value, str(len(scores)), order])
    yield from _table(["task", "W", "seeds", "order by the mean"], lines)


def _agreement(trained: pd.DataFrame) -> Iterator[str]:
    """Rank correlation between tasks over methods: two that always agree are one."""
    means = trained.pivot_table(index="method", columns="task", values="on_scale").dropna()
    yield (
        f"Spearman's correlation of the tasks' mean scores over {len(means)} methods. So few"
        " correlate by chance: 1 and -1 say that two tasks give one order or its reverse, and what"
        " lies between says little."
        if len(means) < 8
        else f"Spearman's correlation of the tasks' mean scores over {len(means)} methods."
    )
    yield ""
    values = means.corr(method="spearman")
    lines = [[str(task), *(f"{value:.2f}" for value in values.loc[task])] for task in values.index]
    yield from _table(["task", *map(str, values.columns)], lines)


def _distances(rows: pd.DataFrame) -> Iterator[str]:
    """Share of right answers by distance, and what a window alone would have answered."""
    curve = ranking.distance_curve(rows)
    curve = _labelled(curve[curve["context"] == curve["train_context"]])
    accurate = rows.loc[rows["metric"].isin(["accuracy", "exact_match"]), "task"].unique()
    curve = curve[curve["task"].isin(accurate)]
    yield "Right answers in percent at the trained context, by tokens back to the evidence."
    for task, part in curve.groupby("task"):
        scores = part.pivot_table(index="label", columns="distance_from", values="score")
        starts = scores.columns.to_numpy(dtype=np.int64)
        titles = [f"{start:,}–{2 * start - 1:,}" if start > 1 else "1" for start in starts]
        yield ""
        yield from _table(
            [str(task), *titles],
            [
                [str(label), *("–" if pd.isna(v) else f"{100 * v:.0f}" for v in values)]
                for label, values in zip(scores.index, scores.to_numpy(), strict=True)
            ],
        )
        yield from _windows(str(task), part)


def _windows(task: str, points: pd.DataFrame) -> Iterator[str]:
    for label, part in points.groupby("label"):
        window = ranking.config_fields(str(part["config"].iloc[0])).get("window")
        if not isinstance(window, int):
            continue
        total, right = part["count"].sum(), (part["score"] * part["count"]).sum()
        within = part.loc[2 * part["distance_from"] <= window, "count"].sum()
        yield ""
        yield (
            f"`{label}` of window {window} on {task}: {100 * within / total:.1f} % of the answers"
            f" lie less than {window} tokens back, {100 * right / total:.1f} % were right."
        )


def _verdicts(frame: pd.DataFrame, name: str) -> Iterator[str]:
    table, _ = judge_suite(frame, name)
    verdicts = table.loc[table["verdict"] != "", ["task", "verdict"]].drop_duplicates()
    told = set(verdicts["task"])
    yield from (f"- `{row.task}`: {row.verdict}" for row in verdicts.itertuples())
    for plan in registry.load_suite(name).tasks:
        if plan.task not in told:
            yield f"- `{plan.task}`: not judged, its oracle was not tried"
