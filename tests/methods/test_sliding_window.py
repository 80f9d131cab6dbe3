"""A sliding window against full attention under a band mask, and its state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.sliding_window import METHOD, Config
from lcbench.probe import Probe


def dense(method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored, then masked."""
    heads, window = method.heads, method.config.window
    q, k = (project(linear, x, rotary=True) for linear in (heads.q, heads.k))
    behind = torch.arange(x.size(1))[:, None] - torch.arange(x.size(1))
    visible = (behind < window) & (behind > (-1 if method.shape.causal else -window))
    scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
    return heads.o(torch.cat((torch.softmax(scores, -1) @ project(heads.v, x)).unbind(1), -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("window", "tokens"),
    [(1, 1), (1, 67), (5, 4), (5, 5), (5, 6), (16, 130), (64, 67), (64, 301), (200, 413)],
)
def test_values_and_gradients(window, tokens, causal, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=window))
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 12, [130, 1, 3, 200], [3, 297]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=7))
    method = probe.build()
    x = probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[10], [100], [63, 1], [100, 1, 1]])
def test_state_is_the_last_window_less_one(lengths) -> None:
    probe = Probe(METHOD, Config(window=64))
    method, state = probe.build(torch.float32), None
    for part in probe.tokens(1, sum(lengths), torch.float32).split(lengths, 1):
        _, state = method(part, state)
    assert state_bytes(state) == 2 * min(63, sum(lengths)) * 32 * 4


def test_window_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        Config(window=0)
