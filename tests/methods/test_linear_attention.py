"""Linear attention against every pair of tokens weighted, and its state."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.linear_attention import METHOD, Config
from lcbench.probe import Probe


def dense(method, project, x: Tensor) -> Tensor:
    """All pairs weighted by the kernel, masked, and divided by their sums."""
    heads = method.heads
    q, k = (F.elu(project(linear, x)) + 1 for linear in (heads.q, heads.k))
    weights = q @ k.mT
    if method.shape.causal:
        weights = weights.tril()
    y = weights @ project(heads.v, x) / (weights.sum(-1, keepdim=True) + 1e-6)
    return heads.o(torch.cat(y.unbind(1), -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [2, 64, 67, 301])
def test_values_and_gradients(tokens, causal, project, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 9, [70, 1, 64, 3]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(2, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_state_is_a_sum_of_products_and_one_of_keys() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.bfloat16)(probe.tokens(1, 9, torch.bfloat16))
    assert state_bytes(state) == 4 * 8 * (8 + 1) * 4


@torch.no_grad()
def test_inputs_of_which_no_key_matches_give_no_nan() -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(torch.float32), 1e4 * probe.tokens(1, 20, torch.float32)
    assert method(x)[0].isfinite().all()


@torch.no_grad()
def test_a_state_where_tokens_see_both_sides_is_refused() -> None:
    probe = Probe(METHOD, Config())
    state = probe.build()(probe.tokens(1, 3))[1]
    with pytest.raises(ValueError, match="give the whole sequence"):
        probe.build(shape=probe.shape(causal=False))(probe.tokens(1, 3), state)
