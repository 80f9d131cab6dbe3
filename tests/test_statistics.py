"""Each formula against a number worked out by other means."""

import itertools
import math

import numpy as np
import pytest

from lcbench.statistics import (
    chance_separation,
    concordance,
    holm,
    pareto_layers,
    places,
    sign_flip_test,
    sign_test,
    smallest_effect,
)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (10, 0, 2 / 1024),
        (1, 9, 2 * (1 + 10) / 1024),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (3, 4, 1.0),
    ],
)
def test_the_sign_test_is_a_binomial_tail(wins: int, losses: int, expected: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-12)
    assert sign_test(losses, wins) == sign_test(wins, losses)


def test_the_sign_test_holds_where_its_terms_underflow() -> None:
    n, fewer = 3000, 1400
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    assert sign_test(fewer, n - fewer) == pytest.approx(2 * (tail / 2**n), rel=1e-9)
    assert 0.0 <= sign_test(0, 5000) < 1e-300


@pytest.mark.parametrize("gaps", [[0.3, -0.1, 0.2], [0.5, 0.5, 0.5, -0.2, 0.0, 0.1], [-1.0]])
def test_a_few_sign_flips_are_all_of_them(gaps: list[float]) -> None:
    moved = [gap for gap in gaps if gap]
    flips = [
        abs(sum(s * g for s, g in zip(signs, moved, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(moved))
    ]
    expected = sum(flip >= abs(sum(moved)) - 1e-9 for flip in flips) / len(flips)
    assert sign_flip_test(np.array(gaps)) == expected


def test_many_sign_flips_agree_with_the_exact_test_and_repeat() -> None:
    wins, losses = 60, 40
    gaps = np.array([1.0] * wins + [-1.0] * losses)
    found = sign_flip_test(gaps)
    assert found == pytest.approx(sign_test(wins, losses), abs=0.01)
    assert sign_flip_test(gaps) == found
    assert sign_flip_test(np.zeros(50)) == 1.0
    assert sign_flip_test(np.full(50, 0.1)) == pytest.approx(1 / 10_001)


def test_the_smallest_effect_is_found_four_times_in_five() -> None:
    assert smallest_effect(1.0) == pytest.approx(2.8016, abs=1e-4)
    rng = np.random.default_rng(0)
    error = 0.2 / math.sqrt(60)
    samples = rng.normal(smallest_effect(error), 0.2, (400, 60))
    seen = np.abs(samples.mean(axis=1)) > 1.96 * error
    assert seen.mean() == pytest.approx(0.8, abs=0.06)


def test_two_methods_lie_apart_by_chance_as_students_t_says() -> None:
    # Two-sided 5 % points of t with 4 and 7 degrees of freedom.
    assert chance_separation(2, 5) == pytest.approx(2.776 / math.sqrt(5), rel=0.02)
    assert chance_separation(2, 8) == pytest.approx(2.365 / math.sqrt(8), rel=0.02)
    by_number = [chance_separation(methods, 5) for methods in (2, 4, 8, 18)]
    assert by_number == sorted(by_number)
    with pytest.raises(ValueError, match="got 1 and 5"):
        chance_separation(1, 5)


def test_concordance_is_kendalls_w() -> None:
    same = np.array([[1.0, 2.0, 3.0]] * 4)
    assert concordance(same) == pytest.approx(1.0)
    assert concordance(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])) == pytest.approx(0.0)
    # The first two judges: rank sums 3, 3, 7, 7 lie 2 from their mean of 5.
    three = np.array([[1, 2, 3, 4], [2, 1, 4, 3], [2, 3, 3, 2]], dtype=float)
    assert concordance(three[:2]) == pytest.approx(12 * 16 / (4 * 60))
    # Ties: the third judge gives ranks 1.5, 3.5, 3.5, 1.5; sums 4.5, 6.5, 10.5, 8.5.
    assert concordance(three) == pytest.approx(12 * 20 / (9 * 60 - 3 * 12))
    assert concordance(np.zeros((3, 3))) == 0.0


def test_places_count_only_who_is_surely_ahead() -> None:
    draws = np.zeros((3, 1000))
    draws[0] = 1.0
    draws[2, :30] = 2.0
    known = np.ones(3, dtype=bool)
    first, last = places(draws, known)
    # The third beats the first in 3 % of draws: too often to be surely behind it.
    assert first.tolist() == [1, 2, 1]
    assert last.tolist() == [2, 3, 3]
    first, last = places(draws, np.array([False, True, True]))
    assert (first.tolist(), last.tolist()) == ([1, 1, 1], [3, 3, 3])


def test_pareto_layers_peel_the_frontier() -> None:
    nan = math.nan
    values = np.array([[3, 1], [1, 3], [2, 1], [1, 1], [3, nan], [nan, nan]], dtype=float)
    assert pareto_layers(values).tolist() == [1, 1, 2, 3, 2, 4]
    assert pareto_layers(np.array([[1.0, nan], [1.0, nan]])).tolist() == [1, 1]
    assert pareto_layers(np.zeros((0, 3))).tolist() == []


def test_holm_steps_down_from_the_smallest() -> None:
    # Worked by hand: 4 * 0.01, 3 * 0.013, 2 * 0.04, 1 * 0.5, none below the one before it.
    p = np.array([0.04, 0.01, 0.5, 0.013])
    assert holm(p) == pytest.approx([0.08, 0.04, 0.5, 0.04])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
