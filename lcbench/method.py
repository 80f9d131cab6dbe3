"""The method contract: a sequence mixer, the state it carries, and what it declares of itself.

A method is one file in `methods/` that ends in `METHOD = MethodSpec(...)`. Letters, everywhere:
B batch, T tokens, D `d_model`, H heads, K head width, W window, S segment.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from lcbench.config import Config

State = Any
"""What decoding must keep: nested tuples of tensors (batch first), integers and None.

Tensors are counted as the state's bytes; integers are positions. A state is a value: a call may
share storage with the state it was given, but that state must stay usable, so that one prefix can
be continued twice.
"""


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """Base of a method's configuration."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Where a method stands in the model: its width, its heads, its layer.

    Raises:
        ValueError: Heads that do not divide the width, or a size below one.
    """

    d_model: int
    num_heads: int
    layer: int = 0
    num_layers: int = 1
    causal: bool = True
    train_context: int = 512

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "num_layers", "train_context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide d_model {self.d_model}")
        if not 0 <= self.layer < self.num_layers:
            raise ValueError(f"layer must be in 0..{self.num_layers - 1}, got {self.layer}")

    @property
    def head_dim(self) -> int:
        """Width of one head, K = D / H."""
        return self.d_model // self.num_heads


class Method(nn.Module):
    """A sequence mixer: `[B, T, D]` to `[B, T, D]`, one call for training, prefill and decoding.

    The segment law: cutting a sequence anywhere and carrying the state gives what one call gives.
    A method that breaks it says `segment_exact=False` in its spec.
    """

    def __init__(self, shape: ModelShape, config: MethodConfig) -> None:
        super().__init__()
        self.shape = shape
        self.config = config

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State | None]:
        """Mix the next T tokens.

        Args:
            x: `[B, T, D]` with T at least 1, in any floating dtype.
            state: What the previous call returned; None at the start of a sequence.

        Returns:
            `[B, T, D]` in the dtype of x, and the state after these tokens (None if the method
            does not stream).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def penalty(self) -> Tensor | None:
        """A scalar added to the training loss (a learned span's L1, an indexer's loss), or None."""
        return None

    def weights(self, x: Tensor) -> Tensor | None:
        """Attention weights `[B, H, T, T]` where there are such; for pictures, never for timing.

        A weight is 0 exactly where the token plays no part in the output.
        """
        return None


class Paper(NamedTuple):
    """Where a method comes from."""

    title: str
    year: int
    arxiv: str
    """arXiv identifier, such as `1706.03762`."""


class Cost(NamedTuple):
    """Exponents in T between 4k and 32k tokens at the default configuration."""

    time: float
    """Of one forward pass over T tokens."""
    memory: float
    """Of its peak bytes above the inputs."""
    state: float
    """Of the bytes decoding keeps; 0 where they stop growing."""


UNDECLARED = Cost(-1.0, -1.0, -1.0)
"""Stands where a method made of parts has their cost."""


def built_by_parts(shape: ModelShape, config: Any) -> Method:
    """Stands where each layer is built by a part of the method; `parts.resolve` puts it there.

    Raises:
        TypeError: Called, because the method was not resolved.
    """
    raise TypeError("a method made of parts is built after parts.resolve(spec, config)")


def _relative(config: Any) -> int | None:
    return 1


def _unbounded(config: Any) -> int | None:
    return None


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """What a method declares of itself; `lcbench check` verifies each claim.

    A method made of `parts` gives these, its config, title, family, equation and paper: all other
    claims follow from its parts.

    Raises:
        ValueError: No title, family or equation, neither causal nor bidirectional, no cost, or not
            one of `build` and `parts`.
    """

    build: Callable[[ModelShape, Any], Method] = built_by_parts
    parts: Callable[[Any], tuple[str, ...]] | None = None
    """Methods that stand in its layers in turn, each `name` or `name:field=value,field=value`."""
    config: type[MethodConfig]
    title: str
    family: str
    """`full`, `local`, `sparse`, `recurrent-memory`, `constant-state`, ..."""
    equation: str
    """What a token reads, in one line of plain text."""
    paper: Paper
    cost: Cost = UNDECLARED
    causal: bool = True
    """Works where a token may see only itself and the past."""
    bidirectional: bool = False
    """Works where a token may see both sides."""
    streams: bool = True
    """Returns a state; without one, decode cells are `unsupported` rows."""
    segment_exact: bool = True
    """Keeps the segment law."""
    gradient_exact: bool = True
    """Its gradients are the derivative of its output; not so where a memory stops them or where a
    choice passes them straight through."""
    shift_period: Callable[[Any], int | None] = _relative
    """Shifting a sequence by this many tokens shifts its output: 1 for relative positions, a block
    for block-anchored patterns, None for absolute positions."""
    length_dependent: bool = False
    """A token's output depends on how long the call is."""
    reach: Callable[[Any], int | None] = _unbounded
    """Distance to the farthest token one layer reads, or None where there is no such bound."""
    miniature: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """Config overrides at which 32 tokens show who sees whom; unless given, sizes of 16 and more
    are scaled so that the largest is 8."""
    requires: tuple[str, ...] = ()
    """Optional packages it imports."""

    def __post_init__(self) -> None:
        for name in ("title", "family", "equation"):
            if not getattr(self, name).strip():
                raise ValueError(f"a method's {name} is empty")
        if not (self.causal or self.bidirectional):
            raise ValueError("a method is causal, bidirectional or both")
        if (self.build is built_by_parts) is (self.parts is None):
            raise ValueError("a method has a build or parts, and not both")
        if self.parts is None and min(self.cost) < 0:
            raise ValueError(f"cost exponents are not negative, got {tuple(self.cost)}")


def state_tensors(state: State) -> Iterator[Tensor]:
    """Every tensor of a state, depth first."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:  # pyright: ignore[reportUnknownVariableType]
            yield from state_tensors(part)
    elif state is not None and not isinstance(state, int):
        raise TypeError(f"a state holds tensors, integers, None and tuples, got {type(state)}")


def state_bytes(state: State) -> int:
    """Bytes of storage a state keeps alive: a narrow view of a long tensor counts as all of it."""
    storages = {}
    for tensor in state_tensors(state):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def copy_state(state: State) -> State:
    """The same state in storage of its own."""
    return _map_state(state, Tensor.clone)


def detach_state(state: State) -> State:
    """The same state cut from the graph that made it."""
    return _map_state(state, Tensor.detach)


def _map_state(state: State, change: Callable[[Tensor], Tensor]) -> State:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, tuple):
        parts = [_map_state(part, change) for part in state]  # pyright: ignore[reportUnknownVariableType]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state
