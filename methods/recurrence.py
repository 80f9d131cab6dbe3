"""Segment recurrence: a query sees its segment so far and a memory of the tokens before it.

Source: Dai et al. (2019), "Transformer-XL", arXiv:1901.02860, sections 3.2 and 3.3. Segments begin
at multiples of `segment`, wherever a sequence is cut; the memory starts empty and passes gradients
to the weights that project it, never to its tokens. Left out: clamped distances, and any gradient
through a carried state, which keeps projected keys and values where the paper keeps inputs, so that
decoding projects each token once.
Shapes: B batch, T tokens, D width, H heads, K head width, S segment, M memory, L = S + M.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lcbench.blocks import (
    Heads,
    WindowCache,
    extend_window,
    position_of,
    sinusoids,
    split_heads,
)
from lcbench.blockwise import Block, additive, block_size, softmax_blocks
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper, detach_state


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How long a segment and the memory before it are."""

    segment: int = 64
    """Tokens of a segment, S."""
    memory: int = 64
    """Tokens before the segment that all of its queries see, M."""

    def __post_init__(self) -> None:
        if self.segment < 1:
            raise ValueError(f"segment must be at least 1, got {self.segment}")
        if self.memory < 0:
            raise ValueError(f"memory must be at least 0, got {self.memory}")


class Recurrence(Method):
    """Softmax over segment and memory, by content and distance: O(T L) work, O(L) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.segment, self.memory = config.segment, config.memory
        self.heads = Heads(shape, rotary=False)
        self.distance = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(shape.num_heads, 1, shape.head_dim))
        self.distance_bias = nn.Parameter(torch.zeros(shape.num_heads, 1, shape.head_dim))
        # Not a buffer: casting the module would round it, and not every device has float64.
        farthest_first = torch.arange(self.segment + self.memory).flip(0)
        self.sinusoids = sinusoids(farthest_first, shape.d_model)  # [L, D]

    def forward(self, x: Tensor, state: WindowCache | None = None) -> tuple[Tensor, WindowCache]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the last L - 1 keys and values."""
        position = position_of(state, causal=True)
        q = split_heads(self.heads.q(x), self.heads.num_heads)  # [B, H, T, K]
        x = x.to(q.dtype)
        (k, old_k), (v, old_v) = self._by_role(x, self.heads.k), self._by_role(x, self.heads.v)
        if state is not None and torch.is_grad_enabled():
            old_k, old_v = torch.cat((state.k, old_k), 2), torch.cat((state.v, old_v), 2)
        k, v, cache = extend_window(state, k, v, keep=self.segment + self.memory - 1)
        if not torch.is_grad_enabled():
            old_k, old_v = k, v
        y = self._attend(q, k, v, old_k, old_v, position)
        return self.heads.merge(y), detach_state(cache)

    def _by_role(self, x: Tensor, project: nn.Linear) -> tuple[Tensor, Tensor]:
        """Project x to `[B, H, T, K]`, for its own segment and as memory of the next."""
        roles: tuple[Tensor, Tensor] = _InTwoRoles.apply(x, project.weight.to(x.dtype))  # pyright: ignore[reportAssignmentType]
        new, old = (split_heads(role, self.heads.num_heads) for role in roles)
        return new, old

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, old_k: Tensor, old_v: Tensor, position: int
    ) -> Tensor:
        """Attention of q `[B, H, T, K]`, whose first token is at `position`."""
        batch, heads, tokens, width = q.shape
        content_q = q + self.content_bias.to(q.dtype)
        distance_q = (q + self.distance_bias.to(q.dtype)) / math.sqrt(width)
        distance_q, distance_k = self._by_distance(distance_q)
        blocks = self._blocks(position, tokens, k.size(2) - tokens, batch * heads)
        # Heads first, so that the sequences of a head share its one product with the distances.
        parts = (content_q, k, v, old_k, old_v, distance_q)
        content_q, k, v, old_k, old_v, distance_q = (
            part.transpose(0, 1).flatten(0, 1) for part in parts
        )  # [H B, T, K]
        sources = [(old_k, old_v), (k, v)]
        future = torch.ones(self.segment, self.segment, dtype=torch.bool, device=q.device).triu(1)
        tail = additive(future.logical_not_(), q.dtype)
        y = softmax_blocks(content_q, sources, blocks, _bias, distance_q, distance_k, tail=tail)
        return y.unflatten(0, (heads, batch)).transpose(0, 1)

    def _by_distance(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose products are (q W_r R_d): W_r goes where it has less to do."""
        if self.sinusoids.device != q.device and q.device.type != "mps":
            self.sinusoids = self.sinusoids.to(q.device)
        table = self.sinusoids.to(q)  # [L, D]
        if q.size(2) > 1:
            return q, split_heads(self.distance(table), self.heads.num_heads)  # [H, L, K]
        weight = self.distance.weight.to(q.dtype).unflatten(0, (self.heads.num_heads, -1))
        return q @ weight, table[None]

    def _blocks(self, position: int, tokens: int, cached: int, batch: int) -> list[Block]:
        """Blocks of queries, none of which spans two segments."""
        size, longest = block_size(batch, self.memory), self.segment + self.memory
        base, end = position - cached, position + tokens
        blocks: list[Block] = []
        start = position
        while start < end:
            segment = start - start % self.segment
            stop = min(end, segment + self.segment, start + size)
            first = max(0, segment - self.memory)
            rows = slice(start - position, stop - position)
            old, new = slice(first - base, segment - base), slice(segment - base, stop - base)
            distances = slice(longest - (stop - first), longest)
            blocks.append(Block(rows, (old, new, rows, distances)))
            start = stop
        return blocks


class _InTwoRoles(torch.autograd.Function):
    """x projected once, for two roles: gradients of the second reach the weight but not x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        y = x @ weight.mT
        return y, y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        return new @ weight, (new + old).flatten(0, 1).mT @ x.flatten(0, 1)


def _bias(block: Block, q: Tensor, k: Tensor) -> Tensor:
    """Scores by distance, `[N, rows, keys]`: q is `[N, rows, K]`; k `[H, keys, K]` ends at 0."""
    scores = q.reshape(k.size(0), -1, q.size(2)) @ k.mT
    return _Shifted.apply(scores.view(q.size(0), q.size(1), -1))  # pyright: ignore[reportReturnType]


class _Shifted(torch.autograd.Function):
    """Scores of distances where their keys stand: row i of n is read from n - 1 - i columns on.

    What a row reads beyond its end belongs to its future, and is not to be used.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        rows, columns = scores.shape[1:]
        # A row that begins one number early is one that is read one column further right.
        return scores.as_strided(scores.shape, (rows * columns, columns - 1, 1), rows - 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        rows = grad.size(1)
        # The last column of all rows but the last is future, whose gradient is zero.
        flat = (grad[:, :, :-1].flatten(1), grad[:, -1, -1:])
        return torch.cat((grad.new_zeros(len(grad), rows - 1), *flat), 1).view_as(grad)


def _segment(config: Config) -> int:
    return config.segment


def _reach(config: Config) -> int:
    return config.segment + config.memory - 1


METHOD = MethodSpec(
    build=Recurrence,
    config=Config,
    title="Segment recurrence",
    family="recurrent-memory",
    equation=(
        "y_i = sum over s - M <= j <= i of softmax_j(((q_i + u) . k_j + (q_i + v) . W_r R_(i-j))"
        " / sqrt K) v_j, where s = i - i mod S"
    ),
    paper=Paper(
        "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
        2019,
        "1901.02860",
    ),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    gradient_exact=False,
    shift_period=_segment,
    reach=_reach,
)
