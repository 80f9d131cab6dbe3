"""Recurrences with a matrix for a state, chunk by chunk: linear work, and no loop over tokens.

    S_t = a_t S_(t-1) + k_t u_t        y_t = q_t S_t

u_t is v_t, or by the delta rule b_t (v_t - k_t a_t S_(t-1)): what the key does not recall yet. The
decay a_t multiplies the rows of S, all by one number or each by its own.

Letters: B batch, H heads, T tokens, K key width, V value width, N chunks, C tokens of a chunk.
Sources: chunks, Hua et al. (2022), arXiv:2202.10447; decays a row, Yang et al. (2023),
arXiv:2312.06635, section 4; the delta rule, Yang et al. (2024), arXiv:2406.06484, section 3, and
with a decay arXiv:2412.06464, section 3.3.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64
"""Tokens whose pairs are scored; earlier ones are read from the state. A power of two."""

FAINTEST = -80.0
"""Logarithm of the least decay: smaller ones are as good as 0, and ten times as slow to take."""


class Read(NamedTuple):
    """What a recurrence gives."""

    y: Tensor
    """`[B, H, T, V]`, in the dtype of v."""
    state: Tensor
    """S after the last token, `[B, H, K, V]`, in float32 at least."""


def linear_recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    state: Tensor | None = None,
) -> Read:
    """Write each token into the state and read it with the token's query: O(T (C K + K V)) a head.

    All work is done in float32 at least, whatever the inputs are. A backward pass computes chunks
    again, so that training keeps the inputs and few states.

    Args:
        q: `[B, H, T, K]`, or `[B, 1, T, K]` where all heads read with one query.
        k: Like q.
        v: `[B, H, T, V]`.
        log_decay: Logarithms of a, none above 0: `[B, H, T, 1]`, or `[B, H, T, K]` for a decay a
            row. Of the first three sizes, any may be 1 for what does not vary. None for a = 1.
        beta: b of the delta rule, `[B, H, T, 1]`; None to write v as it is.
        state: S before the first token, `[B, H, K, V]`, left as it is; None for zeros.
    """
    if state is None:
        wide = torch.promote_types(v.dtype, torch.float32)
        state = v.new_zeros(v.size(0), v.size(1), q.size(3), v.size(3), dtype=wide)
    inputs = _Inputs(q, k, v, log_decay, beta)
    with torch.autocast(v.device.type, enabled=False):
        if v.size(2) == 1:
            return _step(state, inputs)
        groups = _groups(v)
        if len(groups) == 1:
            return _read_chunks(state, inputs)
        result: Any = _InGroups.apply(groups, state, *inputs)
        return Read(*result)


class _Inputs(NamedTuple):
    """What the tokens bring to the recurrence."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    beta: Tensor | None

    def at(self, rows: slice) -> "_Inputs":
        """Those of some tokens; what is the same for all of them stays whole."""
        parts: list[Any] = [
            part if part is None or part.size(2) == 1 else part[:, :, rows] for part in self
        ]
        return _Inputs(*parts)


def _step(state: Tensor, inputs: _Inputs) -> Read:
    """One token: the recurrence as it is written."""
    wide, log_decay, beta = state.dtype, inputs.log_decay, inputs.beta
    q, k, v = (part.to(wide) for part in inputs[:3])
    if log_decay is not None:
        state = state * log_decay.to(wide).exp().mT
    if beta is not None:
        v = beta.to(wide) * (v - k @ state)
    state = state + k.mT * v
    return Read((q @ state).to(inputs.v.dtype), state)


def _groups(v: Tensor) -> list[slice]:
    """Groups of whole chunks to work on at once, and what is left of the last one."""
    # On a processor what a group needs stays in its cache; an accelerator wants few launches.
    pairs = 2**18 if v.device.type == "cpu" else 2**25
    size = CHUNK * max(1, pairs // (v.size(0) * v.size(1) * CHUNK * CHUNK))
    whole = v.size(2) - v.size(2) % CHUNK
    groups = [slice(start, min(start + size, whole)) for start in range(0, whole, size)]
    return groups if whole == v.size(2) else [*groups, slice(whole, v.size(2))]


class _InGroups(torch.autograd.Function):
    """`_read_chunks` group by group, with a backward that goes through each of them again."""

    @staticmethod
    def forward(
        ctx: Any, groups: list[slice], state: Tensor, *tensors: Any
    ) -> tuple[Tensor, Tensor]:
        inputs = _Inputs(*tensors)
        v = inputs.v
        # In memory tokens come before heads, so that heads are joined without a copy.
        y = v.new_empty(v.size(0), v.size(2), v.size(1), v.size(3)).transpose(1, 2)
        states: list[Tensor] = []
        for rows in groups:
            states.append(state)
            y[:, :, rows], state = _read_chunks(state, inputs.at(rows))
        ctx.groups = groups
        ctx.save_for_backward(*states, *tensors)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor, grad_state: Tensor
    ) -> tuple[Tensor | None, ...]:
        groups: list[slice] = ctx.groups
        states, tensors = ctx.saved_tensors[: len(groups)], ctx.saved_tensors[len(groups) :]
        needed = [i for i, need in enumerate(ctx.needs_input_grad[2:]) if need]
        totals: list[Any] = [None] * len(tensors)
        for i in needed:
            constant = tensors[i].size(2) == 1
            totals[i] = torch.zeros_like(tensors[i]) if constant else torch.empty_like(tensors[i])
        for rows, state in zip(reversed(groups), reversed(states), strict=True):
            parts: list[Any] = list(_Inputs(*tensors).at(rows))
            state = state.detach().requires_grad_()
            for i in needed:
                parts[i] = parts[i].detach().requires_grad_()
            with torch.autocast(grad.device.type, enabled=False), torch.enable_grad():
                read = _read_chunks(state, _Inputs(*parts))
            leaves = (state, *(parts[i] for i in needed))
            given = (grad[:, :, rows], grad_state)
            grad_state, *added = torch.autograd.grad(read, leaves, given)
            for i, part in zip(needed, added, strict=True):
                if tensors[i].size(2) == 1:
                    totals[i] += part
                else:
                    totals[i][:, :, rows] = part
        return None, grad_state, *totals


