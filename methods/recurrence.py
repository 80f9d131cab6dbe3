"""Segment recurrence: a query sees its segment so far and a memory of the tokens before the segment.

Source: Dai et al. (2019), "Transformer-XL", arXiv:1901.02860, sections 3.2 and 3.3. Segments begin at
multiples of `segment`, wherever a sequence is cut; the memory starts empty and takes no gradient to
its tokens, only to the weights that project it. Left out: gradients through a carried state, which
keeps projected keys and values rather than the inputs the paper keeps, so that a decoded token
projects itself alone; clamped distances.
Shapes: B batch, T tokens, D width, H heads, K head width, S segment, M memory, L = M + S distances.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lcbench.blocks import (
    Block,
    Heads,
    block_size,
    blockwise,
    owned,
    position_of,
    sinusoids,
    split_heads,
)
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How long a segment and the memory before it are."""

    segment: int = 64
    """Tokens of a segment, S."""
    memory: int = 64
    """Tokens before the segment that all of its queries see, M."""

    def __post_init__(self) -> None:
        if self.segment < 1:
            raise ValueError(f"segment must be at least 1, got {self.segment}")
        if self.memory < 0:
            raise ValueError(f"memory must be at least 0, got {self.memory}")


class Memory(NamedTuple):
    """Keys and values of the segment so far and of the M tokens before it, without gradients."""

    position: int
    """Tokens seen so far."""
    k: Tensor
    """`[B, H, at most L - 1, K]`."""
    v: Tensor


class Recurrence(Method):
    """Softmax over the segment and its memory: O(T (M + S)) work, O(T) memory, O(M + S) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.segment, self.memory = config.segment, config.memory
        self.heads = Heads(shape, rotary=False)
        self.distance = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(shape.num_heads, 1, shape.head_dim))
        self.distance_bias = nn.Parameter(torch.zeros(shape.num_heads, 1, shape.head_dim))
        # Not a buffer: casting the module would round it, and some devices have no float64.
        self.sinusoids = sinusoids(torch.arange(self.memory + self.segment).flip(0), shape.d_model)

    def forward(self, x: Tensor, state: Memory | None = None) -> tuple[Tensor, Memory]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and what the next token may read."""
        position = position_of(state, causal=True)
        q, k, v = self.heads.split(x)  # q [B, H, T, K]
        old_k, old_v = self._remembered(x, k, v)
        if state is not None:
            k, v = torch.cat((state.k, k), 2), torch.cat((state.v, v), 2)
            old_k, old_v = torch.cat((state.k, old_k), 2), torch.cat((state.v, old_v), 2)
        end = position + x.size(1)
        y = self._attend(q, k, v, old_k, old_v, position)
        keep = min(end, end % self.segment + self.memory)
        start = k.size(2) - keep
        memory = Memory(
            end, owned(old_k[:, :, start:]).detach(), owned(old_v[:, :, start:]).detach()
        )
        return self.heads.merge(y), memory

    def _remembered(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values in their memory role: the same values, with no gradient to the tokens."""
        if not torch.is_grad_enabled():
            return k, v
        fixed = x.detach()
        heads = self.heads
        return split_heads(heads.k(fixed), heads.num_heads), split_heads(
            heads.v(fixed), heads.num_heads
        )

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, old_k: Tensor, old_v: Tensor, position: int
    ) -> Tensor:
        """Attention of q `[B, H, T, K]`, whose first token is at `position`, in blocks."""
        batch, heads, tokens, width = q.shape
        scale = 1 / math.sqrt(width)
        distance_q, distance_k = self._distances((q + self.distance_bias.to(q.dtype)) * scale)
        content_q = (q + self.content_bias.to(q.dtype)) * scale
        base = position - (k.size(2) - tokens)
        blocks = self._blocks(position, tokens, base, batch * heads)

        parts = (content_q, k, v, old_k, old_v, distance_q)
        merged = (part.transpose(0, 1).flatten(0, 1) for part in parts)  # [H B, T, K]
        y = blockwise(_attend_block, blocks, *merged, distance_k)
        return y.unflatten(0, (heads, batch)).transpose(0, 1)

    def _distances(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose product scores each distance: W_r goes to whichever side is cheaper."""
        table = self.sinusoids.to(q)  # [L, D]
        if q.size(2) > 1:
            return q, split_heads(self.distance(table)[None], self.heads.num_heads)[0]
        weight = self.distance.weight.to(q.dtype).unflatten(0, (self.heads.num_heads, -1))
        return q @ weight, table[None]

    def _blocks(self, position: int, tokens: int, base: int, batch: int) -> list[Block]:
        """Blocks of queries that lie in one segment; `base` is the position of the first key."""
        size = block_size(batch, self.memory)
        longest = self.memory + self.segment
        blocks: list[Block] = []
        start, end = position, position + tokens
        while start < end:
            segment_start = start - start % self.segment
            stop = min(end, segment_start + self.segment, start + size)
            first = max(0, segment_start - self.memory)
            rows = slice(start - position, stop - position)
            new = slice(segment_start - base, stop - base)
            old = slice(first - base, segment_start - base)
            seen = slice(longest - (stop - first), longest)
            blocks.append(Block(rows, (rows, new, new, old, old, rows, seen)))
            start = stop
        return blocks


def _attend_block(
    block: Block,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    old_k: Tensor,
    old_v: Tensor,
    distance_q: Tensor,
    distance_k: Tensor,
) -> Tensor:
    k, v = torch.cat((old_k, k), 1), torch.cat((old_v, v), 1)
    batch, rows, columns = q.size(0), q.size(1), k.size(1)
    flat = distance_q.reshape(distance_k.size(0), -1, distance_q.size(-1))
    by_distance = (flat @ distance_k.mT).view(batch, rows, columns)
    # Row r of the table begins rows - 1 - r distances too far: one more column shifts each into place.
    padded = torch.nn.functional.pad(by_distance, (1, 0)).view(batch, columns + 1, rows)
    by_key = padded[:, 1:].reshape(batch, rows, columns)
    future = torch.ones(rows, columns, dtype=torch.bool, device=q.device).triu(columns - rows + 1)
    scores = torch.baddbmm(by_key.masked_fill(future, -math.inf), q, k.mT)
    return torch.softmax(scores, -1) @ v


def _segment(config: Config) -> int:
    return config.segment


def _reach(config: Config) -> int:
    return config.segment - 1 + config.memory


METHOD = MethodSpec(
    build=Recurrence,
    config=Config,
    title="Segment recurrence",
    family="recurrent-memory",
    equation="y_i = sum over s_i - M <= j <= i of softmax_j(((q_i + u) . k_j + (q_i + v) . W_r R_(i-j)) / sqrt K) v_j, s_i the first token of i's segment",
    paper=Paper(
        "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
        2019,
        "1901.02860",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    shift_period=_segment,
    reach=_reach,
)
