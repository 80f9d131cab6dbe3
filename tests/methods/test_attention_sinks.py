"""Attention sinks against the cache of the paper, filled token by token, and the state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import Method, state_bytes
from lcbench.methods import sliding_window, vanilla
from lcbench.methods.attention_sinks import METHOD, Config
from lcbench.probe import Probe, difference


def turned(y: Tensor, slots: Tensor) -> Tensor:
    """`[..., n, K]` rotated as complex numbers, each by its slot."""
    half = y.size(-1) // 2
    rates = torch.tensor([10000 ** (-i / half) for i in range(half)], dtype=y.dtype)
    pairs = torch.complex(y[..., :half], y[..., half:]) * torch.exp(1j * slots[:, None] * rates)
    return torch.cat((pairs.real, pairs.imag), -1)


def from_a_cache(method: Method, project, x: Tensor) -> Tensor:
    """Each token appends to a cache, evicts what is over, and reads it by its slots."""
    heads, (window, sinks) = method.heads, (method.config.window, method.config.sinks)
    q, k, v = (project(linear, x) for linear in (heads.q, heads.k, heads.v))
    cache: list[int] = []
    outputs = []
    for i in range(x.size(1)):
        cache.append(i)
        if len(cache) > sinks + window:
            del cache[sinks]
        slots = torch.arange(len(cache)).double()
        keys = turned(k[:, :, cache], slots)
        query = turned(q[:, :, i : i + 1], slots[-1:])
        weights = torch.softmax(query @ keys.mT / math.sqrt(q.size(-1)), -1)
        outputs.append(weights @ v[:, :, cache])
    return heads.o(torch.cat(torch.cat(outputs, 2).unbind(1), -1))


@pytest.mark.parametrize(
    ("window", "sinks", "tokens"),
    [
        *[(64, 4, 1), (64, 4, 67), (64, 4, 68), (64, 4, 69), (64, 4, 140), (1, 1, 9), (1, 3, 9)],
        *[(5, 0, 67), (3, 40, 67), (16, 4, 200), (40, 7, 30)],
    ],
)
def test_values_and_gradients(window, sinks, tokens, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=window, sinks=sinks))
    method = probe.build()
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: from_a_cache(method, project, x), x)


def test_the_cache_is_the_one_of_the_papers_example() -> None:
    """Decoding token 9 after 4 sinks and 3 recent tokens, positions are 0 to 7."""
    probe = Probe(METHOD, Config(window=4, sinks=4))
    method, x = probe.build(), probe.tokens(1, 10)
    seen, heads = [0, 1, 2, 3, 6, 7, 8, 9], method.heads
    q, k, v = heads.split(x[:, seen])
    weights = torch.softmax(q[:, :, -1:] @ k.mT / math.sqrt(q.size(-1)), -1)
    assert difference(method(x)[0][:, -1:], heads.merge(weights @ v)).size < 1e-10


@pytest.mark.parametrize("lengths", [[1] * 23, [130, 1, 3, 200], [2, 1, 297], [9, 9, 9]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=7, sinks=3))
    method = probe.build()
    x = probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_state_is_the_sinks_and_the_window() -> None:
    probe = Probe(METHOD, Config(window=8, sinks=4))
    method, state = probe.build(torch.float32), None
    for step, token in enumerate(probe.tokens(1, 40, torch.float32).split(1, dim=1), start=1):
        _, state = method(token, state)
        assert state_bytes(state) == 2 * (min(step, 4) + min(step, 7)) * 32 * 4


@torch.no_grad()
def test_without_sinks_it_is_a_sliding_window() -> None:
    probe = Probe(METHOD, Config(window=7, sinks=0))
    window = Probe(sliding_window.METHOD, sliding_window.Config(window=7))
    x = probe.tokens(2, 301)
    assert difference(probe.build()(x)[0], window.build()(x)[0]).size < 1e-10


@torch.no_grad()
def test_until_the_cache_is_full_it_is_full_attention() -> None:
    probe, full = Probe(METHOD, Config(window=30, sinks=5)), Probe(vanilla.METHOD, vanilla.Config())
    x = probe.tokens(2, 36)
    y, expected = probe.build()(x)[0], full.build()(x)[0]
    assert difference(y[:, :35], expected[:, :35]).size < 1e-10
    assert difference(y[:, 35:], expected[:, 35:]).size > 1e-3


def test_sizes_below_the_least_are_refused() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        Config(window=0)
    with pytest.raises(ValueError, match="sinks must be at least 0, got -1"):
        Config(sinks=-1)