def _read_chunks(state: Tensor, inputs: _Inputs) -> Read:
    """A few chunks: what lies within each of them is scored, all at once; states follow."""
    tokens, beta = inputs.v.size(2), inputs.beta
    chunk = min(CHUNK, 1 << (tokens - 1).bit_length())
    q, k, v = (_chunked(part, chunk, state.dtype) for part in inputs[:3])  # [B, H, N, C, K]
    kept = _kept(inputs.log_decay, tokens, chunk, q)  # [B, H, N, C, 1 or K]
    end = kept[..., -1:, :]
    scores, reading = _scores(q, k, kept), q * _decay(kept)
    writing = (k * _decay(end - kept)).mT
    decay = _decay(end).mT  # [B, H, N, 1 or K, 1]
    if beta is not None:
        beta = _chunked(beta, chunk, state.dtype)
        solve = _unit_inverse(_scores(k, k, kept) * beta) * beta.mT
        v, recalled = solve @ v, solve @ (k * _decay(kept))
        reading = _plus_product(reading, scores, -recalled)
        eye = torch.eye(k.size(-1), device=k.device, dtype=k.dtype)
        decay = _plus_product(eye * decay, writing, -recalled)
    before, state = _scan(state, decay, writing @ v)
    y = _plus_product(scores @ v, reading, before)
    return Read(y.flatten(2, 3)[:, :, :tokens].to(inputs.v.dtype), state)


