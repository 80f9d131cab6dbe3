"""Attention in linear memory against its definition."""

import math

import pytest
import torch
from torch import Tensor

from lcbench import attention
from lcbench.attention import banded_attention, full_attention, spaced_attention
from lcbench.block_sparse import block_sparse_attention
from lcbench.distance_bias import biased_attention
from lcbench.fused_band import Columns, Given, fused_band


def rows(count: int, *, seed: int = 0, width: int = 8, dtype=torch.float64) -> Tensor:
    """`[2, 3, count, width]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, count, width, generator=generator, dtype=torch.float64).to(dtype)


def inputs(queries: int, keys: int) -> list[Tensor]:
    counts = (queries, keys, keys)
    return [rows(count, seed=seed).requires_grad_() for seed, count in enumerate(counts)]


def dense(q: Tensor, k: Tensor, v: Tensor, window: int | None, causal: bool) -> Tensor:
    behind = torch.arange(k.size(2) - q.size(2), k.size(2))[:, None] - torch.arange(k.size(2))
    visible = (behind >= 0) if causal else torch.ones_like(behind).bool()
    if window is not None:
        visible = visible & (behind.abs() < window)
    scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
    return torch.softmax(scores, -1) @ v


def assert_same(actual: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    weight = rows(actual.size(2), seed=9)
    gradients = [torch.autograd.grad((y * weight).sum(), leaves) for y in (actual, expected)]
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 9), (7, 7), (3, 20), (130, 140)])
@pytest.mark.parametrize("causal", [True, False])
def test_full_attention(queries, keys, causal) -> None:
    leaves = inputs(queries, keys)
    expected = dense(*leaves, window=None, causal=causal)
    assert_same(full_attention(*leaves, causal=causal), expected, leaves)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("queries", "keys", "every"), [(1, 5, 3), (5, 40, 7), (70, 150, 2)])
def test_spaced_attention(queries, keys, every, fused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "fuses", lambda q: fused)
    leaves = q, k, v = inputs(queries, keys)
    seen = keys - torch.arange(queries - 1, -1, -1)[:, None] * every
    scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(torch.arange(keys) >= seen, -math.inf)
    expected = torch.softmax(scores, -1) @ v
    assert_same(spaced_attention(q, k, v, every=every), expected, list(leaves))


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("every", [5, 32, 150])
def test_fused_band_with_columns_and_rows_that_are_known(every, causal, inside) -> None:
    left, count = 40, 300
    q, k, v = inputs(count, count)
    positions, known = range(every - 1, count, every), slice(every - 1, None, every)
    y = rows(len(positions), seed=3).requires_grad_()
    others = tuple(part[:, :, known].flatten(0, 1) for part in (k, v))
    columns = Columns(positions, causal, None if inside else (others[0], others[1]))
    actual = fused_band(
        *(part.flatten(0, 1) for part in (q, k, v)), left=left, right=0 if causal else left,
        columns=columns, given=Given(known, y.flatten(0, 1)),
    ).view_as(q)  # fmt: skip
    behind = torch.arange(count)[:, None] - torch.arange(count)
    visible = behind.abs() <= left
    visible[:, known] = True
    visible &= (behind >= 0) | torch.tensor(not causal)
    scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
    expected = (torch.softmax(scores, -1) @ v).slice_scatter(y, 2, known.start, None, every)
    assert_same(actual, expected, [q, k, v, y])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("window", "queries", "causal"), [(129, 1400, True), (200, 1399, True), (90, 1400, False)]
)
def test_fused_band_cut_for_one_thread_and_for_several(
    threads, window, queries, causal, set_threads
) -> None:
    set_threads(threads)
    leaves = inputs(queries, queries)
    y = banded_attention(*leaves, window=window, causal=causal)
    assert_same(y, dense(*leaves, window=window, causal=causal), leaves)


@pytest.mark.parametrize("path", ["chosen", "fused", "_banded_in_blocks", "_banded_in_one_call"])
@pytest.mark.parametrize(
    ("window", "queries", "keys", "causal"),
    [
        *[(1, 9, 9, True), (5, 4, 4, True), (5, 67, 67, True), (5, 1, 40, True)],
        *[(64, 130, 193, True), (16, 300, 315, True), (70, 401, 401, True), (3, 5, 200, True)],
        *[(1, 9, 9, False), (5, 4, 4, False), (5, 67, 67, False), (70, 401, 401, False)],
    ],
)
def test_banded_attention(path, window, queries, keys, causal) -> None:
    leaves = inputs(queries, keys)
    if path == "chosen":
        y = banded_attention(*leaves, window=window, causal=causal)
    elif path == "fused":
        left, right = window - 1, 0 if causal else window - 1
        parts = (part.flatten(0, 1) for part in leaves)
        y = fused_band(*parts, left=left, right=right).view_as(leaves[0])
    else:
        y = getattr(attention, path)(*leaves, window - 1, 0 if causal else window - 1)
    assert_same(y, dense(*leaves, window=window, causal=causal), leaves)


def test_banded_gradients_in_bfloat16_are_as_good_as_dense_ones() -> None:
    exact = inputs(700, 700)
    rounded = [leaf.detach().bfloat16().requires_grad_() for leaf in exact]
    weight = rows(700, seed=9)

    def gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad((y * weight.to(y.dtype)).sum(), leaves)
        return [y.detach().double(), *(part.double() for part in found)]

    truth = gradients(dense(*exact, window=16, causal=True), exact)
    coarse = gradients(dense(*rounded, window=16, causal=True), rounded)
    ours = gradients(banded_attention(*rounded, window=16), rounded)
    for right, naive, got in zip(truth, coarse, ours, strict=True):
        assert (got - right).norm() < 1.2 * (naive - right).norm()


def dense_biased(q: Tensor, k: Tensor, v: Tensor, table: Tensor, after: int, scale: float):
    """Every score with its distance's number added; a distance without one is not seen."""
    column = torch.arange(k.size(2)) - torch.arange(k.size(2) - q.size(2), k.size(2))[:, None]
    column = column + table.size(1) - 1 - after
    seen = (column >= 0) & (column < table.size(1))
    bias = table[:, column.clamp(0, table.size(1) - 1)].masked_fill(~seen, -math.inf)
    return torch.softmax(q @ k.mT * scale + bias, -1) @ v


