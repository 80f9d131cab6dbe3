"""Linear biases against their definition, Bloom's slopes and the state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import ModelShape, state_bytes
from lcbench.methods.alibi import METHOD, Config, slopes
from lcbench.probe import Probe

SLOPES = {
    1: [1 / 256],
    4: [1 / 4, 1 / 16, 1 / 64, 1 / 256],
    3: [1 / 16, 1 / 256, 1 / 4],
}


def dense(method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored, each head's slope times the distance taken off."""
    heads, num_heads = method.heads, method.shape.num_heads
    q, k, v = (project(part, x, num_heads=num_heads) for part in (heads.q, heads.k, heads.v))
    behind = torch.arange(x.size(1))[:, None] - torch.arange(x.size(1))
    slope = torch.tensor(SLOPES[num_heads], dtype=x.dtype)[:, None, None]
    scores = q @ k.mT / math.sqrt(q.size(-1)) - slope * behind.abs()
    if method.shape.causal:
        scores = scores.masked_fill(behind < 0, -math.inf)
    return heads.o(torch.cat((torch.softmax(scores, -1) @ v).unbind(1), -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("num_heads", "d_model"), [(4, 32), (3, 24)])
@pytest.mark.parametrize("tokens", [1, 2, 67, 200])
def test_values_and_gradients(num_heads, d_model, tokens, causal, project, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    shape = ModelShape(d_model=d_model, num_heads=num_heads, causal=causal)
    method, x = probe.build(shape=shape), probe.tokens(2, tokens, d_model=d_model)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 5, [300, 1, 130, 2]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_state_is_all_keys_and_values() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.float32)(probe.tokens(1, 100, torch.float32))
    assert state_bytes(state) == 2 * 100 * 32 * 4 + 8


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6, 8, 12, 20, 32, 71])
def test_slopes_are_those_of_bloom(num_heads) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 2).long(), num_heads, torch.float32)
    expected = theirs[:, 0, 1]  # what a head adds at distance 1
    torch.testing.assert_close(torch.tensor(slopes(num_heads)), expected, rtol=1e-5, atol=0)
