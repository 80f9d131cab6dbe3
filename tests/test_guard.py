"""Methods that trick the measurement, in a child as in a run: an `invalid` row that says how."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lcbench.methods
from lcbench import cells, errands, guard, registry
from lcbench.cells import Watcher, run_cell
from lcbench.contract import TamperedError
from lcbench.isolation import Send, Verdict, call
from lcbench.suite import (
    Cell,
    CostPlan,
    MethodCard,
    ModelPlan,
    Selection,
    Suite,
    TaskCard,
    TaskPlan,
    plan_cells,
)

KINDS = ("quality", "prefill", "train_step", "decode")
SUITE = Suite(
    title="For tests", version=1, device_kind="cpu", dtype="float32",
    model=ModelPlan(d_model=16, num_layers=1, num_heads=2),
    tasks=(
        TaskPlan(
            task="mqar", config={"num_pairs": "2", "vocab_size": "16"}, train_context=32,
            contexts=(32,), batch=4, steps=3, learning_rates=(1e-2,), test_tokens=128,
        ),
    ),
    cost=CostPlan(contexts=(64,), d_model=16, num_heads=2, seconds=1e-9),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _find_own_methods(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))


def cell_of(method: str, kind: str, config: str = "{}") -> Cell:
    """One cell of a method that lies in the test's own folder."""
    card = MethodCard(method, config, registry.source_hash("method", method))
    task = registry.load_task("mqar")
    config = task.config().override(SUITE.tasks[0].config).canonical()
    planned = plan_cells(
        SUITE, "for-tests", [card],
        [TaskCard(config, task.version, registry.source_hash("task", "mqar"))],
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip
    return next(cell for cell in planned if cell.kind == kind)


def measure_in(folder: str, fields: dict[str, Any], send: Send) -> list[dict[str, Any]]:
    """What a run has a child do, but with every timed call compared: no test is left to luck."""
    os.environ["LCBENCH_PATH"] = folder
    lcbench.methods.__path__.insert(0, f"{folder}/methods")
    guard.COMPARED_SHARE = 1
    return errands.measure(fields, send)


def verdict_on(cell: Cell) -> Verdict:
    fields = cell.identity() | {"timeout_s": 60.0, "threads": 1}
    return call(measure_in, os.environ["LCBENCH_PATH"], fields)


WriteMethod = Callable[[str, str, str], Path]


@pytest.fixture
def write_cheat(write_method: Callable[[str, str], Path]) -> WriteMethod:
    """Write a method with lines that run when it is imported, and the body of its `forward`."""

    def write(name: str, at_import: str, body: str) -> Path:
        path = write_method(name, body)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("@dataclass", f"{at_import}\n\n@dataclass", 1), "utf-8")
        return path

    return write


