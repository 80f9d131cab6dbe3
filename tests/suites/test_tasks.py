"""What every task in `suites/tasks/` must satisfy; a new file there is tested with no new test."""

import hashlib
import math
from collections import Counter
from importlib import import_module
from itertools import pairwise, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, get_args

import numpy as np
import pytest

from lcbench.cards import task_card
from lcbench.corpus import family_of, load_corpus, read_corpus, split_of
from lcbench.paths import plugin_folders
from lcbench.sampling import distinct
from lcbench.task import IGNORE, Batch, Split, Task, TaskSpec, stream

NAMES = sorted(path.stem for path in plugin_folders("suites/tasks")[0].glob("*.py"))
SPLITS: tuple[Split, ...] = get_args(Split)
BATCH, CONTEXT = 96, 192
# Where a default leaves out part of what a task draws, its other forms keep the same laws.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "mqar": [{"noise": True}, {"power_a": 0.01}, {"num_pairs": 31}, {"vocab_size": 8192}],
    "mqar_update": [{"num_updates": 8}, {"num_pairs": 2, "num_updates": 1}],
    "needle": [
        {"noise": "diverse"},
        {"num_needles": 2},
        {"num_needles": 20, "vocab_size": 62},
        {"nearest": 50, "farthest": 100},
    ],
    "selective_copy": [{"num_tokens": 96}, {"vocab_size": 4}],
    "compositional": [{"grid": 2}, {"grid": 6, "vocab_size": 200}, {"farthest": 77}],
    "copy": [{"num_tokens": 20}, {"num_tokens": 3}, {"vocab_size": 4}],
    "frequent_words": [{"top": 3}, {"alpha": 1.0, "num_words": 100}, {"num_words": 2}],
    "variable_tracking": [
        {"num_hops": 3, "num_chains": 6, "vocab_size": 128},
        {"num_chains": 2, "farthest": 50},
    ],
    "state_tracking": [{"group": "s3"}, {"group": "a5"}],
    "fact_qa": [
        {"num_facts": 2},
        {"num_facts": 3, "num_moves": 3},
        {"num_facts": 3, "num_people": 2, "num_moves": 5, "num_places": 8, "farthest": 100},
    ],
    "listops": [{"max_depth": 4}],
    "pathfinder": [{"length": 1.0, "bend": 2.0}],
    "fuzzy_recall": [
        {"num_pairs": 12, "key_kinds": 4, "value_kinds": 24},
        {"num_pairs": 3, "motif": 5, "key_kinds": 2},
        {"num_pairs": 2, "motif": 2, "key_kinds": 3, "farthest": 70},
    ],
    "induction": [{"vocab_size": 200}, {"vocab_size": 500}],
}
CASES = [
    pytest.param(name, overrides, id="-".join([name, *(f"{k}={v}" for k, v in overrides.items())]))
    for name in NAMES
    for overrides in [{}, *VARIANTS.get(name, [])]
]
every_task = pytest.mark.parametrize(("name", "overrides"), CASES)


def spec_of(name: str) -> TaskSpec:
    return import_module(f"lcbench.suites.tasks.{name}").TASK


def build(name: str, overrides: dict[str, Any], split: Split = "train") -> Task:
    spec = spec_of(name)
    return spec.build(spec.config(**overrides), split)


def draw(task: Task, name: str, step: int = 0, batch: int = BATCH) -> Batch:
    return task.sample(stream({"task": name, "seed": 0}, task.split, step), batch, CONTEXT)


def scores(spec: TaskSpec, predictions: np.ndarray, batch: Batch) -> np.ndarray:
    """The metric of each example: `[B]`."""
    asked = batch.targets != IGNORE
    if spec.metric == "bits_per_byte":
        targets = np.where(asked, batch.targets, 0)[..., None]
        bits = -np.take_along_axis(predictions, targets, axis=-1)[..., 0]
        return (bits * asked).sum(axis=1) / asked.sum(axis=1)
    right = (predictions == batch.targets) & asked
    accuracy = right.sum(axis=1) / asked.sum(axis=1)
    return accuracy == 1 if spec.metric == "exact_match" else accuracy


