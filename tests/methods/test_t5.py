"""Relative position buckets against their definition, Hugging Face's layer and the state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods.t5 import METHOD, Config, buckets
from lcbench.probe import Probe, difference


def bucket_of(offset: int, config: Config, causal: bool) -> int:
    """The bucket of a key `offset` tokens after its query, number by number."""
    count = config.num_buckets if causal else config.num_buckets // 2
    first = count if offset > 0 and not causal else 0
    distance, exact = max(0, -offset) if causal else abs(offset), count // 2
    if distance < exact:
        return first + distance
    octaves = math.log(distance / exact) / math.log(config.max_distance / exact)
    # The authors' float32 logarithm puts a whole number of steps where the exact one does.
    return first + min(count - 1, exact + math.floor(octaves * (count - exact) + 1e-6))


def dense(method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored, its bucket's number added."""
    heads, tokens, causal = method.heads, x.size(1), method.shape.causal
    q, k, v = (project(linear, x) for linear in (heads.q, heads.k, heads.v))
    by_offset = {n: bucket_of(n, method.config, causal) for n in range(1 - tokens, tokens)}
    bucket = torch.tensor([[by_offset[j - i] for j in range(tokens)] for i in range(tokens)])
    scores = q @ k.mT + method.bias[:, bucket]
    if causal:
        scores = scores.masked_fill(~torch.ones(tokens, tokens).bool().tril(), -math.inf)
    return heads.o(torch.cat((torch.softmax(scores, -1) @ v).unbind(1), -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("num_buckets", "max_distance", "tokens"),
    [(32, 128, 1), (32, 128, 67), (32, 128, 150), (32, 128, 301), (8, 40, 41), (5, 3, 67)],
)
def test_values_and_gradients(
    num_buckets, max_distance, tokens, causal, project, assert_agree
) -> None:
    probe = Probe(METHOD, Config(num_buckets=num_buckets, max_distance=max_distance))
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 5, [200, 1, 130, 2]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config())
    method, x = probe.build(), probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
def test_state_is_all_keys_and_values() -> None:
    probe = Probe(METHOD, Config())
    _, state = probe.build(torch.float32)(probe.tokens(1, 100, torch.float32))
    assert state_bytes(state) == 2 * 100 * 32 * 4 + 8


def test_queries_start_smaller_by_what_scores_are_not_divided_by() -> None:
    method = METHOD.build(Probe(METHOD, Config()).shape(d_model=256), Config())
    ratio = method.heads.q.weight.std() / method.heads.k.weight.std()
    assert ratio.item() == pytest.approx(64**-0.5, rel=0.02)


def test_sizes_that_leave_no_buckets_are_refused() -> None:
    with pytest.raises(ValueError, match="num_buckets must be at least 4, got 3"):
        Config(num_buckets=3)
    with pytest.raises(ValueError, match="max_distance must be above num_buckets // 2 = 16"):
        Config(max_distance=16)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (32, 777), (8, 20), (6, 64)])
def test_buckets_are_hugging_faces(num_buckets, max_distance, causal) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(-3000, 1 if causal else 3001)
    theirs = t5.T5Attention._relative_position_bucket(
        offsets, bidirectional=not causal, num_buckets=num_buckets, max_distance=max_distance
    )
    assert torch.equal(buckets(offsets, num_buckets, max_distance, causal=causal), theirs)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_equals_hugging_face(causal) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    configuration = pytest.importorskip("transformers").T5Config(
        d_model=32, d_kv=8, num_heads=4, dropout_rate=0.0, is_decoder=causal
    )
    configuration._attn_implementation = "eager"
    theirs = t5.T5Attention(configuration, has_relative_attention_bias=True, layer_idx=0).eval()
    probe = Probe(METHOD, Config())
    method = probe.build(torch.float32, shape=probe.shape(causal=causal))
    x = probe.tokens(2, 200, torch.float32)
    for name in ("q", "k", "v", "o"):
        getattr(theirs, name).weight.copy_(getattr(method.heads, name).weight)
    theirs.relative_attention_bias.weight.copy_(method.bias.T)
    future = torch.full((200, 200), -math.inf).triu(1) if causal else torch.zeros(200, 200)
    y = theirs(x, mask=future[None, None])[0]
    assert difference(method(x)[0], y).size < 1e-5
