"""A pattern of other methods that alternate by layer, such as three cheap ones to one that recalls.

Source: Lieber et al. (2024), "Jamba: A Hybrid Transformer-Mamba Language Model", arXiv:2403.19887,
sections 2 and 6.1, for attention in one layer of several; the parts' own files name theirs.
Left out: mixture of experts, and parts side by side in one layer.
A part is any method but another hybrid, with overrides after colons and a number of repeats:
`sliding-window:window=32*3+vanilla`. The parts stand in the model's layers in turn; a model with
fewer layers takes the last ones. Shapes and letters are those of the parts.
"""

import re
from dataclasses import dataclass

from lcbench.method import MethodConfig, MethodSpec, Paper

DEFAULT_PATTERN = "gated-delta-net*3+sliding-window"
MOST_PARTS = 64
"""Layers that one period of a pattern may have."""

_PIECE = re.compile(
    r"(?P<name>[\w-]+)(?P<fields>(:\w+=[^:*+,=\s]+)*)(\*(?P<repeats>[1-9]\d{0,2}))?"
)


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Which methods, in which layers."""

    pattern: str = DEFAULT_PATTERN
    """Methods joined by `+`, each `name`, `name:field=value`, and `*3` for three layers of it."""

    def __post_init__(self) -> None:
        count = len(read_pattern(self.pattern))
        if count > MOST_PARTS:
            raise ValueError(f"pattern must have at most {MOST_PARTS} layers, got {count}")


def read_pattern(pattern: str) -> tuple[str, ...]:
    """The part of each layer of one period, as `name` or `name:field=value,field=value`.

    Raises:
        ValueError: A piece that is not a method with overrides and a number of repeats.
    """
    parts: list[str] = []
    for piece in pattern.split("+"):
        read = _PIECE.fullmatch(piece.strip())
        if read is None:
            raise ValueError(
                f"pattern {pattern!r} cannot be read at {piece.strip()!r}; write methods joined by"
                " '+', such as sliding-window:window=32*3+vanilla"
            )
        fields = read["fields"].removeprefix(":").replace(":", ",")
        request = f"{read['name']}:{fields}" if fields else read["name"]
        parts += [request] * int(read["repeats"] or 1)
    return tuple(parts)


def _parts(config: Config) -> tuple[str, ...]:
    return read_pattern(config.pattern)


METHOD = MethodSpec(
    parts=_parts,
    config=Config,
    title="Hybrid by layers",
    family="hybrid",
    equation="y_i = what part l mod P of the pattern's P parts reads in layer l",
    paper=Paper("Jamba: A Hybrid Transformer-Mamba Language Model", 2024, "2403.19887"),
)
