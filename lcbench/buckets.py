"""Two methods' answers by how far back the evidence lies, bucket by bucket."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lcbench.ranking import DISTANCE_COLUMNS

Z = 1.96
"""Standard errors to either side of a difference."""


def compare_buckets(pairs: pd.DataFrame, labels: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """What `compare.compare` tells of each bucket of distances, from seeds of one task and context.

    Args:
        pairs: A row a seed, with `ranking.DISTANCE_COLUMNS` of both, their names ending in `_a`
            and `_b`.
        labels: What the two are called.
    """
    known = [_bucket_scores(seed) for seed in pairs.to_dict("records")]
    asked_alike = [pair for pair in known if pair is not None]
    if asked_alike:
        yield from _buckets(asked_alike, labels)


def _bucket_scores(pair: Mapping[Any, Any]) -> NDArray[np.float64] | None:
    """Shares of both and answers by bucket, `[3, B]`; None where they were not asked the same."""
    lists = [pair[f"{name}_{side}"] for name in DISTANCE_COLUMNS for side in "ab"]
    if any(one is None or not np.size(one) for one in lists):
        return None
    a, b, count, count_b = (np.asarray(one, dtype=np.float64) for one in lists)
    if not np.array_equal(count, count_b):
        return None
    return np.nan_to_num(np.stack([a, b, count]))


def _buckets(seeds: list[NDArray[np.float64]], labels: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """What some seeds' shares `[3, B]` tell of each bucket that anything was asked in."""
    longest = max(pair.shape[1] for pair in seeds)
    padded = [np.pad(pair, ((0, 0), (0, longest - pair.shape[1]))) for pair in seeds]
    a, b, count = np.stack(padded, axis=1)  # [S, B] each
    answers, num_seeds = count.sum(axis=0), (count > 0).sum(axis=0)
    pooled = [(share * count).sum(axis=0) / np.maximum(answers, 1) for share in (a, b)]
    # One right and one wrong answer more on each side, as 0 and 1 would know no spread: Agresti
    # and Caffo (2000), "Simple and Effective Confidence Intervals for Proportions".
    nudged = [(share * answers + 1) / (answers + 2) for share in pooled]
    errors = np.sqrt(sum(share * (1 - share) / (answers + 2) for share in nudged))
    for bucket in np.flatnonzero(answers):
        gaps = (a - b)[count[:, bucket] > 0, bucket]
        of_seeds = float(gaps.std(ddof=1)) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        error = max(float(errors[bucket]), of_seeds)
        difference = float(pooled[0][bucket] - pooled[1][bucket])
        yield {
            "distance_from": 2 ** int(bucket),
            "seeds": int(num_seeds[bucket]),
            "answers": int(answers[bucket]),
            "score_a": float(pooled[0][bucket]),
            "score_b": float(pooled[1][bucket]),
            "difference": difference,
            "low": difference - Z * error,
            "high": difference + Z * error,
            "better": labels[0 if difference > 0 else 1] if abs(difference) > Z * error else None,
        }
