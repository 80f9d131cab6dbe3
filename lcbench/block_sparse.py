"""Softmax attention over blocks of keys that a table picks for each block of queries.

Letters: B batch, T queries, S keys, H heads, K head width, n blocks of queries, m blocks of keys
that one of them sees, b tokens of a block, N sequences times heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.blockwise import Block, additive, blockwise, masked_attention, row_blocks


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    *,
    size: int,
    start: int,
    causal: bool = True,
) -> Tensor:
    """Softmax attention over the blocks of keys that a table names: O(T m b) work, O(T) memory.

    Args:
        q: `[B, H, T, K]`, of which the first is at position `start`.
        k: `[B, H, S, K]`, of which the first is at position 0.
        v: `[B, H, S, K]`.
        table: `[H or 1, n, m]`, int64 on the CPU. A row holds the numbers of the m key blocks that
            a block of queries sees, none twice, -1 for none; the first row is that of the block
            that `start` lies in. Where causal, a row's last block is the queries' own.
        size: b, tokens of a block.
        start: Position of the first query.
        causal: Whether a query sees only itself and what came before it.
    """
    stop = start + q.size(2)
    whole_start = min(stop, -(-start // size) * size)
    whole_stop = max(whole_start, stop - stop % size)
    pieces: list[Tensor] = []
    if start < whole_start:
        part = q[:, :, : whole_start - start]
        pieces.append(_one_row(part, k, v, table[:, 0], size, start if causal else None))
    if whole_start < whole_stop:
        part = q[:, :, whole_start - start : whole_stop - start]
        first = whole_start // size - start // size
        rows = table[:, first : first + part.size(2) // size]
        pieces.append(_whole_rows(part, k, v, rows, size, whole_start if causal else None))
    if whole_stop < stop:
        part = q[:, :, whole_stop - start :]
        pieces.append(_one_row(part, k, v, table[:, -1], size, whole_stop if causal else None))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _one_row(q: Tensor, k: Tensor, v: Tensor, row: Tensor, size: int, start: int | None) -> Tensor:
    """Attention of queries `[B, H, T, K]` of one block over the blocks `[H or 1, m]` of its row."""
    keys = _keys_of(row.to(q.device), size)  # [H or 1, m b]
    visible = _visible(keys, k.size(2), start, q.size(2))
    keys = keys.clamp(0, k.size(2) - 1)
    heads = torch.arange(k.size(1), device=q.device)[:, None]
    return F.scaled_dot_product_attention(q, k[:, heads, keys], v[:, heads, keys], visible)


def _keys_of(blocks: Tensor, size: int) -> Tensor:
    """Positions of the keys of blocks `[..., m]`: `[..., m b]`, negative for those of block -1."""
    return (blocks[..., None] * size + torch.arange(size, device=blocks.device)).flatten(-2)


def _visible(keys: Tensor, num_keys: int, start: Tensor | int | None, rows: int) -> Tensor:
    """Which keys `[..., n]` each of a block's queries sees: `[..., rows, n]`.

    Args:
        keys: Positions.
        num_keys: S.
        start: Positions of the first queries, or None where a query sees both sides.
        rows: Queries of a block.
    """
    exist = ((keys >= 0) & (keys < num_keys))[..., None, :]
    if start is None:
        return exist.expand(*keys.shape[:-1], rows, -1)
    first = torch.as_tensor(start, device=keys.device)[..., None, None]
    return exist & (keys[..., None, :] <= first + torch.arange(rows, device=keys.device)[:, None])


def _whole_rows(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, size: int, start: int | None
) -> Tensor:
    """Attention of whole blocks of queries `[B, H, n b, K]`, some of them at a time."""
    (batch, heads), num_keys, columns = q.shape[:2], k.size(2), table.size(2) * size
    # Under a causal mask none of these queries sees a key of the last block unless it is whole.
    ragged = -num_keys % size if start is None else -(num_keys % size)
    k, v = (F.pad(part, (0, 0, 0, ragged)) if ragged else part for part in (k, v))
    is_plain = ((table >= 0) & ((table + 1) * size <= num_keys)).all(2).all(0).tolist()
    table = table.to(q.device)
    plain = torch.ones(size, columns, dtype=torch.bool, device=q.device)
    plain_mask = additive(plain if start is None else plain.tril(columns - size), q.dtype)

    def core(block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = plain_mask
        if not all(is_plain[block.rows]):
            rows = torch.arange(block.rows.start, block.rows.stop, device=q.device)
            first = None if start is None else start + size * rows
            visible = _visible(_keys_of(table[:, block.rows], size), num_keys, first, size)
            mask = additive(visible, q.dtype).expand(heads, -1, -1, -1).repeat(batch, 1, 1, 1)
            mask = mask.flatten(0, 1)  # [N blocks, b, m b]
        flat = q.flatten(0, 1)
        k, v = (part.reshape(len(flat), columns, -1) for part in (k, v))
        return masked_attention(flat, k, v, mask).view_as(q)

    picked = table.clamp(min=0).expand(batch, heads, -1, -1).flatten(0, 1)  # [N, n, m]
    floats = batch * heads * columns * (size + 2 * q.size(3))  # that one block of queries needs
    step = max(1, (3 * 2**17 if q.device.type == "cpu" else 2**26) // floats)
    blocks: list[Block] = []
    for rows in row_blocks(table.size(1), step):
        keys = picked[:, rows].flatten(1)
        blocks.append(Block(rows, (rows, keys, keys)))
    parts = (part.flatten(0, 1).unflatten(1, (-1, size)) for part in (q, k, v))
    return blockwise(core, blocks, *parts).view_as(q)  # [N, blocks, b, K] inside