def test_there_are_tasks() -> None:
    assert {"mqar", "code_lm"} <= set(NAMES)


@every_task
@pytest.mark.parametrize("split", SPLITS)
def test_examples_have_the_stated_form(name: str, overrides: dict, split: Split) -> None:
    task = build(name, overrides, split)
    batch = draw(task, name)
    for array in filter(lambda part: part is not None, batch):
        assert array.shape == (BATCH, CONTEXT)
        assert array.dtype == np.int64
    asked = batch.targets != IGNORE
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() < task.vocab_size
    assert batch.targets[asked].min() >= 0
    assert batch.targets[asked].max() < task.vocab_size
    assert asked.any(axis=1).all(), "an example without a question scores nothing"


@every_task
def test_the_generator_decides_everything(name: str, overrides: dict) -> None:
    first, again = (draw(build(name, overrides), name) for _ in range(2))
    for left, right in zip(first, again, strict=True):
        assert left is right is None or np.array_equal(left, right)


@every_task
def test_no_two_streams_repeat_an_example(name: str, overrides: dict) -> None:
    batches = [
        draw(build(name, overrides, split), name, step) for split in SPLITS for step in (0, 1)
    ]
    examples = [row.tobytes() for batch in batches for row in batch.inputs]
    # Real text is finite: a short context has so many examples and no more.
    fewest = 0.8 if spec_of(name).real else 1.0
    assert len(set(examples)) >= fewest * len(examples)


@every_task
def test_distances_point_back_at_evidence(name: str, overrides: dict) -> None:
    task = build(name, overrides)
    batch = draw(task, name)
    if batch.distances is None:
        pytest.skip("the task does not know its evidence")
    asked = batch.targets != IGNORE
    assert (batch.distances[~asked] == 0).all()
    rows, answers = np.nonzero(asked)
    evidence = answers - batch.distances[rows, answers]
    assert (evidence >= 0).all()
    assert batch.distances.max() <= (getattr(task.config, "farthest", None) or CONTEXT)
    if spec_of(name).family in ("recall", "copying"):
        assert (evidence < answers).all()
        assert np.array_equal(batch.inputs[rows, evidence], batch.targets[rows, answers])


@every_task
def test_an_oracle_that_sees_only_inputs_reaches_the_ceiling(name: str, overrides: dict) -> None:
    task, spec = build(name, overrides, "test"), spec_of(name)
    if spec.real:
        pytest.skip("nothing predicts real text perfectly")
    batch = draw(task, name)
    assert scores(spec, task.solvers()["oracle"](batch.inputs), batch).mean() == spec.ceiling


@every_task
def test_the_floor_is_what_the_best_trivial_solver_scores(name: str, overrides: dict) -> None:
    task, spec = build(name, overrides, "test"), spec_of(name)
    batch = draw(task, name, batch=1024)
    found = {
        solver: scores(spec, solve(batch.inputs), batch)
        for solver, solve in task.solvers().items()
        if solver != "oracle"
    }
    best = min if spec.metric == "bits_per_byte" else max
    score = found[best(found, key=lambda solver: found[solver].mean())]
    margin = 3 * score.std(ddof=1) / len(score) ** 0.5 + 1e-9
    assert abs(score.mean() - task.floor(CONTEXT)) < margin


@every_task
def test_the_ceiling_is_better_than_the_floor(name: str, overrides: dict) -> None:
    spec, floor = spec_of(name), build(name, overrides).floor(CONTEXT)
    assert spec.ceiling < floor if spec.metric == "bits_per_byte" else spec.ceiling > floor


