"""Every registered method against every law; a new method needs no test of its own here."""

import dataclasses
import math
from itertools import cycle

import pytest
import torch

from lcbench import registry
from lcbench.conformance import LAWS, Law, check_law
from lcbench.measure import Workload, measure_memory
from lcbench.method import MethodConfig, MethodSpec, ModelShape


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("size", ["default", "small"])
@pytest.mark.parametrize("name", registry.method_names())
def test_method_keeps_law(name: str, size: str, law: Law) -> None:
    spec = registry.load_method(name)
    config = spec.config() if size == "default" else _small(spec.config())
    if size == "small" and config == spec.config():
        pytest.skip("has no size to make small")
    finding = check_law(law, spec, config)
    assert finding.outcome != "fail", finding.detail


def _small(config: MethodConfig) -> MethodConfig:
    """Windows and blocks of a few tokens, of which a short sequence holds many."""
    sizes = cycle((5, 3, 7))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int) and value >= 16:
            config = dataclasses.replace(config, **{field.name: next(sizes)})
    return config


@pytest.mark.parametrize("name", registry.method_names())
@pytest.mark.parametrize("trains", [False, True], ids=["forward", "training"])
def test_peak_memory_grows_as_declared(name: str, trains: bool) -> None:
    spec = registry.load_method(name)
    contexts = (4096, 16_384) if spec.cost.time < 1.5 else (2048, 8192)
    peaks = [peak_bytes(spec, context, trains=trains) for context in contexts]
    exponent = math.log(peaks[1] / peaks[0], 4)
    assert exponent <= spec.cost.memory + 0.15


@pytest.mark.parametrize("name", registry.method_names())
def test_nothing_quadratic_is_ever_held(name: str) -> None:
    context, floats = 8192, 4
    square = context * context * floats
    assert peak_bytes(registry.load_method(name), context, trains=True) < square / 4


def peak_bytes(spec: MethodSpec, context: int, *, trains: bool) -> int:
    """Exact peak of one call at D = 64, H = 4, above its inputs."""
    method = spec.build(ModelShape(d_model=64, num_heads=4), spec.config())

    def call(x: torch.Tensor) -> object:
        with torch.set_grad_enabled(trains):
            out, state = method(x)
            if trains:
                out.backward(torch.ones_like(out))
        return out, state

    def prepare() -> torch.Tensor:
        method.zero_grad(set_to_none=True)
        return torch.randn(1, context, 64, requires_grad=trains)

    workload = Workload(prepare, call)
    peak = measure_memory(workload, torch.device("cpu")).peak_bytes
    assert peak is not None
    return peak
