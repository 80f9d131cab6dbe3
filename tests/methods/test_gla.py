"""Gated linear attention against its recurrence, and against retention where no gate moves."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.methods import retention
from lcbench.methods.gla import METHOD, Config
from lcbench.probe import Probe, difference


def sequential(method, project, recur, x: Tensor) -> Tensor:
    """One token after the other."""
    heads, (down, up) = method.heads, method.decay
    logits = torch.stack((x @ down.weight.T @ up.weight.T + up.bias).chunk(4, -1), 1)
    decay = torch.sigmoid(logits) ** (1 / method.config.temperature)
    q, k, v = (project(linear, x) for linear in (heads.q, heads.k, heads.v))
    y = recur(q, k, v, decay=decay)
    y = torch.cat(method.norm(y).unbind(1), -1)
    return heads.o(y * F.silu(x @ method.gate.weight.T))


@pytest.mark.parametrize(
    ("tokens", "config"),
    [
        *[(1, Config()), (2, Config()), (64, Config()), (67, Config()), (150, Config())],
        *[(67, Config(key_ratio=1.0, decay_rank=3)), (67, Config(temperature=0.02))],
    ],
    ids=str,
)
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
def test_gates_that_stand_still_make_it_retention() -> None:
    """The same decays, from a bias alone; retention without its positions."""
    ours = Probe(METHOD, Config(temperature=1.0))
    theirs = Probe(retention.METHOD, retention.Config())
    method, other, x = ours.build(jitter=0), theirs.build(), ours.tokens(2, 131)
    method.heads.load_state_dict(other.heads.state_dict())
    method.gate.load_state_dict(other.gate.state_dict())
    kept = torch.tensor([1 - 2.0 ** (-5 - head) for head in range(4)], dtype=torch.float64)
    method.decay[1].weight.zero_()
    method.decay[1].bias.copy_(torch.logit(kept).repeat_interleave(4))
    other.heads.rotary = False
    assert difference(method(x)[0], other(x)[0]).size < 1e-10


@pytest.mark.parametrize(
    "values",
    [{"key_ratio": 0.0}, {"temperature": 0.0}, {"temperature": math.nan}, {"decay_rank": 0}],
)
def test_sizes_that_make_no_sense_are_refused(values) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        Config(**values)
