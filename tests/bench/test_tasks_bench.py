"""Tokens a second of every task: training must never wait for its examples."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from lcbench.paths import plugin_folders

NAMES = sorted(path.stem for path in plugin_folders("suites/tasks")[0].glob("*.py"))


@pytest.mark.parametrize("context", [64, 512, 65_536])
@pytest.mark.parametrize("name", NAMES)
def test_generation(benchmark: Any, name: str, context: int) -> None:
    spec = import_module(f"lcbench.suites.tasks.{name}").TASK
    task, rng = spec.build(spec.config(), "train"), np.random.default_rng(0)
    batch = max(1, 2**15 // context)
    try:
        task.sample(rng, 1, context)
    except ValueError as error:
        pytest.skip(str(error))
    benchmark(task.sample, rng, batch, context)
    if benchmark.enabled:
        tokens_per_s = batch * context / benchmark.stats.stats.median
        benchmark.extra_info["million_tokens_per_s"] = round(tokens_per_s / 1e6, 1)
