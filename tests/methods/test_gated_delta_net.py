"""Gated DeltaNet against its recurrence, Qwen3-Next's layer, and DeltaNet where nothing decays."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.chunkwise import linear_recurrence
from lcbench.methods import delta_net
from lcbench.methods.gated_delta_net import METHOD, Config
from lcbench.probe import Probe, difference


def sequential(method, project, recur, x: Tensor) -> Tensor:
    """One token after the other."""
    heads, steps = method.heads, method.steps
    q, k, v = (F.silu(project(linear, x)) for linear in (heads.q, heads.k, heads.v))
    q, k = (part / (part.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    step = F.softplus(project(steps.logits, x) + steps.bias[:, None, None])
    decay = torch.exp(-steps.log_rate.exp()[:, None, None] * step)
    y = recur(q, k, v, decay=decay, beta=method.most * project(method.beta, x).sigmoid())
    y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * method.norm.weight
    return heads.o(torch.cat(y.unbind(1), -1) * F.silu(x @ method.gate.weight.T))


@pytest.mark.parametrize(("key_ratio", "negative"), [(0.5, False), (1.0, False), (0.5, True)])
@pytest.mark.parametrize("tokens", [1, 2, 64, 67, 150])
def test_values_and_gradients(tokens, key_ratio, negative, project, recur, assert_agree) -> None:
    probe = Probe(METHOD, Config(key_ratio=key_ratio, negative_eigenvalues=negative))
    method, x = probe.build(), probe.tokens(2, tokens)
    expected = lambda x: sequential(method, project, recur, x)  # noqa: E731
    assert_agree(method, lambda x: method(x)[0], expected, x)


@pytest.mark.parametrize("lengths", [[1] * 9, [70, 1, 64, 3]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(2, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_without_decay_and_gate_it_is_delta_net() -> None:
    ours, theirs = Probe(METHOD, Config(key_ratio=1.0)), Probe(delta_net.METHOD, delta_net.Config())
    method, other, x = ours.build(), theirs.build(), ours.tokens(2, 131)
    for name in ("heads", "beta", "norm"):
        getattr(method, name).load_state_dict(getattr(other, name).state_dict())
    method.steps.log_rate.fill_(-200)
    x[..., 0] = 1
    method.gate.weight.zero_()[:, 0] = 1  # silu(1) for every token and feature
    assert difference(method(x)[0] / F.silu(torch.tensor(1.0).double()), other(x)[0]).size < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("tokens", [5, 64, 150])
def test_equals_qwen3_next(tokens) -> None:
    """Their layer with a convolution that passes on its input."""
    theirs_of = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    configuration = pytest.importorskip("transformers").Qwen3NextConfig(
        hidden_size=32,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=4,
        linear_key_head_dim=4,
        linear_value_head_dim=8,
        rms_norm_eps=1e-6 / 4,  # their queries are scaled by 1 / sqrt(4), and so is all they read
    )
    probe = Probe(METHOD, Config())
    method, x = probe.build(torch.float32), probe.tokens(2, tokens, torch.float32)
    theirs = theirs_of.Qwen3NextGatedDeltaNet(configuration, 0).eval()
    heads = method.heads
    theirs.conv1d.weight.zero_()[:, 0, -1] = 1
    by_head = [part.weight.unflatten(0, (4, -1)) for part in (heads.q, heads.k, heads.v)]
    by_head.append(method.gate.weight.unflatten(0, (4, -1)))
    theirs.in_proj_qkvz.weight.copy_(torch.cat(by_head, 1).flatten(0, 1))
    pairs = torch.stack((method.beta.weight, method.steps.logits.weight), 1)
    theirs.in_proj_ba.weight.copy_(pairs.flatten(0, 1))
    theirs.dt_bias.copy_(method.steps.bias)
    theirs.A_log.copy_(method.steps.log_rate)
    theirs.norm.weight.copy_(method.norm.weight)
    theirs.out_proj.weight.copy_(heads.o.weight)
    assert difference(method(x)[0], theirs(x)).size < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 67, 200])
def test_core_equals_qwen3_nexts_recurrence_from_a_state(tokens) -> None:
    theirs = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    q, k = (torch.randn(2, tokens, 3, 16) for _ in range(2))
    v, state = torch.randn(2, tokens, 3, 24), torch.randn(2, 3, 16, 24)
    log_decay, beta = -torch.rand(2, tokens, 3), torch.rand(2, tokens, 3)
    k = F.normalize(k, dim=-1)
    y, after = theirs.torch_recurrent_gated_delta_rule(
        q, k, v, g=log_decay, beta=beta, initial_state=state, output_final_state=True
    )
    by_head = [part.transpose(1, 2) for part in (q / 4, k, v)]
    gates = (part.transpose(1, 2)[..., None] for part in (log_decay, beta))
    log_decay, beta = gates
    ours = linear_recurrence(*by_head, log_decay=log_decay, beta=beta, state=state)
    assert difference(ours.y.transpose(1, 2).flatten(2), y.flatten(2)).size < 1e-5
    assert difference(ours.state.flatten(2), after.flatten(2)).size < 1e-5
