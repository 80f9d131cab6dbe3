"""Laws of cost: how time and memory grow with the context, against what is declared."""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import math
from timeit import Timer

import torch
from torch import Tensor

from lcbench.measure import Workload, measure_memory
from lcbench.probe import Kept, Probe

TIMED = (4096, 16_384)
"""Tokens between which time's exponent is measured."""
TIME_TOLERANCE = 0.35
"""What it may exceed the declared one by before it warns."""
WEIGHED = (4096, 8192)
"""Tokens between which memory's exponent is measured: it is exact, so a factor of 2 will do."""
MEMORY_TOLERANCE = 0.15
"""What it may exceed the declared one by."""
SLACK = 0.6
"""What either may fall below: what does not grow weighs the more the less the rest takes."""


def memory(probe: Probe) -> str | Kept:
    """Peak memory of a forward pass, and of one with its backward, grows as declared."""
    declared = probe.spec.cost.memory
    exponents: list[float] = []
    for trains in (False, True):
        first, last = (_peak_bytes(probe, context, trains=trains) for context in WEIGHED)
        exponent = math.log(last / first) / math.log(WEIGHED[1] / WEIGHED[0])
        exponents.append(exponent)
        if not -SLACK <= exponent - declared <= MEMORY_TOLERANCE:
            return (
                f"{'training' if trains else 'forward'}: {first} bytes at T={WEIGHED[0]} and "
                f"{last} at T={WEIGHED[1]}, an exponent of {exponent:.2f}; declared is {declared:g}"
            )
    return Kept(
        f"exponent {exponents[0]:.2f} forward and {exponents[1]:.2f} in training, "
        f"declared is {declared:g}"
    )


def _peak_bytes(probe: Probe, context: int, *, trains: bool) -> int:
    method = probe.build(torch.float32)

    def call(x: Tensor) -> object:
        with torch.set_grad_enabled(trains):
            out, state = method(x)
            if trains:
                out.backward(torch.ones_like(out))
        return out, state

    def prepare() -> Tensor:
        return probe.tokens(1, context, torch.float32).requires_grad_(trains)

    peak = measure_memory(Workload(prepare, call), torch.device("cpu")).peak_bytes
    assert peak is not None
    return max(1, peak)


def time(probe: Probe) -> str | Kept:
    """The time of a forward pass grows as declared; on a busy machine it may seem not to."""
    declared, measured = probe.spec.cost.time, time_exponent(probe)
    seen = (
        f"exponent {measured:.2f} from T={TIMED[0]} to {TIMED[1]} forward, declared is {declared:g}"
    )
    return Kept(seen) if -SLACK <= measured - declared <= TIME_TOLERANCE else seen


def time_exponent(probe: Probe) -> float:
    """Exponent in T of a forward pass's time, on the threads that torch has now."""
    method = probe.build(torch.float32)
    seconds: list[float] = []
    for length in TIMED:
        x = probe.tokens(1, length, torch.float32)
        timer = Timer("method(x)", globals={"method": method, "x": x})
        repeats = min(20, 2 + int(0.5 / timer.timeit(1)))
        # The least of them: what else runs on the machine only ever adds to a time.
        seconds.append(min(timer.repeat(repeats, number=1)))
    return math.log(seconds[1] / seconds[0], TIMED[1] / TIMED[0])