@every_task
def test_a_context_too_short_names_the_way_out(name: str, overrides: dict) -> None:
    task = build(name, overrides)
    if spec_of(name).real:
        pytest.skip("any window of real text is one")
    with pytest.raises(ValueError, match="context of at least"):
        task.sample(np.random.default_rng(0), 1, 1)


@every_task
def test_every_token_can_be_read(name: str, overrides: dict) -> None:
    task = build(name, overrides)
    shown = [task.render(token) for token in range(task.vocab_size)]
    assert all(text.isprintable() and text for text in shown)
    assert len(set(shown)) == len(shown)


@every_task
def test_the_data_hash_tells_real_from_synthetic(name: str, overrides: dict) -> None:
    assert (build(name, overrides).data_hash() is not None) == spec_of(name).real


@pytest.mark.parametrize("context", [32, 33, 500])
def test_mqar_asks_every_key_once_after_its_pair(context: int) -> None:
    task = build("mqar", {})
    inputs, targets, distances = task.sample(np.random.default_rng(3), 50, context)
    for tokens, wanted, back in zip(
        inputs.tolist(), targets.tolist(), distances.tolist(), strict=True
    ):
        position_of = {tokens[at]: at + 1 for at in range(0, 16, 2)}
        assert len(position_of) == 8
        asked = [at for at in range(context) if wanted[at] != IGNORE]
        assert {tokens[at] for at in asked} == set(position_of)
        for at in asked:
            assert at >= 16
            assert at % 2 == 0
            assert back[at] == at - position_of[tokens[at]]
            assert wanted[at] == tokens[position_of[tokens[at]]]
        assert not any(tokens[at] for at in range(16, context) if at not in asked)


def test_mqar_noise_is_none_of_the_keys_and_values() -> None:
    inputs, targets, _ = build("mqar", {"noise": True}).sample(np.random.default_rng(3), 50, 100)
    for tokens, wanted in zip(inputs, targets, strict=True):
        gaps = tokens[16:][wanted[16:] == IGNORE]
        assert gaps.all()
        assert not set(gaps) & set(tokens[:16])


def test_mqar_queries_lie_uniformly_unless_asked_otherwise() -> None:
    context, num_slots = 96, 40
    where = {}
    for power_a in (1.0, 0.01):
        task = build("mqar", {"power_a": power_a})
        targets = task.sample(np.random.default_rng(4), 4000, context).targets
        where[power_a] = (targets != IGNORE).mean(axis=0)[16::2]
    expected = 8 / num_slots
    assert np.abs(where[1.0] - expected).max() < 4 * (expected / 4000) ** 0.5
    assert where[0.01][0] > 0.9
    assert where[0.01][0] > 10 * where[0.01][-1]


@pytest.mark.parametrize("power_a", [1.0, 0.01])
def test_mqar_pairs_are_asked_in_no_order(power_a: float) -> None:
    task = build("mqar", {"num_pairs": 2, "power_a": power_a})
    inputs, targets, _ = task.sample(np.random.default_rng(7), 4000, 40)
    first_asked = inputs[np.arange(4000), (targets != IGNORE).argmax(axis=1)]
    assert abs((first_asked == inputs[:, 0]).mean() - 0.5) < 0.03


@pytest.mark.parametrize("num_updates", [1, 4, 8])
def test_mqar_update_asks_every_key_for_its_last_value(num_updates: int) -> None:
    task = build("mqar_update", {"num_updates": num_updates})
    inputs, targets, distances = task.sample(np.random.default_rng(3), 50, 77)
    prefix = 16 + 2 * num_updates
    for tokens, wanted, back in zip(inputs, targets, distances, strict=True):
        last = {tokens[at]: at + 1 for at in range(0, prefix, 2)}
        asked = [at for at in range(77) if wanted[at] != IGNORE]
        assert len(last) == 8
        assert sorted(tokens[at] for at in asked) == sorted(last)
        assert all(at - back[at] == last[tokens[at]] for at in asked)
        assert len(set(tokens[1:prefix:2])) == 8 + num_updates


