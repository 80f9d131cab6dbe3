"""A method on the bench: seeded modules and inputs to try it on, and how far two outputs differ.

Letters: B batch, T tokens, D `d_model`.
"""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lcbench.method import Method, MethodConfig, MethodSpec, ModelShape
from lcbench.model import build_method

TOKENS = 67
"""The usual length of a sequence: prime, so that no block of any method divides it."""

TRAIN_CONTEXT = 32
"""What a method is told that it is trained at: shorter than most sequences it is tried on."""

MAX_CONTEXT = 405
"""Tokens of the longest sequence a declared reach is measured on."""

LENGTHS = (2, 3, 8, 17, TOKENS)
"""Sequences to try, shortest first, so that the first failure found is a small one."""

TOLERANCE = 1e-7
"""What two ways to the same float64 output may differ by, as a part of its scale."""


class Kept(NamedTuple):
    """A law that holds, and what was seen that is worth telling."""

    detail: str


@dataclass(frozen=True)
class Probe:
    """One method at one configuration; equal probes build equal modules and draw equal inputs."""

    spec: MethodSpec
    config: MethodConfig
    seed: int = 0
    layer: int = 0
    num_layers: int = 1
    """Where in a model it stands."""

    @property
    def reach(self) -> int | None:
        """Declared distance to the farthest token that a token reads, or None without a bound."""
        return self.spec.reach(self.config)

    @property
    def context(self) -> int:
        """Tokens that hold twice the reach and three blocks, so that there is a beyond of both."""
        period = self.spec.shift_period(self.config) or 0
        return min(max(TOKENS, 2 * (self.reach or 0) + 5, 3 * period + 5), MAX_CONTEXT)

    def shape(
        self, *, causal: bool | None = None, d_model: int = 32, num_heads: int = 4
    ) -> ModelShape:
        """A small place in a model, causal where the method can be.

        The trained context is so short that what a method does beyond it is seen too.
        """
        causal = self.spec.causal if causal is None else causal
        return ModelShape(
            d_model=d_model,
            num_heads=num_heads,
            layer=self.layer,
            num_layers=self.num_layers,
            causal=causal,
            train_context=TRAIN_CONTEXT,
        )

    def build(
        self,
        dtype: torch.dtype = torch.float64,
        *,
        shape: ModelShape | None = None,
        jitter: float = 0.05,
    ) -> Method:
        """The method with seeded parameters, in evaluation mode; the global generator is untouched.

        Args:
            dtype: Of its parameters and buffers.
            shape: Where it stands; `shape()` unless given.
            jitter: Standard deviation of what is added to every parameter. What starts at zero (a
                gate, a bias table, an output projection) would hide all that it switches on.

        Raises:
            ValueError: A shape that asks for what the method does not claim.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.seed)
            method = build_method(self.spec, shape or self.shape(), self.config)
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=jitter)
        return method.to(dtype).eval()

    def tokens(
        self,
        batch: int,
        length: int,
        dtype: torch.dtype = torch.float64,
        *,
        d_model: int = 32,
        stream: int = 0,
    ) -> Tensor:
        """Standard normal inputs `[B, T, D]`; each stream is another draw."""
        generator = torch.Generator().manual_seed(1000 * self.seed + stream)
        x = torch.randn(batch, length, d_model, generator=generator, dtype=torch.float64)
        return x.to(dtype)

    def shrunk(self) -> "Probe":
        """This probe with its integers halved until a sequence of `MAX_CONTEXT` shows its reach."""
        config = self.config
        for field in dataclasses.fields(config):
            while (reach := self.spec.reach(config)) is not None and 2 * reach + 5 > MAX_CONTEXT:
                value = getattr(config, field.name)
                if isinstance(value, bool) or not isinstance(value, int):
                    break
                try:
                    smaller = dataclasses.replace(config, **{field.name: value // 2})
                except ValueError:
                    break
                if (self.spec.reach(smaller) or 0) >= reach:
                    break
                config = smaller
        return dataclasses.replace(self, config=config)


class Difference(NamedTuple):
    """Where two outputs differ most."""

    size: float
    """Largest absolute difference over the largest absolute value expected; infinite for a NaN."""
    token: int
    """Position in the sequence at which it lies."""


def difference(actual: Tensor, expected: Tensor) -> Difference:
    """Compare two outputs `[B, T, D]`."""
    if not expected.numel():
        return Difference(0.0, 0)
    scale = expected.abs().max().item() or 1.0
    by_token = (actual - expected).abs().nan_to_num(nan=torch.inf).amax(dim=(0, 2))  # [T]
    token = int(by_token.argmax())
    return Difference(by_token[token].item() / scale, token)
