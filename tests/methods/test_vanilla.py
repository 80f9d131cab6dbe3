"""Full attention against its definition, and its state."""

import math

import pytest
import torch
from torch import Tensor, nn

from lcbench.method import state_bytes
from lcbench.methods.vanilla import METHOD, Config
from lcbench.probe import Probe, difference


def dense(method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored, then masked."""
    positions, tokens = method.config.positions, x.size(1)
    if positions == "sinusoidal":
        rates = [10000 ** (-2 * i / x.size(2)) for i in range(x.size(2) // 2)]
        rates = torch.tensor(rates, dtype=torch.float64)
        angles = torch.arange(tokens)[:, None] * rates
        x = x + torch.cat((angles.sin(), angles.cos()), 1)
    heads, rotary = method.heads, positions == "rotary"
    q, k = (project(linear, x, rotary=rotary) for linear in (heads.q, heads.k))
    scores = q @ k.mT / math.sqrt(q.size(-1))
    if method.shape.causal:
        scores = scores.masked_fill(~torch.ones(tokens, tokens).bool().tril(), -math.inf)
    y = torch.softmax(scores, -1) @ project(heads.v, x)
    return heads.o(torch.cat(y.unbind(1), -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "none"])
@pytest.mark.parametrize("tokens", [1, 2, 67])
def test_values_and_gradients(positions, tokens, causal, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(positions=positions))
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 5, [300, 1, 130, 2], [1, 432]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method = probe.build()
    x = probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_state_after_one_call_has_no_spare_room() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.float32)(probe.tokens(1, 100, torch.float32))
    assert state_bytes(state) == 2 * 100 * 32 * 4 + 8


def test_both_sides_have_no_state() -> None:
    probe = Probe(METHOD, Config())
    state = probe.build()(probe.tokens(1, 3))[1]
    both_sides = probe.build(shape=probe.shape(causal=False))
    assert both_sides(probe.tokens(1, 3))[1] is None
    with pytest.raises(ValueError, match="bidirectional"):
        both_sides(probe.tokens(1, 3), state)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_without_positions_it_equals_torchs_multihead_attention(causal) -> None:
    probe = Probe(METHOD, Config(positions="none"))
    method = probe.build(shape=probe.shape(causal=causal))
    x, heads = probe.tokens(2, 67), method.heads
    theirs = nn.MultiheadAttention(32, 4, bias=False, batch_first=True).double()
    theirs.in_proj_weight.copy_(torch.cat((heads.q.weight, heads.k.weight, heads.v.weight)))
    theirs.out_proj.weight.copy_(heads.o.weight)
    hidden = torch.ones(67, 67).bool().triu(1) if causal else None
    y, _ = theirs(x, x, x, attn_mask=hidden, need_weights=False)
    assert difference(method(x)[0], y).size < 1e-10


@torch.no_grad()
def test_with_rotary_positions_it_equals_llama() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    configuration = pytest.importorskip("transformers").LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=4, attn_implementation="eager"
    )
    probe = Probe(METHOD, Config())
    method, x = probe.build(torch.float32), probe.tokens(2, 67, torch.float32)
    theirs = llama.LlamaAttention(configuration, 0)
    for name in ("q", "k", "v", "o"):
        getattr(theirs, f"{name}_proj").weight.copy_(getattr(method.heads, name).weight)
    positions = llama.LlamaRotaryEmbedding(configuration)(x, torch.arange(67)[None])
    future = torch.full((67, 67), -math.inf).triu(1)
    y = theirs(x, position_embeddings=positions, attention_mask=future)[0]
    assert difference(method(x)[0], y).size < 1e-5