@pytest.mark.parametrize("noise", ["repeated", "diverse"])
def test_needles_lie_at_every_depth_and_are_asked_in_any_order(noise: str) -> None:
    context, num_needles, examples = 24, 4, 6000
    task = build("needle", {"noise": noise})
    inputs, targets, distances = task.sample(np.random.default_rng(3), examples, context)
    asked = targets != IGNORE
    assert np.array_equal(np.flatnonzero(asked.any(axis=0)), [17, 19, 21, 23])
    assert asked.sum() == examples * num_needles
    evidence = (np.arange(context) - distances)[asked]
    rows = np.nonzero(asked)[0]
    assert np.array_equal(inputs[rows, evidence - 1], inputs[asked])
    starts = evidence - 1
    assert set(starts) == set(range(15))
    assert abs(starts.mean() - 7) < 0.1
    first_asked_first = evidence[::num_needles] == evidence.reshape(-1, num_needles).min(axis=1)
    assert abs(first_asked_first.mean() - 1 / num_needles) < 0.03


@pytest.mark.parametrize(("nearest", "farthest"), [(2, 40), (40, 80), (60, None)])
def test_needles_lie_at_the_distances_asked_for(nearest: int, farthest: int | None) -> None:
    task = build("needle", {"nearest": nearest, "farthest": farthest})
    targets, distances = task.sample(np.random.default_rng(3), 6000, 100)[1:]
    asked = distances[targets != IGNORE].reshape(-1, 4)
    # The first question is the nearest of four that lie two tokens apart, the last the farthest.
    assert asked[:, 0].min() == nearest
    assert asked[:, -1].max() == (farthest or 98)
    places = np.bincount((asked - [0, 2, 4, 6]).ravel())[nearest:]
    expected = places.sum() / len(places)
    assert np.abs(places[1:-1] - expected).max() < 0.1 * expected


def test_needle_noise_is_one_sentence_or_drawn_anew() -> None:
    for noise, varies in (("repeated", False), ("diverse", True)):
        inputs = build("needle", {"noise": noise}).sample(np.random.default_rng(3), 99, 64).inputs
        seen = [set(column[column > 42]) for column in inputs.T[:56]]
        assert all((len(found) > 1) == varies for found in seen)
        assert len(set().union(*seen)) > 10


def test_induction_deals_tokens_evenly_and_marks_anywhere() -> None:
    context, examples = 32, 6000
    inputs, targets, distances = build("induction", {}).sample(
        np.random.default_rng(3), examples, context
    )
    assert (targets[:, :-1] == IGNORE).all()
    assert (inputs[:, -1] == 0).all()
    counts = (inputs[..., None] == np.arange(16)).sum(axis=1)
    assert (counts == [2] * 16).all()
    found = np.bincount(distances[:, -1], minlength=context)[1:-1]
    assert np.abs(found - examples / 30).max() < 5 * (examples / 30) ** 0.5
    by_place = (inputs[:, :-1] == 1).mean(axis=0)
    assert np.abs(by_place - 2 / 31).max() < 0.02


def test_variable_tracking_chains_are_found_by_no_order() -> None:
    inputs, targets, distances = build("variable_tracking", {"num_hops": 2}).sample(
        np.random.default_rng(3), 6000, 80
    )
    asked = targets != IGNORE
    evidence = (np.arange(80) - distances)[asked].reshape(-1, 4)
    ranks = evidence.argsort(axis=1).argsort(axis=1)
    assert np.abs((ranks[..., None] == np.arange(4)).mean(axis=0) - 0.25).max() < 0.03
    assert (inputs == 0).sum() == 6000 * 12
    assert np.abs((inputs == 0).mean(axis=0)[10:60] - 12 / 72).max() < 0.04


