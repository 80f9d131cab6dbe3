"""A guard on the measurement of a cell: its instruments, and what a method gives while it is timed.

A method has the whole process to itself and cannot be kept out of this file, but one that gains
from a trick, meant or not, gets an `invalid` row that names it. Out of reach is code that looks
through frames or the garbage collector, or writes to memory past Python, or that tells by the clock
or the caller that it is timed and answers both calls alike.
"""

import os
import secrets
import threading
import time
from typing import Any

import torch
from torch import Tensor

from lcbench.contract import InvalidOutputError, TamperedError, check_plain
from lcbench.isolation import WAIT_POLICY
from lcbench.measure import Outputs, Workload
from lcbench.references import SHARED, References, harness, read_settings

COMPARED_SHARE = 8
"""One timed call in so many, drawn by the system's own generator, is made again and compared."""
MOST_DRIFT = 0.1
"""What two calls with the same inputs may differ by, as a part of their norm: rounding in low
precision and choices at a tie stay far below, an output for other inputs is far above."""
IDLE_S, BUSY_SHARE = 0.01, 0.1
"""How long the process is watched doing nothing, and what of a core it may then use."""
MOST_WATCHES = 5
"""How often it is watched before it is said to work. A thread of torch that the system did not let
run in time, on a machine that does other work, ends what it had to do in the first."""
SETTLING_S = 0.05
"""How long a method with threads of its own may take until a second call's output is looked at."""


class Guard:
    """What must stand as it did when a cell's method has run; made before the method is loaded."""

    def __init__(self) -> None:
        self._replaced = References((*SHARED, *harness())).replaced
        self._settings = read_settings()
        self._threads = set(threading.enumerate())

    def settle(self) -> None:
        """Take the settings as they are now for those to be kept."""
        self._settings = read_settings()

    def check(self) -> None:
        """Compare clocks, functions, the harness and torch's settings with what they were.

        Raises:
            TamperedError: The first that is another, by its name.
        """
        if name := self._replaced():
            raise TamperedError(f"the method replaced {name}")
        now = read_settings()
        for name, was in self._settings.items():
            if now[name] != was:
                raise TamperedError(f"the method changed {name}")

    def check_threads(self) -> None:
        """Wait until no thread works.

        Raises:
            TamperedError: One works on.
        """
        if os.environ.get(WAIT_POLICY, "").upper() != "PASSIVE":
            return  # threads of OpenMP that wait for work cannot be told from those that do some
        used = passed = 0
        for _ in range(MOST_WATCHES):
            before = time.process_time_ns()
            began = time.monotonic_ns()
            time.sleep(IDLE_S)
            used, passed = time.process_time_ns() - before, time.monotonic_ns() - began
            if used <= BUSY_SHARE * passed:
                return
        raise TamperedError(
            "a thread goes on working after the method has returned:"
            f" {used / 1e6:.0f} ms in {passed / 1e6:.0f} ms"
        )

    def own_threads(self) -> str | None:
        """What is to be told of threads that a method started and left, or None."""
        # A thread of torch's own that calls Python is listed too, as a dummy.
        own = [t for t in threading.enumerate() if not t.name.startswith("Dummy-")]
        number = len(set(own) - self._threads)
        return f"the method keeps {number} threads of its own" if number else None


class Witness:
    """Holds what a timed workload gives to what it gives when it is called again.

    Each output must be a plain tensor and stay what it was when the clock saw it. Now and then the
    call is made again, off the clock, with a copy of its inputs at other addresses: an output that
    was kept from an earlier call, or had not come yet, is another one.
    """

    def __init__(self, workload: Workload, guard: Guard) -> None:
        self._workload, self._guard = workload, guard
        self._random: list[Tensor] = []
        self._x, self._copy = torch.empty(0), None
        self._insists = self._is_over = False
        self._earlier: list[tuple[Tensor | None, Tensor | None]] = []
        """Outputs of the call compared last, and copies of them, until the next call is over."""

    def begin(self, inputs: Any) -> None:
        """See `measure.Watch.begin`."""
        self._x = inputs if isinstance(inputs, Tensor) else inputs[0]
        self._copy = None
        is_drawn = not self._is_over and secrets.randbelow(COMPARED_SHARE) == 0
        if self._insists or is_drawn:
            assert self._workload.copy is not None
            self._copy = self._workload.copy(inputs)
            self._random = _random_states(self._x.device)

    def insist(self) -> bool:
        """See `measure.Watch.insist`."""
        # Whatever was drawn: what is kept from earlier calls is there by the last one.
        self._insists, self._is_over = not self._is_over, True
        return self._insists or bool(self._earlier)

    def end(self, outputs: Outputs, sums: list[Tensor]) -> None:
        """See `measure.Watch.end`.

        Raises:
            InvalidOutputError: An output is not plain, changes, or is another in a second call.
            TamperedError: A thread works on.
        """
        # At once: what comes late has less time to come.
        kept = [] if self._copy is None else [_clone(part) for part in _parts(outputs)]
        for part, told in zip(outputs.read, sums, strict=True):
            check_plain(part, self._x)
            if _drift(part.detach().sum(), told):
                raise InvalidOutputError("the output was not there yet when the method returned it")
        for was, now in self._earlier:
            if _drift(was, now):
                raise InvalidOutputError("a call wrote over the output of the call before it")
        self._earlier = []
        if self._copy is not None:
            self._compare(kept)
            self._earlier = list(zip(kept, _parts(outputs), strict=True))

    def _compare(self, kept: list[Tensor | None]) -> None:
        self._guard.check_threads()
        again = self._call_again()
        if self._guard.own_threads():
            time.sleep(SETTLING_S)
        for was, now in zip(kept, _parts(again), strict=True):
            if _drift(was, now) > MOST_DRIFT:
                raise InvalidOutputError(
                    "a second call with a copy of its inputs gives another output: the timed one"
                    " was kept from an earlier call, or not there yet"
                )

    def _call_again(self) -> Outputs:
        device = self._x.device
        self._workload.prepare()  # for the sake of what it clears, gradients above all
        after = _random_states(device)
        _set_random_states(device, self._random)
        outputs = self._workload.call(self._copy)
        _set_random_states(device, after)
        self._copy = None
        assert isinstance(outputs, Outputs)
        return outputs


def _parts(outputs: Outputs) -> tuple[Tensor | None, ...]:
    return (*outputs.read, *outputs.rest)


def _clone(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.detach().clone()


def _drift(was: Tensor | None, now: Tensor | None) -> float:
    """Norm of the difference over the norm; 0 for the same bits, infinite where one is lacking."""
    if was is None or now is None:
        return 0.0 if was is now else float("inf")
    was, now = was.detach(), now.detach()
    if torch.equal(was, now):
        return 0.0
    was, now = was.double().nan_to_num(), now.double().nan_to_num()
    gap, scale = (was - now).norm().item(), now.norm().item()
    return gap / scale if scale else (float("inf") if gap else 0.0)


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
