"""What stood where before a method was loaded, and whether it still does.

A method runs in the process that measures it, so it can replace a clock, torch's functions or the
harness's own. References to them are taken first and compared afterwards: functions and classes
by identity, functions by their code too, and what decides how torch computes by value.
"""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import builtins
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler import profile
from torch.nn.modules import module as modules

Owner = ModuleType | type

# What torch offers nobody by a public name, and methods can reach all the same.
_BINDINGS: Any = vars(torch)["_C"]
_OPTIMIZERS: Any = vars(sys.modules["torch.optim.optimizer"])

SHARED: tuple[Owner, ...] = (
    *(time, builtins, math, os, json, threading, np),
    *(torch, torch.nn, torch.nn.functional, torch.nn.utils, torch.linalg, torch.random),
    *(torch.cuda, torch.cuda.Event, torch.cuda.Stream, torch.autograd, torch.autograd.Function),
    *(torch.Tensor, torch.nn.Module, torch.nn.Linear, torch.optim.AdamW, profile, _BINDINGS),
)
"""What every method shares with the harness; of modules the public functions count."""

_TORCH = str(Path(torch.__file__).parent)
_COMPILER = str(Path(torch.__file__).parent / "_dynamo")


class References:
    """The members of modules and classes as they are now.

    Args:
        owners: Of those of lcbench every name counts: private ones, constants and classes too.
    """

    def __init__(self, owners: Iterable[Owner]) -> None:
        self._owners = tuple(owners)
        self._members = {name: (m, _insides(m)) for name, m in _members(self._owners)}

    def replaced(self) -> str | None:
        """The first member that is another than it was; new names may come."""
        now = dict(_members(self._owners))
        for name, (was, insides) in self._members.items():
            member = now.get(name)
            if member is was:
                if any(a is not b for a, b in zip(_insides(member), insides, strict=True)):
                    return name
            elif not _is_torchs_own(was, member):
                return name
        return None


def harness() -> list[Owner]:
    """The modules of lcbench that are loaded, methods and tasks included, and their classes."""
    found: list[Owner] = []
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "lcbench":
            members = vars(module).values()
            found += [module, *(m for m in members if _is_class_of(m, name))]
    return found


def _is_class_of(member: object, module: str) -> bool:
    return isinstance(member, type) and member.__module__ == module


def _members(owners: Iterable[Owner]) -> Iterator[tuple[str, object]]:
    """Members by their full names."""
    for owner in owners:
        if isinstance(owner, ModuleType):
            place = owner.__name__
            found = dict(vars(owner))
        else:
            place = f"{owner.__module__}.{owner.__qualname__}"
            found = {n: m for c in reversed(owner.__mro__) for n, m in vars(c).items()}
        is_own = place.partition(".")[0] == "lcbench"
        for name, member in found.items():
            if is_own:
                counts = callable(member) or not name.startswith("__")
            else:
                shown = isinstance(owner, type) or owner is _BINDINGS or not name.startswith("_")
                counts = callable(member) and shown
            if counts:
                yield f"{place}.{name}", member


def _insides(member: object) -> tuple[object, ...]:
    """Code and defaults of a function, which can be exchanged within it."""
    if not isinstance(member, FunctionType):
        return ()
    return (member.__code__, member.__defaults__)


def _is_torchs_own(was: object, now: object) -> bool:
    """Whether torch itself put one in the place of the other, as it does when it first compiles."""
    file = str(getattr(getattr(now, "__code__", None), "co_filename", ""))
    if file.startswith(_COMPILER):
        return True
    while file.startswith(_TORCH) and now is not None:
        now = getattr(now, "__wrapped__", None)
        if now is was:
            return True
    return False


def read_settings() -> dict[str, object]:
    """What decides how torch computes in this process; harness and methods share it."""
    cuda = torch.backends.cuda
    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the number of threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "the choice of attention kernels": (
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.math_sdp_enabled(),
        ),
        "torch's modes": (
            _BINDINGS._len_torch_dispatch_stack(),
            _BINDINGS._len_torch_function_stack(),
        ),
        "hooks of every module": vars(modules)["_has_any_global_hook"](),
        "hooks of every optimizer": (
            len(_OPTIMIZERS["_global_optimizer_pre_hooks"]),
            len(_OPTIMIZERS["_global_optimizer_post_hooks"]),
        ),
    }
