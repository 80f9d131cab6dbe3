"""Softmax attention with a number added to scores by distance, learned or fixed.

Letters: B batch, T new tokens, S keys, H heads, K head width, L distances.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lcbench.blockwise import Block, block_size, blockwise, row_blocks, softmax_blocks


def biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    *,
    after: int = 0,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention with a number added to scores by distance: O(T L) work, O(T) memory.

    Args:
        q: `[B, H, T, K]`.
        k: `[B, H, S, K]` with S at least T.
        v: `[B, H, S, K]`.
        table: `[H, L]`, what a head adds to the score of a key d after its query (before, if d is
            negative) in column `L - 1 - after + d`. Keys without a column are not seen.
        after: Columns of keys after the query.
        scale: What products of queries and keys are multiplied by; 1 / sqrt K unless given.
    """
    num_queries, num_keys, columns = q.size(2), k.size(2), table.size(1)
    is_fused = _fuses_bias(q, table, covers=columns >= num_keys)
    size = min(num_queries, _biased_rows(q, min(columns - 1, num_keys), is_fused=is_fused))
    # Last query first: bias then depends on row plus column, a view of the table with no copy.
    padded = F.pad(table, (size - 1, size - 1), value=-math.inf)
    blocks = _biased_blocks(num_queries, num_keys, size, before=columns - 1 - after, after=after)
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
    q_rows, k_rows, v_rows = (part.flatten(0, 1) for part in (q.flip(2), k, v))
    if is_fused:

        def fused(_block: Block, *parts: Tensor) -> Tensor:
            return _fused_bias(*parts, scale=scale)

        read = [Block(rows, (rows, keys, keys, columns)) for rows, (keys, columns) in blocks]
        y = blockwise(fused, read, q_rows, k_rows, v_rows, padded)
    else:
        batch, dtype = q.size(0), q.dtype

        def bias(block: Block, table: Tensor) -> Tensor:
            keys = block.reads[0]
            diagonals: Tensor = _Diagonals.apply(table.to(dtype), keys.stop - keys.start)  # pyright: ignore[reportAssignmentType]
            return diagonals.expand(batch, -1, -1, -1).flatten(0, 1)

        y = softmax_blocks(q_rows, [(k_rows, v_rows)], blocks, bias, padded, scale=scale)
    return y.view_as(q).flip(2)


def _biased_blocks(
    num_queries: int, num_keys: int, size: int, *, before: int, after: int
) -> list[Block]:
    """Blocks of `size` queries, last query first, and the keys and columns that each reads."""
    blocks: list[Block] = []
    for rows in row_blocks(num_queries, size):
        first, last = num_keys - rows.stop, num_keys - 1 - rows.start  # positions of its queries
        keys = slice(max(0, first - before), min(num_keys, last + after + 1))
        column = keys.start - last + before + size - 1
        columns = slice(column, column + last - first + keys.stop - keys.start)
        blocks.append(Block(rows, (keys, columns)))
    return blocks


def _fuses_bias(q: Tensor, table: Tensor, *, covers: bool) -> bool:
    """Whether torch's fused kernel, which gives a bias no gradient, is the faster one."""
    if q.device.type != "cpu" or (table.requires_grad and torch.is_grad_enabled()):
        return False
    return q.size(2) == 1 or (covers and q.dtype != torch.bfloat16)


def _biased_rows(q: Tensor, keys: int, *, is_fused: bool) -> int:
    """Queries of a block that reads `keys` keys beside its own."""
    batch = q.size(0) * q.size(1)
    if is_fused:
        return 768  # from here on the kernel works in its largest tiles
    if q.device.type != "cpu":
        return max(64, min(1024, 2**26 // (batch * max(1, keys))))
    return max(64, block_size(batch, keys))


def _fused_bias(q: Tensor, k: Tensor, v: Tensor, table: Tensor, *, scale: float) -> Tensor:
    """One block of `biased_attention`, its scores never held."""
    q, k, v = (part.unflatten(0, (-1, table.size(0))) for part in (q, k, v))  # [B, H, T, K]
    bias = table.to(q.dtype).unfold(1, k.size(2), 1)[None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale).flatten(0, 1)


class _Diagonals(torch.autograd.Function):
    """`[H, T + S - 1]` seen as `[H, T, S]`: entry (r, c) is number r + c."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, columns: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        return table.unfold(1, columns, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        heads, rows, columns = grad.shape
        # Numbers read on as rows of one fewer column move a row's entries one to the right.
        skewed = F.pad(grad, (0, rows)).flatten(1)[:, : rows * (rows + columns - 1)]
        return skewed.view(heads, rows, -1).sum(1), None
