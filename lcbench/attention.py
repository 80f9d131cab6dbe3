"""Softmax attention in linear memory: block by block, within a band, over a cache.

Letters: B batch, T new tokens, S keys, H heads, K head width, W window, N sequences times heads.
Wherever there are more keys than queries, the queries are the last T of the S positions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Block(NamedTuple):
    """One step of a blockwise computation."""

    rows: slice
    """Rows of the output it fills."""
    reads: tuple[slice, ...]
    """Rows of each input it reads."""


Core = Callable[..., Tensor]
"""Takes a block and the rows it reads of each input; gives the rows it fills."""


def blockwise(core: Core, blocks: Sequence[Block], *tensors: Tensor) -> Tensor:
    """Compute an attention block by block, keeping nothing of a block but its output.

    The backward pass computes each block again, so memory grows with T where a block's does not.

    Args:
        core: Called as `core(block, *parts)`; differentiable, in its parts alone.
        blocks: Their rows cover the output exactly once.
        tensors: Inputs `[N, T, ...]`; the first, the queries, has the shape of the output.
    """
    if len(blocks) == 1:
        return core(blocks[0], *_parts(blocks[0], tensors))
    return _Blockwise.apply(core, blocks, *tensors)  # pyright: ignore[reportReturnType]


def _parts(block: Block, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor[:, rows] for tensor, rows in zip(tensors, block.reads, strict=True)]


class _Blockwise(torch.autograd.Function):
    """`blockwise` with a backward that adds each block's gradients in place."""

    @staticmethod
    def forward(ctx: Any, core: Core, blocks: Sequence[Block], *tensors: Tensor) -> Tensor:
        ctx.core, ctx.blocks = core, blocks
        ctx.save_for_backward(*tensors)
        out = torch.empty_like(tensors[0])
        with torch.autocast(out.device.type, enabled=False):
            for block in blocks:
                out[:, block.rows] = core(block, *_parts(block, tensors))
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        # A key is read by many blocks: bfloat16 sums over them would lose the small ones.
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        totals = {
            i: torch.zeros_like(
                tensors[i], dtype=torch.promote_types(tensors[i].dtype, torch.float32)
            )
            for i in wanted
        }
        with torch.autocast(grad.device.type, enabled=False), torch.enable_grad():
            for block in ctx.blocks:
                parts = [part.detach() for part in _parts(block, tensors)]
                leaves = [parts[i].requires_grad_() for i in wanted]
                out = ctx.core(block, *parts)
                added = torch.autograd.grad(out, leaves, grad[:, block.rows])
                for i, part in zip(wanted, added, strict=True):
                    totals[i][:, block.reads[i]] += part
        gradients = (totals[i].to(t.dtype) if i in totals else None for i, t in enumerate(tensors))
        return None, None, *gradients


def block_size(batch: int, keys: int) -> int:
    """Queries of a block whose scores stay in a processor's cache.

    Args:
        batch: Sequences times heads.
        keys: Keys that a block reads beside its own.
    """
    fitting = (size for size in (128, 64) if batch * size * (size + keys) <= 3 * 2**17)
    return next(fitting, 32)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention of q `[N, T, K]` over k, v `[N, S, K]` with an additive mask `[T, S]`."""
    scores = torch.baddbmm(mask, q, k.mT, alpha=1 / math.sqrt(q.size(-1)))
    return torch.softmax(scores, -1) @ v


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores: 0 where `visible`, else minus infinity."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, -math.inf)


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


def row_blocks(length: int, size: int) -> list[slice]:
    """Cut `length` rows into blocks of `size`; the last may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def band_blocks(
    num_queries: int, num_keys: int, size: int, *, left: int, right: int
) -> list[tuple[slice, slice]]:
    """Blocks of `size` queries, and the keys from `left` before to `right` after each block."""
    offset = num_keys - num_queries
    return [
        (rows, slice(max(0, offset + rows.start - left), min(num_keys, offset + rows.stop + right)))
        for rows in row_blocks(num_queries, size)
    ]


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
    if q.device.type == "cpu":
        return _banded_in_blocks(q, k, v, left, right)
    return _banded_in_one_call(q, k, v, left, right)


def _banded_in_blocks(q: Tensor, k: Tensor, v: Tensor, left: int, right: int) -> Tensor:
    """A loop over blocks of queries, whose scores stay in the processor's cache."""
    offset = k.size(2) - q.size(2)
    size = block_size(q.size(0) * q.size(1), left + right)
    ahead = torch.arange(size + left + right) - torch.arange(size)[:, None]
    band = additive((ahead >= 0) & (ahead <= left + right), q.dtype)
    blocks = [
        Block(rows, (rows, keys, keys))
        for rows, keys in band_blocks(q.size(2), k.size(2), size, left=left, right=right)
    ]

    def core(block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        first = block.reads[1].start - (offset + block.rows.start - left)
        return masked_attention(q, k, v, band[: q.size(1), first : first + k.size(1)])

    return blockwise(core, blocks, *(part.flatten(0, 1) for part in (q, k, v))).view_as(q)


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
    core = _fused_bias if is_fused else _added_bias
    scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale

    def scaled(_block: Block, *parts: Tensor) -> Tensor:
        return core(*parts, scale=scale)

    parts = (part.flatten(0, 1) for part in (q.flip(2), k, v))
    return blockwise(scaled, blocks, *parts, padded).view_as(q).flip(2)


def _biased_blocks(
    num_queries: int, num_keys: int, size: int, *, before: int, after: int
) -> list[Block]:
    """Blocks of `size` queries, last query first, and what they read of q, k, v and the table."""
    blocks: list[Block] = []
    for rows in row_blocks(num_queries, size):
        first, last = num_keys - rows.stop, num_keys - 1 - rows.start  # positions of its queries
        keys = slice(max(0, first - before), min(num_keys, last + after + 1))
        column = keys.start - last + before + size - 1
        columns = slice(column, column + last - first + keys.stop - keys.start)
        blocks.append(Block(rows, (rows, keys, keys, columns)))
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


def _added_bias(q: Tensor, k: Tensor, v: Tensor, table: Tensor, *, scale: float) -> Tensor:
    """One block of `biased_attention`, differentiable in the table."""
    bias: Tensor = _Diagonals.apply(table.to(q.dtype), k.size(1))  # pyright: ignore[reportAssignmentType]
    batch = q.size(0) // bias.size(0)
    bias = bias.expand(batch, -1, -1, -1).flatten(0, 1)
    return torch.softmax(torch.baddbmm(bias, q, k.mT, alpha=scale), -1) @ v


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
