import dataclasses
from typing import Any

import pytest
import torch

from lcbench import parts, registry
from lcbench.config import UsageError
from lcbench.method import Cost, MethodConfig, MethodSpec, ModelShape, Paper
from lcbench.parts import Resolved, part_in, resolve

COMPOSITE = MethodSpec(
    parts=lambda config: ("first", "second", "first"),
    config=MethodConfig,
    title="Made of two",
    family="test",
    equation="y = x",
    paper=Paper("None", 2026, "2601.00001"),
)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The composite of two vanillas, each with some claims of its own."""
    vanilla = registry.load_method("vanilla")

    def run(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> Resolved:
        specs = {
            "first": dataclasses.replace(vanilla, **(first or {})),
            "second": dataclasses.replace(vanilla, **(second or {})),
            "composite": COMPOSITE,
        }
        monkeypatch.setattr(registry, "load_method", lambda name: specs[name])
        return parts.load("composite")

    return run


def test_a_method_without_parts_is_its_own_resolution() -> None:
    spec = registry.load_method("vanilla")
    assert resolve(spec, spec.config()) == Resolved(spec, spec.config())
    assert parts.method_hash("vanilla") == registry.source_hash("method", "vanilla")


def test_an_unresolved_method_says_how_to_build_it() -> None:
    with pytest.raises(TypeError, match=r"parts\.resolve"):
        COMPOSITE.build(ModelShape(d_model=8, num_heads=2), MethodConfig())


@pytest.mark.parametrize("fields", [{"parts": None}, {"build": lambda shape, config: None}])
def test_a_spec_has_a_build_or_parts(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a build or parts, and not both"):
        dataclasses.replace(COMPOSITE, **fields)


def test_a_spec_that_is_built_declares_its_cost() -> None:
    with pytest.raises(ValueError, match="cost exponents"):
        dataclasses.replace(COMPOSITE, parts=None, build=lambda shape, config: None)


@pytest.mark.parametrize("claim", ["causal", "streams", "segment_exact", "gradient_exact"])
def test_the_whole_keeps_what_all_parts_keep(resolved: Any, claim: str) -> None:
    assert getattr(resolved().spec, claim) is True
    assert getattr(resolved(second={claim: False}).spec, claim) is False


def test_the_whole_has_what_any_part_has(resolved: Any) -> None:
    spec = resolved({"length_dependent": True, "requires": ("b",)}, {"requires": ("a", "b")}).spec
    assert spec.length_dependent
    assert spec.requires == ("a", "b")
    costs = {"cost": Cost(1.0, 1.5, 0.0)}, {"cost": Cost(2.0, 1.0, 0.5)}
    assert resolved(*costs).spec.cost == Cost(2.0, 1.5, 0.5)


@pytest.mark.parametrize(
    ("first", "second", "whole"), [(4, 6, 12), (1, 1, 1), (None, 6, None), (64, 1, 64)]
)
def test_the_whole_repeats_when_all_parts_do(
    resolved: Any, first: int | None, second: int | None, whole: int | None
) -> None:
    found = resolved({"shift_period": lambda c: first}, {"shift_period": lambda c: second})
    assert found.spec.shift_period(found.config) == whole


@pytest.mark.parametrize(("first", "second", "whole"), [(4, 6, 6), (None, 6, None), (0, 0, 0)])
def test_the_whole_reaches_as_far_as_the_farthest_part(
    resolved: Any, first: int | None, second: int | None, whole: int | None
) -> None:
    found = resolved({"reach": lambda c: first}, {"reach": lambda c: second})
    assert found.spec.reach(found.config) == whole


def test_parts_that_share_no_side_are_refused(resolved: Any) -> None:
    one_sided = {"bidirectional": False}, {"causal": False}
    with pytest.raises(UsageError, match="first and second do not go together"):
        resolved(*one_sided)


def test_a_part_made_of_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_method", lambda name: COMPOSITE)
    with pytest.raises(UsageError, match="'first' is made of parts itself, so it cannot be one"):
        parts.load("composite")


@pytest.mark.parametrize(
    ("num_layers", "order"),
    [(1, [3]), (2, [2, 3]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 0, 1]), (8, [0, 1, 2, 3] * 2)],
)
def test_parts_stand_in_layers_in_turn_and_a_shallow_model_has_the_last(
    num_layers: int, order: list[int]
) -> None:
    assert [part_in(layer, num_layers, 4) for layer in range(num_layers)] == order


def test_a_layer_is_built_by_its_part(resolved: Any) -> None:
    built = []

    def build(name: str) -> Any:
        return lambda shape, config: built.append((name, shape.layer)) or torch.nn.Identity()

    found = resolved({"build": build("first")}, {"build": build("second")})
    for layer in range(4):
        found.build(ModelShape(d_model=8, num_heads=2, layer=layer, num_layers=4))
    assert built == [("first", 0), ("second", 1), ("first", 2), ("first", 3)]
    assert [found.layers_in(n) for n in (1, 2, 3, 8)] == [1, 2, 3, 3]
    assert found.cut_by(2) == "2 layers hold the last of 3 parts: second+first"
    assert found.cut_by(3) is None
