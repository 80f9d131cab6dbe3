"""Sliding-window attention: a query sees itself and the `window - 1` keys before it.

Source: Beltagy et al. (2020), "Longformer", arXiv:2004.05150, section 3.1. Left out: dilation.
Where tokens may see both sides, a query sees the keys less than `window` away on each side.
Shapes: B batch, T tokens, D width, H heads, K head width, W window.
"""

from dataclasses import dataclass

from torch import Tensor

from lcbench.attention import banded_attention
from lcbench.blocks import Heads, WindowCache, extend_window, position_of
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How far a query sees."""

    window: int = 64
    """Keys a query sees, itself included; on each side where it sees both."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")


class SlidingWindow(Method):
    """Softmax over a band of W keys: O(T W) work, O(T) memory, O(W) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.window = config.window
        self.heads = Heads(shape)

    def forward(
        self, x: Tensor, state: WindowCache | None = None
    ) -> tuple[Tensor, WindowCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the last W - 1 keys and values."""
        causal = self.shape.causal
        q, k, v = self.heads.split(x, position_of(state, causal=causal))  # q [B, H, T, K]
        if not causal:
            y = banded_attention(q, k, v, window=self.window, causal=False)
            return self.heads.merge(y), None
        k, v, cache = extend_window(state, k, v, keep=self.window - 1)
        return self.heads.merge(banded_attention(q, k, v, window=self.window)), cache


def _reach(config: Config) -> int:
    return config.window - 1


METHOD = MethodSpec(
    build=SlidingWindow,
    config=Config,
    title="Sliding window",
    family="local",
    equation="y_i = sum over i - W < j <= i of softmax_j(q_i . k_j / sqrt K) v_j",
    paper=Paper("Longformer: The Long-Document Transformer", 2020, "2004.05150"),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    bidirectional=True,
    reach=_reach,
)
