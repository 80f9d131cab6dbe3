"""Retention against every pair of tokens weighted by content and distance, and its state."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.retention import METHOD, Config
from lcbench.probe import Probe


def dense(method, project, x: Tensor) -> Tensor:
    """All pairs weighted, each head's outputs normalised over its own features."""
    heads = method.heads
    q, k = (project(linear, x, rotary=True) for linear in (heads.q, heads.k))
    distance = torch.arange(x.size(1))[:, None] - torch.arange(x.size(1))
    kept = torch.tensor([1 - 2.0 ** (-5 - head) for head in range(4)], dtype=torch.float64)
    decays = (kept[:, None, None] ** distance.clamp(min=0)) * (distance >= 0)
    y = (q @ k.mT * decays) @ project(heads.v, x)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return heads.o(torch.cat(y.unbind(1), -1) * F.silu(x @ method.gate.weight.T))


@pytest.mark.parametrize("key_ratio", [0.5, 1.0])
@pytest.mark.parametrize("tokens", [1, 2, 64, 67, 301])
def test_values_and_gradients(tokens, key_ratio, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(key_ratio=key_ratio))
    method, x = probe.build(), probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 9, [70, 1, 64, 3]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(2, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_state_is_in_float32_and_knows_its_position() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.bfloat16)(probe.tokens(1, 9, torch.bfloat16))
    assert state.position == 9
    assert state_bytes(state) == 4 * 4 * 8 * 4


def test_keys_without_pairs_to_turn_are_refused() -> None:
    probe = Probe(METHOD, Config(key_ratio=0.125))
    with pytest.raises(ValueError, match="head_dim must be even, got 1"):
        probe.build()


def test_keys_without_width_are_refused() -> None:
    with pytest.raises(ValueError, match="key_ratio must be above 0"):
        Config(key_ratio=0.0)
