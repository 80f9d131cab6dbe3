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
        return core(blocks[0], *_parts(blocks[0].reads, tensors))
    return _Blockwise.apply(core, blocks, *tensors)  # pyright: ignore[reportReturnType]


def _parts(reads: Sequence[slice], tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor[:, rows] for tensor, rows in zip(tensors, reads, strict=True)]


class _Blockwise(torch.autograd.Function):
    """`blockwise` with a backward that adds each block's gradients in place."""

    @staticmethod
    def forward(ctx: Any, core: Core, blocks: Sequence[Block], *tensors: Tensor) -> Tensor:
        ctx.core, ctx.blocks = core, blocks
        ctx.save_for_backward(*tensors)
        out = torch.empty_like(tensors[0])
        with torch.autocast(out.device.type, enabled=False):
            for block in blocks:
                out[:, block.rows] = core(block, *_parts(block.reads, tensors))
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        # A key is read by many blocks: bfloat16 sums over them would lose the small ones.
        totals = [
            torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
            for tensor in tensors
        ]
        with torch.autocast(grad.device.type, enabled=False), torch.enable_grad():
            for block in ctx.blocks:
                parts = [part.detach().requires_grad_() for part in _parts(block.reads, tensors)]
                out = ctx.core(block, *parts)
                added = torch.autograd.grad(out, parts, grad[:, block.rows])
                for total, rows, part in zip(totals, block.reads, added, strict=True):
                    total[:, rows] += part
        totals = [total.to(tensor.dtype) for total, tensor in zip(totals, tensors, strict=True)]
        return None, None, *totals


def block_size(batch: int, keys: int) -> int:
    """Queries of a block whose scores stay in a processor's cache.

    Args:
        batch: Sequences times heads.
        keys: Keys that a block reads beside its own.
    """
    fitting = (size for size in (128, 64) if batch * size * (size + keys) <= 3 * 2**17)
    return next(fitting, 32)


Bias = Callable[..., Tensor]
"""Takes a block and the rows it reads of each tensor beside the keys; gives what to add to its
scores: `[rows, keys]` or `[N, rows, keys]`, minus infinity where nothing is seen."""


def softmax_blocks(
    q: Tensor,
    sources: Sequence[tuple[Tensor, Tensor]],
    blocks: Sequence[Block],
    bias: Bias,
    *tensors: Tensor,
) -> Tensor:
    """Softmax attention block by block, over keys from one or more sources at once.

    As `blockwise`, for scores q . k / sqrt K plus a bias, with a backward pass written out: it
    computes a block's scores once more, but not its output, and adds each product where it belongs.

    Args:
        q: `[N, T, K]`.
        sources: Pairs of keys and values `[N, S, K]`.
        blocks: Each reads one slice of each source, then one of each of `tensors`.
        bias: Differentiable in its tensors; called in both passes.
        tensors: `[..., rows, width]`: what the bias is made of.
    """
    kv = (part for pair in sources for part in pair)
    return _SoftmaxBlocks.apply(  # pyright: ignore[reportReturnType]
        blocks, bias, len(sources), q, *kv, *tensors
    )


class _SoftmaxBlocks(torch.autograd.Function):
    """`softmax_blocks`; the keys and values of a source follow one another."""

    @staticmethod
    def forward(
        ctx: Any, blocks: Sequence[Block], bias: Bias, count: int, q: Tensor, *read: Tensor
    ) -> Tensor:
        ctx.blocks, ctx.bias, ctx.count = blocks, bias, count
        ctx.save_for_backward(q, *read)
        kv, tensors = read[: 2 * count], read[2 * count :]
        scale, out = 1 / math.sqrt(q.size(-1)), torch.empty_like(q)
        with torch.autocast(q.device.type, enabled=False):
            for block in blocks:
                added = bias(block, *_parts(block.reads[count:], tensors))
                k, v = (_joined(block.reads[:count], part) for part in (kv[::2], kv[1::2]))
                scores = torch.baddbmm(added, q[:, block.rows], k.mT, alpha=scale)
                out[:, block.rows] = torch.softmax(scores, -1) @ v
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, *read = ctx.saved_tensors
        kv, tensors = read[: 2 * ctx.count], read[2 * ctx.count :]
        scale, grad_q = 1 / math.sqrt(q.size(-1)), torch.empty_like(q)
        # A key is read by many blocks: bfloat16 sums over them would lose the small ones.
        totals = [
            torch.zeros_like(part, dtype=torch.promote_types(part.dtype, torch.float32))
            for part in read
        ]
        of_k, of_v, of_bias = totals[: len(kv) : 2], totals[1 : len(kv) : 2], totals[len(kv) :]
        with torch.autocast(grad.device.type, enabled=False):
            for block in ctx.blocks:
                reads, extra = block.reads[: ctx.count], block.reads[ctx.count :]
                parts = [part.detach().requires_grad_() for part in _parts(extra, tensors)]
                with torch.enable_grad():
                    added = ctx.bias(block, *parts)
                k, v = (_joined(reads, part) for part in (kv[::2], kv[1::2]))
                grad_out = grad[:, block.rows]
                weights = torch.baddbmm(added.detach(), q[:, block.rows], k.mT, alpha=scale)
                weights = torch.softmax(weights, -1)
                grad_scores = torch.ops.aten._softmax_backward_data(
                    grad_out @ v.mT, weights, -1, weights.dtype
                )
                if parts:
                    found = torch.autograd.grad(added, parts, grad_scores)
                    for total, rows, part in zip(of_bias, extra, found, strict=True):
                        total[:, rows] += part
                grad_q[:, block.rows] = (grad_scores @ k).mul_(scale)
                _add_rows(of_k, reads, grad_scores.mT, q[:, block.rows], scale)
                _add_rows(of_v, reads, weights.mT, grad_out, 1.0)
        totals = [total.to(part.dtype) for total, part in zip(totals, read, strict=True)]
        return None, None, None, grad_q, *totals


def _joined(reads: Sequence[slice], sources: Sequence[Tensor]) -> Tensor:
    """The rows that a block reads of all sources, in a row: `[N, keys, K]`."""
    parts = _parts(reads, sources)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _add_rows(
    totals: Sequence[Tensor], reads: Sequence[slice], left: Tensor, right: Tensor, scale: float
) -> None:
    """Add `scale * left @ right` `[N, keys, K]` to the rows of the sources that a block read."""
    start = 0
    for total, rows in zip(totals, reads, strict=True):
        stop = start + rows.stop - rows.start
        if total.dtype == left.dtype:
            total[:, rows].baddbmm_(left[:, start:stop], right, alpha=scale)
        else:
            total[:, rows].add_(left[:, start:stop] @ right, alpha=scale)
        start = stop


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