@pytest.mark.parametrize(("group", "size"), [("s3", 6), ("a5", 60)])
def test_state_tracking_asks_what_order_things_are_in(group: str, size: int) -> None:
    task = build("state_tracking", {"group": group})
    assert task.vocab_size == size
    inputs, targets, _ = task.sample(np.random.default_rng(3), 40, 30)
    for tokens, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        things = task.render(0)
        for token, state in zip(tokens, wanted, strict=True):
            things = "".join(things["abcde".index(place)] for place in task.render(token))
            assert things == task.render(state)


def test_state_tracking_of_parity_adds() -> None:
    inputs, targets, _ = build("state_tracking", {}).sample(np.random.default_rng(3), 40, 30)
    assert np.array_equal(inputs.cumsum(axis=1) % 2, targets)


@pytest.mark.parametrize("context", [8, 64, 700, 3000])
def test_listops_values_are_those_of_the_lists_as_written(context: int) -> None:
    task = build("listops", {})
    inputs, targets, _ = task.sample(np.random.default_rng(3), 40, context)
    work_out = {"[min": min, "[max": max, "[med": lambda v: int(np.median(v)), "[sum": sum}
    for tokens, wanted in zip(inputs.tolist(), targets[:, -1].tolist(), strict=True):
        words = [word for word in map(task.render, tokens) if word != "·"]
        assert context / 4 < len(words) < context
        stack: list[list[Any]] = [[]]
        for word in words:
            if word in work_out:
                stack.append([word])
            elif word == "]":
                name, *values = stack.pop()
                assert 2 <= len(values) <= 10
                stack[-1].append(work_out[name](values) % 10)
            else:
                stack[-1].append(int(word))
        assert stack == [[wanted]]


def test_listops_at_lras_lengths_has_the_floors_found_for_lra() -> None:
    task, rng = build("listops", {}, "test"), np.random.default_rng(3)
    inputs, targets, _ = task.sample(rng, 3000, 2000)
    lengths = (inputs != 10).sum(axis=1)
    assert lengths.min() > 500
    assert abs(lengths.mean() - 1044) < 30
    found = {name: (solve(inputs) == targets).any(axis=1) for name, solve in task.solvers().items()}
    # Shares of 9,760 trees drawn by a separate implementation of LRA's generator.
    for name, share in {"majority": 0.172, "root-operator": 0.367, "cut-at-depth-2": 0.588}.items():
        error = (share * (1 - share) * (1 / 3000 + 1 / 9760)) ** 0.5
        assert abs(found[name].mean() - share) < 3 * error


def test_listops_draws_digits_and_operators_evenly_and_values_as_lra_does() -> None:
    inputs, targets, _ = build("listops", {}).sample(np.random.default_rng(3), 3000, 2000)
    counts = np.bincount(inputs.ravel(), minlength=16)
    for alike in (counts[:10], counts[11:15]):
        assert np.abs(alike / alike.mean() - 1).max() < 0.01
    assert counts[15] == counts[11:15].sum()
    # Five arguments in six are digits, as an operator has six on average and is one itself.
    assert abs(counts[:10].sum() / counts[15] - 5) < 0.1
    shares = np.bincount(targets[:, -1], minlength=10) / 3000
    assert np.abs(shares[[0, 9]] - 0.17).max() < 0.03
    assert np.abs(shares[1:9] - 0.083).max() < 0.025


def test_pathfinder_tells_little_by_what_is_near_the_dots_of_a_large_image() -> None:
    task = build("pathfinder", {}, "test")
    inputs, targets, _ = task.sample(np.random.default_rng(3), 1000, 1024)
    found = {name: (solve(inputs) == targets).any(axis=1) for name, solve in task.solvers().items()}
    assert found.pop("oracle").all()
    assert all(abs(right.mean() - 0.5) < 0.12 for right in found.values())
    joined = targets[:, -1] == targets.max()
    dashes = (inputs == 1).sum(axis=1)
    assert abs(dashes[joined].mean() - dashes[~joined].mean()) < 0.03 * dashes.mean()


