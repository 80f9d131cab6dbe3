"""Attention with linear biases: a head trusts a key less the farther it lies, at a pace of its own.

Source: Press et al. (2021), "Train Short, Test Long", arXiv:2108.12409, section 3; where the
number of heads is no power of two, slopes as in the authors' code. There are no other positions.
The paper is causal: where tokens may see both sides, here a distance counts the same on either.
Shapes: B batch, T tokens, D width, H heads, K head width, S keys.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lcbench.blocks import Heads, KVCache, grow_cache, position_of
from lcbench.distance_bias import biased_attention
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Nothing to set: the slopes follow from the number of heads."""


class Alibi(Method):
    """Softmax over all keys, biased by distance: O(T^2) work, O(T) memory and state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.heads = Heads(shape, rotary=False)
        self.slopes = slopes(shape.num_heads)

    def forward(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and all keys and values so far."""
        position_of(state, causal=self.shape.causal)
        q, k, v = self.heads.split(x)  # q [B, H, T, K]
        if not self.shape.causal:
            after = x.size(1) - 1
            table = self._bias(q, before=after, after=after)
            return self.heads.merge(biased_attention(q, k, v, table, after=after)), None
        k, v, cache = grow_cache(state, k, v)
        table = self._bias(q, before=k.size(2) - 1)
        return self.heads.merge(biased_attention(q, k, v, table)), cache

    def _bias(self, q: Tensor, *, before: int, after: int = 0) -> Tensor:
        """What each head adds to the score of a key at each distance, `[H, before + 1 + after]`."""
        # Distances past 256 are no bfloat16 numbers: they are multiplied before they are rounded.
        wide = torch.promote_types(q.dtype, torch.float32)
        distance = torch.arange(-before, after + 1, device=q.device, dtype=wide).abs()
        return torch.tensor(self.slopes, device=q.device, dtype=wide)[:, None] * -distance


def slopes(num_heads: int) -> list[float]:
    """A geometric sequence from `2^(-8 / H)` down to `2^-8`, one number a head.

    Where H is no power of two: the sequence of the next lower power, then every other number of the
    sequence of the next higher one.
    """
    power = 2 ** int(math.log2(num_heads))
    exponents = [8 * head / power for head in range(1, power + 1)]
    exponents += [4 * head / power for head in range(1, 2 * power, 2)]
    return [2.0**-exponent for exponent in exponents[:num_heads]]


METHOD = MethodSpec(
    build=Alibi,
    config=Config,
    title="Linear distance bias",
    family="full",
    equation="y_i = sum over j <= i of softmax_j(q_i . k_j / sqrt K - m_h (i - j)) v_j",
    paper=Paper(
        "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation",
        2021,
        "2108.12409",
    ),
    cost=Cost(time=2.0, memory=1.0, state=1.0),
    bidirectional=True,
)