def _chunked(part: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
    """`[B, H, T, K]` as `[B, H, N, C, K]`, zeros after the last token: they leave S as it is."""
    if missing := -part.size(2) % chunk:
        part = F.pad(part, (0, 0, 0, missing))
    return part.to(dtype).unflatten(2, (-1, chunk)).contiguous()


def _kept(log_decay: Tensor | None, tokens: int, chunk: int, like: Tensor) -> Tensor:
    """Logarithms of what each token leaves of the state before its chunk."""
    if log_decay is None:
        return like.new_zeros(1, 1, 1, chunk, 1)
    if log_decay.size(2) > 1:
        return _chunked(log_decay, chunk, like.dtype).cumsum(3)
    steps = torch.arange(1, chunk + 1, device=like.device).clamp(max=tokens)
    return log_decay.to(like.dtype)[:, :, None] * steps[:, None]


def _decay(log: Tensor) -> Tensor:
    return log.clamp(min=FAINTEST).exp()


def _scores(q: Tensor, k: Tensor, kept: Tensor) -> Tensor:
    """`[B, H, N, C, C]`: q_i . k_j, decayed from j to i, where j <= i; else 0."""
    if kept.size(-1) == 1:
        ones = torch.ones(q.size(-2), q.size(-2), device=q.device, dtype=q.dtype)
        return (q @ k.mT) * (_decay((kept - kept.mT).clamp(max=0)) * ones.tril())
    q, k, kept = torch.broadcast_tensors(q, k, kept)
    return _RowScores.apply(q, k, kept)  # pyright: ignore[reportReturnType]


class _RowScores(torch.autograd.Function):
    """`_scores` where each row of the state has a decay of its own.

    Such a decay cannot be drawn out of the product over rows, and split into exp(kept_i) and
    exp(-kept_j) it overflows. Between a later and an earlier half it is taken to their border and
    on from there, which are two factors below 1; so are halves of halves, down to one token.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, kept)
        scores = (q * k).sum(-1)[..., None, None]  # [B, H, N, C, 1, 1]
        for size, since, until in _to_borders(kept):
            late_q, early_k = _later(q, size) * since, _earlier(k, size) * until
            scores = _joined(scores, late_q @ early_k.mT)
        return scores[..., 0, :, :]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, kept = ctx.saved_tensors
        grad_q, grad_k = torch.zeros_like(q), torch.zeros_like(k)
        for size, since, until in _to_borders(kept):
            late_q, early_k = _later(q, size) * since, _earlier(k, size) * until
            corner = _below(grad, size)
            _later(grad_q, size).add_((corner @ early_k).mul_(since))
            _earlier(grad_k, size).add_((corner.mT @ late_q).mul_(until))
        grad_kept = q * grad_q - k * grad_k
        # Added last: a token's own score does not depend on decays, nor would it cancel exactly.
        own = grad.diagonal(0, -2, -1)[..., None]
        return torch.addcmul(grad_q, own, k), torch.addcmul(grad_k, own, q), grad_kept


def _earlier(part: Tensor, size: int) -> Tensor:
    """The first of each two blocks of `size` tokens, `[..., C / 2 size, size, K]`."""
    return part.unflatten(-2, (-1, 2, size))[..., 0, :, :]


def _later(part: Tensor, size: int) -> Tensor:
    """The second of each two blocks of `size` tokens."""
    return part.unflatten(-2, (-1, 2, size))[..., 1, :, :]


def _to_borders(kept: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Sizes of blocks, decays since the border before each later one, and until it in the earlier.

    Those of longer blocks are products of those of shorter ones: taking them as exponentials of
    differences would take most of the time of the scores.
    """
    since = _decay(torch.cat((kept[..., :1, :], kept.diff(dim=-2)), -2))
    until, size = torch.ones_like(since), 1
    while size < kept.size(-2):
        yield size, _later(since, size), _earlier(until, size)
        # Both of these are read before either is changed: the last row of `since` is the block's.
        first, second = (part(since, size)[..., -1:, :].clone() for part in (_earlier, _later))
        _later(since, size).mul_(first)
        _earlier(until, size).mul_(second)
        size *= 2


def _below(square: Tensor, size: int) -> Tensor:
    """Of `[..., C, C]` the blocks next below those on the diagonal: `[..., M, size, size]`."""
    pairs = square.unflatten(-1, (-1, 2, size)).unflatten(-4, (-1, 2, size))
    return pairs[..., 1, :, :, 0, :].diagonal(0, -4, -2).movedim(-1, -3)


def _joined(blocks: Tensor, corner: Tensor) -> Tensor:
    """Lower triangles `[..., 2 M, C, C]` two by two, `corner` below: `[..., M, 2 C, 2 C]`."""
    first, second = blocks.unflatten(-3, (-1, 2)).unbind(-3)
    below = torch.cat((corner, second), -1)
    return torch.cat((F.pad(first, (0, first.size(-1))), below), -2)


def _unit_inverse(system: Tensor) -> Tensor:
    """Inverse of I + L, L being what lies below the diagonal of `[..., C, C]`."""
    return _UnitInverse.apply(system)  # pyright: ignore[reportReturnType]


class _UnitInverse(torch.autograd.Function):
    """`_unit_inverse` with its own gradient.

    Halves of it are inverted, then quarters of the rest, in as many products as C has doublings:
    several times as fast as substitution row by row, and as accurate.
    """

    @staticmethod
    def forward(ctx: Any, system: Tensor) -> Tensor:
        size = system.size(-1)
        blocks = system.new_ones(*system.shape[:-1], 1, 1)
        while (half := blocks.size(-1)) < size:
            first, second = blocks.unflatten(-3, (-1, 2)).unbind(-3)
            blocks = _joined(blocks, -(second @ _below(system, half) @ first))
        inverse = blocks[..., 0, :, :]
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (inverse,) = ctx.saved_tensors
        return -(inverse.mT @ grad @ inverse.mT).tril(-1)


def _plus_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`base + left @ right`, in one pass over memory."""
    sizes = torch.broadcast_shapes(*(part.shape[:-2] for part in (base, left, right)))
    base, left, right = (part.expand(*sizes, -1, -1).flatten(0, -3) for part in (base, left, right))
    return torch.baddbmm(base, left, right).unflatten(0, sizes)


def _scan(state: Tensor, decay: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """States before each chunk `[B, H, N, K, V]`, and the one after the last.

    Args:
        state: `[B, H, K, V]`.
        decay: Of the state in a chunk, `[B, H, N, 1 or K, 1]`, or a matrix `[B, H, N, K, K]`.
        added: `[B, H, N, K, V]`.
    """
    before: list[Tensor] = []
    decays = decay.expand(-1, -1, added.size(2), -1, -1).unbind(2)
    # Unbound first: the gradient of an index into a long tensor is as long as the tensor.
    for kept, new in zip(decays, added.unbind(2), strict=True):
        before.append(state)
        if decay.size(-1) == 1:
            state = torch.addcmul(new, kept, state)
        else:
            state = _plus_product(new, kept, state)
    return torch.stack(before, 2), state
