"""Formulas on arrays: paired tests, the smallest effect to be seen, places, Pareto layers.

Every draw is seeded, so that the same numbers give the same answer on every machine.
"""

import functools
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Chance of calling a difference where there is none."""
POWER = 0.8
"""Chance of seeing a difference of the size that `smallest_effect` states."""
FLIPS = 10_000
EXACT_FLIPS = 13
"""Differences up to which every one of their sign patterns is looked at."""
_CHUNK = 1_000
SEPARATIONS = 20_000
"""Draws that `chance_separation` is the quantile of."""
_Floats = NDArray[np.float64]


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of so many wins and losses where each is a fair coin.

    Of pairs that are right or wrong this is McNemar's exact test. Source: McNemar (1947),
    "Note on the sampling error of the difference between correlated proportions".
    """
    flips, fewer = wins + losses, min(wins, losses)
    if not flips:
        return 1.0
    k = np.arange(1, fewer + 1)
    # Logarithms, since 2**-flips underflows from 1,075 on.
    log_terms = np.concatenate([[0.0], np.cumsum(np.log(flips - k + 1) - np.log(k))])
    tail = np.exp(log_terms - flips * np.log(2.0)).sum()
    return float(min(1.0, 2.0 * tail))


def sign_flip_test(differences: _Floats) -> float:
    """Two-sided p-value of a mean difference `[N]` where the sign of each is a fair coin.

    Exact up to `EXACT_FLIPS` differences other than 0, else from `FLIPS` seeded draws, the observed
    one counted among them. Source: Fisher (1935), "The Design of Experiments", section 21.
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    observed = abs(moved.sum()) * (1 - 1e-12)
    if len(moved) <= EXACT_FLIPS:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((1 - 2 * patterns) @ moved) >= observed).mean())
    rng = np.random.default_rng(0)
    as_large = 1
    for _ in range(FLIPS // _CHUNK):
        signs = 1.0 - 2.0 * rng.integers(2, size=(_CHUNK, len(moved)), dtype=np.int8)
        as_large += int((np.abs(signs @ moved) >= observed).sum())
    return as_large / (FLIPS + 1)


def holm(p: _Floats) -> _Floats:
    """P-values `[N]` corrected so that all N tests together err with a chance of ALPHA at most.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def smallest_effect(standard_error: float) -> float:
    """The difference that a two-sided test at `ALPHA` would have seen with the chance `POWER`.

    Normal approximation: (z at 1 - ALPHA / 2, plus z at POWER) standard errors, 2.8 of them.
    Source: Bloom (1995), "Minimum Detectable Effects", Evaluation Review 19 (5).
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER)) * standard_error


@functools.cache
def chance_separation(methods: int, seeds: int) -> float:
    """How far the farthest two of so many methods that are alike lie apart by chance.

    In standard deviations over seeds of their difference within a seed: a ratio that such methods
    exceed with the chance `ALPHA`. By simulation of normal scores; of two methods it is Student's
    t with seeds - 1 degrees of freedom, over the root of the seeds.

    Raises:
        ValueError: Fewer than two methods or two seeds.
    """
    if methods < 2 or seeds < 2:
        raise ValueError(f"two methods and two seeds lie apart, got {methods} and {seeds}")
    scores = np.random.default_rng(0).standard_normal((SEPARATIONS, methods, seeds))
    means = scores.mean(axis=2)
    draw = np.arange(SEPARATIONS)
    within = scores[draw, means.argmax(axis=1)] - scores[draw, means.argmin(axis=1)]
    return float(np.quantile(within.mean(axis=1) / within.std(axis=1, ddof=1), 1 - ALPHA))


def concordance(scores: _Floats) -> float:
    """How far judges agree in ordering rivals, from `[judges, rivals]`: 1 in all, 0 in nothing.

    Kendall's W with its correction for ties; 0 where no judge tells any two apart. Source: Kendall
    and Babington Smith (1939), "The Problem of m Rankings".
    """
    judges, rivals = scores.shape
    below = (scores[:, None] < scores[:, :, None]).sum(axis=2)
    level = (scores[:, None] == scores[:, :, None]).sum(axis=2)
    ranks = below + (level + 1) / 2
    ties = (level**2 - 1).sum()
    most = judges**2 * (rivals**3 - rivals) - judges * ties
    totals = ranks.sum(axis=0)
    return float(12 * ((totals - totals.mean()) ** 2).sum() / most) if most else 0.0


def places(draws: _Floats, known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and last place that each of N rivals may hold.

    One is better than another where it is in all but ALPHA / 2 of the draws, which must be paired:
    a draw is one world in which all are measured. Pairs are not corrected for their number. Two
    that cannot be told apart share a place, and nobody can be told from a rival that is not known.

    Args:
        draws: `[N, draws]`, higher is better.
        known: `[N]`, whose draws vary as far as its measurements do.

    Returns:
        `[N]` 1 + the number that are better, and `[N]` N - the number that are worse.
    """
    count = len(draws)
    best, worst = np.ones(count, np.int64), np.full(count, count)
    for one in range(count):
        gaps = draws - draws[one]
        ahead = (gaps > 0).mean(axis=1) >= 1 - ALPHA / 2
        behind = (gaps < 0).mean(axis=1) >= 1 - ALPHA / 2
        best[one] += int((ahead & known & known[one]).sum())
        worst[one] -= int((behind & known & known[one]).sum())
    return best, worst


def pareto_layers(values: _Floats) -> NDArray[np.int64]:
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
