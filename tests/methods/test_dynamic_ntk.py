"""Dynamic NTK against its definition and Hugging Face's table, and what a call depends on."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import ModelShape
from lcbench.methods import vanilla
from lcbench.methods.dynamic_ntk import METHOD, Config
from lcbench.probe import Probe, difference


def dense(method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored, pairs of features as complex numbers turned by the new base."""
    heads, tokens, trained = method.heads, x.size(1), method.shape.train_context
    q, k, v = (project(linear, x) for linear in (heads.q, heads.k, heads.v))
    width = q.size(-1)
    scale = method.config.factor * tokens / trained - (method.config.factor - 1)
    base = 10_000 * (scale if tokens > trained else 1.0) ** (width / (width - 2))
    rates = [base ** (-2 * i / width) for i in range(width // 2)]
    rates = torch.tensor(rates, dtype=torch.float64)
    turns = torch.exp(1j * torch.arange(tokens)[:, None] * rates)
    q, k = (torch.complex(*part.chunk(2, -1)) * turns for part in (q, k))
    scores = (q @ k.mH).real / math.sqrt(width)
    if method.shape.causal:
        scores = scores.masked_fill(~torch.ones(tokens, tokens).bool().tril(), -math.inf)
    return heads.o(torch.cat((torch.softmax(scores, -1) @ v).unbind(1), -1))


def build(train_context: int, *, factor: float = 1.0, causal: bool = True, dtype=torch.float64):
    shape = ModelShape(d_model=32, num_heads=4, causal=causal, train_context=train_context)
    return Probe(METHOD, Config(factor=factor)).build(dtype, shape=shape)


def tokens(batch: int, length: int, dtype=torch.float64) -> Tensor:
    return Probe(METHOD, Config()).tokens(batch, length, dtype)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("train_context", "factor", "length"),
    [(67, 1.0, 67), (66, 1.0, 67), (10, 1.0, 67), (10, 4.0, 67), (1, 0.5, 200), (512, 2.0, 1)],
)
def test_values_and_gradients(train_context, factor, length, causal, project, assert_agree) -> None:
    method, x = build(train_context, factor=factor, causal=causal), tokens(2, length)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@torch.no_grad()
def test_up_to_the_trained_context_it_is_vanilla() -> None:
    method, x = build(67), tokens(1, 67)
    plain = vanilla.METHOD.build(method.shape, vanilla.Config()).double()
    plain.load_state_dict(method.state_dict())
    assert torch.equal(method(x)[0], plain(x)[0])
    assert not torch.equal(method(tokens(1, 68))[0], plain(tokens(1, 68))[0])


@pytest.mark.parametrize("lengths", [[66, 1], [20, 30, 17], [1] * 30])
def test_a_call_gives_what_one_call_gives_for_its_tokens(lengths, assert_agree) -> None:
    """Values and gradients: nothing of the base that earlier calls used is left in the state."""
    method, x, last = build(16), tokens(2, sum(lengths)), lengths[-1]

    def in_calls(x: Tensor) -> Tensor:
        y, state = x, None
        for part in x.split(lengths, 1):
            y, state = method(part, state)
        return y

    assert_agree(method, in_calls, lambda x: method(x)[0][:, -last:], x)


@torch.no_grad()
@pytest.mark.parametrize("factor", [1.0, 4.0])
@pytest.mark.parametrize("length", [20, 33, 200])
def test_equals_hugging_faces_rotary(length, factor) -> None:
    """Their table comes from a fresh module: a used one keeps the longest length it has seen."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    configuration = pytest.importorskip("transformers").LlamaConfig(
        hidden_size=32, num_attention_heads=4, max_position_embeddings=32,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": factor},
    )  # fmt: skip
    method, x = build(32, factor=factor, dtype=torch.float32), tokens(2, length, torch.float32)
    heads = (method.heads.q, method.heads.k, method.heads.v)
    q, k, v = (linear(x).unflatten(-1, (4, 8)).transpose(1, 2) for linear in heads)
    cos, sin = llama.LlamaRotaryEmbedding(configuration)(x, torch.arange(length)[None])
    q, k = llama.apply_rotary_pos_emb(q, k, cos, sin)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert difference(method(x)[0], method.heads.merge(y)).size < 1e-5


def test_what_cannot_be_stretched_is_refused() -> None:
    with pytest.raises(ValueError, match="factor must be above 0 and finite, got 0"):
        Config(factor=0)
    with pytest.raises(ValueError, match="head_dim must be at least 4, got 2"):
        METHOD.build(ModelShape(d_model=8, num_heads=4), Config())
