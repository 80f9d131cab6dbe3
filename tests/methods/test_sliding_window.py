"""A sliding window against full attention under a band mask, and its state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.sliding_window import METHOD, Config
from lcbench.probe import Probe, difference


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


@torch.no_grad()
def test_equals_mistral() -> None:
    mistral = pytest.importorskip("transformers.models.mistral.modeling_mistral")
    masks = pytest.importorskip("transformers.masking_utils")
    configuration = pytest.importorskip("transformers").MistralConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=4, attn_implementation="eager"
    )
    probe = Probe(METHOD, Config(window=7))
    method, x = probe.build(torch.float32), probe.tokens(2, 67, torch.float32)
    theirs = mistral.MistralAttention(configuration, 0)
    for name in ("q", "k", "v", "o"):
        getattr(theirs, f"{name}_proj").weight.copy_(getattr(method.heads, name).weight)
    position = torch.arange(67)
    cos_sin = mistral.MistralRotaryEmbedding(configuration)(x, position[None])
    zero = torch.tensor(0)
    visible = masks.sliding_window_causal_mask_function(7)(zero, zero, position[:, None], position)
    mask = torch.zeros(67, 67).masked_fill(~visible, -math.inf)
    y = theirs(x, position_embeddings=cos_sin, attention_mask=mask)[0]
    assert difference(method(x)[0], y).size < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_equals_local_attention(causal) -> None:
    library = pytest.importorskip("local_attention")
    probe = Probe(METHOD, Config(window=9))
    method = probe.build(torch.float32, shape=probe.shape(causal=causal))
    # Their window leaves out the query itself; two-sided, they attend to the zeros they pad with.
    x = probe.tokens(2, 67 if causal else 64, torch.float32)
    theirs = library.LocalAttention(
        window_size=8,
        causal=causal,
        look_backward=1,
        look_forward=0 if causal else 1,
        exact_windowsize=True,
        use_rotary_pos_emb=False,
        autopad=True,
    )
    expected = method.heads.merge(theirs(*method.heads.split(x)))
    assert difference(method(x)[0], expected).size < 1e-5


def test_window_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        Config(window=0)
