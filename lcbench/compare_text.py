"""A comparison in words and cells: the terminal and the app show the same ones."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lcbench.compare import Comparison
from lcbench.rows import GROUP, TASK
from lcbench.statistics import ALPHA

MISSING = "–"
UNDECIDED = "not told apart"
STEPS = {"train_step": "training step", "prefill": "prefill", "decode": "decoding"}
COST_TITLES = ("Step", "Tokens", "Speed", "Peak memory", "State")
RATIOS = ("speed", "memory", "state")
_RATIO_WORDS = {"speed": "speed", "memory": "peak memory", "state": "state"}


class Sheet(NamedTuple):
    """A table of text: what it is of, its titles, and a row of cells for each line."""

    titles: Sequence[str]
    cells: Sequence[Sequence[str]]


def part_of(found: Comparison, suite: str, device_kind: str) -> Comparison:
    """The part of a comparison that one suite on one kind of device tells."""
    scores, costs, distances = (
        frame[(frame["suite"] == suite) & (frame["device_kind"] == device_kind)]
        for frame in (found.scores, found.costs, found.distances)
    )
    return found._replace(scores=scores, costs=costs, distances=distances)


def score_sheet(found: Comparison) -> Sheet:
    """A line for each task and context, with its test."""
    titles = ("Task", "Tokens", "Unit", "Seeds", "Examples", found.a, found.b, "Difference")
    rows = found.scores.sort_values([*GROUP, *TASK, "context"]).to_dict("records")
    return Sheet((*titles, "p", "Better", "Would have shown"), [_score_cells(row) for row in rows])


def cost_sheet(found: Comparison) -> Sheet:
    """A line for each kind of step and context, with the ratios of a's cost over b's."""
    rows = found.costs.sort_values([*GROUP, "kind", "context"]).to_dict("records")
    cells = [
        [step_name(row["kind"]), f"{row['context']:,}", *(ratio_text(row[name]) for name in RATIOS)]
        for row in rows
    ]
    return Sheet(COST_TITLES, cells)


def distance_sheet(found: Comparison) -> Sheet:
    """A line for each task, context and bucket of distances."""
    titles = ("Task", "Tokens", "Distance", "Seeds", "Answers", found.a, found.b, "Difference")
    order = [*GROUP, *TASK, "context", "distance_from"]
    rows = found.distances.sort_values(order).to_dict("records")
    return Sheet((*titles, "Better"), [_distance_cells(row) for row in rows])


def metric_scale(metric: object) -> tuple[str, float, int]:
    """The unit, factor and decimals in which scores of a metric are told."""
    return ("bits/byte", 1.0, 3) if metric == "bits_per_byte" else ("%", 100.0, 1)


def ratio_text(ratio: float) -> str:
    """A ratio with two decimals, or what stands for one that is not known."""
    return MISSING if pd.isna(ratio) else f"{ratio:,.2f}×"


def step_name(kind: object) -> str:
    """A kind of step in the words of a sentence."""
    return STEPS.get(str(kind), str(kind))


def bucket_text(start: int) -> str:
    """The distances `[start, 2 start)`."""
    return f"{start:,}–{2 * start - 1:,}" if start > 1 else "1"


def verdict(found: Comparison) -> list[str]:
    """Where each wins, in sentences: over all, on each task, by distance, and what each costs.

    Args:
        found: The part of one suite and kind of device, see `part_of`.
    """
    lines = [_overall(found)] if len(found.scores) else []
    for _, part in found.scores.groupby(TASK):
        name = _task_name(found.scores, part.iloc[0].to_dict())
        lines.append(f"{name}: {_winners(part, found, _contexts)}.")
    trained = found.distances[found.distances["context"] == found.distances["train_context"]]
    for _, part in trained.groupby(TASK):
        first = part.iloc[0].to_dict()
        name, winners = _task_name(found.scores, first), _winners(part, found, _ranges)
        lines.append(
            f"{name} at {first['context']:,} tokens, by distance to the evidence: {winners}."
        )
    if cost := _costs(found):
        lines.append(cost)
    return lines


def legend(found: Comparison) -> str:
    """How the tables are to be read."""
    return (
        f"Difference: {found.a} less {found.b} on the same examples, with 1.96 standard errors to"
        " either side; p: paired test over examples, each line for itself. Would have shown: the"
        " difference these data reveal 4 times in 5. Seeds are models trained: with one, nothing"
        " is known of another. Speed above 1 is faster, bytes below 1 are fewer. * trained context."
    )


def _score_cells(row: Mapping[Any, Any]) -> list[str]:
    unit, factor, digits = metric_scale(row["metric"])
    a, b, gap, smallest = (
        _number(row[name], factor, digits)
        for name in ("score_a", "score_b", "difference", "smallest_effect")
    )
    p = "<0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    counts = [unit, str(row["seeds"]), f"{row['examples']:,}"]
    difference = f"{gap} {_interval(row, factor, digits)}"
    return [row["task"], _tokens(row), *counts, a, b, difference, p, _better(row), smallest]


def _distance_cells(row: Mapping[Any, Any]) -> list[str]:
    a, b, gap = (_number(row[name], 100.0, 1) for name in ("score_a", "score_b", "difference"))
    counts = [str(row["seeds"]), f"{row['answers']:,}"]
    place = [row["task"], _tokens(row), bucket_text(row["distance_from"])]
    return [*place, *counts, a, b, f"{gap} {_interval(row, 100.0, 1)}", _better(row)]


def _number(value: float, factor: float, digits: int) -> str:
    if pd.isna(value):
        return MISSING
    return f"{round(value * factor, digits) + 0.0:.{digits}f}"  # 0.0 takes the sign off -0.0


def _interval(row: Mapping[Any, Any], factor: float, digits: int) -> str:
    low, high = (_number(row[name], factor, digits) for name in ("low", "high"))
    return f"[{low}, {high}]"


def _tokens(row: Mapping[Any, Any]) -> str:
    return f"{row['context']:,}{'*' if row['context'] == row['train_context'] else ''}"


def _better(row: Mapping[Any, Any]) -> str:
    return row["better"] if isinstance(row["better"], str) else UNDECIDED


def _task_name(scores: pd.DataFrame, row: Mapping[Any, Any]) -> str:
    """A task by its name, and by what sets it apart where that is not enough."""
    forms = scores[scores["task"] == row["task"]]
    parts = [str(row["task"])]
    if len(set(forms["train_context"])) > 1:
        parts.append(f"trained at {row['train_context']:,}")
    if len(set(forms["task_config"])) > 1:
        parts.append(str(row["task_config"]))
    return ", ".join(parts)


def _overall(found: Comparison) -> str:
    """How many lines each wins, and how many of those outlast a correction for their number."""
    better, count = found.scores["better"], len(found.scores)
    ours, theirs = (int((better == label).sum()) for label in (found.a, found.b))
    undecided = int(better.isna().sum())
    sentence = (
        f"Of {count} {'line' if count == 1 else 'lines'}, {found.a} is better on {ours} and"
        f" {found.b} on {theirs}; {undecided} not told apart."
    )
    if count == 1 or undecided == count:
        return sentence
    firm = int((better.notna() & (found.scores["p_holm"] < ALPHA)).sum())
    won = count - undecided
    kept = "All" if firm == won else f"{firm} of those {won}"
    return f"{sentence} {kept} hold when corrected for {count} tests (Holm)."


def _winners(part: pd.DataFrame, found: Comparison, where: Any) -> str:
    """Where a is better, where b is, and where nothing can be told, each if anywhere."""
    better = part["better"].where(part["better"].notna(), UNDECIDED)
    told = [
        f"{who} at {where(part, better == who)}"
        for who in (found.a, found.b, UNDECIDED)
        if (better == who).any()
    ]
    return "; ".join(told)


def _contexts(part: pd.DataFrame, chosen: pd.Series) -> str:
    rows = part[chosen].sort_values("context").to_dict("records")
    return ", ".join(_tokens(row) for row in rows)


def _ranges(part: pd.DataFrame, chosen: pd.Series) -> str:
    """Buckets of distances, those side by side as one range."""
    starts = sorted(part["distance_from"])
    taken = set(part.loc[chosen, "distance_from"])
    runs = [(won, list(run)) for won, run in itertools.groupby(starts, taken.__contains__)]
    return ", ".join(_range_text(run[0], run[-1]) for won, run in runs if won)


def _range_text(first: int, last: int) -> str:
    return bucket_text(first) if first == last else f"{first:,}–{2 * last - 1:,}"


def _costs(found: Comparison) -> str:
    """The ratios at the longest context that both finished, of each kind of step."""
    told = list(_told_ratios(found.costs))
    if not told:
        return ""
    return f"{found.a} over {found.b} at the longest context both finished: {'; '.join(told)}."


def _told_ratios(costs: pd.DataFrame) -> Iterator[str]:
    for kind, part in costs.groupby("kind"):
        longest = part.sort_values("context").iloc[-1]
        known = [name for name in RATIOS if not pd.isna(longest[name])]
        if known:
            ratios = [f"{_RATIO_WORDS[name]} {ratio_text(longest[name])}" for name in known]
            yield f"{step_name(kind)} at {longest['context']:,} {', '.join(ratios)}"
