"""Mamba-2: a state-space model whose heads decay as the token decides and share keys and queries.

Source: Dao and Gu (2024), "Transformers are SSMs", arXiv:2405.21060, sections 6 and 7, one group
for B and C. The paper's block is twice as wide as the model and has no MLP beside it; the backbone
has one, so that here it is as wide as the model, and the state D / 2 wide, which makes vanilla's
parameters. Left out: the convolution over x, B and C, in whose place the backbone has one over the
layer's input; the limits of a step.
Shapes: B batch, T tokens, D width, H heads, P head width, N state width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.blocks import RMSNorm, Steps, split_heads
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How large the state is."""

    expand: int = 1
    """Width of all heads together over D."""
    state_ratio: float = 0.5
    """Width of B and C over D, N / D."""

    def __post_init__(self) -> None:
        if self.expand < 1:
            raise ValueError(f"expand must be at least 1, got {self.expand}")
        if not self.state_ratio > 0:
            raise ValueError(f"state_ratio must be above 0, got {self.state_ratio}")


class Mamba2(Method):
    """A state written by B and read by C: O(T N) work a feature, O(N P) state a head."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        inner = config.expand * shape.d_model
        width = max(1, round(config.state_ratio * shape.d_model))
        self.x = nn.Linear(shape.d_model, inner, bias=False)
        self.b = nn.Linear(shape.d_model, width, bias=False)
        self.c = nn.Linear(shape.d_model, width, bias=False)
        self.gate = nn.Linear(shape.d_model, inner, bias=False)
        self.steps = Steps(shape)
        self.skip = nn.Parameter(torch.ones(shape.num_heads, 1, 1))
        self.norm = RMSNorm(inner, eps=1e-5)
        self.o = nn.Linear(inner, shape.d_model, bias=False)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the state `[B, H, N, P]`."""
        step, log_decay = self.steps(x)  # [B, H, T, 1]
        value = split_heads(F.silu(self.x(x)), self.shape.num_heads)  # [B, H, T, P]
        b, c = (F.silu(part(x))[:, None] for part in (self.b, self.c))  # [B, 1, T, N]
        written = (value * step).to(value.dtype)
        y, state = linear_recurrence(c, b, written, log_decay=log_decay, state=state)
        y = torch.addcmul(y, value, self.skip.to(value.dtype)).transpose(1, 2).flatten(2)
        return self.o(self.norm(y * F.silu(self.gate(x)))), state


METHOD = MethodSpec(
    build=Mamba2,
    config=Config,
    title="Mamba-2",
    family="constant-state",
    equation=(
        "S_t = exp(-A d_t) S_(t-1) + d_t B_t x_t, y_t = C_t S_t + D x_t,"
        " where d_t = softplus(w u_t + b)"
    ),
    paper=Paper(
        "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured "
        "State Space Duality",
        2024,
        "2405.21060",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
)