BIASED = [
    *[(1, 1, 1, 0), (1, 9, 9, 0), (4, 4, 5, 0), (67, 67, 5, 0), (67, 67, 67, 0), (3, 200, 200, 0)],
    *[(300, 315, 315, 0), (401, 401, 70, 0), (130, 140, 500, 0), (9, 9, 17, 8), (67, 67, 133, 66)],
    *[(401, 401, 11, 3), (300, 300, 599, 299), (800, 800, 800, 0)],
]


@pytest.mark.parametrize(("queries", "keys", "columns", "after"), BIASED)
@pytest.mark.parametrize("learned", [True, False])
def test_biased_attention(queries, keys, columns, after, learned) -> None:
    leaves = inputs(queries, keys)
    table = rows(columns, seed=5, width=3)[0, 0].T.contiguous().requires_grad_(learned)
    y = biased_attention(*leaves, table, after=after, scale=0.7)
    expected = dense_biased(*leaves, table, after, 0.7)
    assert_same(y, expected, [*leaves, table] if learned else leaves)


@torch.no_grad()
def test_biased_attention_without_gradients_is_the_same() -> None:
    for queries, keys, columns, after in BIASED:
        leaves = inputs(queries, keys)
        table = rows(columns, seed=5, width=3)[0, 0].T
        y = biased_attention(*leaves, table, after=after)
        expected = dense_biased(*leaves, table, after, 8**-0.5)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_blockwise_works_in_the_dtype_of_its_inputs_under_autocast() -> None:
    q, k, v = (rows(300, seed=seed, dtype=torch.bfloat16).requires_grad_() for seed in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        y = banded_attention(q, k, v, window=16)
    y.float().sum().backward()
    assert y.dtype == q.grad.dtype == torch.bfloat16


def block_table(heads: int, count: int, columns: int, *, causal: bool) -> Tensor:
    """Random distinct blocks, some of them none; a causal row ends in its own."""
    generator = torch.Generator().manual_seed(3)
    table = torch.full((heads, count, columns), -1)
    for head in range(heads):
        for own in range(count):
            others = torch.randperm(own if causal else count, generator=generator)
            number = int(torch.randint(1, columns + 1, (), generator=generator)) - causal
            chosen = others[:number]
            table[head, own, : len(chosen)] = chosen
            if causal:
                table[head, own, -1] = own
    return table


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(
    ("size", "columns", "start", "keys", "causal"),
    [
        *[(4, 3, 0, 67, True), (4, 3, 13, 67, True), (4, 1, 66, 67, True), (16, 6, 16, 700, True)],
        *[(4, 3, 65, 67, True), (1, 2, 0, 20, True), (90, 2, 5, 67, True), (7, 3, 10, 19, True)],
        *[(4, 3, 0, 67, False), (4, 3, 8, 67, False), (16, 6, 0, 700, False), (5, 9, 0, 40, False)],
    ],
)
def test_block_sparse_attention(heads, size, columns, start, keys, causal) -> None:
    leaves = inputs(keys - start, keys)
    q, k, v = leaves
    count = -(-keys // size)
    table = block_table(heads, count, columns, causal=causal)
    visible = torch.zeros(heads, count, count + 1).bool()
    visible.scatter_(2, table.where(table >= 0, count), True)
    visible = visible[..., :count].repeat_interleave(size, 1).repeat_interleave(size, 2)
    visible = visible[:, start:keys, :keys]
    if causal:
        visible = visible.tril(start)
    scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
    y = block_sparse_attention(
        q, k, v, table[:, start // size :], size=size, start=start, causal=causal
    )
    assert_same(y, torch.softmax(scores, -1) @ v, leaves)


def test_block_sparse_gradients_add_up_in_float32() -> None:
    """A block that every query sees collects many gradients, each small beside their sum."""
    exact = [rows(8000, seed=seed).requires_grad_() for seed in range(3)]
    rounded = [leaf.detach().bfloat16().requires_grad_() for leaf in exact]
    own = torch.arange(63)
    table = torch.stack((torch.where(own > 0, 0, -1), own), 1)[None]

    def of_values(leaves: list[Tensor]) -> Tensor:
        y = block_sparse_attention(*leaves, table, size=128, start=0)
        return torch.autograd.grad(y.sum(), leaves[2])[0][:, :, :128].double()

    got, right = of_values(rounded), of_values(exact)
    assert (got - right).norm() < 0.004 * right.norm()  # summed in bfloat16 it is 0.011
