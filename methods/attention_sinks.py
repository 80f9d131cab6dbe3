"""Attention sinks: a sliding window that never loses sight of the first few tokens.

Source: Xiao et al. (2023), "Efficient Streaming Language Models with Attention Sinks",
arXiv:2309.17453, sections 3.1 and 3.2. Positions are slots of the cache, as there: the sinks take
the slots 0 to G - 1, the window those after them. While the cache fills, a slot is a position. Once
it is full, the query is always in slot G + W - 1: distances within the window stay what they were,
and a sink s is G + W - 1 - s away however far the query is. So keys keep the angle of their
position, and only a query turns twice: to its position for the window, back to its slot for the
sinks. Here a model is trained so, where the paper evicts from one trained on all keys. Left out: a
learned sink token.
Shapes: B batch, T tokens, D width, H heads, K head width, W window, G sinks.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lcbench.blocks import (
    Heads,
    WindowCache,
    extend_window,
    owned,
    position_of,
    positions_of,
    rotate,
)
from lcbench.blockwise import Block, additive, band_blocks, band_mask, block_size, blockwise
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How far a query sees, and how many tokens it always sees."""

    window: int = 64
    """Keys a query sees, itself included, beside the sinks."""
    sinks: int = 4
    """Tokens at the start of the sequence that every query sees."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        if self.sinks < 0:
            raise ValueError(f"sinks must be at least 0, got {self.sinks}")


class Past(NamedTuple):
    """What the next token may read."""

    position: int
    """Tokens seen so far."""
    window: WindowCache
    """Keys and values of the last W - 1 tokens."""
    k: Tensor
    """Of the sinks so far, `[B, H, min(position, G), K]`."""
    v: Tensor


class AttentionSinks(Method):
    """Softmax over G sinks and a band of W keys: O(T (W + G)) work, O(T) memory, O(W + G) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.window, self.sinks = config.window, config.sinks
        self.heads = Heads(shape)

    def forward(self, x: Tensor, state: Past | None = None) -> tuple[Tensor, Past]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the keys and values in sight."""
        position = position_of(state, causal=True)
        q, k, v = self.heads.split(x, position)  # q [B, H, T, K]
        new = slice(0, max(0, self.sinks - position))
        sink_k, sink_v = owned(k[:, :, new]), owned(v[:, :, new])
        if state is not None:
            sink_k, sink_v = torch.cat((state.k, sink_k), 2), torch.cat((state.v, sink_v), 2)
        k, v, window = extend_window(state and state.window, k, v, keep=self.window - 1)
        past = Past(window.position, window, sink_k, sink_v)
        return self.heads.merge(self._attend(q, k, v, past)), past

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, past: Past) -> Tensor:
        """Attention of q `[B, H, T, K]` over its window and, turned to its slot, over the sinks."""
        left, num_sinks, offset = self.window - 1, past.k.size(2), k.size(2) - q.size(2)
        position, first_key = past.position - q.size(2), past.position - k.size(2)
        size = min(q.size(2), block_size(q.size(0) * q.size(1), left + num_sinks))
        blocks: list[Block] = []
        for rows, keys in band_blocks(q.size(2), k.size(2), size, left=left, right=0):
            # Sinks are read as columns only, so that none is counted twice.
            start = min(keys.stop, max(keys.start, self.sinks - first_key))
            reads = (slice(start, keys.stop),) * 2
            blocks.append(Block(rows, (rows, *reads, *(slice(0, num_sinks),) * 2)))
        band, scale = band_mask(q, size, left), q.size(-1) ** -0.5
        columns = torch.arange(num_sinks, device=q.device)

        def core(
            block: Block, q: Tensor, k: Tensor, v: Tensor, sink_k: Tensor, sink_v: Tensor
        ) -> Tensor:
            row = positions_of(q, position + block.rows.start)
            slot = row.clamp(max=self.window + self.sinks - 1)
            (sink_q,) = rotate(q, positions=slot - row)
            in_columns = additive(columns <= row.to(q.device)[:, None], q.dtype)
            first = block.reads[1].start - (offset + block.rows.start - left)
            in_band = band[: q.size(1), first : first + k.size(1)]
            scores = (
                torch.baddbmm(in_columns, sink_q, sink_k.mT, alpha=scale),
                torch.baddbmm(in_band, q, k.mT, alpha=scale),
            )
            return torch.softmax(torch.cat(scores, 2), -1) @ torch.cat((sink_v, v), 1)

        parts = (part.flatten(0, 1) for part in (q, k, v, past.k, past.v))
        return blockwise(core, blocks, *parts).view_as(q)


def _shift_period(config: Config) -> int | None:
    return None if config.sinks else 1


def _reach(config: Config) -> int | None:
    return None if config.sinks else config.window - 1


METHOD = MethodSpec(
    build=AttentionSinks,
    config=Config,
    title="Attention sinks",
    family="local",
    equation=(
        "y_i = sum over j < G and i - W < j <= i of softmax_j(q_i . k_j / sqrt K) v_j, where a"
        " token's position is its slot in the cache of these"
    ),
    paper=Paper(
        "Efficient Streaming Language Models with Attention Sinks",
        2023,
        "2309.17453",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    shift_period=_shift_period,
    reach=_reach,
)
