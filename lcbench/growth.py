"""Laws of cost: how time and memory grow with the context, against what is declared."""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import math
from timeit import Timer
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lcbench.measure import Workload, measure_memory
from lcbench.probe import Kept, Probe

TIMED = (4096, 16_384)
"""Tokens between which time's exponent is measured."""
TIME_TOLERANCE = 0.35
"""What it may exceed the declared one by before it warns."""
WEIGHED = (4096, 8192)
"""Tokens between which memory's exponent is measured: it is exact, so a factor of 2 will do."""
WEIGHED_LOOPS = (512, 1024)
"""The same for a method that loops over tokens: the record of each allocation would not fit."""
MOST_OPERATIONS = 8.0
"""Operations a token, above which a method loops over tokens rather than over blocks."""
MEMORY_TOLERANCE = 0.15
"""What it may exceed the declared one by."""
SLACK = 0.6
"""What either may fall below: what does not grow weighs the more the less the rest takes."""


def memory(probe: Probe) -> str | Kept:
    """Peak memory of a forward pass, and of one with its backward, grows as declared."""
    declared = probe.spec.cost.memory
    contexts = WEIGHED_LOOPS if _loops(probe) else WEIGHED
    exponents: list[float] = []
    for trains in (False, True):
        pair = contexts
        first, last, exponent = _growth(probe, pair, trains=trains)
        if exponent - declared < -SLACK:
            # A method that works through a long input by stretches holds one of them at any length.
            pair = (4 * contexts[0], 4 * contexts[1])
            first, last, exponent = _growth(probe, pair, trains=trains)
        exponents.append(exponent)
        if not -SLACK <= exponent - declared <= MEMORY_TOLERANCE:
            return (
                f"{'training' if trains else 'forward'}: {first} bytes at T={pair[0]} and "
                f"{last} at T={pair[1]}, an exponent of {exponent:.2f}; "
                f"declared is {declared:g}"
            )
    return Kept(
        f"exponent {exponents[0]:.2f} from T={contexts[0]} to {contexts[1]} forward and "
        f"{exponents[1]:.2f} in training, declared is {declared:g}"
    )


def _growth(probe: Probe, contexts: tuple[int, int], *, trains: bool) -> tuple[int, int, float]:
    """Peak bytes at two contexts, and the exponent between them."""
    first, last = (_peak_bytes(probe, context, trains=trains) for context in contexts)
    return first, last, math.log(last / first) / math.log(contexts[1] / contexts[0])


class _Counter(TorchDispatchMode):
    """Counts the operations that reach torch's kernels."""

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count one operation, and do it."""
        self.number += 1
        return func(*args, **(kwargs or {}))


def _loops(probe: Probe) -> bool:
    method, x = probe.build(torch.float32), probe.tokens(1, WEIGHED_LOOPS[0], torch.float32)
    with _Counter() as counter:
        method(x)
    return counter.number > MOST_OPERATIONS * WEIGHED_LOOPS[0]


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
