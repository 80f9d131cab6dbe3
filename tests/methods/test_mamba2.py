"""Mamba-2 against its recurrence and Hugging Face's mixer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.mamba2 import METHOD, Config
from lcbench.probe import Probe, difference


def sequential(method, project, recur, x: Tensor) -> Tensor:
    """One token after the other."""
    steps = method.steps
    step = F.softplus(project(steps.logits, x) + steps.bias[:, None, None])
    decay = torch.exp(-steps.log_rate.exp()[:, None, None] * step)
    value = F.silu(project(method.x, x))
    b, c = (F.silu(project(part, x, num_heads=1)) for part in (method.b, method.c))
    y = recur(c.expand(-1, 4, -1, -1), b.expand(-1, 4, -1, -1), step * value, decay=decay)
    y = torch.cat((y + method.skip * value).unbind(1), -1) * F.silu(x @ method.gate.weight.T)
    y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * method.norm.weight
    return method.o(y)


@pytest.mark.parametrize("config", [Config(), Config(expand=2, state_ratio=0.1)], ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 64, 67, 150])
def test_values_and_gradients(tokens, config, project, recur, assert_agree) -> None:
    probe = Probe(METHOD, config)
    method, x = probe.build(), probe.tokens(2, tokens)
    expected = lambda x: sequential(method, project, recur, x)  # noqa: E731
    assert_agree(method, lambda x: method(x)[0], expected, x)


@pytest.mark.parametrize("lengths", [[1] * 9, [70, 1, 64, 3]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(2, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [5, 64, 150])
def test_equals_hugging_faces_mixer(tokens) -> None:
    """Their mixer with a convolution that passes on its input."""
    theirs_of = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    configuration = pytest.importorskip("transformers").Mamba2Config(
        hidden_size=32, num_heads=4, head_dim=16, expand=2, state_size=16, n_groups=1,
        num_hidden_layers=1, chunk_size=16, use_bias=False, layer_norm_epsilon=1e-5,
    )  # fmt: skip
    probe = Probe(METHOD, Config(expand=2))
    method, x = probe.build(torch.float32), probe.tokens(2, tokens, torch.float32)
    theirs = theirs_of.Mamba2Mixer(configuration, 0).eval()
    theirs.conv1d.weight.zero_()[:, 0, -1] = 1
    theirs.conv1d.bias.zero_()
    parts = (method.gate, method.x, method.b, method.c, method.steps.logits)
    theirs.in_proj.weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.dt_bias.copy_(method.steps.bias)
    theirs.A_log.copy_(method.steps.log_rate)
    theirs.D.copy_(method.skip.flatten())
    theirs.norm.weight.copy_(method.norm.weight)
    theirs.out_proj.weight.copy_(method.o.weight)
    assert difference(method(x)[0], theirs(x)).size < 1e-5


@torch.no_grad()
def test_heads_share_keys_but_not_their_state() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.bfloat16)(probe.tokens(1, 9, torch.bfloat16))
    assert state_bytes(state) == 4 * 16 * 8 * 4


@pytest.mark.parametrize("values", [{"expand": 0}, {"state_ratio": 0.0}])
def test_sizes_that_make_no_sense_are_refused(values) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        Config(**values)
