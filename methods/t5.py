"""Relative position buckets: a head adds a learned number for a key's distance, coarser far away.

Source: Raffel et al. (2019), "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", arXiv:1910.10683, section 2.1. Scores are not divided by sqrt K; as in the authors'
code, the queries' weights start that much smaller. Left out: one table shared by all layers, since
a method knows its own layer only; dropout.
Shapes: B batch, T tokens, D width, H heads, K head width, S keys.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcbench.blocks import Heads, KVCache, grow_cache, position_of
from lcbench.distance_bias import biased_attention
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How distances are told apart."""

    num_buckets: int = 32
    """Numbers of a head; half of them for each side where a query sees both."""
    max_distance: int = 128
    """All distances from here on share one bucket."""

    def __post_init__(self) -> None:
        if self.num_buckets < 4:
            raise ValueError(f"num_buckets must be at least 4, got {self.num_buckets}")
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"max_distance must be above num_buckets // 2 = {self.num_buckets // 2}, the "
                f"distances that have a bucket each, got {self.max_distance}"
            )


class T5(Method):
    """Softmax over all keys, biased by bucket: O(T^2) work, O(T) memory and state."""

    near: Tensor

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.farthest = config.max_distance
        self.heads = Heads(shape, rotary=False)
        self.bias = nn.Parameter(torch.empty(shape.num_heads, config.num_buckets))
        with torch.no_grad():
            self.bias.normal_(std=shape.d_model**-0.5)
            self.heads.q.weight.mul_(shape.head_dim**-0.5)
        after = 0 if shape.causal else config.max_distance
        offsets = torch.arange(-config.max_distance, after + 1)
        near = buckets(offsets, config.num_buckets, config.max_distance, causal=shape.causal)
        self.register_buffer("near", near, persistent=False)

    def forward(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and all keys and values so far."""
        position_of(state, causal=self.shape.causal)
        q, k, v = self.heads.split(x)  # q [B, H, T, K]
        if not self.shape.causal:
            after = x.size(1) - 1
            table = self._table(before=after, after=after)
            return self.heads.merge(biased_attention(q, k, v, table, after=after, scale=1.0)), None
        k, v, cache = grow_cache(state, k, v)
        table = self._table(before=k.size(2) - 1)
        return self.heads.merge(biased_attention(q, k, v, table, scale=1.0)), cache

    def _table(self, *, before: int, after: int = 0) -> Tensor:
        """What is added to the score of a key at each distance, `[H, before + 1 + after]`."""
        table = self.bias[:, self.near]  # from max_distance before the query on
        parts = [table[:, max(0, self.farthest - before) : self.farthest + 1 + after]]
        if before > self.farthest:
            parts.insert(0, table[:, :1].expand(-1, before - self.farthest))
        if after > self.farthest:
            parts.append(table[:, -1:].expand(-1, after - self.farthest))
        return torch.cat(parts, 1)


def buckets(offsets: Tensor, num_buckets: int, max_distance: int, *, causal: bool) -> Tensor:
    """The bucket of keys at `offsets` (below 0: before the query), int64.

    Half of a side's buckets hold one distance each, the others ranges that widen up to
    `max_distance`; the farthest takes all beyond. Keys after the query have buckets of their own,
    or none, which is told as the query's, where it is causal.
    """
    if not causal:
        num_buckets //= 2
    exact = num_buckets // 2
    distance = offsets.neg().clamp(min=0) if causal else offsets.abs()
    # In float32, whatever the default: where a range begins hangs on how the logarithm rounds.
    octaves = torch.log(distance.float() / exact) / math.log(max_distance / exact)
    far = exact + (octaves * (num_buckets - exact)).long()
    bucket = torch.where(distance < exact, distance, far.clamp(max=num_buckets - 1))
    return bucket if causal else bucket + num_buckets * (offsets > 0)


METHOD = MethodSpec(
    build=T5,
    config=Config,
    title="Relative position buckets",
    family="full",
    equation="y_i = sum over j <= i of softmax_j(q_i . k_j + b_h[bucket(i - j)]) v_j",
    paper=Paper(
        "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        2019,
        "1910.10683",
    ),
    cost=Cost(time=2.0, memory=1.0, state=1.0),
    bidirectional=True,
)
