"""Softmax attention within a band by torch's fused kernel for CPUs, a few blocks at a time.

The kernel takes overlapping blocks of keys as they lie in memory, which its public face would copy,
and its backward pass gives a gradient for each block, to be added up before the next few are made.
Letters: T queries, S keys, K head width, N sequences times heads, n blocks.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lcbench.blockwise import band_blocks, band_mask, row_blocks

VECTOR = 16
"""Columns that are scored at once: fewer take as long."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def fuses(q: Tensor) -> bool:
    """Whether this is the faster way: in bfloat16 separate products run at twice its rate."""
    return q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)


class Columns(NamedTuple):
    """Keys that queries read beside those in their window, wherever they stand."""

    positions: range
    """Where each stands, counted from the first of the band's keys; below 0 before it."""
    causal: bool
    """Whether a query sees only those before its window, not those after it."""
    others: tuple[Tensor, Tensor] | None = None
    """Keys and values `[N, G, K]`; None where they are the band's own at these positions."""


class Given(NamedTuple):
    """What is read for some of the queries elsewhere, in place of their window."""

    rows: slice
    y: Tensor
    """`[N, G, K]`."""


def fused_band(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    left: int,
    right: int,
    columns: Columns | None = None,
    given: Given | None = None,
) -> Tensor:
    """Softmax attention of q `[N, T, K]` over the `left` keys before its own and `right` after it.

    Args:
        q: `[N, T, K]`, float32 or float64; the last T of the S positions.
        k: `[N, S, K]`.
        v: `[N, S, K]`.
        left: Keys before its own that a query sees.
        right: Keys after its own that a query sees.
        columns: What it sees in the same softmax outside of these.
        given: Rows of the result that are known; their queries have no part in any gradient.
    """
    steps, inside, others = _steps(q, k, _block_size(left + right), left, right), None, ()
    if columns is not None:
        steps = _with_columns(q, steps, columns, k.size(1) - q.size(1), left, right)
        positions, others = columns.positions, columns.others or ()
        inside = None if others else slice(positions.start, positions.stop, positions.step)
    # Put in by the caller, they would take a copy of the result, and one of its gradient.
    rows, y = given or (None, None)
    return _FusedBand.apply(_Band(steps, inside, rows), q, k, v, y, *others)  # pyright: ignore[reportReturnType]


def fused_rows(q: Tensor, k: Tensor, v: Tensor, *, every: int) -> Tensor:
    """Softmax attention of a few queries `[N, T, K]`, of which each sees `every` keys more.

    Args:
        q: `[N, T, K]`, float32 or float64; the last one sees all keys.
        k: `[N, S, K]`.
        v: `[N, S, K]`.
        every: Keys between a query and the next.
    """
    size = min(q.size(1), 32)
    unseen = torch.arange(size)[:, None] * every <= torch.arange((size - 1) * every)
    mask = q.new_zeros(size, k.size(1) + size * every)
    mask[:, mask.size(1) - unseen.size(1) :].masked_fill_(unseen, -math.inf)
    steps: list[_Step] = []
    # The last rows come first: they see all keys, so that there the gradients begin with theirs.
    for rows in reversed(row_blocks(q.size(1), size)):
        stop = k.size(1) - (q.size(1) - rows.stop) * every
        part = mask[rows.start - rows.stop :, mask.size(1) - stop :]
        steps.append(_Step(rows, slice(0, stop), size, 1, part))
    return _FusedBand.apply(_Band(steps), q, k, v, None)  # pyright: ignore[reportReturnType]


def _block_size(others: int) -> int:
    """Queries of a block: large ones multiply faster and score more keys that none sees."""
    return 64 if others >= 128 else 32


