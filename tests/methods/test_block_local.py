"""Block-local attention against full attention under a mask of blocks, and its state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import state_bytes
from lcbench.methods import sliding_window, vanilla
from lcbench.methods.block_local import METHOD, BlockLocal, Config
from lcbench.probe import Probe, difference


def dense(method, project, x: Tensor) -> Tensor:
    """Every pair of tokens scored, then masked by the numbers of their blocks."""
    heads, config = method.heads, method.config
    q, k = (project(linear, x, rotary=True) for linear in (heads.q, heads.k))
    position = torch.arange(x.size(1))
    block = position // config.window
    behind = block[:, None] - block
    visible = behind.abs() <= config.look_back
    if method.shape.causal:
        visible &= position[:, None] >= position
    scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~visible, -math.inf)
    return heads.o(torch.cat((torch.softmax(scores, -1) @ project(heads.v, x)).unbind(1), -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("window", "look_back", "tokens"),
    [
        *[(16, 0, 1), (16, 0, 16), (16, 0, 67), (16, 1, 67), (5, 3, 41), (1, 0, 9), (1, 2, 9)],
        *[(64, 1, 413), (16, 0, 901), (300, 0, 413), (7, 2, 35)],
    ],
)
def test_values_and_gradients(window, look_back, tokens, causal, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=window, look_back=look_back))
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "look_back"), [(16, 0), (7, 2)])
def test_fused_into_one_call(window, look_back, causal, project, assert_agree, monkeypatch) -> None:
    in_steps = BlockLocal._read_whole
    monkeypatch.setattr(
        BlockLocal,
        "_read_whole",
        lambda self, q, k, v, *, extra, fused: in_steps(self, q, k, v, extra=extra, fused=True),
    )
    test_values_and_gradients(window, look_back, 134, causal, project, assert_agree)


@pytest.mark.parametrize("look_back", [0, 2])
@pytest.mark.parametrize("lengths", [[1] * 23, [130, 1, 3, 200], [5, 3, 293], [8, 8, 9]])
def test_gradients_through_a_carried_state(lengths, look_back, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config(window=8, look_back=look_back))
    method = probe.build()
    x = probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
@pytest.mark.parametrize("look_back", [0, 1])
def test_state_is_the_block_so_far_and_those_looked_back_at(look_back) -> None:
    probe = Probe(METHOD, Config(window=8, look_back=look_back))
    method, state = probe.build(torch.float32), None
    for step, token in enumerate(probe.tokens(1, 40, torch.float32).split(1, dim=1), start=1):
        _, state = method(token, state)
        kept = min(step, 8 * look_back + step % 8)
        assert state_bytes(state) == 2 * kept * 32 * 4


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_one_block_for_the_whole_sequence_is_full_attention(causal) -> None:
    probe, full = Probe(METHOD, Config(window=80)), Probe(vanilla.METHOD, vanilla.Config())
    shape, x = probe.shape(causal=causal), probe.tokens(2, 67)
    expected = full.build(shape=shape)(x)[0]
    assert difference(probe.build(shape=shape)(x)[0], expected).size < 1e-10


@torch.no_grad()
def test_blocks_of_one_that_look_back_are_a_sliding_window() -> None:
    probe = Probe(METHOD, Config(window=1, look_back=6))
    window = Probe(sliding_window.METHOD, sliding_window.Config(window=7))
    x = probe.tokens(2, 67)
    assert difference(probe.build()(x)[0], window.build()(x)[0]).size < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("look_back", [0, 1])
def test_equals_local_attention(look_back, causal) -> None:
    library = pytest.importorskip("local_attention")
    probe = Probe(METHOD, Config(window=8, look_back=look_back))
    method = probe.build(torch.float32, shape=probe.shape(causal=causal))
    # Two-sided, theirs attends to the zeros it pads a ragged sequence with.
    x = probe.tokens(2, 67 if causal else 64, torch.float32)
    theirs = library.LocalAttention(
        window_size=8,
        causal=causal,
        look_backward=look_back,
        look_forward=0 if causal else look_back,
        use_rotary_pos_emb=False,
        autopad=True,
    )
    q, k, v = method.heads.split(x)
    expected = method.heads.merge(theirs(q, k, v))
    assert difference(method(x)[0], expected).size < 1e-5


def test_sizes_below_the_least_are_refused() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        Config(window=0)
    with pytest.raises(ValueError, match="look_back must be at least 0, got -1"):
        Config(look_back=-1)
