"""Segment recurrence against a dense definition, XLNet's layer, and its state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import Method, state_bytes
from lcbench.methods.recurrence import METHOD, Config
from lcbench.probe import Probe, difference


def dense(method: Method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored by content and distance; memory pairs see a detached input."""
    heads, config, tokens = method.heads, method.config, x.size(1)
    i, j = torch.arange(tokens)[:, None], torch.arange(tokens)
    segment = i - i % config.segment
    remembered = j < segment
    visible = (j <= i) & (j >= segment - config.memory)

    rates = [10000 ** (-2 * n / x.size(2)) for n in range(x.size(2) // 2)]
    angles = (i - j).clamp(min=0).double()[..., None] * torch.tensor(rates, dtype=torch.float64)
    table = method.distance(torch.cat((angles.sin(), angles.cos()), -1))  # [T, T, D]
    table = table.unflatten(-1, (4, -1))

    q = project(heads.q, x)
    k, v = project(heads.k, x), project(heads.v, x)
    old_k, old_v = project(heads.k, x.detach()), project(heads.v, x.detach())
    content = q + method.content_bias
    scores = torch.where(remembered, content @ old_k.mT, content @ k.mT)
    scores = scores + torch.einsum("bhik,ijhk->bhij", q + method.distance_bias, table)
    scores = (scores / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
    weights = torch.softmax(scores, -1)
    y = weights.where(remembered, 0) @ old_v + weights.where(~remembered, 0) @ v
    return heads.o(torch.cat(y.unbind(1), -1))


@pytest.mark.parametrize(
    ("segment", "memory", "tokens"),
    [
        *[(64, 64, 1), (64, 64, 2), (64, 64, 67), (64, 64, 200), (7, 12, 40), (12, 5, 67)],
        *[(9, 0, 31), (1, 3, 10), (1, 0, 4), (300, 20, 410)],
    ],
)
def test_values_and_gradients(segment, memory, tokens, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(segment=segment, memory=memory))
    method = probe.build()
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[1] * 67, [5, 62], [7, 1, 59], [14, 14, 39]])
def test_segments_stay_where_they_are_however_a_sequence_is_cut(lengths, project, in_calls) -> None:
    probe = Probe(METHOD, Config(segment=7, memory=9))
    method, x = probe.build(), probe.tokens(2, 67)
    assert difference(in_calls(method, x, lengths), dense(method, project, x)).size < 1e-10


@torch.no_grad()
def test_a_carried_state_takes_gradients_to_weights_only() -> None:
    probe = Probe(METHOD, Config(segment=7, memory=9))
    method = probe.build()
    first, second = (probe.tokens(1, 10, stream=n).requires_grad_() for n in range(2))
    with torch.enable_grad():
        _, state = method(first)
        y, _ = method(second, state)
        gradients = torch.autograd.grad(y.sum(), (first, second), allow_unused=True)
    assert gradients[0] is None
    assert gradients[1] is not None


@torch.no_grad()
def test_state_bytes_stop_growing() -> None:
    probe = Probe(METHOD, Config(segment=8, memory=5))
    method, state = probe.build(torch.float32), None
    for step, token in enumerate(probe.tokens(1, 40, torch.float32).split(1, dim=1), start=1):
        _, state = method(token, state)
        assert state_bytes(state) == 2 * min(12, step) * 32 * 4


@torch.no_grad()
@pytest.mark.parametrize(("segment", "memory"), [(8, 8), (7, 3), (5, 12)])
def test_one_segment_after_its_memory_equals_xlnet(segment, memory) -> None:
    """XLNet's relative attention is Transformer-XL's, with weights laid out `[D, H, K]`."""
    xlnet = pytest.importorskip("transformers.models.xlnet.modeling_xlnet")
    configuration = pytest.importorskip("transformers").XLNetConfig(
        d_model=32, n_head=4, d_inner=8, n_layer=1, dropout=0.0
    )
    probe = Probe(METHOD, Config(segment=segment, memory=memory))
    start = segment * math.ceil(memory / segment)
    method, x = probe.build(), probe.tokens(2, start + segment)
    theirs = xlnet.XLNetRelativeAttention(configuration).double().eval()
    named = {"q": "q", "k": "k", "v": "v", "o": "o"}
    for parameter, name in named.items():
        weight = getattr(method.heads, name).weight
        weight = weight if name == "o" else weight.T
        getattr(theirs, parameter).data = weight.reshape(32, 4, 8)
    theirs.r.data = method.distance.weight.T.reshape(32, 4, 8)
    theirs.r_w_bias.data = method.content_bias[:, 0]
    theirs.r_r_bias.data = method.distance_bias[:, 0]

    length = memory + segment
    distances = torch.arange(length, -segment, -1).double()[:, None]
    rates = torch.tensor([10000 ** (-n / 16) for n in range(16)], dtype=torch.float64)
    table = torch.cat(((distances * rates).sin(), (distances * rates).cos()), -1)
    by_time = x.transpose(0, 1)
    future = torch.ones(segment, length).triu(memory + 1).double()[..., None, None]
    table = table[:, None].expand(-1, 2, -1)
    remembered = by_time[start - memory : start]
    y = theirs(by_time[start:], None, future, None, table, None, mems=remembered)[0]
    # Their layer ends in a residual and a norm, which is no part of the method.
    own = theirs.layer_norm(method(x)[0][:, start:] + x[:, start:])
    assert difference(own, y.transpose(0, 1)).size < 1e-10
