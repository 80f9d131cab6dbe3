"""Laws of the state: what carrying it gives, that it is a value, and how it grows."""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import math
import random
from collections.abc import Iterator

import torch
from torch import Tensor

from lcbench.method import Method, State, state_bytes, state_tensors
from lcbench.probe import LENGTHS, TOKENS, TOLERANCE, Probe, difference

SHORTEST, LONGEST = 4096, 32768
"""Tokens between which a declared state exponent holds, to within a block."""


def segments(probe: Probe) -> str | None:
    """Cut anywhere, with the state carried over, a sequence gives what one call gives."""
    method = probe.build()
    for length in sorted({*LENGTHS, probe.context}):
        x = probe.tokens(2, length)
        expected: Tensor = method(x)[0]
        for cutting in _cuttings(length, probe.seed):
            state: State = None
            outputs: list[Tensor] = []
            for part in torch.split(x, cutting, dim=1):
                y, state = method(part, state)
                outputs.append(y)
            size, token = difference(torch.cat(outputs, dim=1), expected)
            if size > TOLERANCE:
                lengths = "+".join(map(str, cutting[:9])) + ("+..." if cutting[9:] else "")
                return (
                    f"T={length} as {lengths} tokens: output {token} differs by {size:.2g} of scale"
                )
    return None


def _cuttings(length: int, seed: int) -> Iterator[list[int]]:
    """Segment lengths: two calls, single tokens, and random cuts."""
    yield [1, length - 1]
    yield [length - 1, 1]
    yield [1] * length
    draw = random.Random(seed)
    for _ in range(4):
        ends = sorted(draw.sample(range(1, length), min(length - 1, draw.randint(2, 6))))
        yield [end - start for start, end in zip([0, *ends], [*ends, length], strict=True)]


def state_value(probe: Probe) -> str | None:
    """A state is a value: going on from it, twice or another way, leaves it what it was."""
    method = probe.build()
    for length in (1, probe.context):
        for step in (1, 7):
            prefix, mine, other, later = (
                probe.tokens(2, count, stream=stream)
                for stream, count in enumerate((length, step, step, step))
            )
            state = method(prefix)[1]
            first, mine_state = method(mine, state)
            onward: Tensor = method(later, mine_state)[0]
            method(other, state)
            where = f"T={length}, then {step}"
            if difference(method(later, mine_state)[0], onward).size > TOLERANCE:
                return f"{where}: going on another way from a state changed the state after it"
            if difference(method(mine, state)[0], first).size > TOLERANCE:
                return f"{where}: going on twice from one state gives two answers"
            if difference(_after_inference(method, prefix, mine), first).size > TOLERANCE:
                return f"{where}: a state made in inference mode goes on to another answer"
    return None


def _after_inference(method: Method, prefix: Tensor, mine: Tensor) -> Tensor:
    """What follows a prefix that was read in inference mode, whose tensors torch keeps apart."""
    with torch.inference_mode():
        state = method(prefix)[1]
    return method(mine, state)[0]


def state_growth(probe: Probe) -> str | None:
    """A state is batch first and detached, and its bytes grow as declared, however it was made."""
    if broken := _unkept(probe.build()(probe.tokens(3, TOKENS))[1], batch=3):
        return broken
    method = probe.build(torch.float32, shape=probe.shape(d_model=16, num_heads=1))
    # Whole blocks: a state that fills up block by block is compared at the same fill.
    period = probe.spec.shift_period(probe.config) or 1
    step = period * math.ceil(SHORTEST / 2 / period)
    x = probe.tokens(1, LONGEST * 2 * step // SHORTEST, torch.float32, d_model=16)
    state: State = None
    sizes: list[int] = []
    for segment in torch.split(x, step, dim=1):
        y, state = method(segment, state)
        if not y.isfinite().all():
            return f"T={step * (len(sizes) + 1)} in segments: the output is not finite"
        sizes.append(max(state_bytes(state), 1))
    first, last = sizes[1], sizes[-1]
    declared = probe.spec.cost.state
    exponent = math.log(last / first) / math.log(LONGEST / SHORTEST)
    # What stops growing is compared exactly: a slow growth would pass for 0.
    if abs(exponent - declared) > (0.15 if declared else 0.0):
        return (
            f"{first} bytes at T={2 * step} and {last} at T={x.shape[1]}, "
            f"an exponent of {exponent:.2g}; declared is {declared:g}"
        )
    at_once = state_bytes(method(x[:, : 2 * step])[1])
    if at_once > 1.1 * first:
        return f"T={2 * step}: {at_once} bytes after one call, {first} after two"
    return None if declared else _decoding_growth(probe, method, state)


def _unkept(state: State, batch: int) -> str | None:
    for number, tensor in enumerate(state_tensors(state)):
        if tensor.requires_grad:
            return f"tensor {number} of the state requires gradients under no_grad"
        if tensor.dim() == 0 or tensor.shape[0] != batch:
            return f"B={batch}: tensor {number} of the state is {list(tensor.shape)}"
    return None


def _decoding_growth(probe: Probe, method: Method, state: State) -> str | None:
    # Each half holds a whole period of a state that fills up block by block.
    half = max(128, (probe.reach or 0) + 1)
    x = probe.tokens(1, 2 * half, torch.float32, d_model=16, stream=1)
    sizes: list[int] = []
    for token in torch.split(x, 1, dim=1):
        state = method(token, state)[1]
        sizes.append(state_bytes(state))
    first, last = max(sizes[:half]), max(sizes[half:])
    if last > first:
        return f"{first} bytes while decoding {half} tokens, {last} while decoding as many again"
    return None
