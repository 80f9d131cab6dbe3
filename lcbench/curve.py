"""The learning curve of a training, kept without waiting for the device at each step."""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import torch
from torch import Tensor

MOST_POINTS = 32
"""Spans of steps that a curve has at most."""


class Curve(NamedTuple):
    """Training loss by span of the steps; the spans are as equal as whole steps allow."""

    steps: list[int]
    """Steps done by the end of each span."""
    loss_nats: list[float]
    """Mean training loss within each span: what came before it is not part of it."""
    seconds: list[float]
    """Seconds passed by the end of each span, drawing examples and reports included."""


class CurveRecorder:
    """Takes the loss of each step and gives the curve at the end.

    The clock starts when it is made. On CUDA it is the device's: events that the device stamps when
    it comes to them, since the host runs ahead of it and is not held up. Any other device that
    works beside the host is waited for at the end of a span.

    Args:
        steps: How many there will be.
        device: That the model is trained on.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        number = min(MOST_POINTS, steps)
        self._ends = [steps * (point + 1) // number for point in range(number)]
        self._step = 0
        self._span: list[Tensor] = []
        self._losses: list[Tensor] = []
        clock = _device_clock if device.type == "cuda" else _host_clock
        self._seconds: list[Callable[[], float]] = []
        self._read = clock(device)

    def add(self, loss: Tensor) -> None:
        """Take the loss of the next step, as a number that is still on its device."""
        self._step += 1
        self._span.append(loss)
        if self._step == self._ends[len(self._losses)]:
            self._losses.append(torch.stack(self._span).mean())
            self._seconds.append(self._read())
            self._span = []

    def curve(self) -> Curve:
        """The curve of the spans that are over; waits for the device."""
        losses: list[float] = torch.stack(self._losses).tolist()
        seconds = [told() for told in self._seconds]
        return Curve(self._ends[: len(losses)], losses, seconds)


def _host_clock(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Notes the time at each call; what it gives tells the seconds since it was made."""
    began = monotonic()

    def note() -> Callable[[], float]:
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds = monotonic() - began
        return lambda: seconds

    return note


def _device_clock(device: torch.device) -> Callable[[], Callable[[], float]]:
    """The same by CUDA's events; the seconds can be told once the device has come by."""
    stream = torch.cuda.current_stream(device)
    began = torch.cuda.Event(enable_timing=True)
    began.record(stream)

    def note() -> Callable[[], float]:
        event = torch.cuda.Event(enable_timing=True)
        event.record(stream)
        return lambda: began.elapsed_time(event) / 1e3

    return note
