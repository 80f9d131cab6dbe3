"""Block-local attention: blocks that do not overlap, and a query that sees its own block alone.

Source: Liu et al. (2018), "Generating Wikipedia by Summarizing Long Sequences", arXiv:1801.10198,
section 4.2.4. Blocks begin at multiples of `window`, wherever a sequence is cut; 16 positions where
the paper takes 256. `look_back` lets a query see the blocks before its own too, as the local
attention of Parmar et al. (2018), "Image Transformer", arXiv:1802.05751, does. Left out: the
paper's other layers, which compress keys and values.
Shapes: B batch, T tokens, D width, H heads, K head width, W window, N batch times heads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.attention import full_attention
from lcbench.blocks import Heads, WindowCache, extend_window, position_of
from lcbench.blockwise import Block, additive, blockwise, masked_attention, row_blocks
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper

CACHED_FLOATS = 3 * 2**17
"""Scores, keys and values of one step that stay in a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How long a block is, and how many of them a query sees."""

    window: int = 16
    """Positions of a block."""
    look_back: int = 0
    """Blocks before its own that a query sees whole; on each side where it sees both."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        if self.look_back < 0:
            raise ValueError(f"look_back must be at least 0, got {self.look_back}")


class BlockLocal(Method):
    """Softmax within blocks of W positions: O(T W) work, O(T) memory, O(W) state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.window, self.look_back = config.window, config.look_back
        self.heads = Heads(shape)

    def forward(
        self, x: Tensor, state: WindowCache | None = None
    ) -> tuple[Tensor, WindowCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and the blocks still in sight."""
        position = position_of(state, causal=self.shape.causal)
        q, k, v = self.heads.split(x, position)  # q [B, H, T, K]
        cache = None
        if self.shape.causal:
            keep = (position + x.size(1)) % self.window + self.look_back * self.window
            k, v, cache = extend_window(state, k, v, keep=keep)
        return self.heads.merge(self._attend(q, k, v)), cache

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q `[B, H, T, K]`, the last T of keys that begin with a block."""
        size, num_keys, behind = self.window, k.size(2), self.look_back
        cached, ahead = num_keys - q.size(2), 0 if self.shape.causal else behind
        # Between these rows every block is whole, and so are all that it reads.
        start = max(-(-cached // size), behind) * size
        stop = (num_keys // size - ahead) * size
        if stop <= start:
            start = stop = num_keys
        pieces = [self._read_edge(q, k, v, rows) for rows in self._edges(cached, start)]
        if stop > start:
            reads = slice(start - behind * size, stop + ahead * size)
            whole = (q[:, :, start - cached : stop - cached], k[:, :, reads], v[:, :, reads])
            fused = q.device.type != "cpu"
            pieces.append(self._read_whole(*whole, extra=behind + ahead, fused=fused))
        pieces += [self._read_edge(q, k, v, rows) for rows in self._edges(stop, num_keys)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)

    def _edges(self, start: int, stop: int) -> list[slice]:
        """The rows from `start` to `stop`, cut where blocks begin."""
        first = start - start % self.window
        cuts = row_blocks(stop - first, self.window)
        return [slice(max(start, first + cut.start), first + cut.stop) for cut in cuts]

    def _read_edge(self, q: Tensor, k: Tensor, v: Tensor, rows: slice) -> Tensor:
        """Attention of some rows of one block, which may lack a neighbour or a part of itself."""
        size, causal, cached = self.window, self.shape.causal, k.size(2) - q.size(2)
        block, behind = rows.start // size, self.look_back
        stop = rows.stop if causal else (block + 1 + behind) * size
        keys = slice(max(0, block - behind) * size, stop)
        q = q[:, :, rows.start - cached : rows.stop - cached]
        return full_attention(q, k[:, :, keys], v[:, :, keys], causal=causal)

    def _read_whole(self, q: Tensor, k: Tensor, v: Tensor, *, extra: int, fused: bool) -> Tensor:
        """Attention of whole blocks of q `[B, H, n W, K]` over keys of `extra` blocks more.

        It is fused into one call for an accelerator, in steps that fit a cache on a CPU.
        """
        size, causal, reads = self.window, self.shape.causal, (1 + extra) * self.window
        visible = torch.ones(size, reads, dtype=torch.bool, device=q.device)
        mask = additive(visible.tril(reads - size) if causal else visible, q.dtype)

        def core(block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k, v = (part.flatten(1, 2).unfold(1, reads, size).mT for part in (k, v))
            if fused:
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            y = masked_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), mask)
            return y.view_as(q)

        count, merged = q.size(2) // size, q.size(0) * q.size(1)
        floats = merged * (size + 2 * q.size(3)) * reads  # of one block
        step = count if fused else max(1, CACHED_FLOATS // floats)
        blocks: list[Block] = []
        for rows in row_blocks(count, step):
            keys = slice(rows.start, rows.stop + extra)
            blocks.append(Block(rows, (rows, keys, keys)))
        parts = (part.flatten(0, 1).unflatten(1, (-1, size)) for part in (q, k, v))
        return blockwise(core, blocks, *parts).view_as(q)  # [N, blocks, W, K] inside


def _shift_period(config: Config) -> int:
    return config.window


def _reach(config: Config) -> int:
    return (1 + config.look_back) * config.window - 1


METHOD = MethodSpec(
    build=BlockLocal,
    config=Config,
    title="Block-local",
    family="local",
    equation="y_i = sum over i - i mod W <= j <= i of softmax_j(q_i . k_j / sqrt K) v_j",
    paper=Paper("Generating Wikipedia by Summarizing Long Sequences", 2018, "1801.10198"),
    cost=Cost(time=1.0, memory=1.0, state=0.0),
    bidirectional=True,
    shift_period=_shift_period,
    reach=_reach,
)
