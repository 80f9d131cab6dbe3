"""Adaptive span: each head learns how far back it reads, and pays for the distance.

Source: Sukhbaatar et al. (2019), "Adaptive Attention Span in Transformers", arXiv:1905.07799,
section 3. Weights are multiplied by a soft mask and normalised again, which is to add the mask's
logarithm to the scores. Rotary positions stand where the paper learns a vector for each distance,
and spans start at the whole width where the authors' code starts at 0, so that an untrained layer
costs what a trained one may. Left out: spans that follow the input (section 3.1).
Shapes: B batch, T tokens, D width, H heads, K head width, S widest span, R ramp, Z widest now.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcbench.blocks import Heads, WindowCache, extend_window, position_of
from lcbench.distance_bias import biased_attention
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How wide spans may be and what they cost."""

    max_span: int = 512
    """Keys a query sees at most, itself included, S."""
    ramp: int = 32
    """Tokens over which the mask falls from 1 to 0 beyond a span, R."""
    span_loss: float = 2e-6
    """What a token of a layer's mean span adds to the training loss, in nats."""

    def __post_init__(self) -> None:
        for name in ("max_span", "ramp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.span_loss < math.inf:
            raise ValueError(f"span_loss must be at least 0 and finite, got {self.span_loss}")


class AdaptiveSpan(Method):
    """Softmax over learned spans: O(T Z) work, O(T) memory, O(Z) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.max_span, self.ramp = config.max_span, config.ramp
        self.span_loss = config.span_loss
        self.heads = Heads(shape)
        self.fraction = nn.Parameter(torch.ones(shape.num_heads))

    def forward(
        self, x: Tensor, state: WindowCache | None = None
    ) -> tuple[Tensor, WindowCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the keys and values within Z."""
        q, k, v = self.heads.split(x, position_of(state, causal=True))  # q [B, H, T, K]
        table = self._log_mask()
        k, v, cache = extend_window(state, k, v, keep=table.size(1) - 1)
        return self.heads.merge(biased_attention(q, k, v, table)), cache

    def spans(self) -> Tensor:
        """Each head's span in tokens, `[H]`, from 0 to S."""
        fraction = self.fraction.to(torch.promote_types(self.fraction.dtype, torch.float32))
        # A step may leave the range; the gradient passes the clamp, so that another may return.
        return (fraction + (fraction.clamp(0, 1) - fraction).detach()) * self.max_span

    def penalty(self) -> Tensor:
        """The loss that keeps spans short: their mean, in tokens, times `span_loss`."""
        return self.span_loss * self.spans().mean()

    def _log_mask(self) -> Tensor:
        """Logarithms of the mask, `[H, Z]`, the farthest key that any head reads first."""
        spans = self.spans()
        # The one number that must reach the host: with it, nothing is scored that no head reads.
        widest = math.ceil(spans.detach().max().item() + self.ramp)
        reach = min(self.max_span, widest)
        distance = torch.arange(reach - 1, -1, -1, device=spans.device, dtype=spans.dtype)
        mask = ((self.ramp + spans[:, None] - distance) / self.ramp).clamp(max=1)
        # Clamped from below as well, or the gradient of what is masked out would not be finite.
        log = mask.clamp(min=torch.finfo(mask.dtype).tiny).log()
        return log.masked_fill(mask <= 0, -math.inf)


def _reach(config: Config) -> int:
    return config.max_span - 1


METHOD = MethodSpec(
    build=AdaptiveSpan,
    config=Config,
    title="Adaptive span",
    family="local",
    equation=(
        "y_i = sum over j <= i of softmax_j(q_i . k_j / sqrt K + log m_h(i - j)) v_j, "
        "where m_h(d) = clamp((R + z_h - d) / R, 0, 1) and d < S"
    ),
    paper=Paper("Adaptive Attention Span in Transformers", 2019, "1905.07799"),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    gradient_exact=False,  # the clamp that keeps a span within its bounds passes gradients through
    reach=_reach,
)
