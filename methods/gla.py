"""Gated linear attention: every row of a head's state is forgotten as the token before it decides.

Source: Yang et al. (2023), "Gated Linear Attention Transformers with Hardware-Efficient Training",
arXiv:2312.06635, sections 4.2 and 4.4, with its widths: keys D / 2 in all, values D, a decay of
rank 16, temperature 16. Left out: the bias of the output gate, and the scale of queries, which the
norm of each head undoes.
Shapes: B batch, T tokens, D width, H heads, K key width, V value width, D / H.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.blocks import Heads, split_heads
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How wide the keys are, and how a decay is made."""

    key_ratio: float = 0.5
    """Width of keys over that of values, K / V."""
    decay_rank: int = 16
    """Width between the two projections that make the decays."""
    temperature: float = 16.0
    """Root taken of a decay: the higher, the slower the state is forgotten."""

    def __post_init__(self) -> None:
        for name in ("key_ratio", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.decay_rank < 1:
            raise ValueError(f"decay_rank must be at least 1, got {self.decay_rank}")


class GatedLinearAttention(Method):
    """A state with a decay a row and token: O(T K) work a feature, O(K V) state a head."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.temperature = config.temperature
        self.heads = Heads(shape, rotary=False, key_ratio=config.key_ratio)
        self.decay = nn.Sequential(
            nn.Linear(shape.d_model, config.decay_rank, bias=False),
            nn.Linear(config.decay_rank, shape.num_heads * self.heads.key_dim),
        )
        self.gate = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.norm = nn.LayerNorm(shape.head_dim)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the state `[B, H, K, V]`."""
        q, k, v = self.heads.split(x)  # q [B, H, T, K]
        y, state = linear_recurrence(q, k, v, log_decay=self._log_decay(x), state=state)
        y = self.norm(y.transpose(1, 2)).flatten(2)
        return self.heads.o(y * F.silu(self.gate(x))), state

    def _log_decay(self, x: Tensor) -> Tensor:
        """`[B, H, T, K]`, float32 at least: next to 1 a decay in bfloat16 is 1."""
        logits: Tensor = self.decay(x)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return split_heads(F.logsigmoid(logits.to(wide)) / self.temperature, self.heads.num_heads)


METHOD = MethodSpec(
    build=GatedLinearAttention,
    config=Config,
    title="Gated linear attention (GLA)",
    family="constant-state",
    equation=(
        "S_t = diag(a_t) S_(t-1) + k_t v_t, y_t = norm(q_t S_t) silu(g_t),"
        " where a_t = sigmoid(W x_t)^(1/16)"
    ),
    paper=Paper(
        "Gated Linear Attention Transformers with Hardware-Efficient Training", 2023, "2312.06635"
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
)