@pytest.mark.parametrize("context", [64, 484, 1024])
def test_pathfinder_lays_curves_anywhere_and_joins_half_of_the_dots(context: int) -> None:
    examples, side = 2000, math.isqrt(context)
    inputs, targets, _ = build("pathfinder", {}).sample(np.random.default_rng(3), examples, context)
    assert abs((targets[:, -1] == targets.max()).mean() - 0.5) < 5 * (0.25 / examples) ** 0.5
    dashes = (inputs == 1).mean(axis=0).reshape(side, side)
    # No side of the image is unlike another.
    for other in (dashes.T, dashes[::-1], dashes[:, ::-1]):
        assert np.abs(other - dashes).mean() < 0.2 * dashes.mean()
    assert np.abs(dashes.mean(axis=0) - dashes.mean(axis=1)).max() < 0.15 * dashes.mean()


@pytest.mark.parametrize("context", [64, 80, 625])
def test_pathfinder_draws_the_largest_square_after_filler(context: int) -> None:
    inputs = build("pathfinder", {}).sample(np.random.default_rng(3), 8, context).inputs
    side = math.isqrt(context)
    assert (inputs[:, : context - side**2] == 3).all()
    images = inputs[:, context - side**2 :].reshape(-1, side, side)
    dot = 1 if side < 24 else 9
    assert ((images == 2).sum(axis=(1, 2)) == 2 * dot).all()


@pytest.mark.parametrize("bend", [2.0, 3.0, 4.0])
def test_pathfinder_refuses_curves_too_short_for_their_dots(bend: float) -> None:
    task = build("pathfinder", {"length": 0.5, "bend": bend})
    told = rf"length=0\.5 and bend={bend} .* side 24; raise length or lengthen the context"
    with pytest.raises(ValueError, match=told):
        task.sample(np.random.default_rng(3), 2, 24**2)
    # What the error asks for helps, as few as the pairs are that fit.
    assert len(task.sample(np.random.default_rng(3), 2, 28**2).inputs) == 2
    longer = build("pathfinder", {"length": 0.6, "bend": bend})
    assert len(longer.sample(np.random.default_rng(3), 2, 24**2).inputs) == 2


@pytest.mark.parametrize("num_facts", [1, 2, 3])
def test_fact_qa_needs_nothing_before_its_farthest_fact(num_facts: int) -> None:
    task = build("fact_qa", {"num_facts": num_facts, "num_moves": 3})
    context, oracle = 200, task.solvers()["oracle"]
    inputs, targets, distances = task.sample(np.random.default_rng(3), 200, context)
    asked = (targets != IGNORE).any(axis=0).nonzero()[0]
    assert len(asked) == 4
    facts = task.config.facts_each * 4
    told = np.isin(inputs[:, : -4 * task.config.question], (6, 7))
    assert (told.sum(axis=1) == facts).all()
    share = told.mean(axis=0)[1::4]
    assert np.abs(share - facts / len(share)).max() < 0.15
    for at in asked:
        # The fact ends with the full stop after the word that tells it.
        fact_end = (at - distances[:, at] + 2)[:, None]
        without = {
            kept: np.where(np.arange(context) < fact_end - kept, 0, inputs) for kept in (0, 4)
        }
        assert (oracle(without[4])[:, at] == targets[:, at]).all()
        assert (oracle(without[0])[:, at] != targets[:, at]).all()


@pytest.mark.parametrize("context", [29, 64, 500])
def test_frequent_words_lead_by_count_and_lie_anywhere(context: int) -> None:
    task = build("frequent_words", {"top": 3})
    inputs, targets, _ = task.sample(np.random.default_rng(3), 3000, context)
    counts = np.sort((inputs[..., None] == np.arange(4, 28)).sum(axis=1), axis=1)[:, ::-1]
    assert (counts == counts[0]).all()
    assert (np.diff(counts[0, :4]) < 0).all()
    for rank in range(3):
        leads = inputs[:, :-3] == targets[:, -3 + rank, None]
        assert (leads.sum(axis=1) == counts[0, rank]).all()
        assert np.abs(leads.mean(axis=0) - counts[0, rank] / (context - 3)).max() < 0.05


