"""DeltaNet against its recurrence, and what the delta rule is for."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.delta_net import METHOD, Config
from lcbench.probe import Probe, difference


def sequential(method, project, recur, x: Tensor) -> Tensor:
    """One token after the other."""
    heads = method.heads
    q, k, v = (F.silu(project(linear, x)) for linear in (heads.q, heads.k, heads.v))
    q, k = (part / (part.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    y = recur(q, k, v, beta=method.most * project(method.beta, x).sigmoid())
    y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * method.norm.weight
    return heads.o(torch.cat(y.unbind(1), -1))


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 64, 67, 150])
def test_values_and_gradients(tokens, negative, project, recur, assert_agree) -> None:
    probe = Probe(METHOD, Config(negative_eigenvalues=negative))
    method, x = probe.build(), probe.tokens(2, tokens)
    expected = lambda x: sequential(method, project, recur, x)  # noqa: E731
    assert_agree(method, lambda x: method(x)[0], expected, x)


@pytest.mark.parametrize("lengths", [[1] * 9, [70, 1, 64, 3]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(2, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_a_key_written_twice_recalls_its_last_value_alone() -> None:
    """Where beta is 1 and one token asks for its own key."""
    probe = Probe(METHOD, Config())
    method = probe.build()
    method.heads.q.weight.copy_(method.heads.k.weight)
    x = probe.tokens(1, 3)
    x[:, 2] = x[:, 0]
    method.beta.weight.copy_(x[0, 2] * 1e3 / x[0, 2].square().sum())
    alone, again = method(x[:, 2:])[0], method(x)[0]
    assert difference(again[:, 2:], alone).size < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(("negative", "follows"), [(True, True), (False, False)])
def test_parity_is_followed_where_a_token_can_turn_a_sign(negative, follows) -> None:
    """Ones write with b = 2 and no value, zeros with b = 0; the sign read is the parity."""
    probe = Probe(METHOD, Config(negative_eigenvalues=negative))
    method = probe.build()
    bits = torch.randint(2, (1, 300), generator=torch.Generator().manual_seed(0))
    x = torch.zeros(1, 301, probe.shape().d_model, dtype=torch.float64)
    x[..., 0] = 1.0  # one key for every token
    x[0, 0, 1] = 1.0  # the first writes a value with b = 1
    x[0, 0, 2] = 0.0
    x[0, 1:, 2] = 2.0 * bits[0] - 1.0
    for linear in (method.heads.q, method.heads.k, method.heads.v, method.beta, method.heads.o):
        linear.weight.zero_()
    method.heads.q.weight[:, 0] = method.heads.k.weight[:, 0] = 1.0
    method.heads.v.weight[:, 1] = 1.0
    method.beta.weight[:, 2] = 60.0
    method.heads.o.weight.copy_(torch.eye(len(method.heads.o.weight)))
    read = method(x)[0][0, 1:, 0]
    expected = 1.0 - 2.0 * (bits[0].cumsum(0) % 2)
    assert torch.equal(read.sign(), expected.double()) is follows


@torch.no_grad()
def test_state_is_in_float32() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.bfloat16)(probe.tokens(1, 9, torch.bfloat16))
    assert state_bytes(state) == 4 * 8 * 8 * 4