class _Step(NamedTuple):
    """Blocks of queries that go into one call, each `size` rows and keys after the last."""

    rows: slice
    keys: slice
    size: int
    num_blocks: int
    mask: Tensor
    far_mask: Tensor | None = None
    """`[rows, columns]`, of as many of the first columns as any of the queries may see."""

    def rows_of(self, tensor: Tensor) -> Tensor:
        """`[N, T, K]` cut into the step's blocks of queries, `[N, n, size, K]`."""
        return tensor[:, self.rows].unflatten(1, (self.num_blocks, -1))

    def keys_of(self, tensor: Tensor) -> Tensor:
        """`[N, S, K]` cut into the step's overlapping blocks of keys, `[N, n, keys, K]`."""
        return tensor[:, self.keys].unfold(1, self.mask.size(1), self.size).mT

    def far_parts(self, q: Tensor, columns: Sequence[Tensor]) -> list[Tensor]:
        """The step's queries, and the columns that they read."""
        assert self.far_mask is not None
        return [q[:, self.rows], *(part[:, : self.far_mask.size(1)] for part in columns)]

    def add_keys(self, total: Tensor | None, part: Tensor, like: Tensor) -> Tensor:
        """Add `[N, n, keys, K]` to the rows of `[N, S, K]` that the blocks of keys read.

        Returns:
            The total, laid out in memory as `like`, whose gradient it becomes: heads that were cut
            from one projection are then joined again without a copy.
        """
        if total is None:
            if self.num_blocks == 1 and part.size(2) == like.size(1):
                first = part[:, 0]
                return first if like.is_contiguous() else torch.empty_like(like).copy_(first)
            total = torch.zeros_like(like)
        if self.num_blocks == 1:
            total[:, self.keys].add_(part[:, 0])
            return total
        # Blocks overlap, but the same tile of each does not.
        for tile in range(0, part.size(2), self.size):
            added = part[:, :, tile : tile + self.size]
            rows = total[:, self.keys.start + tile : self.keys.stop].unfold(
                1, added.size(2), self.size
            )
            rows[:, : self.num_blocks].mT.add_(added)
        return total


