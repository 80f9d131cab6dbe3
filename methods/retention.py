"""Retention: linear attention that forgets, each head at a fixed rate of its own.

Source: Sun et al. (2023), "Retentive Network", arXiv:2307.08621, sections 2.1 and 2.2, equations 5
and 8. Values are twice as wide as keys, as there; keys are D / 2 wide in all, so that the layer has
vanilla's parameters. Left out: the scalings of scores in section 2.1, which the norm of each head
undoes; the growth factors of xPos, whose part the decays play in the paper's equations as well.
Shapes: B batch, T tokens, D width, H heads, K key width, V value width, D / H.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.blocks import Heads
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How wide the keys are."""

    key_ratio: float = 0.5
    """Width of keys over that of values, K / V."""

    def __post_init__(self) -> None:
        if not self.key_ratio > 0:
            raise ValueError(f"key_ratio must be above 0, got {self.key_ratio}")


class Past(NamedTuple):
    """What the next token may read."""

    position: int
    """Tokens seen so far."""
    memory: Tensor
    """`[B, H, K, V]`."""


class Retention(Method):
    """Values weighted by q . k and by distance: O(T K) work a feature, O(K V) state a head."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.heads = Heads(shape, key_ratio=config.key_ratio)
        self.gate = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def forward(self, x: Tensor, state: Past | None = None) -> tuple[Tensor, Past]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the memory after them."""
        position, memory = state or (0, None)
        q, k, v = self.heads.split(x, position)  # q [B, H, T, K]
        y, memory = linear_recurrence(q, k, v, log_decay=self._log_decay(x), state=memory)
        y = F.layer_norm(y.transpose(1, 2), y.shape[-1:]).flatten(2)
        return self.heads.o(y * F.silu(self.gate(x))), Past(position + x.size(1), memory)

    def _log_decay(self, x: Tensor) -> Tensor:
        """Logarithms of 1 - 2^-5, 1 - 2^-6, ... for the heads, `[1, H, 1, 1]`."""
        wide = torch.promote_types(x.dtype, torch.float32)
        head = torch.arange(self.heads.num_heads, device=x.device, dtype=wide)
        return torch.log1p(-torch.exp2(-5 - head)).view(1, -1, 1, 1)


METHOD = MethodSpec(
    build=Retention,
    config=Config,
    title="Retention (RetNet)",
    family="constant-state",
    equation=(
        "S_t = (1 - 2^(-5 - h)) S_(t-1) + k_t v_t, y_t = norm(q_t S_t) silu(g_t),"
        " for head h = 0, 1, ..."
    ),
    paper=Paper(
        "Retentive Network: A Successor to Transformer for Large Language Models",
        2023,
        "2307.08621",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
)
