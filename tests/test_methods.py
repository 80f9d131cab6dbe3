"""Every registered method against every law; a new method needs no test of its own here."""

import dataclasses
from itertools import cycle

import pytest

from lcbench import registry
from lcbench.conformance import LAWS, Law, check_law
from lcbench.method import MethodConfig


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
