"""Running mean: a token reads the mean of itself and of everything before it.

Source: Zhang et al. (2018), "Accelerating Neural Transformer via an Average Attention Network",
arXiv:1805.00631, section 3.1. Left out: the gate and the feed-forward layer around it.
Shapes: B batch, T tokens, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Nothing to set."""


class RunningMean(Method):
    """A projected mean: O(T) work and memory, O(1) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.values = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def forward(
        self, x: Tensor, state: tuple[int, Tensor] | None = None
    ) -> tuple[Tensor, tuple[int, Tensor]]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, how many there were and their sum."""
        seen, total = state or (0, x.new_zeros(()))
        sums = total + self.values(x).cumsum(1)  # [B, T, D]
        counts = seen + 1 + torch.arange(x.size(1), device=x.device)  # [T]
        return (sums / counts[:, None]).to(x.dtype), (seen + x.size(1), sums[:, -1:].clone())


METHOD = MethodSpec(
    build=RunningMean,
    config=Config,
    title="Running mean",
    family="constant-state",
    equation="y_i = 1 / i * sum over j <= i of W x_j",
    paper=Paper(
        "Accelerating Neural Transformer via an Average Attention Network", 2018, "1805.00631"
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
)
