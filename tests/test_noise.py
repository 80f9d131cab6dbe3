"""What spoils a measurement: read from the system's files, judged from readings alone."""

from pathlib import Path

import pytest

from lcbench import environment, noise
from lcbench.noise import Readings, Throttling, complaints, gpu_id, slowdowns, was_throttled
from lcbench.terminal import warning_line

QUIET = Readings(
    device_kind="cpu",
    cores=8,
    allowed_cores=8,
    core_quota=None,
    busy_cores=0.1,
    load_average=0.5,
    omp_num_threads=None,
    is_debug_python=False,
    is_debug_torch=False,
    processor_mhz=(4000.0, 4000.0),
    cpu_capability="AVX2",
    has_fast_bfloat16=True,
    has_flash_attention=True,
)


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_quiet_machine_has_nothing_to_complain_of() -> None:
    assert complaints(QUIET) == []
    assert complaints(QUIET._replace(load_average=None, processor_mhz=None)) == []
    idle_gpu = QUIET._replace(device_kind="cuda", gpu_busy_percent=0, gpu_reasons=0x5)
    assert complaints(idle_gpu) == []


@pytest.mark.parametrize(
    ("changes", "words", "way_out"),
    [
        ({"busy_cores": 1.9, "load_average": 8.9}, "1.9 of 8 cores busy (load average 8.9)",
         "wait for it"),
        ({"busy_cores": 1.9, "load_average": None}, "1.9 of 8 cores busy: timings", "wait for it"),
        ({"gpu_processes": 2}, "2 other processes are on the GPU", "CUDA_VISIBLE_DEVICES"),
        ({"gpu_busy_percent": 80}, "unseen other processes are on the GPU, 80 % busy", "end them"),
        ({"core_quota": 1.5, "cores": 2}, "may use 1.5 of its 8 cores", "--cpuset-cpus"),
        ({"omp_num_threads": "16"}, "OMP_NUM_THREADS is 16 on 8 usable cores", "unset it"),
        ({"is_debug_python": True}, "Python is a debug build", "release build"),
        ({"is_debug_torch": True}, "torch is a debug build", "pip install torch"),
        ({"cpu_capability": "DEFAULT"}, "no vector instructions", "ATEN_CPU_CAPABILITY"),
        ({"has_fast_bfloat16": False}, "this processor has no bfloat16", "--dtype float32"),
        ({"has_fast_bfloat16": False, "device_kind": "cuda"}, "this GPU has no bfloat16",
         "--dtype float32"),
        ({"has_flash_attention": False}, "no flash attention", "build of torch"),
        ({"processor_mhz": (2000.0, 4000.0)}, "limited to 2,000 of 4,000 MHz", "plug the machine"),
        ({"gpu_reasons": 0x60}, "the GPU is slowed down by heat;", "nvidia-smi"),
        ({"gpu_reasons": 0x88}, "by hardware slowdown and its power supply", "nvidia-smi"),
    ],
)  # fmt: skip
def test_each_complaint_names_what_it_saw_and_a_way_out(
    changes: dict[str, object], words: str, way_out: str
) -> None:
    (sentence,) = complaints(QUIET._replace(**changes))
    assert words in sentence
    assert way_out in sentence


@pytest.mark.parametrize("threads", ["8", "2", "all", ""])
def test_threads_within_the_cores_are_fine(threads: str) -> None:
    assert complaints(QUIET._replace(omp_num_threads=threads)) == []


def test_several_things_wrong_are_all_told() -> None:
    assert len(complaints(QUIET._replace(busy_cores=8.0, is_debug_torch=True))) == 2


@pytest.mark.parametrize(
    ("before", "after", "gpu", "expected"),
    [
        ((None, None), (None, None), None, None),
        ((5, None), (5, None), None, False),
        ((5, None), (6, None), None, True),
        ((5, 0), (5, 3), None, True),
        ((None, None), (None, None), 0x4, False),
        ((None, None), (None, None), 0x20, True),
        ((5, None), (None, None), None, None),
    ],
)
def test_throttling_is_a_counter_that_rose(
    before: tuple[int | None, int | None],
    after: tuple[int | None, int | None],
    gpu: int | None,
    expected: bool | None,
) -> None:
    assert was_throttled(Throttling(*before), Throttling(*after), gpu) is expected


def test_a_power_cap_is_not_a_fault() -> None:
    assert slowdowns(0x1 | 0x4) == []
    assert slowdowns(0x20 | 0x40) == ["heat"]
    assert slowdowns(None) == []


def test_counters_are_summed_over_cores(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    for core in (0, 1, 10):
        write(tmp_path, f"{cpus}/cpu{core}/thermal_throttle/core_throttle_count", "2\n")
        write(tmp_path, f"{cpus}/cpu{core}/thermal_throttle/package_throttle_count", "1\n")
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 10\nnr_throttled 7\n")
    assert noise.read_throttling(tmp_path) == Throttling(heat=9, quota=7)


def test_a_system_without_counters_tells_nothing(tmp_path: Path) -> None:
    assert noise.read_throttling(tmp_path) == Throttling(None, None)


def test_this_system_can_be_read() -> None:
    readings = noise.read_machine("cpu")
    assert readings.busy_cores >= 0
    assert 1 <= readings.cores <= readings.allowed_cores
    assert readings.cpu_capability
    complaints(readings)


def test_the_gpu_asked_about_is_the_one_torch_uses_first() -> None:
    assert gpu_id({}) == "0"
    assert gpu_id({"CUDA_VISIBLE_DEVICES": "3,1"}) == "3"
    assert gpu_id({"CUDA_VISIBLE_DEVICES": "GPU-ab12"}) == "GPU-ab12"


def test_a_gpu_that_cannot_be_asked_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_ask_gpu", lambda query: [])
    assert noise.read_gpu_reasons() is None


def test_the_former_name_of_a_reading_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(query: str) -> list[str]:
        return ["0x0000000000000020"] if "throttle" in query else ["[N/A]"]

    monkeypatch.setattr(noise, "_ask_gpu", ask)
    assert noise.read_gpu_reasons() == 0x20


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "50000 100000\n",
          "sys/fs/cgroup/cpu.max": "max 100000\n"}, 0.5),
        ({"proc/self/cgroup": "torn\n"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_containers_quota_is_read_in_both_versions(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    for path, text in files.items():
        write(tmp_path, path, text)
    assert environment.core_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (1.5, 2), (0.2, 1), (16.0, 8), (4.0, 4)])
def test_no_more_threads_than_a_quota_feeds(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(environment, "allowed_cores", lambda: 8)
    monkeypatch.setattr(environment, "core_quota", lambda: quota)
    assert environment.usable_cores() == cores


def test_a_run_tells_the_first_complaint_and_how_many_more() -> None:
    assert warning_line([]) == ""
    assert warning_line(["a; b"]) == "Warning: a; b"
    assert warning_line(["a", "b", "c"]) == "Warning: a; 2 more: lcbench env"
