"""Gated DeltaNet: the state decays as the token decides, then is corrected by the delta rule.

Source: Yang et al. (2024), "Gated Delta Networks", arXiv:2412.06464, sections 3.1 and 3.4, with
Mamba-2's decays. Values are twice as wide as keys, as in the authors' code; keys are D / 2 wide in
all, so that the layer has vanilla's parameters. Left out: short convolutions over queries, keys and
values, in whose place the backbone has one over the layer's input; the scale of queries, which the
norm of each head undoes. `negative_eigenvalues` is from Grazzi et al. (2024), arXiv:2411.12537.
Shapes: B batch, T tokens, D width, H heads, K key width, V value width, D / H.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.blocks import Heads, RMSNorm, Steps, unit
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How wide the keys are, and how much a token may correct."""

    key_ratio: float = 0.5
    """Width of keys over that of values, K / V."""
    negative_eigenvalues: bool = False
    """Let b reach 2 instead of 1, so that a token can turn the sign of what its key recalls."""

    def __post_init__(self) -> None:
        if not self.key_ratio > 0:
            raise ValueError(f"key_ratio must be above 0, got {self.key_ratio}")


class GatedDeltaNet(Method):
    """A state that decays and is corrected: O(T (C + K)) work a feature, O(K V) state a head."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.heads = Heads(shape, rotary=False, key_ratio=config.key_ratio)
        self.steps = Steps(shape)
        self.beta = nn.Linear(shape.d_model, shape.num_heads, bias=False)
        self.most = 2.0 if config.negative_eigenvalues else 1.0
        self.gate = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.norm = RMSNorm(shape.head_dim, eps=1e-6)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the state `[B, H, K, V]`."""
        q, k, v = (F.silu(part) for part in self.heads.split(x))  # q [B, H, T, K]
        beta = self.most * self.beta(x).sigmoid().transpose(1, 2)[..., None]  # [B, H, T, 1]
        _, log_decay = self.steps(x)
        y, state = linear_recurrence(
            unit(q), unit(k), v, log_decay=log_decay, beta=beta, state=state
        )
        y = self.norm(y.transpose(1, 2)).flatten(2)
        return self.heads.o(y * F.silu(self.gate(x))), state


METHOD = MethodSpec(
    build=GatedDeltaNet,
    config=Config,
    title="Gated DeltaNet",
    family="constant-state",
    equation=("S_t = a_t S_(t-1) + b_t k_t (v_t - k_t a_t S_(t-1)), y_t = norm(q_t S_t) silu(g_t)"),
    paper=Paper("Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024, "2412.06464"),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
)