HONEST = "return self.mix(x), None"
LATE_TENSOR = """
class Late(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        args = [arg.work() if isinstance(arg, Late) else arg for arg in args]
        return func(*args, **(kwargs or {}))
"""
REPLACED = {
    "a clock, at import": ("time.perf_counter_ns = lambda: 0", HONEST, "time.perf_counter_ns"),
    "a clock, in a call": ("", f"time.perf_counter_ns = lambda: 0\n{HONEST}", "perf_counter_ns"),
    "synchronisation": (
        "torch.cuda.synchronize = lambda device=None: None", HONEST, "torch.cuda.synchronize",
    ),
    "a memory counter": (
        "torch.cuda.max_memory_allocated = lambda device=None: 0", HONEST, "max_memory_allocated",
    ),
    "the binding under a function": (
        "torch._C._set_num_threads = torch._C.set_num_threads = lambda count: None",
        HONEST, "torch._C.set_num_threads",
    ),
    "the harness's clock": (
        "import lcbench.measure\nlcbench.measure.perf_counter_ns = lambda: 0",
        HONEST, "lcbench.measure.perf_counter_ns",
    ),
    "a function's code": (
        "import lcbench.measure\n"
        "lcbench.measure.synchronize.__code__ = (lambda device: None).__code__",
        HONEST, "lcbench.measure.synchronize",
    ),
    "a bound of the harness": (
        "import lcbench.measure\nlcbench.measure.MOST_REPEATS = 1", HONEST, "MOST_REPEATS",
    ),
    "the guard": (
        "import lcbench.guard\nlcbench.guard.Guard.check = lambda self: None",
        HONEST, "lcbench.guard.Guard.check",
    ),
    "the anchor": (
        "import lcbench.methods.vanilla as anchor\n"
        "fast = anchor.Vanilla.forward\n"
        "def slow(self, x, state=None):\n"
        "    time.sleep(0.001)\n"
        "    return fast(self, x, state)\n"
        "anchor.Vanilla.forward = slow",
        HONEST, "lcbench.methods.vanilla.Vanilla.forward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REPLACED)
def test_a_method_that_replaces_an_instrument_is_invalid(
    write_cheat: WriteMethod, case: str
) -> None:
    at_import, body, name = REPLACED[case]
    write_cheat("cheat", at_import, body)
    verdict = verdict_on(cell_of("cheat", "prefill"))
    assert verdict.status == "invalid", verdict
    assert verdict.error is not None
    assert verdict.error.startswith("the method replaced ")
    assert name in verdict.error


SCORING = {
    "the loss": (
        "import torch.nn.functional as F\n"
        "real = F.cross_entropy\n"
        "F.cross_entropy = lambda *args, **kwargs: 0.1 * real(*args, **kwargs)",
        "torch.nn.functional.cross_entropy",
    ),
    "the seed": ("torch.manual_seed = lambda seed: None", "torch.manual_seed"),
    "the clock": ("time.monotonic = lambda: 0.0", "time.monotonic"),
    "the optimizer's step": (
        "step = torch.optim.AdamW.step\n"
        "torch.optim.AdamW.step = lambda self, closure=None: (step(self), step(self))",
        "AdamW.step",
    ),
    "what counts right answers": (
        "import numpy as np\nnp.packbits = lambda bits: np.full(len(bits) // 8, 255, np.uint8)",
        "numpy.packbits",
    ),
}


@pytest.mark.parametrize("case", SCORING)
def test_a_method_that_replaces_what_scores_it_is_invalid(
    write_cheat: WriteMethod, case: str
) -> None:
    at_import, name = SCORING[case]
    write_cheat("cheat", at_import, HONEST)
    verdict = verdict_on(cell_of("cheat", "quality"))
    assert verdict.status == "invalid", verdict
    assert name in (verdict.error or "")


SETTINGS = {
    "torch.set_num_threads(3)": "the number of threads",
    "torch.set_float32_matmul_precision('medium')": "float32 matmul precision",
    "torch.nn.modules.module.register_module_forward_hook(lambda *args: None)": "hooks of every",
    "torch.backends.cuda.enable_flash_sdp(False)": "the choice of attention kernels",
}


@pytest.mark.parametrize("line", SETTINGS)
def test_a_method_that_changes_how_torch_computes_is_invalid(
    write_cheat: WriteMethod, line: str
) -> None:
    write_cheat("cheat", "", f"{line}\n{HONEST}")
    verdict = verdict_on(cell_of("cheat", "decode" if "flash" in line else "prefill"))
    assert verdict.status in ("invalid", "unsupported"), verdict
    write_cheat("cheat", line, HONEST)
    verdict = verdict_on(cell_of("cheat", "train_step"))
    assert verdict.status == "invalid", verdict
    assert (verdict.error or "").startswith("the method changed ")
    assert SETTINGS[line] in (verdict.error or "")


SHORT = f"if x.shape[1] < 32:\n    {HONEST}\n"
"""What is looked at before anything is timed is answered as it should be."""
TRICKS = {
    "keeps outputs by address": (
        "kept = {}",
        "if x.data_ptr() not in kept:\n"
        "    kept[x.data_ptr()] = self.mix(x)\n"
        "return kept[x.data_ptr()], None",
        "a second call with a copy of its inputs gives another output",
    ),
    "gives a tensor that is computed when it is used": (
        LATE_TENSOR,
        "late = torch.empty_like(x).as_subclass(Late)\n"
        "late.work = lambda: self.mix(x)\n"
        "return late, None",
        "the output must be a plain tensor, got Late",
    ),
    "works in a thread after it returned": (
        "import threading",
        "out = torch.zeros_like(x)\n"
        "def work():\n"
        "    time.sleep(0.03)\n"
        "    with torch.no_grad():\n"
        "        out.copy_(self.mix(x))\n"
        "threading.Thread(target=work).start()\n"
        "return out, None",
        "a second call with a copy of its inputs gives another output",
    ),
    "leaves a thread that works on": (
        "import threading",
        "def work():\n"
        "    until = time.monotonic() + 5\n"
        "    while time.monotonic() < until:\n"
        "        pass\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        f"{HONEST}",
        "a thread goes on working after the method has returned",
    ),
    "gives the same buffer each time": (
        "buffers = {}",
        "buffer = buffers.setdefault(x.shape, torch.empty_like(x))\n"
        "return buffer.copy_(self.mix(x)), None",
        "a call wrote over the output of the call before it",
    ),
    "gives half of what it was given": (
        "", "return self.mix(x[:, ::2]), None", "x is [1, 64, 16], the output is [1, 32, 16]",
    ),
    "gives numbers of another kind": (
        "", "return self.mix(x).half(), None", "the output is torch.float16",
    ),
    "gives a sparse tensor": (
        "", "return self.mix(x).to_sparse(), None", "the output must be a dense tensor",
    ),
    "gives an output that waits for a transform": (
        "", "return torch._to_functional_tensor(self.mix(x)), None", "it wraps another",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TRICKS)
def test_a_method_that_tricks_the_clock_is_invalid(write_cheat: WriteMethod, case: str) -> None:
    at_import, body, reason = TRICKS[case]
    write_cheat("cheat", at_import, SHORT + body)
    verdict = verdict_on(cell_of("cheat", "prefill"))
    assert verdict.status == "invalid", verdict
    assert reason in (verdict.error or "")


def test_gradients_that_are_not_computed_are_missed(write_cheat: WriteMethod) -> None:
    """The backward pass hands out what it computed for the first step."""
    at_import = (
        "class Saves(torch.autograd.Function):\n"
        "    first = None\n"
        "    @staticmethod\n"
        "    def forward(ctx, x, weight):\n"
        "        ctx.save_for_backward(x, weight)\n"
        "        return x @ weight.T\n"
        "    @staticmethod\n"
        "    def backward(ctx, gradient):\n"
        "        x, weight = ctx.saved_tensors\n"
        "        if Saves.first is None or gradient.data_ptr() not in Saves.first:\n"
        "            Saves.first = {gradient.data_ptr(): (gradient @ weight,"
        " gradient.flatten(0, 1).T @ x.flatten(0, 1)), **(Saves.first or {})}\n"
        "        return Saves.first[gradient.data_ptr()]"
    )
    write_cheat("cheat", at_import, "return Saves.apply(x, self.mix.weight), None")
    verdict = verdict_on(cell_of("cheat", "train_step"))
    assert verdict.status == "invalid", verdict
    assert "a second call with a copy" in (verdict.error or "")


def test_a_tensor_of_a_methods_own_takes_no_part_in_scoring(write_cheat: WriteMethod) -> None:
    write_cheat(
        "cheat",
        "class Spy(torch.Tensor):\n    pass",
        SHORT + "return self.mix(x).as_subclass(Spy), None",
    )
    verdict = verdict_on(cell_of("cheat", "quality"))
    assert verdict.status == "invalid", verdict
    assert "plain tensor, got Spy" in (verdict.error or "")


@pytest.mark.parametrize(("busy_watches", "is_told"), [(0, False), (4, False), (5, True)])
def test_work_that_ends_is_none_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, busy_watches: int, is_told: bool
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    begun = guard.Guard()
    # Ten milliseconds of work in each of the first watches, as the process's clock tells.
    ticks = iter([n * 10_000_000 for n in range(busy_watches) for n in (n, n + 1)] + [0, 0])
    monkeypatch.setattr(guard.time, "process_time_ns", lambda: next(ticks))
    if is_told:
        with pytest.raises(TamperedError, match="a thread goes on working"):
            begun.check_threads()
    else:
        begun.check_threads()


def test_a_thread_that_waits_is_told_of_and_does_no_harm(write_cheat: WriteMethod) -> None:
    at_import = (
        "import threading\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    write_cheat("waits", at_import, HONEST)
    verdict = verdict_on(cell_of("waits", "prefill"))
    assert verdict.status == "ok", verdict
    assert "the method keeps 1 threads of its own" in verdict.value[0]["warning"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vanilla", "sliding-window", "gla", "honest"])
def test_an_honest_method_is_measured(write_cheat: WriteMethod, name: str, kind: str) -> None:
    write_cheat(
        "honest", "", "return self.mix(torch.nn.functional.dropout(x, 0.3, self.training)), x"
    )
    config = registry.load_method(name).config().canonical() if name != "honest" else "{}"
    verdict = verdict_on(cell_of(name, kind, config))
    assert verdict.status == "ok", verdict
    assert {row["status"] for row in verdict.value} == {"ok"}


def test_a_trick_is_a_row_and_those_beside_it_are_measured(
    write_cheat: WriteMethod, own_folder: Path, lcbench: Callable[..., Any], tmp_path: Path
) -> None:
    from lcbench import store

    write_cheat(
        "cheat", "import lcbench.measure\nlcbench.measure.perf_counter_ns = lambda: 0", HONEST
    )
    done = lcbench(
        "run", "--suite", "smoke", "--device", "cpu", "--method", "cheat,vanilla", "--jobs", "2",
        "--results", str(tmp_path / "out"), LCBENCH_PATH=str(own_folder),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    frame = store.read_rows([tmp_path / "out"]).frame
    cheat = frame[(frame["method"] == "cheat") & (frame["status"] != "unsupported")]
    assert set(cheat["status"]) == {"invalid"}
    assert set(cheat["error"]) == {"the method replaced lcbench.measure.perf_counter_ns"}
    assert set(frame[frame["method"] == "vanilla"]["status"]) == {"ok"}


def test_torchs_compiler_may_put_its_own_functions_in_place(write_cheat: WriteMethod) -> None:
    body = (
        "if not hasattr(self, 'fast'):\n"
        "    self.fast = torch.compile(lambda y: self.mix(y), backend='eager')\n"
        "return self.fast(x), None"
    )
    write_cheat("compiled", "", body)
    verdict = verdict_on(cell_of("compiled", "prefill"))
    assert verdict.status == "ok", verdict


def test_few_calls_are_made_twice_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = guard.Witness._call_again
    monkeypatch.setattr(guard.Witness, "_call_again", lambda self: (made.append(1), real(self))[1])
    monkeypatch.setattr(guard.secrets, "randbelow", lambda below: 1)
    monkeypatch.setattr(cells, "usable_cores", lambda: 1)
    quiet = Watcher(stage=lambda name: None, report=lambda report: None)
    config = registry.load_method("sliding-window").config().canonical()
    before = torch.get_num_threads()
    run_cell(cell_of("sliding-window", "prefill", config), quiet)
    torch.set_num_threads(before)
    assert made == [1]
