"""Two methods against each other: paired tests on the same examples, ratios of cost, distances."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lcbench.buckets import Z, compare_buckets
from lcbench.config import UsageError, did_you_mean, split_assignments
from lcbench.costs import rungs_of
from lcbench.ranking import COLUMNS, DISTANCE_COLUMNS, config_fields, entry_labels
from lcbench.rows import GROUP, TASK, comparable
from lcbench.statistics import ALPHA, holm, sign_flip_test, sign_test, smallest_effect

EXAMPLE_COLUMNS = ("score_by_example", *DISTANCE_COLUMNS)
"""Columns of lists: the heavy ones."""
COMPARE_COLUMNS = (*COLUMNS, *EXAMPLE_COLUMNS)
"""The columns of rows read here."""
_PLACE = [*GROUP, *TASK, "context"]
_FORM = ["method", "config", "dtype"]
_OF_SCORES = (
    *(*_PLACE, "metric", "seeds", "examples", "score_a", "score_b", "difference", "low", "high"),
    *("test", "p", "p_holm", "better", "smallest_effect"),
)
_OF_DISTANCES = (
    *(*_PLACE, "distance_from", "seeds", "answers", "score_a", "score_b", "difference"),
    *("low", "high", "better"),
)


class Comparison(NamedTuple):
    """What is known of one entry, `a`, against another, `b`."""

    a: str
    b: str
    scores: pd.DataFrame
    """A row for each task and context that both were scored at, on the same examples."""
    costs: pd.DataFrame
    """A row for each kind of step and context that both finished."""
    distances: pd.DataFrame
    """A row for each task, context and bucket of distances at which both gave the same answers."""
    put_aside: dict[str, int]


def compare(frame: pd.DataFrame, a: str, b: str) -> Comparison:
    """Hold two methods side by side wherever they were given the same examples.

    The test stream depends on suite, task, context and seed and not on the method, so scores are
    paired example by example. Columns of `scores`, differences being a's less b's:

    - `score_a`, `score_b`, `difference`: means over seeds of means over examples.
    - `low`, `high`: 1.96 standard errors to either side, of examples within seeds or of seeds,
      whichever is larger. One seed knows nothing of the second. NaN where nothing ever differed.
    - `p`: that these models do as well on other examples. Where every example is right or wrong the
      exact sign test (McNemar's), else sign flips; examples are the units, since answers of one
      example depend on each other. Not corrected for the number of lines.
    - `p_holm`: `p` corrected for the number of lines of the same suite and device.
    - `better`: the label of the better one where `p` is below 0.05 and the interval leaves out 0.
    - `smallest_effect`: the difference that these data would have shown with a chance of 80 %, and
      for the sign test at least the fewest wins without a loss that it takes for significant.

    Columns of `costs`: `speed` (a's over b's, each timed beside vanilla), `memory` and `state`
    (bytes, a's over b's). Columns of `distances`: shares of right answers whose evidence lies
    [distance_from, 2 distance_from) tokens back, pooled over seeds; the interval is 1.96 standard
    errors, of answers as if each were drawn for itself or of seeds, whichever is larger, and
    `better` is told where it leaves out 0.

    Args:
        frame: Rows with at least `COMPARE_COLUMNS`.
        a: A method, or METHOD:FIELD=VALUE where it has several configs; `dtype` is a field too.
        b: Another.

    Raises:
        UsageError: A name that fits no entry or several, one entry twice, or no example that both
            were scored on.
    """
    rows, put_aside = comparable(frame)
    entries = entries_of(rows)
    first, second = (_find(entries, name) for name in (a, b))
    if first["label"] == second["label"]:
        raise UsageError(f"{a!r} and {b!r} are the same; name two methods, or two configs of one")
    found = compare_entries(rows, first, second, put_aside)
    if found.scores.empty:
        raise UsageError(
            f"{found.a} and {found.b} share no example: they must have been scored in the same"
            " suite, on the same task, context and seed."
            f" Run both: lcbench run --method {a},{b}"
        )
    return found


def entries_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Method, config and dtype of all entries, with the `label` that the comparison calls them."""
    entries = rows[_FORM].drop_duplicates(ignore_index=True)
    return entries.assign(label=entry_labels(entries))


def compare_entries(
    rows: pd.DataFrame, a: Mapping[Any, Any], b: Mapping[Any, Any], put_aside: dict[str, int]
) -> Comparison:
    """`compare` of two rows of `entries_of`, where nothing need be shared.

    Args:
        rows: `comparable` rows; of other entries they are not looked at.
        a: An entry.
        b: Another.
        put_aside: What `comparable` left out.
    """
    ours, theirs = (_rows_of(rows, entry) for entry in (a, b))
    labels = (str(a["label"]), str(b["label"]))
    scores = pd.DataFrame(_scores(ours, theirs, labels), columns=list(_OF_SCORES))
    scores["p_holm"] = scores.groupby(GROUP)["p"].transform(lambda p: holm(p.to_numpy(np.float64)))
    distances = pd.DataFrame(_distances(ours, theirs, labels), columns=list(_OF_DISTANCES))
    return Comparison(*labels, scores, _costs(ours, theirs), distances, put_aside)


def _find(entries: pd.DataFrame, name: str) -> Mapping[Any, Any]:
    """The one entry of that name."""
    method, _, text = name.partition(":")
    labels = sorted(entries["label"])
    own = [entry for entry in entries.to_dict("records") if entry["method"] == method]
    if not own:
        raise UsageError(f"no results of {method!r}; {did_you_mean(method, entries['method'])}")
    wanted = {field: value.lower() for field, value in split_assignments(text).items()}
    fitting = [entry for entry in own if wanted.items() <= _fields(entry).items()]
    if not fitting:
        raise UsageError(f"no results of {name!r}; {did_you_mean(name, labels)}")
    if len(fitting) > 1:
        forms = ", ".join(str(entry["label"]) for entry in fitting)
        raise UsageError(f"{name!r} has several forms, name one of: {forms}")
    return fitting[0]


def _fields(entry: Mapping[Any, Any]) -> dict[str, str]:
    fields = {**config_fields(str(entry["config"])), "dtype": entry["dtype"]}
    return {name: str(value).lower() for name, value in fields.items()}


def _rows_of(rows: pd.DataFrame, entry: Mapping[Any, Any]) -> pd.DataFrame:
    chosen = pd.Series(data=True, index=rows.index)
    for name in _FORM:
        chosen &= rows[name] == entry[name]
    return rows[chosen]


def _scores(
    ours: pd.DataFrame, theirs: pd.DataFrame, labels: tuple[str, str]
) -> Iterator[dict[str, Any]]:
    pairs = _pairs(ours, theirs, ["score_by_example"])
    for place, seeds in pairs.groupby(_PLACE):
        scores = [_example_scores(seed) for seed in seeds.to_dict("records")]
        common = [pair for pair in scores if pair is not None]
        if common:
            metric = str(seeds["metric"].iloc[0])
            values = dict(zip(_PLACE, place, strict=True))
            yield values | {"metric": metric} | _paired(common, metric, labels)


def _pairs(ours: pd.DataFrame, theirs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Scores of both on the same place and seed, side by side."""
    keys = [*_PLACE, "seed", "metric"]
    sides = [
        rows.loc[(rows["kind"] == "quality") & (rows["status"] == "ok"), [*keys, *columns]]
        for rows in (ours, theirs)
    ]
    return sides[0].merge(sides[1], on=keys, suffixes=("_a", "_b"))


def _example_scores(pair: Mapping[Any, Any]) -> NDArray[np.float64] | None:
    """Scores of the same examples by both, `[2, N]`; None where they were not the same."""
    both = [pair["score_by_example_a"], pair["score_by_example_b"]]
    if any(scores is None or not np.size(scores) for scores in both):
        return None
    if len(both[0]) != len(both[1]):
        return None
    return np.asarray([np.asarray(scores, dtype=np.float64) for scores in both])


def _paired(
    seeds: list[NDArray[np.float64]], metric: str, labels: tuple[str, str]
) -> dict[str, Any]:
    """What the scores `[2, N]` of some seeds tell."""
    means = np.mean([pair.mean(axis=1) for pair in seeds], axis=0)
    gaps = [pair[0] - pair[1] for pair in seeds]
    every = np.concatenate(gaps)
    error = _standard_error(gaps)
    difference = float(np.mean([gap.mean() for gap in gaps]))
    right_or_wrong = all(np.isin(pair, (0.0, 1.0)).all() for pair in seeds)
    is_exact = right_or_wrong and metric != "bits_per_byte"
    if is_exact:
        p = sign_test(int((every > 0).sum()), int((every < 0).sum()))
    else:
        p = sign_flip_test(every)
    told_apart = p < ALPHA and abs(difference) > Z * error
    a_is_better = (difference < 0) == (metric == "bits_per_byte")
    return {
        "seeds": len(seeds),
        "examples": len(every),
        "score_a": float(means[0]),
        "score_b": float(means[1]),
        "difference": difference,
        "low": difference - Z * error if error else math.nan,
        "high": difference + Z * error if error else math.nan,
        "test": "sign" if is_exact else "sign flips",
        "p": p,
        "better": labels[0 if a_is_better else 1] if told_apart else None,
        "smallest_effect": _smallest_effect(error, len(every), is_exact=is_exact),
    }


def _smallest_effect(error: float, examples: int, *, is_exact: bool) -> float:
    """What the data would have shown; NaN where examples that never differ tell no spread."""
    if is_exact:
        fewest = next(wins for wins in itertools.count(1) if sign_test(wins, 0) < ALPHA)
        return max(smallest_effect(error), fewest / examples)
    return smallest_effect(error) if error else math.nan


def _standard_error(gaps: list[NDArray[np.float64]]) -> float:
    """Of the mean over seeds: the larger of that of examples within them and that of seeds."""
    count = len(gaps)
    within = sum(gap.var(ddof=1) / len(gap) for gap in gaps if len(gap) > 1)
    of_examples = math.sqrt(within) / count
    if count == 1:
        return of_examples
    of_seeds = float(np.std([gap.mean() for gap in gaps], ddof=1)) / math.sqrt(count)
    return max(of_examples, of_seeds)


def _distances(
    ours: pd.DataFrame, theirs: pd.DataFrame, labels: tuple[str, str]
) -> Iterator[dict[str, Any]]:
    for place, seeds in _pairs(ours, theirs, DISTANCE_COLUMNS).groupby(_PLACE):
        values = dict(zip(_PLACE, place, strict=True))
        yield from (values | bucket for bucket in compare_buckets(seeds, labels))


def _costs(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    keys = [*GROUP, "kind", "context"]
    sides = [rungs_of(rows).drop(columns=["method", "config", "dtype"]) for rows in (ours, theirs)]
    both = sides[0].merge(sides[1], on=keys, suffixes=("_a", "_b"))
    ratios = {"speed": "vs_vanilla", "memory": "peak_bytes", "state": "state_bytes"}
    for name, column in ratios.items():
        divisor = both[f"{column}_b"]
        both[name] = both[f"{column}_a"] / divisor.where(divisor > 0)
    return both[[*keys, *ratios]]


def as_frame(found: Comparison) -> pd.DataFrame:
    """All tables as one: a row each, told apart by `kind`."""
    scores = found.scores.assign(kind="quality")
    distances = found.distances.assign(kind="distance")
    parts = [part for part in (scores, found.costs, distances) if not part.empty]
    whole = pd.concat(parts, ignore_index=True)
    whole = whole.assign(a=found.a, b=found.b)
    first = ["a", "b", "kind"]
    return whole[[*first, *(name for name in whole if name not in first)]]
