import datetime as dt

import pandas as pd
import pytest

from lcbench import store
from lcbench.disturbance import NOISY, tell_disturbed

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def timing(method: str, **columns: object) -> store.Row:
    return {
        "run_id": "run", "cell_id": f"{method}{columns}", "kind": "train_step", "suite": "quick",
        "suite_version": 1, "method": method, "config": "{}", "context": 4096, "batch": 1,
        "status": "ok", "step_ms": 10.0, "step_ms_iqr": 0.1, "throttled": None, "dtype": "float32",
        "started_at": START, "device_kind": "cpu", **columns,
    }  # fmt: skip


def frame(*rows: store.Row) -> pd.DataFrame:
    return store.to_table(rows).to_pandas(types_mapper={store.SCHEMA.field("dirty").type:
                                                        pd.BooleanDtype()}.get)  # fmt: skip


NOISE = {"step_ms_iqr": 4.0, "warning": "noisy: the IQR is 40% of the median"}


def test_calm_timings_need_no_word() -> None:
    calm = timing("a"), timing("b", throttled=False, warning="2 layers hold the last of 3 parts")
    assert tell_disturbed(frame(*calm)) == ""


def test_the_worst_of_the_disturbed_is_named() -> None:
    rows = frame(
        timing("a"),
        timing("b", step_ms_iqr=2.1, warning="noisy: the IQR is 21% of the median"),
        timing("c", **NOISE),
        timing("d", throttled=True, warning="throttled: heat"),
        timing("e", **NOISE, status="oom"),
    )
    assert tell_disturbed(rows) == (
        "3 of 4 timings were disturbed (2 noisy, 1 throttled); the worst is c, train step at"
        " 4,096: the middle half of its repeats spans 40% of the median."
    )


def test_what_a_measurement_warns_of_is_recognised() -> None:
    pytest.importorskip("torch")
    from lcbench.cost import _scatter
    from lcbench.measure import Timing

    warning = _scatter(Timing([10**7], 10.0, 9.0), None)
    assert warning is not None
    assert warning.startswith(NOISY)


def test_the_board_tells_of_them(lcbench, tmp_path) -> None:
    store.write_rows(tmp_path / "rows.parquet", [timing("vanilla"), timing("c", **NOISE)])
    shown = lcbench("leaderboard", "--results", "rows.parquet")
    assert "1 of 2 timings were disturbed (1 noisy)" in shown.stdout, shown.stderr
