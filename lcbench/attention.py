"""Softmax attention in linear memory: over all keys, a band, a cache; of queries far apart.

Letters: B batch, T new tokens, S keys, H heads, K head width, W window. Wherever there are more
keys than queries, the queries are the last T of the S positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.blockwise import (
    Block,
    band_blocks,
    band_mask,
    block_size,
    blockwise,
    row_blocks,
    softmax_blocks,
)
from lcbench.fused_band import fused_band, fused_rows, fuses


def full_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> Tensor:
    """Softmax attention of queries `[B, H, T, K]` over all keys, or over those not after the query.

    Args:
        q: `[B, H, T, K]`.
        k: `[B, H, S, K]` with S at least T.
        v: `[B, H, S, K]`.
        causal: Whether a query sees only itself and what came before it.
    """
    num_queries, num_keys = q.size(2), k.size(2)
    if num_queries == num_keys or num_queries == 1 or not causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal and num_queries > 1)
    offset = num_keys - num_queries

    def core(block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        visible = torch.ones(q.size(1), k.size(1), dtype=torch.bool, device=q.device)
        return fused_attention(q, k, v, visible.tril(offset + block.rows.start))

    # torch's is_causal aligns the first query with the first key, which is wrong after a cache.
    blocks = [
        Block(rows, (rows, slice(0, offset + rows.stop), slice(0, offset + rows.stop)))
        for rows in row_blocks(num_queries, 128)
    ]
    return blockwise(core, blocks, *(part.flatten(0, 1) for part in (q, k, v))).view_as(q)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Softmax attention of q `[N, T, K]` where `visible` `[T, S]`, without holding the scores."""
    parts = (part.unsqueeze(1) for part in (q, k, v))
    return F.scaled_dot_product_attention(*parts, attn_mask=visible).squeeze(1)


def spaced_attention(q: Tensor, k: Tensor, v: Tensor, *, every: int) -> Tensor:
    """Softmax attention of queries that stand `every` keys apart: each sees so many keys more.

    Args:
        q: `[B, H, T, K]`; the last one sees all keys.
        k: `[B, H, S, K]` with S at least T times `every`.
        v: `[B, H, S, K]`.
        every: Keys between a query and the next.
    """
    q_rows, k_rows, v_rows = (part.flatten(0, 1) for part in (q, k, v))
    if fuses(q):
        return fused_rows(q_rows, k_rows, v_rows, every=every).view_as(q)
    seen_by_first = k.size(2) - (q.size(2) - 1) * every
    blocks: list[Block] = []
    # A block sees the keys of its last row: more rows than these would mostly be masked.
    for rows in row_blocks(q.size(2), 16):
        blocks.append(Block(rows, (slice(0, seen_by_first + (rows.stop - 1) * every),)))

    def mask(block: Block) -> Tensor:
        rows, (keys,) = block
        count = rows.stop - rows.start
        added = q.new_zeros(count, keys.stop)
        for row in range(count):
            added[row, keys.stop - (count - 1 - row) * every :] = -math.inf
        return added

    return softmax_blocks(q_rows, [(k_rows, v_rows)], blocks, mask).view_as(q)


def banded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, causal: bool = True
) -> Tensor:
    """Softmax attention within a band: O(T W) work and O(T) memory.

    Args:
        q: `[B, H, T, K]`.
        k: `[B, H, S, K]` with S at least T, and S = T where not causal.
        v: `[B, H, S, K]`.
        window: W. A causal query sees W keys, itself and those before it; else it sees the keys
            less than W away on both sides.
        causal: Whether a query sees only itself and what came before it.
    """
    if k.size(2) <= window:
        return full_attention(q, k, v, causal=causal)
    left, right = window - 1, 0 if causal else window - 1
    if k.size(2) <= 4 * window:
        # So short a sequence is sooner scored whole than cut up.
        row = torch.arange(k.size(2) - q.size(2), k.size(2), device=q.device)[:, None]
        behind = row - torch.arange(k.size(2), device=q.device)
        visible = (behind <= left) & (behind >= -right)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    if fuses(q):
        parts = (part.flatten(0, 1) for part in (q, k, v))
        return fused_band(*parts, left=left, right=right).view_as(q)
    if q.device.type == "cpu":
        return _banded_in_blocks(q, k, v, left, right)
    return _banded_in_one_call(q, k, v, left, right)


def _banded_in_blocks(q: Tensor, k: Tensor, v: Tensor, left: int, right: int) -> Tensor:
    """A loop over blocks of queries, whose scores stay in the processor's cache."""
    offset = k.size(2) - q.size(2)
    size = block_size(q.size(0) * q.size(1), left + right)
    band = band_mask(q, size, left + right)
    blocks = [
        Block(rows, (keys,))
        for rows, keys in band_blocks(q.size(2), k.size(2), size, left=left, right=right)
    ]

    def mask(block: Block) -> Tensor:
        rows, (keys,) = block
        first = keys.start - (offset + rows.start - left)
        return band[: rows.stop - rows.start, first : first + keys.stop - keys.start]

    merged = (part.flatten(0, 1) for part in (q, k, v))
    q_rows, k_rows, v_rows = merged
    return softmax_blocks(q_rows, [(k_rows, v_rows)], blocks, mask).view_as(q)


def _banded_in_one_call(q: Tensor, k: Tensor, v: Tensor, left: int, right: int) -> Tensor:
    """One fused attention over overlapping blocks of keys: few launches, for an accelerator."""
    num_queries, num_keys = q.size(2), k.size(2)
    size = max(64, left + 1)
    count, reads = -(-num_queries // size), size + left + right
    first = num_keys - num_queries - left  # key that block 0 reads first; below 0 it is padding
    last = first + (count - 1) * size + reads
    q_blocks = F.pad(q, (0, 0, 0, count * size - num_queries)).flatten(0, 1)
    k_blocks, v_blocks = (
        F.pad(part, (0, 0, -first, last - num_keys)).flatten(0, 1).unfold(1, reads, size).mT
        for part in (k, v)
    )
    row = torch.arange(size, device=q.device)[:, None]
    column = torch.arange(reads, device=q.device)
    key = first + torch.arange(count, device=q.device)[:, None, None] * size + column
    in_band = (column >= row) & (column <= row + left + right)
    # A padded query must see something, here itself, or its empty softmax would spoil gradients.
    visible = in_band & (((key >= 0) & (key < num_keys)) | (column == row + left))
    q_blocks = q_blocks.unflatten(1, (count, size))  # [B H, blocks, size, K]
    out = F.scaled_dot_product_attention(q_blocks, k_blocks, v_blocks, attn_mask=visible)
    return out.flatten(1, 2)[:, :num_queries].view_as(q)
