"""A window with global tokens against a dense definition, Longformer's layer, and its state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import Method
from lcbench.methods import sparse_global
from lcbench.methods.sparse_global import METHOD, Config
from lcbench.probe import Probe, difference


def dense(method: Method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored twice, as a global token reads and as any other does."""
    config, heads = method.config, method.heads
    i, j = torch.arange(x.size(1))[:, None], torch.arange(x.size(1))
    is_global = (j + 1) % config.global_every == 0
    past = (j <= i) if method.shape.causal else torch.ones(len(j), len(j)).bool()
    near = (i - j).abs() < config.window

    def attend(q_of, k_of, v_of, visible) -> Tensor:
        rotary = config.positions == "rotary"
        q, k = project(q_of, x, rotary=rotary), project(k_of, x, rotary=rotary)
        scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
        return torch.softmax(scores, -1) @ project(v_of, x)

    local = attend(heads.q, heads.k, heads.v, past & (near | is_global))
    overall = attend(method.global_q, method.global_k, method.global_v, past)
    y = torch.where(is_global[:, None], overall, local)
    return heads.o(torch.cat(y.unbind(1), -1))


@pytest.fixture(params=["one thread", "two threads", "in blocks"])
def path(request, monkeypatch, set_threads) -> None:
    """All ways to compute: the last is that of other dtypes and devices."""
    set_threads(1 if request.param == "one thread" else 2)
    if request.param == "in blocks":
        monkeypatch.setattr(sparse_global, "fuses", lambda q: False)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("window", "every", "tokens"),
    [
        *[(64, 64, 1), (64, 64, 63), (64, 64, 64), (64, 64, 301), (1, 2, 9), (5, 3, 67)],
        *[(16, 40, 413), (40, 8, 700), (5, 1, 20), (4, 100, 30), (3, 2, 150), (130, 40, 1000)],
    ],
)
def test_values_and_gradients(window, every, tokens, causal, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=window, global_every=every))
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("lengths", [[1] * 12, [130, 1, 3, 200], [5, 1, 294]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=7, global_every=6))
    method = probe.build()
    x = probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


def test_global_projections_begin_as_copies() -> None:
    method = METHOD.build(Probe(METHOD, Config()).shape(), Config())
    for name in ("q", "k", "v"):
        own, shared = getattr(method, f"global_{name}").weight, getattr(method.heads, name).weight
        assert torch.equal(own, shared)
        assert own is not shared


@torch.no_grad()
@pytest.mark.parametrize("tokens", [70, 67])
def test_two_sided_equals_longformer(tokens) -> None:
    longformer = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    configuration = pytest.importorskip("transformers").LongformerConfig(
        hidden_size=32,
        num_attention_heads=4,
        attention_window=[14],
        num_hidden_layers=1,
        attention_probs_dropout_prob=0.0,
    )
    # Their window is a multiple of two without the query itself, and divides their sequence, whose
    # end is padded and masked where it would not.
    probe = Probe(METHOD, Config(window=8, global_every=10, positions="none"))
    method = probe.build(shape=probe.shape(causal=False))
    x = probe.tokens(2, 70)
    padded = (torch.arange(70) >= tokens).expand(2, -1)
    theirs = longformer.LongformerSelfAttention(configuration, 0).double().eval()
    for name, full_name in (("q", "query"), ("k", "key"), ("v", "value")):
        pairs = (
            (getattr(theirs, full_name), getattr(method.heads, name)),
            (getattr(theirs, f"{full_name}_global"), getattr(method, f"global_{name}")),
        )
        for linear, own in pairs:
            linear.weight.copy_(own.weight)
            linear.bias.zero_()
    is_global = ((torch.arange(70) + 1) % 10 == 0).expand(2, -1) & ~padded
    y = theirs(
        x,
        attention_mask=10000.0 * (is_global.double() - padded.double()),
        is_index_masked=padded,
        is_index_global_attn=is_global,
        is_global_attn=True,
    )[0]
    # Their softmax is float32 whatever the input.
    assert difference(method(x[:, :tokens])[0], method.heads.o(y)[:, :tokens]).size < 1e-6
