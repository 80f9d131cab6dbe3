"""Holding a method to its contract where it is measured, and what is raised when it is not kept."""

import json
from typing import Any

import torch
from torch import Tensor

from lcbench.method import Method, MethodSpec, state_tensors
from lcbench.task import TaskSpec

# torch tells by no public name whether a tensor stands for another.
_FUNCTIONAL: Any = vars(torch)["_is_functional_tensor"]
_WRAPPED: Any = vars(torch)["_C"]._functorch.is_functorch_wrapped_tensor


class UnsupportedError(Exception):
    """The method does not claim what the cell asks for."""

    status = "unsupported"


class InvalidOutputError(Exception):
    """A method's output is not what the contract promises."""

    status = "invalid"


class TamperedError(Exception):
    """A method changed what it is measured with, or goes on working when it is not called."""

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
    out = check_plain(out, x)
    try:
        list(state_tensors(result[1]))
    except TypeError as error:
        raise InvalidOutputError(str(error)) from None
    if not out.isfinite().all():
        raise InvalidOutputError("the output holds NaN or infinity for normal inputs")


def check_plain(out: object, x: Tensor) -> Tensor:
    """Hold an output to being a tensor whose numbers are there, of the kind of its input.

    Raises:
        InvalidOutputError: A subclass, a tensor that stands for numbers yet to come (fake, wrapped,
            sparse, quantised), or one of another shape, dtype or device than x.
    """
    if not isinstance(out, Tensor) or type(out) is not Tensor:
        raise InvalidOutputError(f"the output must be a plain tensor, got {_kind(out)}")
    if out.layout != torch.strided or out.is_quantized or out.is_nested:
        raise InvalidOutputError(f"the output must be a dense tensor, its layout is {out.layout}")
    if _FUNCTIONAL(out) or _WRAPPED(out):
        raise InvalidOutputError("the output must be a plain tensor, it wraps another")
    if out.shape != x.shape:
        raise InvalidOutputError(f"x is {list(x.shape)}, the output is {list(out.shape)}")
    if out.dtype != x.dtype:
        raise InvalidOutputError(f"x is {x.dtype}, the output is {out.dtype}")
    if out.device != x.device:
        raise InvalidOutputError(f"x is on {x.device}, the output is on {out.device}")
    return out


def _kind(value: object) -> str:
    return type(value).__name__
