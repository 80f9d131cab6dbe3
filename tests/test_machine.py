"""A machine's peaks: measured, kept, read again."""

from pathlib import Path

import pytest
import torch

from lcbench import machine, peaks
from lcbench.isolation import Verdict
from lcbench.machine import Peaks

FOUND = Peaks({"float32": 2e11, "bfloat16": 8e11}, 4e10, "2026-01-01T00:00:00+00:00")


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    path = machine.write(FOUND, tmp_path / "new", "abc")
    assert path == tmp_path / "new" / "machine-abc.json"
    assert machine.read([tmp_path, tmp_path / "new"], "abc") == FOUND
    assert list((tmp_path / "new").iterdir()) == [path]


def test_another_environment_is_another_machine(tmp_path: Path) -> None:
    machine.write(FOUND, tmp_path, "abc")
    assert machine.read([tmp_path], "abd") is None
    assert machine.read([tmp_path / "nowhere"], "abc") is None


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"copy_bytes_per_s": 1}', '{"matmul_flops_per_s": 3}']
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "machine-abc.json").write_text(text, encoding="utf-8")
    assert machine.read([tmp_path], "abc") is None


def test_rows_carry_the_peak_of_their_dtype() -> None:
    assert FOUND.columns("bfloat16") == {"matmul_flops_per_s": 8e11, "copy_bytes_per_s": 4e10}
    assert FOUND.columns("float64")["matmul_flops_per_s"] is None


def test_peaks_are_told_in_a_line_or_how_to_get_them() -> None:
    told = machine.describe(FOUND)
    assert "float32 200 GFLOP/s, bfloat16 800 GFLOP/s; copies 40.0 GB/s" in told
    assert "lcbench env --measure" in machine.describe(None)


def test_a_device_that_cannot_be_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Verdict("error", None, None, "RuntimeError: no", None, None, 1.0)
    monkeypatch.setattr(machine, "call", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="could not be measured: RuntimeError: no"):
        machine.measure("cpu")


def test_peaks_are_the_best_of_the_sizes_and_count_a_copy_both_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peaks, "SIZES", {"cpu": (16, 32, 64)})
    monkeypatch.setattr(peaks, "COPIED_BYTES", {"cpu": 1000})
    taken = {16: 1e-6, 32: 1e-6, 64: 1e-4}

    def fastest(statement: str, names: dict[str, torch.Tensor]) -> float:
        exec(statement, {"torch": torch, **names})
        return taken.get(names["a"].size(0), 1e-3)

    monkeypatch.setattr(peaks, "_fastest", fastest)
    monkeypatch.setattr(peaks, "usable_cores", torch.get_num_threads)
    found = peaks.measure_peaks("cpu")
    assert found["matmul_flops_per_s"] == dict.fromkeys(("float32", "bfloat16"), 2 * 32**3 / 1e-6)
    assert found["copy_bytes_per_s"] == 2 * 1000 / 1e-3


def test_no_larger_product_is_tried_after_one_that_took_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def slow(statement: str, names: dict[str, torch.Tensor]) -> float:
        tried.append(names["a"].size(0))
        return 2 * peaks.LONGEST_CALL_S

    monkeypatch.setattr(peaks, "SIZES", {"cpu": (16, 32)})
    monkeypatch.setattr(peaks, "_fastest", slow)
    peaks._matmul_rate(torch.device("cpu"), "float32")
    assert tried == [16]


def test_a_real_product_has_a_real_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SIZES", {"cpu": (64,)})
    monkeypatch.setattr(peaks, "SECONDS", 0.01)
    assert 1e6 < peaks._matmul_rate(torch.device("cpu"), "float32") < 1e16
