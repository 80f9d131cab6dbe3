"""Full softmax attention: a query sees every token up to itself, or the whole sequence.

Source: Vaswani et al. (2017), "Attention Is All You Need", arXiv:1706.03762, section 3.2, with the
rotary positions of Su et al. (2021), arXiv:2104.09864. Left out: biases, dropout.
Shapes: B batch, T tokens, D width, H heads, K head width.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lcbench.attention import full_attention
from lcbench.blocks import (
    Heads,
    KVCache,
    grow_cache,
    position_of,
    positions_of,
    sinusoids,
)
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How a token's position is told."""

    positions: Literal["rotary", "sinusoidal", "none"] = "rotary"
    """`rotary` turns queries and keys; `sinusoidal` is added to the input at absolute positions."""


class Vanilla(Method):
    """Softmax over all keys: O(T^2) work, O(T) memory and state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.heads = Heads(shape, rotary=config.positions == "rotary")
        self.is_sinusoidal = config.positions == "sinusoidal"

    def forward(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and all keys and values so far."""
        position = position_of(state, causal=self.shape.causal)
        if self.is_sinusoidal:
            x = x + sinusoids(positions_of(x, position), x.size(2)).to(x)
        q, k, v = self.heads.split(x, position)  # q [B, H, T, K]
        if not self.shape.causal:
            return self.heads.merge(full_attention(q, k, v, causal=False)), None
        k, v, cache = grow_cache(state, k, v)
        return self.heads.merge(full_attention(q, k, v)), cache


def _shift_period(config: Config) -> int | None:
    return None if config.positions == "sinusoidal" else 1


METHOD = MethodSpec(
    build=Vanilla,
    config=Config,
    title="Full attention",
    family="full",
    equation="y_i = sum over j <= i of softmax_j(q_i . k_j / sqrt K) v_j",
    paper=Paper("Attention Is All You Need", 2017, "1706.03762"),
    cost=Cost(time=2.0, memory=1.0, state=1.0),
    bidirectional=True,
    shift_period=_shift_period,
)
