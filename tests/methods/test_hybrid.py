"""The hybrid against its parts, layer by layer."""

from typing import Any

import pytest
import torch

from lcbench import parts, registry
from lcbench.config import UsageError
from lcbench.methods.hybrid import Config, read_pattern
from lcbench.model import Backbone
from lcbench.suite import ModelPlan

PLAN = ModelPlan(d_model=16, num_layers=4, num_heads=2)


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        ("vanilla", ["vanilla"]),
        ("a*3+b", ["a", "a", "a", "b"]),
        ("a+b*2+a", ["a", "b", "b", "a"]),
        (" a *1 + b", None),
        ("a:x=3*2+b", ["a:x=3", "a:x=3", "b"]),
        ("a:x=3:y=none+b-c", ["a:x=3,y=none", "b-c"]),
        ("", None),
        ("a+", None),
        ("a*0", None),
        ("a*-1", None),
        ("a*2*2", None),
        ("a:x", None),
        ("a:x=", None),
        ("a b", None),
    ],
)
def test_a_pattern_is_read_layer_by_layer(pattern: str, layers: list[str] | None) -> None:
    if layers is not None:
        assert list(read_pattern(pattern)) == layers
        return
    with pytest.raises(ValueError, match=r"pattern .* cannot be read at"):
        Config(pattern=pattern)


def test_a_pattern_has_a_longest_period() -> None:
    assert len(read_pattern(Config(pattern="a*64").pattern)) == 64
    with pytest.raises(ValueError, match="at most 64 layers, got 999"):
        Config(pattern="a*999")


def test_the_default_is_made_of_methods_there_are() -> None:
    resolved = parts.load("hybrid")
    assert {part.name for part in resolved.parts} <= set(registry.method_names())
    assert len({part.name for part in resolved.parts}) > 1


def test_overrides_reach_the_parts() -> None:
    spec = registry.load_method("hybrid")
    text = "pattern=sliding-window:window=7*2+sparse-global:window=5:global_every=3"
    name, _, value = text.partition("=")
    resolved = parts.resolve(spec, spec.config().override({name: value}))
    assert [part.config.assignments() for part in resolved.parts] == [
        "window=7",
        "window=7",
        "window=5,global_every=3",
    ]
    assert resolved.spec.reach(resolved.config) is None
    assert resolved.spec.shift_period(resolved.config) == 3


def test_a_hybrid_of_a_hybrid_is_refused() -> None:
    with pytest.raises(UsageError, match="'hybrid' is made of parts itself"):
        parts.load("hybrid", Config(pattern="hybrid+vanilla"))


def model(build: Any) -> Backbone:
    return Backbone(PLAN, 11, build, train_context=32, seed=0).double()


def test_a_hybrid_of_one_method_is_that_method() -> None:
    tokens = torch.arange(40).view(2, 20) % 11
    alone = model(parts.load("sliding-window").build)(tokens)[0]
    repeated = model(parts.load("hybrid", Config(pattern="sliding-window*2")).build)(tokens)[0]
    assert torch.equal(repeated, alone)


def test_a_model_with_a_hybrid_keeps_the_segment_law() -> None:
    hybrid = parts.load("hybrid", Config(pattern="sliding-window:window=5*2+recurrence+vanilla"))
    built = model(hybrid.build)
    names = [type(method).__name__ for method in built.methods]
    assert names == ["SlidingWindow", "SlidingWindow", "Recurrence", "Vanilla"]
    tokens = torch.arange(74).view(2, 37) % 11
    with torch.no_grad():
        expected = built(tokens)[0]
        state, outputs = None, []
        for part in tokens.split([1, 9, 1, 1, 25], dim=1):
            y, state = built(part, state)
            outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-9, atol=1e-9)
