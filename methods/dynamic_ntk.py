"""Dynamic NTK: full attention whose rotary base grows with the input past the trained context.

Source: Peng et al. (2023), "YaRN", arXiv:2309.00071, sections 3.1 (the base) and 3.3 (the length it
follows), after two posts to r/LocalLLaMA; `factor` as in Hugging Face transformers. A call
turns all positions by the base for the tokens seen at its end: what it gives for its tokens is what
one call over the whole sequence gives for them, and nothing is left of the bases of earlier calls.
So beyond the trained context each call turns all keys anew; keys cached as they were turned, which
Hugging Face has, would save that and mix bases. Left out: YaRN's temperature and ramp.
Shapes: B batch, T tokens, D width, H heads, K head width, S keys, L trained context.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from lcbench.attention import full_attention
from lcbench.blocks import (
    Heads,
    KVCache,
    angles_of,
    grow_cache,
    position_of,
    positions_of,
    turn,
)
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper

BASE = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How fast the base follows the length."""

    factor: float = 1.0
    """Growth of the base for each trained context beyond the first; 1 stretches the longest
    wavelength just as far as the input."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor must be above 0 and finite, got {self.factor}")


class DynamicNTK(Method):
    """Softmax over all keys: O(T^2) work, O(T) memory and state.

    Raises:
        ValueError: A head width below 4, whose one wavelength has nothing to be stretched against.
    """

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        if shape.head_dim < 4:
            raise ValueError(f"head_dim must be at least 4, got {shape.head_dim}")
        self.factor = config.factor
        self.heads = Heads(shape)

    def forward(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and all keys and values so far."""
        causal, cache = self.shape.causal, None
        q, k, v = self.heads.split(x, position_of(state, causal=causal))  # q [B, H, T, K]
        if causal:
            k, v, cache = grow_cache(state, k, v)
        if k.size(2) > self.shape.train_context:
            q, k = self._stretch(q, k)
        return self.heads.merge(full_attention(q, k, v, causal=causal)), cache

    def _stretch(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries `[B, H, T, K]` and keys `[B, H, S, K]` from the trained base to that of S."""
        num_keys, width = k.shape[2:]
        base = stretched_base(
            num_keys, width, train_context=self.shape.train_context, factor=self.factor
        )
        positions = positions_of(k.flatten(0, 1), 0)
        one = positions[:1] + 1
        per_token = angles_of(one, width, base=base) - angles_of(one, width, base=BASE)  # [1, K/2]
        angles = positions.double()[:, None] * per_token
        return turn(q, angles[num_keys - q.size(2) :]), turn(k, angles)


def stretched_base(length: int, width: int, *, train_context: int, factor: float) -> float:
    """The rotary base for `length` tokens: the trained one up to `train_context`, larger beyond."""
    growth = factor * max(1.0, length / train_context) - (factor - 1)
    return BASE * growth ** (width / (width - 2))


METHOD = MethodSpec(
    build=DynamicNTK,
    config=Config,
    title="Dynamic NTK rotary",
    family="full",
    equation=(
        "y_i = sum over j <= i of softmax_j(q_i . R(i - j) k_j / sqrt K) v_j, where R has base "
        "10000 (s S / L - s + 1)^(K / (K - 2)) for the S > L tokens seen at the end of the call"
    ),
    paper=Paper(
        "YaRN: Efficient Context Window Extension of Large Language Models", 2023, "2309.00071"
    ),
    cost=Cost(time=2.0, memory=1.0, state=1.0),
    bidirectional=True,
    segment_exact=False,
    length_dependent=True,
)
