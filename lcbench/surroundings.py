"""What a method must leave as it found it: clocks, torch's functions, defaults, random states."""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import inspect
import pickle
import random
import time
from types import ModuleType

import numpy as np
import torch

from lcbench import measure
from lcbench.probe import TOKENS, Probe

TORCH_RANDOM = "torch's random state"

_WATCHED: tuple[ModuleType | type, ...] = (
    *(time, torch, torch.nn, torch.nn.functional, torch.linalg, torch.cuda, torch.autograd),
    *(torch.Tensor, torch.nn.Module, torch.nn.Linear, torch.autograd.Function, measure),
)

_WRAPPED_BY_TORCH = "torch.manual_seed"
"""What torch's compiler wraps when it is first loaded, by whatever needs it."""


def _functions() -> dict[str, object]:
    """Every public function of what is watched, and every method, operators included."""
    found: dict[str, object] = {}
    for owner in _WATCHED:
        if isinstance(owner, ModuleType):
            members = {n: m for n, m in vars(owner).items() if not n.startswith("_")}
            place = owner.__name__
        else:
            members = {name: inspect.getattr_static(owner, name) for name in dir(owner)}
            place = f"{owner.__module__}.{owner.__qualname__}"
        found |= {f"{place}.{name}": m for name, m in members.items() if callable(m)}
    return found


# Taken before a plug-in is loaded, so that one which replaces a clock at import is seen too.
_FUNCTIONS = _functions()


def _replaced() -> str | None:
    """The first watched function that is another than it was; new names may come."""
    now = _functions()
    for name, was in _FUNCTIONS.items():
        is_now = now.get(name)
        if name == _WRAPPED_BY_TORCH:
            is_now, was = (getattr(function, "__wrapped__", function) for function in (is_now, was))
        if is_now is not was:
            return name
    return None


def _settings() -> dict[str, object]:
    """Only building may draw from torch's generator; all else stays."""
    return {
        TORCH_RANDOM: torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": pickle.dumps(np.random.get_state()),  # noqa: NPY002 -- the one watched
        "Python's random state": random.getstate(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the number of threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }


def side_effects(probe: Probe) -> str | None:
    """Loading, building and calling replace no clock or torch function and change no setting."""
    after_build: list[float] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        start = _settings()
        method = probe.spec.build(probe.shape(), probe.config).eval()
        built = _settings()
        method(probe.tokens(1, TOKENS, torch.float32))
        end = _settings()
        if name := _replaced():
            return f"{name} was replaced"
        built_only = [key for key in built if built[key] != start[key] and key != TORCH_RANDOM]
        if built_only:
            return f"building changed {built_only[0]}"
        if changed := [key for key in end if end[key] != built[key]]:
            return f"a call changed {changed[0]}"
        after_build.append(torch.rand(()).item())
    if after_build[0] == after_build[1]:
        return "building reseeded torch's random state"
    return None