def _steps(q: Tensor, k: Tensor, size: int, left: int, right: int) -> list[_Step]:
    """Cut a band into steps: blocks that an end of the keys cuts short go alone."""
    offset, pad = k.size(1) - q.size(1), -(left + right) % min(size, 64)
    width = left + right + pad + size
    mask = band_mask(q, size, left + right, margin=pad)
    # What the backward pass makes of a step is to stay in a processor's cache, and masks of its
    # rows are not to grow with T in both directions.
    most = max(1, min(2**20 // (q.size(0) * q.size(2) * width), 512 // size))
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


def _with_columns(
    q: Tensor, steps: Sequence[_Step], columns: Columns, offset: int, left: int, right: int
) -> list[_Step]:
    """Tell each step which columns its queries may see: as many of the first as its mask is wide.

    What is added to a score depends on how far apart the two stand. So one mask is made, of rows
    some positions after a column and of columns before and after that one, and cut for each step.
    """
    positions = columns.positions
    stands = [divmod(offset + step.rows.start - positions.start, positions.step) for step in steps]
    before, since = zip(*stands, strict=True)
    sizes = [step.rows.stop - step.rows.start for step in steps]
    row = torch.arange(min(since), max(map(sum, zip(since, sizes, strict=True))))
    stop = len(positions) - min(before)
    if columns.causal:
        stop = min(stop, int(row[-1]) // positions.step + VECTOR + 1)
    column = torch.arange(-max(before), stop)
    distance = column * positions.step - row[:, None]
    visible = distance < -left
    if not columns.causal:
        visible |= distance > right
    # Finite, so that the sum of a query that sees none of them is tiny and not undefined.
    hidden = torch.finfo(q.dtype).min / 4
    mask = q.new_zeros(visible.shape).masked_fill_(visible.logical_not_(), hidden)
    told: list[_Step] = []
    for step, (column_before, row_since), size in zip(steps, stands, sizes, strict=True):
        last = offset + step.rows.stop - 1 - left if columns.causal else positions.stop
        needed = len(range(positions.start, min(positions.stop, last), positions.step))
        # A whole vector's worth where there is: the mask hides what comes later.
        count = min(len(positions), needed + -needed % VECTOR)
        first_row, first = row_since - min(since), max(before) - column_before
        part = mask[first_row : first_row + size, first : first + count]
        told.append(step._replace(far_mask=part) if needed else step)
    return told


class _Band(NamedTuple):
    """The steps of a band, which of its keys are columns too, and which rows were given."""

    steps: Sequence[_Step]
    inside: slice | None = None
    given: slice | None = None

    def grad_of(self, step: _Step, grad: Tensor) -> Tensor:
        """`[N, T, K]` cut to the step's queries; 0 where what they read came from elsewhere."""
        part = grad[:, step.rows]
        if self.given is not None:
            given = range(grad.size(1))[self.given]
            first = given.start - step.rows.start
            part = part.clone()
            part[:, max(first, first % given.step) :: given.step] = 0
        return part


class _FusedBand(torch.autograd.Function):
    """`fused_band`: nothing is kept of a step but its output and the logarithms of its sums."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, band: _Band, q: Tensor, k: Tensor, v: Tensor, y_given: Tensor | None, *others: Any
    ) -> Tensor:
        q, k, v, *columns = (_dense(part) for part in (q, k, v, *others))
        if band.inside is not None:
            columns = [part[:, band.inside].contiguous() for part in (k, v)]
        out, sums = torch.empty_like(q), list[Tensor]()
        with torch.autocast("cpu", enabled=False):
            for step in band.steps:
                parts = step.rows_of(q), step.keys_of(k), step.keys_of(v)
                y, log_sum = _forward(*parts, attn_mask=step.mask)
                if step.far_mask is not None:
                    one_block = (part[:, None] for part in step.far_parts(q, columns))
                    y_far, log_far = _forward(*one_block, attn_mask=step.far_mask)
                    log_far = log_far.view_as(log_sum)
                    share = torch.sigmoid(log_far - log_sum)[..., None]
                    # Not `lerp`, which takes three times as long with a weight for each row.
                    y_far = y_far.unflatten(2, y.shape[1:3])[:, 0]
                    y.add_(y_far.sub_(y).mul_(share))
                    log_sum = torch.logaddexp(log_sum, log_far)
                step.rows_of(out).copy_(y)
                sums.append(log_sum)
        if y_given is not None:
            out[:, band.given] = y_given
        ctx.band, ctx.columns = band, len(columns)
        ctx.save_for_backward(q, k, v, *columns, out, *sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        band: _Band = ctx.band
        inputs = 3 + ctx.columns
        q, k, v, *columns = ctx.saved_tensors[:inputs]
        out, *sums = ctx.saved_tensors[inputs:]
        grad, of_q = _dense(grad), torch.empty_like(q)
        of_k, of_v = None, None
        of_columns = [torch.zeros_like(part) for part in columns]
        for step, log_sum in zip(band.steps, sums, strict=True):
            of_rows = band.grad_of(step, grad)
            of_blocks = of_rows.unflatten(1, (step.num_blocks, -1))
            parts = step.rows_of(q), step.keys_of(k), step.keys_of(v), step.rows_of(out)
            dq, dk, dv = _backward(of_blocks, *parts, log_sum, 0.0, False, attn_mask=step.mask)
            step.rows_of(of_q).copy_(dq)
            of_k = step.add_keys(of_k, dk, k)
            of_v = step.add_keys(of_v, dv, v)
            if step.far_mask is not None:
                parts = (*step.far_parts(q, columns), out[:, step.rows])
                one_block = (part[:, None] for part in (of_rows, *parts))
                dq, *found = _backward(
                    *one_block, log_sum.flatten(1)[:, None], 0.0, False, attn_mask=step.far_mask
                )
                of_q[:, step.rows].add_(dq[:, 0])
                for total, part in zip(of_columns, found, strict=True):
                    total[:, : part.size(2)].add_(part[:, 0])
        of_given = None if band.given is None else grad[:, band.given]
        if band.inside is None:
            return None, of_q, of_k, of_v, of_given, *of_columns
        for total, part in zip((of_k, of_v), of_columns, strict=True):
            assert total is not None
            total[:, band.inside] += part
        return None, of_q, of_k, of_v, of_given


def _dense(tensor: Tensor) -> Tensor:
    """The same numbers where a row's lie side by side, as the kernel takes for granted."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
