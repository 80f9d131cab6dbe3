"""Attention block by block: what a block holds is given up before the next, in both passes.

Letters: T queries, S keys, K head width, N sequences times heads.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Block(NamedTuple):
    """One step of a blockwise computation."""

    rows: slice
    """Rows of the output it fills."""
    reads: tuple[Any, ...]
    """Rows of each input it reads: a slice, or a tensor `[N, n]` that picks n for each sequence."""


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


def _parts(reads: Sequence[Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    return [
        tensor[:, rows] if isinstance(rows, slice) else tensor[_sequences(rows), rows]
        for tensor, rows in zip(tensors, reads, strict=True)
    ]


def _sequences(picked: Tensor) -> Tensor:
    """Numbers of the sequences, `[N, 1]`, beside the rows `[N, n]` picked of each."""
    return torch.arange(picked.size(0), device=picked.device)[:, None]


def _totals(tensors: Sequence[Tensor], wanted: Sequence[int]) -> dict[int, Tensor]:
    """Zeros to add gradients up in, where bfloat16 would lose a block's small share of a sum."""
    return {
        i: torch.zeros(
            tensors[i].shape,
            dtype=torch.promote_types(tensors[i].dtype, torch.float32),
            device=tensors[i].device,
        )
        for i in wanted
    }


def _cast(totals: Mapping[int, Tensor], tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients in the dtypes of their tensors, None where there is no total."""
    return [totals[i].to(tensor.dtype) if i in totals else None for i, tensor in enumerate(tensors)]


def _add_rows(total: Tensor, rows: Any, part: Tensor) -> None:
    """Add a part's rows where they were read; a row picked more than once adds up."""
    if isinstance(rows, slice):
        total[:, rows].add_(part)
        return
    flat = (_sequences(rows) * total.size(1) + rows).flatten()
    total.view(-1, *total.shape[2:]).index_add_(0, flat, part.flatten(0, 1).to(total.dtype))


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
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        totals = _totals(tensors, wanted)
        with torch.autocast(grad.device.type, enabled=False), torch.enable_grad():
            for block in ctx.blocks:
                parts = [part.detach() for part in _parts(block.reads, tensors)]
                leaves = [parts[i].requires_grad_() for i in wanted]
                out = ctx.core(block, *parts)
                added = torch.autograd.grad(out, leaves, grad[:, block.rows])
                for i, part in zip(wanted, added, strict=True):
                    _add_rows(totals[i], block.reads[i], part)
        return None, None, *_cast(totals, tensors)


def block_size(batch: int, keys: int) -> int:
    """Queries of a block whose scores stay in a processor's cache.

    Args:
        batch: Sequences times heads.
        keys: Keys that a block reads beside its own.
    """
    fitting = (size for size in (128, 64) if batch * size * (size + keys) <= 6 * 2**17)
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
    scale: float | None = None,
    tail: Tensor | None = None,
) -> Tensor:
    """Softmax attention block by block, over keys from one or more sources at once.

    As `blockwise`, for products of queries and keys plus a bias, with a backward pass written out:
    it computes a block's scores once more, but not its output, and adds each product where it
    belongs.

    Args:
        q: `[N, T, K]`.
        sources: Pairs of keys and values `[N, S, K]`.
        blocks: Each reads one slice of each source, then one of each of `tensors`.
        bias: Differentiable in its tensors; called in both passes.
        tensors: `[..., rows, ...]`: what the bias is made of.
        scale: What products of queries and keys are multiplied by; 1 / sqrt K unless given.
        tail: `[size, size]`, added to the scores that a block's last r keys have in its r rows.
    """
    kv = (part for pair in sources for part in pair)
    scores = _Scores(1 / math.sqrt(q.size(-1)) if scale is None else scale, tail)
    return _SoftmaxBlocks.apply(  # pyright: ignore[reportReturnType]
        blocks, bias, scores, len(sources), q, *kv, *tensors
    )


class _Scores(NamedTuple):
    """How scores are made beside their bias."""

    scale: float
    tail: Tensor | None

    def weights(self, q: Tensor, k: Tensor, added: Tensor) -> Tensor:
        """Softmax `[N, rows, keys]` of q `[N, rows, K]` over k `[N, keys, K]`."""
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            # Fused with an addition, torch's bfloat16 product takes up to twice as long there.
            scores = (q @ k.mT).mul_(self.scale).add_(added)
        else:
            scores = torch.baddbmm(added, q, k.mT, alpha=self.scale)
        if self.tail is not None:
            rows = q.size(1)
            scores[..., -rows:].add_(self.tail[:rows, :rows])
        return torch.softmax(scores, -1)


