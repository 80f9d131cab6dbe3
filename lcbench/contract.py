"""Holding a method to its contract where it is measured, and what is raised when it is not kept."""

import json
from typing import Any

import torch
from torch import Tensor

from lcbench.method import Method, MethodSpec, state_tensors
from lcbench.task import TaskSpec


class UnsupportedError(Exception):
    """The method does not claim what the cell asks for."""

    status = "unsupported"


class InvalidOutputError(Exception):
    """A method's output is not what the contract promises."""

    status = "invalid"


def first_line(error: BaseException) -> str:
    """Type and first line of an error, as a status row keeps it."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def config_of(spec: MethodSpec | TaskSpec, canonical: str) -> Any:
    """The config that `canonical` was written from."""
    return spec.config(**json.loads(canonical))


def check_output(method: Method, d_model: int, device: torch.device) -> None:
    """Hold a method to the contract on a few tokens.

    Raises:
        InvalidOutputError: Not a pair, not a plain tensor, a wrong shape or dtype, or not finite.
    """
    like = next(method.parameters(), torch.empty(0))
    x = torch.randn(2, 9, d_model, device=device, dtype=like.dtype)
    with torch.no_grad():
        result: object = method(x)
    if not (isinstance(result, tuple) and len(result) == 2):  # pyright: ignore[reportUnknownArgumentType]
        raise InvalidOutputError(f"forward must return (output, state), got {_kind(result)}")
    out: object = result[0]
    if not isinstance(out, Tensor) or type(out) is not Tensor:
        raise InvalidOutputError(f"the output must be a plain tensor, got {_kind(out)}")
    try:
        list(state_tensors(result[1]))
    except TypeError as error:
        raise InvalidOutputError(str(error)) from None
    if out.shape != x.shape:
        raise InvalidOutputError(f"x is {list(x.shape)}, the output is {list(out.shape)}")
    if out.dtype != x.dtype:
        raise InvalidOutputError(f"x is {x.dtype}, the output is {out.dtype}")
    if not out.isfinite().all():
        raise InvalidOutputError("the output holds NaN or infinity for normal inputs")


def _kind(value: object) -> str:
    return type(value).__name__
