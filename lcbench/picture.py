"""Small pictures of who sees whom in one layer, from the receptive field as it was measured."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcbench.config import UsageError
from lcbench.method import MethodConfig, MethodSpec
from lcbench.parts import Resolved
from lcbench.probe import Probe
from lcbench.visibility import measure_field

TOKENS = 32
"""Tokens of a picture, so that it is 32 characters wide and 16 high."""
LARGEST = 8
"""What the largest size of a config is scaled to, so that the pattern shows in so few tokens."""
SMALLEST_SCALED = 16
BLOCKS = (" ", "▀", "▄", "█")
"""Two tokens in one character: neither, the upper, the lower, both."""


class Picture(NamedTuple):
    """Who sees whom in one layer of a method."""

    part: str | None
    """The part that stands in the layer, for a method made of parts."""
    config: str
    """The overrides at which it was measured."""
    rows: list[str]
    """`#` in row i, column j where the output at token i moves when token j changes, else `.`."""


def draw(method: Resolved) -> list[Picture]:
    """One picture of a method, or one of each of its parts, in float64 with seeded parameters."""
    if not method.parts:
        return [_draw(None, Probe(method.spec, miniature(method.spec, method.config)))]
    pictures: dict[str, Picture] = {}
    for layer, part in enumerate(method.parts):
        if part.request not in pictures:
            config = miniature(part.spec, part.config)
            probe = Probe(part.spec, config, layer=layer, num_layers=len(method.parts))
            pictures[part.request] = _draw(part.request, probe)
    return list(pictures.values())


def _draw(part: str | None, probe: Probe) -> Picture:
    field = measure_field(probe, TOKENS)
    rows = ["".join("#" if seen else "." for seen in row) for row in field]
    return Picture(part, probe.config.assignments(), rows)


def miniature(spec: MethodSpec, config: MethodConfig) -> MethodConfig:
    """A configuration whose pattern shows in few tokens.

    At its defaults a method may say itself which (`MethodSpec.miniature`). Else the sizes of 16 and
    more are divided by what makes the largest of them 8; one that its config refuses stays.
    """
    if spec.miniature and config == spec.config():
        return config.override(spec.miniature)
    sizes = {
        field.name: value
        for field in dataclasses.fields(config)
        if type(value := getattr(config, field.name)) is int and value >= SMALLEST_SCALED
    }
    divisor = max(1, max(sizes.values(), default=1) // LARGEST)
    for name, size in sizes.items():
        try:
            config = config.override({name: str(max(1, size // divisor))})
        except UsageError:
            continue
    return config


def half_blocks(rows: list[str]) -> list[str]:
    """A picture's rows as text of half the height, framed, so that its tokens are square."""
    field: NDArray[np.bool_] = np.array([[mark == "#" for mark in row] for row in rows])
    if len(field) % 2:
        field = np.vstack([field, np.zeros_like(field[:1])])
    codes = field[::2] + 2 * field[1::2].astype(np.int64)
    edge = "─" * field.shape[1]
    inside = ["│" + "".join(BLOCKS[code] for code in line) + "│" for line in codes]
    return [f"┌{edge}┐", *inside, f"└{edge}┘"]