@pytest.mark.parametrize(("draws", "kinds"), [(2, 2), (3, 2), (4, 3), (5, 4)])
def test_selective_copy_floor_is_the_mean_over_every_draw(draws: int, kinds: int) -> None:
    task = build("selective_copy", {"num_tokens": draws, "vocab_size": kinds + 2})
    shares = [max(map(drawn.count, drawn)) / draws for drawn in product(range(kinds), repeat=draws)]
    assert task.floor(64) == pytest.approx(sum(shares) / len(shares), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("mqar", {"num_pairs": 1}),
        ("mqar", {"vocab_size": 16}),
        ("mqar", {"vocab_size": 63}),
        ("mqar", {"power_a": 0.0}),
        ("mqar_update", {"num_pairs": 1, "num_updates": 1}),
        ("mqar_update", {"num_updates": 9}),
        ("mqar_update", {"vocab_size": 22}),
        ("needle", {"num_needles": 1}),
        ("needle", {"vocab_size": 12}),
        ("needle", {"nearest": 1}),
        ("needle", {"nearest": 10, "farthest": 21}),
        ("fuzzy_recall", {"num_pairs": 1}),
        ("fuzzy_recall", {"motif": 1}),
        ("fuzzy_recall", {"key_kinds": 1}),
        ("fuzzy_recall", {"value_kinds": 7}),
        ("fuzzy_recall", {"farthest": 54}),
        ("copy", {"num_tokens": 2}),
        ("copy", {"vocab_size": 3}),
        ("compositional", {"grid": 1}),
        ("compositional", {"vocab_size": 27}),
        ("compositional", {"farthest": 44}),
        ("selective_copy", {"num_tokens": 1}),
        ("selective_copy", {"vocab_size": 3}),
        ("induction", {"vocab_size": 2}),
        ("variable_tracking", {"num_chains": 1}),
        ("variable_tracking", {"num_hops": 0}),
        ("variable_tracking", {"num_hops": 5}),
        ("variable_tracking", {"farthest": 31}),
        ("fact_qa", {"num_facts": 4}),
        ("fact_qa", {"num_people": 9}),
        ("fact_qa", {"num_facts": 3}),
        ("fact_qa", {"num_moves": 7}),
        ("fact_qa", {"num_places": 9}),
        ("fact_qa", {"farthest": 51}),
        ("listops", {"max_depth": 1}),
        ("pathfinder", {"length": 0.4}),
        ("pathfinder", {"bend": 1.0}),
        ("pathfinder", {"num_distractors": -1}),
        ("frequent_words", {"alpha": 0.0}),
        ("frequent_words", {"top": 24}),
    ],
)
def test_a_config_that_asks_nothing_is_refused(name: str, overrides: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        spec_of(name).config(**overrides)


@pytest.mark.parametrize(("count", "below"), [(1, 1), (3, 4), (2, 6), (2, 8), (2, 11)])
def test_distinct_draws_every_arrangement_equally_often(count: int, below: int) -> None:
    draws = distinct(np.random.default_rng(5), 60_000, count, below)
    arrangements, seen = np.unique(draws, axis=0, return_counts=True)
    expected = int(np.prod(np.arange(below, below - count, -1)))
    assert all(len(set(row)) == count for row in arrangements.tolist())
    assert len(arrangements) == expected
    assert np.abs(seen - 60_000 / expected).max() < 5 * (60_000 / expected) ** 0.5


def test_code_lm_windows_are_text_of_their_own_split() -> None:
    for split in SPLITS:
        task = build("code_lm", {}, split)
        batch = task.sample(np.random.default_rng(6), 4, 64)
        documents = load_corpus().split(split)
        text = b"\0".join(document.text for document in documents)
        for tokens, wanted in zip(batch.inputs, batch.targets, strict=True):
            assert bytes(tokens.tolist() + wanted[-1:].tolist()) in text
            assert np.array_equal(tokens[1:], wanted[:-1])


def test_code_lm_floor_scores_the_test_split_from_every_split() -> None:
    train, test = (
        Counter(b"\0".join(document.text for document in load_corpus().split(split)))
        for split in ("train", "test")
    )
    bits = {byte: math.log2((train.total() + 256) / (train[byte] + 1)) for byte in range(256)}
    floor = sum(count * bits[byte] for byte, count in test.items()) / test.total()
    assert [build("code_lm", {}, split).floor(64) for split in SPLITS] == pytest.approx([floor] * 3)


def test_code_lm_says_when_a_split_is_shorter_than_the_context() -> None:
    with pytest.raises(ValueError, match="too few for a context"):
        build("code_lm", {}, "test").sample(np.random.default_rng(0), 1, 10**9)


def test_every_split_of_the_library_has_text_of_its_own() -> None:
    corpus = load_corpus()
    paths = {split: {document.path for document in corpus.split(split)} for split in SPLITS}
    assert (
        sum(map(len, paths.values())) == len(corpus.documents) == len(set().union(*paths.values()))
    )
    assert all(len(found) > 0.05 * len(corpus.documents) for found in paths.values())
    assert not any("site-packages" in document.path for document in corpus.documents)
    ordered = [document.path for document in corpus.documents]
    assert all(left < right for left, right in pairwise(ordered))


def test_a_corpus_leaves_out_what_is_not_the_library(tmp_path: Path) -> None:
    kept = {"os.py": b"import sys\n", "json/decoder.py": b"NaN = 0\n"}
    left_out = (
        "site-packages/numpy.py", "dist-packages/apt.py", "__pycache__/os.py", "sitecustomize.py",
        "config-3.11-x86_64/x.py", "_sysconfigdata_linux.py", "README.txt",
    )  # fmt: skip
    for path, text in kept.items() | dict.fromkeys(left_out, b"x").items() | {("empty.py", b"")}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text)
    corpus = read_corpus(tmp_path)
    assert dict(corpus.documents) == kept
    content = b"json/decoder.py\x008\0NaN = 0\nos.py\x0011\0import sys\n"
    assert corpus.data_hash == hashlib.sha256(content).hexdigest()


