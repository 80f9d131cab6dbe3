"""Adaptive spans against the paper's mask on the weights, their gradients, work and state."""

import math

import pytest
import torch
from torch import Tensor

from lcbench.method import Method, state_bytes
from lcbench.methods.adaptive_span import METHOD, Config
from lcbench.probe import Probe


def with_spans(probe: Probe, spans: list[float]) -> Method:
    """The method, its heads' spans set to as many tokens."""
    method = probe.build()
    with torch.no_grad():
        method.fraction.copy_(torch.tensor(spans, dtype=torch.float64) / probe.config.max_span)
    return method


def dense(method: Method, project, x: Tensor) -> Tensor:
    """Every pair of tokens weighed, the weights masked, then made to sum to one again."""
    heads, config = method.heads, method.config
    q, k = (project(linear, x, rotary=True) for linear in (heads.q, heads.k))
    behind = torch.arange(x.size(1))[:, None] - torch.arange(x.size(1))
    past = behind >= 0
    weights = torch.softmax((q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~past, -math.inf), -1)
    spans = (method.fraction * config.max_span)[:, None, None]
    mask = ((config.ramp + spans - behind) / config.ramp).clamp(0, 1)
    weights = weights * mask.masked_fill(behind >= config.max_span, 0)
    weights = weights / weights.sum(-1, keepdim=True)
    return heads.o(torch.cat((weights @ project(heads.v, x)).unbind(1), -1))


@pytest.mark.parametrize(
    ("max_span", "ramp", "spans", "tokens"),
    [
        (2, 1, [0.3, 1.9, 0.9, 0.1], 9),
        (5, 3, [0.3, 4.1, 2.9, 5.0], 67),
        (64, 32, [0.1, 40.2, 63.9, 7.7], 67),
        (512, 32, [0.2, 3.3, 40.4, 12.5], 1),
        (512, 32, [0.2, 3.3, 40.4, 12.5], 301),
        (512, 7, [500.5, 0.4, 20.1, 63.2], 301),
        (90, 100, [20.5, 0.4, 80.1, 63.2], 401),
    ],
)
def test_values_and_gradients(max_span, ramp, spans, tokens, project, assert_agree) -> None:
    probe = Probe(METHOD, Config(max_span=max_span, ramp=ramp))
    method, x = with_spans(probe, spans), probe.tokens(2, tokens)
    assert_agree(method, lambda x: method(x)[0], lambda x: dense(method, project, x), x)


@pytest.mark.parametrize("lengths", [[1] * 12, [130, 1, 3, 200]])
def test_gradients_through_a_carried_state(lengths, in_calls, assert_agree) -> None:
    probe = Probe(METHOD, Config(max_span=40, ramp=6))
    method, x = with_spans(probe, [0.2, 8.1, 20.7, 3.3]), probe.tokens(1, sum(lengths))
    assert_agree(method, lambda x: in_calls(method, x, lengths), lambda x: method(x)[0], x)


@torch.no_grad()
@pytest.mark.parametrize("spans", [[0.0, 8.1, 20.7, 3.3], [40.0, 40.0, 40.0, 40.0], [0.0] * 4])
def test_state_and_work_follow_the_widest_span(spans) -> None:
    probe = Probe(METHOD, Config(max_span=40, ramp=6))
    method = with_spans(probe, spans)
    x = probe.tokens(1, 200)
    y, state = method(x)
    kept = min(40, math.ceil(max(spans) + 6)) - 1
    assert state_bytes(state) == 2 * kept * 32 * 8
    x[:, : 199 - kept] += 1
    assert torch.equal(method(x)[0][:, -1], y[:, -1])


def test_penalty_is_the_mean_span_in_tokens() -> None:
    probe = Probe(METHOD, Config(max_span=100, span_loss=0.5))
    method = with_spans(probe, [10.0, 20.0, 30.0, 40.0])
    assert method.penalty().item() == pytest.approx(0.5 * 25)
    method.penalty().backward()
    torch.testing.assert_close(method.fraction.grad, torch.full((4,), 0.5 * 100 / 4).double())


def test_a_span_stepped_out_of_its_range_can_return() -> None:
    probe = Probe(METHOD, Config(max_span=100, ramp=10))
    method = with_spans(probe, [-20.0, 120.0, 50.0, 0.0])
    assert method.spans().tolist() == pytest.approx([0, 100, 50, 0])
    method(probe.tokens(1, 67))[0].square().sum().backward()
    assert method.fraction.grad[0] != 0  # wider again, if what lies in its ramp is worth reading
    method.fraction.grad = None
    method.penalty().backward()
    assert method.fraction.grad[1] > 0


def test_training_narrows_what_is_not_needed_and_widens_what_is() -> None:
    """Two heads learn to fetch the token 12 back: a span of 2 grows for it, one of 60 shrinks."""
    probe = Probe(METHOD, Config(max_span=64, ramp=16, span_loss=1e-3))
    torch.manual_seed(0)
    method = METHOD.build(probe.shape(num_heads=2), probe.config)
    with torch.no_grad():
        method.fraction.copy_(torch.tensor([2.0, 60.0]) / 64)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    for step in range(60):
        x = probe.tokens(4, 80, torch.float32, stream=step)
        loss = (method(x)[0][:, 12:] - x[:, :-12]).square().mean() + method.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    narrow, wide = method.spans().tolist()
    assert narrow > 4
    assert wide < 40


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_span", 0), ("ramp", 0), ("span_loss", math.inf)],
)
def test_values_out_of_range_are_refused(field, value) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        Config(**{field: value})
