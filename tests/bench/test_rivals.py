"""The script that measures rivals runs: what it times of ours is there and gives what it should."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from lcbench import registry


def _load() -> Any:
    """The script, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("rivals", Path(__file__).with_name("rivals.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rivals = _load()
SETTING = rivals.Setting(256, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("name", registry.method_names())
def test_a_layer_of_every_method_grows(name: str) -> None:
    side = rivals.layer(SETTING, name)
    x = SETTING.randn(*side.sizes[0])
    with torch.no_grad():
        assert side.call(x).shape == x.shape


@pytest.mark.parametrize("name", rivals.CONTESTS)
def test_every_contest_has_a_side_of_ours(name: str) -> None:
    side = rivals.CONTESTS[name].ours(SETTING._replace(tokens=1024))
    inputs = [SETTING.randn(*sizes).requires_grad_() for sizes in side.sizes]
    out = side.call(*inputs)
    out.sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in inputs)
