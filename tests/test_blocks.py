"""Heads, caches and positions against their definitions."""

import pytest
import torch
from torch import Tensor

from lcbench.blocks import Heads, KVCache, extend_window, grow_cache, rotate
from lcbench.method import ModelShape, state_bytes


def rows(count: int, *, seed: int = 0, width: int = 8, dtype=torch.float64) -> Tensor:
    """`[2, 3, count, width]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, count, width, generator=generator, dtype=torch.float64).to(dtype)


def test_window_cache_owns_exactly_what_it_keeps() -> None:
    k, v = rows(100), rows(100, seed=1)
    _, _, cache = extend_window(None, k, v, keep=7)
    all_k, _, later = extend_window(cache, k[:, :, :2], v[:, :, :2], keep=7)
    assert state_bytes(cache) == state_bytes(later) == 2 * 2 * 3 * 7 * 8 * 8
    assert all_k.size(2) == 9
    assert later.position == 102
    assert torch.equal(later.k, torch.cat((k[:, :, -5:], k[:, :, :2]), 2))
    assert extend_window(None, k, v, keep=0)[2].k.size(2) == 0


def appended(cache: KVCache | None, count: int, seed: int) -> tuple[Tensor, KVCache]:
    k, _, cache = grow_cache(cache, rows(count, seed=seed), rows(count, seed=seed + 100))
    return k, cache


def test_cache_appends_in_place() -> None:
    _, cache = appended(None, 5, seed=0)
    _, cache = appended(cache, 1, seed=1)
    buffer = cache.k.data_ptr()
    for step in range(200):
        _, cache = appended(cache, 1, seed=step)
    assert cache.k.data_ptr() == buffer


def test_continuing_a_cache_twice_leaves_each_continuation_as_it_was() -> None:
    _, prefix = appended(None, 5, seed=0)
    _, prefix = appended(prefix, 1, seed=1)
    first, first_cache = appended(prefix, 2, seed=2)
    expected = first.clone()
    second, _ = appended(prefix, 3, seed=3)
    assert torch.equal(second[:, :, 6:], rows(3, seed=3))
    assert torch.equal(first, expected)
    assert torch.equal(appended(first_cache, 1, seed=4)[0][:, :, :8], expected)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_cache_of_inference_mode_is_continued_outside_of_it(spare: int) -> None:
    with torch.inference_mode():
        k, cache = appended(None, 5, seed=0)
        for step in range(spare):  # the second append leaves room for more
            k, cache = appended(cache, 1, seed=step)
    later, _ = appended(cache, 2, seed=9)
    assert torch.equal(later, torch.cat((k, rows(2, seed=9)), 2))
    assert cache.position == 5 + spare


def test_cache_of_one_sequence_of_a_batch_is_on_its_own() -> None:
    _, cache = appended(None, 5, seed=0)
    _, cache = appended(cache, 1, seed=1)
    alone = KVCache(6, cache.k[:1], cache.v[:1], cache.filled[:1])
    k, _, _ = grow_cache(alone, rows(1, seed=2)[:1], rows(1, seed=3)[:1])
    expected = k.clone()
    appended(cache, 1, seed=4)
    assert torch.equal(k, expected)


def test_rotated_products_depend_on_distance_alone() -> None:
    q, k = rows(1), rows(1, seed=1)

    def product(i: int, j: int) -> Tensor:
        (a,) = rotate(q, positions=torch.tensor([i]))
        (b,) = rotate(k, positions=torch.tensor([j]))
        return (a * b).sum(-1)

    torch.testing.assert_close(product(1_000_007, 1_000_000), product(7, 0), rtol=0, atol=1e-8)
    assert not torch.allclose(product(8, 0), product(7, 0))


def test_rotation_keeps_bfloat16_but_computes_its_angles_exactly() -> None:
    x = rows(1)
    positions = torch.tensor([100_003])
    (exact,) = rotate(x, positions=positions)
    (rounded,) = rotate(x.bfloat16(), positions=positions)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=0.02)


def test_odd_head_width_is_refused_by_rotary_heads_only() -> None:
    shape = ModelShape(d_model=9, num_heads=3)
    with pytest.raises(ValueError, match="head_dim must be even, got 3"):
        Heads(shape)
    Heads(shape, rotary=False)