class _SoftmaxBlocks(torch.autograd.Function):
    """`softmax_blocks`; the keys and values of a source follow one another."""

    @staticmethod
    def forward(
        ctx: Any,
        blocks: Sequence[Block],
        bias: Bias,
        scores: _Scores,
        count: int,
        q: Tensor,
        *read: Tensor,
    ) -> Tensor:
        ctx.blocks, ctx.bias, ctx.scores, ctx.count = blocks, bias, scores, count
        ctx.save_for_backward(q, *read)
        kv, tensors = read[: 2 * count], read[2 * count :]
        out = torch.empty_like(q)
        with torch.autocast(q.device.type, enabled=False):
            for block in blocks:
                added = bias(block, *_parts(block.reads[count:], tensors))
                k, v = (_joined(block.reads[:count], part) for part in (kv[::2], kv[1::2]))
                out[:, block.rows] = scores.weights(q[:, block.rows], k, added) @ v
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, *read = ctx.saved_tensors
        kv, tensors = read[: 2 * ctx.count], read[2 * ctx.count :]
        learned = [i for i in range(len(tensors)) if ctx.needs_input_grad[5 + len(kv) + i]]
        totals, of_bias = _totals(kv, range(len(kv))), _totals(tensors, learned)
        of_k, of_v = list(totals.values())[::2], list(totals.values())[1::2]
        grad_q = torch.empty_like(q)
        with torch.autocast(grad.device.type, enabled=False):
            for block in ctx.blocks:
                reads, extra = block.reads[: ctx.count], block.reads[ctx.count :]
                parts = [part.detach() for part in _parts(extra, tensors)]
                leaves = [parts[i].requires_grad_() for i in learned]
                with torch.enable_grad():
                    added = ctx.bias(block, *parts)
                k, v = (_joined(reads, part) for part in (kv[::2], kv[1::2]))
                q_rows, grad_out = q[:, block.rows], grad[:, block.rows]
                weights = ctx.scores.weights(q_rows, k, added.detach())
                grad_scores = torch.ops.aten._softmax_backward_data(
                    grad_out @ v.mT, weights, -1, weights.dtype
                )
                if leaves:
                    found = torch.autograd.grad(added, leaves, grad_scores)
                    for i, part in zip(learned, found, strict=True):
                        _add_rows(of_bias[i], extra[i], part)
                grad_q[:, block.rows] = (grad_scores @ k).mul_(ctx.scores.scale)
                _add_products(of_k, reads, grad_scores.mT, q_rows, ctx.scores.scale)
                _add_products(of_v, reads, weights.mT, grad_out, 1.0)
        return None, None, None, None, grad_q, *_cast(totals, kv), *_cast(of_bias, tensors)


def _joined(reads: Sequence[slice], sources: Sequence[Tensor]) -> Tensor:
    """The rows that a block reads of all sources, in a row: `[N, keys, K]`."""
    first = sources[0]
    one_tensor = all(part.data_ptr() == first.data_ptr() for part in sources)
    if one_tensor and all(a.stop == b.start for a, b in pairwise(reads)):
        # Sources may differ in nothing but where their gradients go.
        return first[:, reads[0].start : reads[-1].stop]
    return torch.cat(_parts(reads, sources), 1)


def _add_products(
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
    """Softmax attention of q `[N, T, K]` over k, v `[N, S, K]`; adds a mask `[N or 1, T, S]`."""
    scores = torch.baddbmm(mask, q, k.mT, alpha=1 / math.sqrt(q.size(-1)))
    return torch.softmax(scores, -1) @ v


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores: 0 where `visible`, else minus infinity."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, -math.inf)


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


def band_mask(q: Tensor, size: int, extra: int, *, margin: int = 0) -> Tensor:
    """Additive mask `[size, size + extra]`, like q: a row sees its own column and `extra` more.

    Columns begin as far before a block of rows as a row sees back, or `margin` columns earlier.
    """
    ahead = torch.arange(-margin, size + extra, device=q.device)
    ahead = ahead - torch.arange(size, device=q.device)[:, None]
    return additive((ahead >= 0) & (ahead <= extra), q.dtype)
