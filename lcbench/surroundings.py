"""What a method must leave as it found it: clocks, torch's functions, defaults, random states."""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import pickle
import random

import numpy as np
import torch

from lcbench import measure
from lcbench.probe import TOKENS, Probe
from lcbench.references import SHARED, References, read_settings

TORCH_RANDOM = "torch's random state"

# Taken before a plug-in is loaded, so that one which replaces a clock at import is seen too.
_REFERENCES = References((*SHARED, measure))


def _settings() -> dict[str, object]:
    """Only building may draw from torch's generator; all else stays."""
    return {
        TORCH_RANDOM: torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": pickle.dumps(np.random.get_state()),  # noqa: NPY002 -- the one watched
        "Python's random state": random.getstate(),
        **read_settings(),
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
        if name := _REFERENCES.replaced():
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
