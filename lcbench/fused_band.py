"""Softmax attention within a band by torch's fused kernel for CPUs, a few blocks at a time.

The kernel takes overlapping blocks of keys as they lie in memory, which its public face would copy,
and its backward pass gives a gradient for each block, to be added up before the next few are made.
Letters: T queries, S keys, K head width, N sequences times heads, n blocks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lcbench.blockwise import band_blocks, band_mask

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def fused_band(q: Tensor, k: Tensor, v: Tensor, *, left: int, right: int) -> Tensor:
    """Softmax attention of q `[N, T, K]` over the `left` keys before its own and `right` after it.

    Args:
        q: `[N, T, K]`, float32 or float64; the last T of the S positions.
        k: `[N, S, K]`.
        v: `[N, S, K]`.
        left: Keys before its own that a query sees.
        right: Keys after its own that a query sees.
    """
    # Smaller blocks score fewer keys that no query sees, and larger ones make better products.
    size = 64 if left + right >= 128 else 32
    return _FusedBand.apply(_steps(q, k, size, left, right), q, k, v)  # pyright: ignore[reportReturnType]


class _Step(NamedTuple):
    """Blocks of queries that go into one call, each `size` rows and keys after the last."""

    rows: slice
    keys: slice
    size: int
    num_blocks: int
    mask: Tensor

    def rows_of(self, tensor: Tensor) -> Tensor:
        """`[N, T, K]` cut into the step's blocks of queries, `[N, n, size, K]`."""
        return tensor[:, self.rows].unflatten(1, (self.num_blocks, -1))

    def keys_of(self, tensor: Tensor) -> Tensor:
        """`[N, S, K]` cut into the step's overlapping blocks of keys, `[N, n, keys, K]`."""
        return tensor[:, self.keys].unfold(1, self.mask.size(1), self.size).mT

    def add_keys(self, total: Tensor, part: Tensor) -> None:
        """Add `[N, n, keys, K]` to the rows of `[N, S, K]` that the blocks of keys read."""
        if self.num_blocks == 1:
            total[:, self.keys].add_(part[:, 0])
            return
        # Blocks overlap, but the same tile of each does not.
        for tile in range(0, part.size(2), self.size):
            start = self.keys.start + tile
            rows = total[:, start : start + self.num_blocks * self.size]
            rows.unflatten(1, (self.num_blocks, -1)).add_(part[:, :, tile : tile + self.size])


def _steps(q: Tensor, k: Tensor, size: int, left: int, right: int) -> list[_Step]:
    """Cut a band into steps: blocks that an end of the keys cuts short go alone."""
    offset, pad = k.size(1) - q.size(1), -(left + right) % size
    width = left + right + pad + size
    mask = band_mask(q, size, left + right, margin=pad)
    # What the backward pass makes of a step is to stay in a processor's cache.
    most = max(1, 2**20 // (q.size(0) * q.size(2) * width))
    steps: list[_Step] = []
    for rows, keys in band_blocks(q.size(1), k.size(1), size, left=left + pad, right=right):
        first = keys.start - (offset + rows.start - left - pad)
        length = keys.stop - keys.start
        part = mask[: rows.stop - rows.start, first : first + length]
        last = steps[-1] if steps else None
        if last and part.shape == last.mask.shape == (size, width) and last.num_blocks < most:
            rows, keys = slice(last.rows.start, rows.stop), slice(last.keys.start, keys.stop)
            steps[-1] = last._replace(rows=rows, keys=keys, num_blocks=last.num_blocks + 1)
        else:
            steps.append(_Step(rows, keys, size, 1, part))
    return steps


class _FusedBand(torch.autograd.Function):
    """`fused_band`: nothing is kept of a step but its output and the logarithms of its sums."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, steps: Sequence[_Step], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        q, k, v = (_dense(part) for part in (q, k, v))
        out, sums = torch.empty_like(q), list[Tensor]()
        with torch.autocast("cpu", enabled=False):
            for step in steps:
                parts = step.rows_of(q), step.keys_of(k), step.keys_of(v)
                y, log_sum = _forward(*parts, attn_mask=step.mask)
                step.rows_of(out).copy_(y)
                sums.append(log_sum)
        ctx.steps = steps
        ctx.save_for_backward(q, k, v, out, *sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, out, *sums = ctx.saved_tensors
        grad = _dense(grad)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for step, log_sum in zip(ctx.steps, sums, strict=True):
            parts = step.rows_of(q), step.keys_of(k), step.keys_of(v), step.rows_of(out)
            dq, dk, dv = _backward(
                step.rows_of(grad), *parts, log_sum, 0.0, False, attn_mask=step.mask
            )
            step.rows_of(of_q).copy_(dq)
            step.add_keys(of_k, dk)
            step.add_keys(of_v, dv)
        return None, of_q, of_k, of_v


def _dense(tensor: Tensor) -> Tensor:
    """The same numbers where a row's lie side by side, as the kernel takes for granted."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