def test_a_missing_library_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="leave out the tasks on real text"):
        read_corpus(tmp_path)


def test_a_document_stays_in_its_split_whatever_else_there_is() -> None:
    assert split_of("os.py") == split_of("os.py")
    names = ["".join(pair) for pair in product(ascii_lowercase, repeat=2)]
    assert {split_of(f"{name}.py") for name in names} == set(SPLITS)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_shows_an_example_with_its_answers(name: str) -> None:
    shown = task_card(name.replace("_", "-")).partition("\nOne example of")[2]
    example, _, answers = shown.partition("[asked] is where")
    assert "[" in example or "Asked everywhere: " in answers
    assert any(word in answers for word in ("Answer: ", "Answers: ", "Asked everywhere: "))
    columns = build(name, {}).columns(1024)
    if columns is not None:
        lines = example.splitlines()[1:]
        assert [len(line.split()) for line in lines] == [columns] * columns


def test_near_copies_share_a_split() -> None:
    assert split_of("encodings/cp437.py") == split_of("encodings/mac_roman.py") == "train"
    alike = ["test/test_dict.py", "test/test_dict_version.py", "test/dict.py", "test/dict2.py"]
    assert {family_of(path) for path in alike} == {"test/dict"}
    assert family_of("a/__init__.py") == "a/__init__"
    assert family_of("dict.py") == "/dict"
