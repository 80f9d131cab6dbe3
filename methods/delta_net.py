"""DeltaNet: a token writes only what its key does not recall from the state yet.

Source: Yang et al. (2024), "Parallelizing Linear Transformers with the Delta Rule over Sequence
Length", arXiv:2406.06484, sections 3 and 4; the rule is Schlag et al.'s (2021), arXiv:2102.11174.
`negative_eigenvalues` is from Grazzi et al. (2024), "Unlocking State-Tracking in Linear RNNs
Through Negative Eigenvalues", arXiv:2411.12537: where b is at most 1 no transition of the state has
an eigenvalue below 0, and such a recurrence cannot follow parity.
Left out: short convolutions over queries, keys and values, in whose place the backbone has one over
the layer's input; the scale of queries, which the norm of each head undoes.
Shapes: B batch, T tokens, D width, H heads, K head width.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.blocks import Heads, RMSNorm, unit
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How much a token may correct."""

    negative_eigenvalues: bool = False
    """Let b reach 2 instead of 1, so that a token can turn the sign of what its key recalls."""


class DeltaNet(Method):
    """A state corrected token by token: O(T (C + K)) work a feature, O(K^2) state a head."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.heads = Heads(shape, rotary=False)
        self.beta = nn.Linear(shape.d_model, shape.num_heads, bias=False)
        self.most = 2.0 if config.negative_eigenvalues else 1.0
        self.norm = RMSNorm(shape.head_dim, eps=1e-6)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the state `[B, H, K, K]`."""
        q, k, v = (F.silu(part) for part in self.heads.split(x))  # q [B, H, T, K]
        beta = self.most * self.beta(x).sigmoid().transpose(1, 2)[..., None]  # [B, H, T, 1]
        y, state = linear_recurrence(unit(q), unit(k), v, beta=beta, state=state)
        return self.heads.o(self.norm(y.transpose(1, 2)).flatten(2)), state


METHOD = MethodSpec(
    build=DeltaNet,
    config=Config,
    title="DeltaNet",
    family="constant-state",
    equation=(
        "S_t = S_(t-1) + b_t k_t (v_t - k_t S_(t-1)), y_t = norm(q_t S_t),"
        " where b_t = sigmoid(w x_t), or twice that"
    ),
    paper=Paper(
        "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
        2024,
        "2406.06484",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
)
