"""Linear attention: a positive kernel in place of the softmax, so that sums hold all of the past.

Source: Katharopoulos et al. (2020), "Transformers are RNNs", arXiv:2006.16236, sections 3.2 to 3.4,
with the kernel of elu(x) + 1 and the small constant in the normaliser of the authors' code. Left
out: positions, which the paper adds to the model's input; order is told by the mask alone, and in
the backbone by its short convolution.
Shapes: B batch, T tokens, D width, H heads, K head width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.blocks import Heads, position_of
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper

LEAST_WEIGHT = 1e-6
"""Added to the sum of a query's weights, which else could be 0."""


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Nothing to set."""


class LinearAttention(Method):
    """Values weighted by phi(q) . phi(k): O(T K) work a feature, O(K^2) state a head."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.heads = Heads(shape, rotary=False)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the sums `[B, H, K, K + 1]`."""
        q, k, v = self.heads.split(x)  # q [B, H, T, K]
        q, k = _positive(q), _positive(k)
        v = F.pad(v, (0, 1), value=1.0)  # one more value, always 1, sums up the weights
        if self.shape.causal:
            y, state = linear_recurrence(q, k, v, state=state)
        else:
            position_of(state, causal=False)
            y = q @ (k.mT @ v)
        return self.heads.merge(y[..., :-1] / (y[..., -1:] + LEAST_WEIGHT)), state


def _positive(x: Tensor) -> Tensor:
    """elu(x) + 1, without the 1 that rounds off what is small."""
    return torch.exp(x.clamp(max=0)) + F.relu(x)


METHOD = MethodSpec(
    build=LinearAttention,
    config=Config,
    title="Linear attention",
    family="constant-state",
    equation=(
        "y_i = sum over j <= i of w_ij v_j / sum of w_ij, where w_ij = phi(q_i) . phi(k_j)"
        " and phi(x) = elu(x) + 1"
    ),
    paper=Paper(
        "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
        2020,
        "2006.16236",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    bidirectional=True,
)
