"""A sliding window plus global tokens that see everything and that everything sees.

Source: Beltagy et al. (2020), "Longformer", arXiv:2004.05150, section 3.1. A global token reads
with projections of its own; all others read it through the ordinary ones, in one softmax with their
window. Here every `global_every`-th token is global: under a causal mask the paper's leading ones
would have nothing to hand on. It is the last of its block, so that it has read the block it stands
for. Left out: dilation, global tokens chosen by the task.
Shapes: B batch, T tokens, D width, H heads, K head width, W window, G global tokens.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from lcbench.attention import full_attention, spaced_attention
from lcbench.blocks import (
    Heads,
    KVCache,
    WindowCache,
    extend_window,
    grow_cache,
    owned,
    position_of,
    positions_of,
    rotate,
    split_heads,
)
from lcbench.blockwise import Block, band_blocks, band_mask, block_size, softmax_blocks
from lcbench.fused_band import Columns, Given, fused_band, fuses
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How far a token sees, and how many see farther."""

    window: int = 64
    """Keys a query sees, itself included; on each side where it sees both."""
    global_every: int = 64
    """One token in so many, the last of each block, is global."""
    positions: Literal["rotary", "none"] = "rotary"
    """How a token's position is told."""

    def __post_init__(self) -> None:
        for name in ("window", "global_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


Tensors = tuple[Tensor, ...]


class Past(NamedTuple):
    """What the next token may read."""

    position: int
    """Tokens seen so far."""
    window: WindowCache
    """Keys and values of the last W - 1 tokens."""
    columns: KVCache
    """Keys and values of the global tokens, as other tokens read them."""
    rows: KVCache
    """Keys and values of all tokens, as global tokens read them."""


class SparseGlobal(Method):
    """Softmax over window and globals: O(T W + T^2 / global_every) work, O(T) memory and state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.window, self.every = config.window, config.global_every
        self.heads = Heads(shape, rotary=config.positions == "rotary")
        self.global_q = deepcopy(self.heads.q)
        self.global_k = deepcopy(self.heads.k)
        self.global_v = deepcopy(self.heads.v)

    def forward(self, x: Tensor, state: Past | None = None) -> tuple[Tensor, Past | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and what the next token may read."""
        position = position_of(state, causal=self.shape.causal)
        new = slice(-(position + 1) % self.every, None, self.every)  # the global ones of x
        q, k, v = self.heads.split(x, position)  # q [B, H, T, K]
        column_k, column_v = owned(k[:, :, new]), owned(v[:, :, new])
        row_q, row_k, row_v = self._split_global(x, new, position)
        past = None
        if self.shape.causal:
            window, columns, rows = state[1:] if state else (None, None, None)
            k, v, window = extend_window(window, k, v, keep=self.window - 1)
            column_k, column_v, columns = grow_cache(columns, column_k, column_v)
            row_k, row_v, rows = grow_cache(rows, row_k, row_v)
            past = Past(window.position, window, columns, rows)
        given = None
        if row_q.size(2):
            given = Given(new, self._read_all(row_q, row_k, row_v).flatten(0, 1))
        read = self._read_fused if fuses(q) else self._read_blocks
        return self.heads.merge(read((q, k, v), (column_k, column_v), position, given)), past

    def _split_global(self, x: Tensor, new: slice, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the new global tokens `[B, H, G, K]`, and all new keys and values for them."""
        projected = (self.global_q(x[:, new]), self.global_k(x), self.global_v(x))
        q, k, v = (split_heads(part, self.heads.num_heads) for part in projected)
        if self.heads.rotary:
            positions = positions_of(x, position)
            q, k = *rotate(q, positions=positions[new]), *rotate(k, positions=positions)
        return q, k, v

    def _read_blocks(
        self, qkv: Tensors, columns: Tensors, position: int, given: Given | None
    ) -> Tensor:
        """Attention of q `[B, H, T, K]`, from `position` on, over its window and the globals."""
        q, k, v = qkv
        causal, num_columns = self.shape.causal, columns[0].size(2)
        left, right = self.window - 1, 0 if causal else self.window - 1
        size = block_size(q.size(0) * q.size(1), left + right + num_columns)
        blocks: list[Block] = []
        for rows, keys in band_blocks(q.size(2), k.size(2), size, left=left, right=right):
            seen = slice(0, (position + rows.stop) // self.every if causal else num_columns)
            blocks.append(Block(rows, (seen, keys)))
        band = band_mask(q, size, left + right)
        first_key = position + q.size(2) - k.size(2)

        def mask(block: Block) -> Tensor:
            rows, (seen, keys) = block
            row, key = position + rows.start, first_key + keys.start
            in_band = band[: rows.stop - rows.start, key - row + left :][
                :, : keys.stop - keys.start
            ]
            return self._mask(in_band, row, key, seen.stop)

        q, *parts = (part.flatten(0, 1) for part in (q, *columns, k, v))
        y = softmax_blocks(q, [(parts[0], parts[1]), (parts[2], parts[3])], blocks, mask)
        if given is not None:
            y = y.slice_scatter(given.y, 1, given.rows.start, None, self.every)
        return y.unflatten(0, (-1, self.heads.num_heads))

    def _read_fused(
        self, qkv: Tensors, columns: Tensors, position: int, given: Given | None
    ) -> Tensor:
        """The same, where globals within a query's window are read there."""
        q, k, v = (part.flatten(0, 1) for part in qkv)
        causal = self.shape.causal
        left, right = self.window - 1, 0 if causal else self.window - 1
        start = self.every - 1 - (position + q.size(1) - k.size(1))
        positions = range(start, start + columns[0].size(2) * self.every, self.every)
        # At the start of a sequence the globals lie among the keys, which take their gradients.
        others = (columns[0].flatten(0, 1), columns[1].flatten(0, 1)) if position else None
        far = Columns(positions, causal, others)
        return fused_band(q, k, v, left=left, right=right, columns=far, given=given).view_as(qkv[0])

    def _mask(self, in_band: Tensor, row: int, key: int, num_columns: int) -> Tensor:
        """What rows from `row` on may add to their scores of the globals, then of keys from `key`.

        Returns:
            `[rows, num_columns + keys]`, of which `in_band` `[rows, keys]` tells the band.
        """
        mask = in_band.new_zeros(in_band.size(0), num_columns + in_band.size(1))
        mask[:, num_columns:] = in_band
        # Globals are read as columns only, so that none is counted twice.
        mask[:, num_columns + -(key + 1) % self.every :: self.every] = -math.inf
        if self.shape.causal:
            for column in range((row + 1) // self.every, num_columns):
                mask[: (column + 1) * self.every - 1 - row, column] = -math.inf
        return mask

    def _read_all(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the new global tokens' q `[B, H, G, K]` over all tokens up to each."""
        if not self.shape.causal:
            return full_attention(q, k, v, causal=False)
        keys = k.size(2) - k.size(2) % self.every
        return spaced_attention(q, k[:, :, :keys], v[:, :, :keys], every=self.every)


def _global_every(config: Config) -> int:
    return config.global_every


METHOD = MethodSpec(
    build=SparseGlobal,
    config=Config,
    title="Window and global tokens",
    family="sparse",
    equation=(
        "y_i = sum over i - W < j <= i and all globals j <= i of softmax_j(q_i . k_j / sqrt K) v_j;"
        " a global i: sum over all j <= i, with q, k, v of its own"
    ),
    paper=Paper("Longformer: The Long-Document Transformer", 2020, "2004.05150"),
    cost=Cost(time=1.3, memory=1.0, state=1.0),
    bidirectional=True,
    shift_period=_global_every,
)
