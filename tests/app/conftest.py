import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lcbench import store
from lcbench.store import Row

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENTRIES = (
    ("vanilla", "{}", 0.9, 2.0),
    ("sliding-window", '{"window":128}', 0.7, 1.0),
    ("sliding-window", '{"window":512}', 0.6, 1.1),
    ("recurrence", "{}", 0.4, 1.2),
)
ERROR = "<b>out</b> ![x](http://x.invalid/y.png) $x$"


def write_sample(folder: Path, *, suite: str = "quick", failures: bool = True) -> None:
    rows: list[Row] = []
    for method, config, skill, exponent in ENTRIES:
        for seed in (0, 1):
            for context in (64, 128):
                rows += _scores(method, config, skill - context / 1000 + seed / 50, context, seed)
        for kind in ("train_step", "prefill", "decode"):
            for context in (512, 1024, 2048, 4096):
                rows.append(_cost(method, config, kind, context, exponent))
    if failures:
        for row in rows:
            if row["method"] == "vanilla" and row["context"] == 4096:
                unknown = dict.fromkeys(("step_ms", "tokens_per_s", "vs_vanilla", "peak_bytes"))
                row.update(unknown, state_bytes=None, status="oom", stage="measure", error=ERROR)
    store.write_rows(folder / suite / "results.parquet", [{**row, "suite": suite} for row in rows])


def _row(method: str, config: str, kind: str, context: int, **columns: object) -> Row:
    return {
        "run_id": "run",
        "cell_id": f"{method}{config}{kind}{columns.get('task')}{columns.get('seed')}{context}",
        "kind": kind,
        "suite_version": 1,
        "method": method,
        "config": config,
        "context": context,
        "status": "ok",
        "started_at": START,
        "device_kind": "cpu",
        "num_params": 1_234_567,
        **columns,
    }


def _scores(method: str, config: str, skill: float, context: int, seed: int) -> list[Row]:
    task: Row = {"task_version": 1, "task_config": "{}", "train_context": 64, "seed": seed}
    shared: Row = {**task, "score_se": 0.01}
    accuracy: Row = {"metric": "accuracy", "floor": 0.1, "ceiling": 1.0, "score": 0.1 + 0.9 * skill}
    bits: Row = {"metric": "bits_per_byte", "floor": 4.7, "ceiling": 0.0, "score": 4.7 - skill}
    return [
        _row(method, config, "quality", context, task="mqar", **shared, **accuracy),
        _row(method, config, "quality", context, task="code-lm", **shared, **bits),
    ]


def _cost(method: str, config: str, kind: str, context: int, exponent: float) -> Row:
    step_ms = (context / 512) ** exponent
    return _row(
        method,
        config,
        kind,
        context,
        batch=1,
        step_ms=step_ms,
        tokens_per_s=1000 * context / step_ms,
        vs_vanilla=(context / 512) ** 2 / step_ms,
        peak_bytes=None if kind == "decode" else int(2**20 * step_ms),
        state_bytes=1024 * context if kind == "decode" else None,
    )


def run_page(name: str) -> None:
    """What Streamlit runs; on its own, as AppTest passes the source of one function."""
    import importlib

    importlib.import_module(f"lcbench.app.{name}").show()


@pytest.fixture(autouse=True)
def _own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what AppTest takes for the main module: later tests' child processes import it."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the app reads."""
    monkeypatch.setenv("LCBENCH_RESULTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def open_page(results: Path) -> Callable[..., Any]:
    """Draw a page, as a browser would that followed a link with a query."""
    pytest.importorskip("streamlit")
    from streamlit.testing.v1 import AppTest

    def open_named(name: str, **query: str) -> Any:
        page = AppTest.from_function(run_page, kwargs={"name": name}, default_timeout=60)
        page.query_params.update(query)
        return page.run()

    return open_named


@pytest.fixture(scope="session")
def sample() -> SimpleNamespace:
    """Results that show everything a page can show: configs, tasks, rungs, failures."""
    return SimpleNamespace(write=write_sample, num_entries=len(ENTRIES), error=ERROR)
