"""Block-sparse attention: a window of blocks, a few global blocks and a few random ones.

Source: Zaheer et al. (2020), "Big Bird: Transformers for Longer Sequences", arXiv:2007.14062,
section 2 and appendix D, the variant whose global tokens are part of the sequence. Where tokens see
both sides, global blocks are the first and the last as in the authors' code, their queries see
everything, and the random blocks depend on how many there are to draw from. Under a causal mask a
query sees earlier blocks and the past of its own; a block draws the same random blocks whatever
the length. A block that is in the window or global is never drawn, so no key counts twice.
Left out: dropout, and, under a causal mask, global blocks that collect: leading ones see nothing
but what came before them, and so hand nothing on.
Shapes: B batch, T tokens, D width, H heads, K head width, b block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcbench.attention import full_attention
from lcbench.block_sparse import block_sparse_attention
from lcbench.blocks import Heads, KVCache, grow_cache, position_of
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Which blocks a query sees; the paper's numbers of them, with blocks of 64."""

    block: int = 16
    """Tokens of a block, b."""
    window_blocks: int = 2
    """Blocks of the window, the query's own included; so many on each side where it sees both."""
    global_blocks: int = 2
    """Blocks that every query sees: the first, and half of them the last where it sees both."""
    random_blocks: int = 3
    """Blocks drawn for each block of queries and each head from those that are left."""
    seed: int = 0
    """Of the draw, with the layer, the head and the block."""

    def __post_init__(self) -> None:
        for name, least in (("block", 1), ("window_blocks", 1), ("global_blocks", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.random_blocks < 0:
            raise ValueError(f"random_blocks must be at least 0, got {self.random_blocks}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in 0..{2**32 - 1}, got {self.seed}")


class BigBird(Method):
    """Softmax over a table of blocks: O(T b) work for each column of it, O(T) memory and state."""

    def __init__(self, shape: ModelShape, config: Config) -> None:
        super().__init__(shape, config)
        self.blocks, self.size = config, config.block
        self.heads = Heads(shape)
        # Of the first blocks, whatever the length. Not a buffer: it stays on the CPU.
        self.causal_table: Tensor | None = None

    def forward(self, x: Tensor, state: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """Mix the next T tokens: `[B, T, D]` to `[B, T, D]`, and all keys and values so far."""
        position = position_of(state, causal=self.shape.causal)
        q, k, v = self.heads.split(x, position)  # q [B, H, T, K]
        if not self.shape.causal:
            return self.heads.merge(self._attend_both_sides(q, k, v)), None
        k, v, cache = grow_cache(state, k, v)
        stop = -(-(position + x.size(1)) // self.size)
        if self.causal_table is None or self.causal_table.size(1) < stop:
            self.causal_table = self.table(0, max(64, stop + stop // 2))
        rows = self.causal_table[:, position // self.size : stop]
        y = block_sparse_attention(q, k, v, rows, size=self.size, start=position)
        return self.heads.merge(y), cache

    def _attend_both_sides(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of global blocks over everything, and of those between them by the table."""
        num_blocks = -(-q.size(2) // self.size)
        first, stop = self._between_globals(num_blocks)
        cuts = (first * self.size, (stop - first) * self.size)
        head, middle, tail = q.tensor_split((cuts[0], sum(cuts)), 2)
        pieces = [full_attention(part, k, v, causal=False) for part in (head, tail) if part.size(2)]
        if middle.size(2):
            rows = self.table(first, stop, num_blocks)
            y = block_sparse_attention(
                middle, k, v, rows, size=self.size, start=cuts[0], causal=False
            )
            pieces.insert(min(1, first), y)
        return torch.cat(pieces, 2)

    def _between_globals(self, num_blocks: int) -> tuple[int, int]:
        """The first block after the leading global ones, and the first of the trailing ones."""
        num_globals = self.blocks.global_blocks
        trailing = 0 if self.shape.causal else num_globals // 2
        first = min(num_globals - trailing, num_blocks)
        return first, max(first, num_blocks - trailing)

    def table(self, first: int, stop: int, num_blocks: int | None = None) -> Tensor:
        """The blocks that blocks `first` to `stop - 1` see: `[H, n, m]`, own last if causal.

        Args:
            first: Number of a block.
            stop: Number of the block after the last one.
            num_blocks: Of the sequence; a causal table does not depend on it.
        """
        causal, near = self.shape.causal, self.blocks.window_blocks - 1
        num_blocks = num_blocks or stop
        inner, outer = self._between_globals(num_blocks)
        own = torch.arange(first, stop)[:, None]
        window = own + torch.arange(-near, 1 if causal else near + 1)
        window = window.where((window >= 0) & (window < num_blocks), -1)
        leading, trailing = torch.arange(inner), torch.arange(outer, num_blocks)
        leading = leading.where(leading < own - near, -1)
        trailing = trailing.where(trailing > own + near, -1)
        # What is left to draw from lies between the globals, before the window or after it.
        before = (own - near - inner).clamp(min=0)
        after = torch.zeros_like(own) if causal else (outer - own - near - 1).clamp(min=0)
        drawn = self._draw(own, before + after)
        drawn = torch.where(drawn < before, drawn + inner, drawn - before + own + near + 1)
        drawn = drawn.where(torch.arange(drawn.size(2)) < before + after, -1)
        columns = (leading, trailing, drawn, window)
        return torch.cat([part.expand(self.shape.num_heads, -1, -1) for part in columns], 2)

    def _draw(self, own: Tensor, left: Tensor) -> Tensor:
        """Numbers below `left` `[n, 1]`, none twice, for each block `own`: `[H, n, r]`.

        Source: Floyd's sampling, Bentley and Floyd (1987), "A sample of brilliance". Where fewer
        are left than drawn, they come first.
        """
        count = self.blocks.random_blocks
        head = torch.arange(self.shape.num_heads)[:, None, None]
        drawn = torch.empty(self.shape.num_heads, len(own), 0, dtype=torch.int64)
        for number in range(count):
            last = (left - count + number).clamp(min=0)
            pick = _hash(self.blocks.seed, self.shape.layer, head, own, number) % (last + 1)
            pick = torch.where((pick == drawn).any(2, keepdim=True), last, pick)
            drawn = torch.cat((drawn, torch.where(left <= count, number, pick)), 2)
        return drawn


def _hash(*parts: Tensor | int) -> Tensor:
    """A number in 0..2^32 - 1 that looks random, the same on every machine."""
    mixed = torch.zeros(1, dtype=torch.int64)
    for part in parts:
        mixed = (mixed + part + 0x9E3779B9) & 0xFFFFFFFF
        for _ in range(2):
            # A factor below 2^31 keeps the product within int64.
            mixed = ((mixed ^ (mixed >> 16)) * 0x045D9F3B) & 0xFFFFFFFF
        mixed = mixed ^ (mixed >> 16)
    return mixed


def _is_local(config: Config) -> bool:
    return config.global_blocks == config.random_blocks == 0


def _shift_period(config: Config) -> int | None:
    return config.block if _is_local(config) else None


def _reach(config: Config) -> int | None:
    return config.window_blocks * config.block - 1 if _is_local(config) else None


METHOD = MethodSpec(
    build=BigBird,
    config=Config,
    title="Block-sparse (BigBird)",
    family="sparse",
    equation=(
        "y_i = sum over j <= i in the own block, the w - 1 before it, the first g and r drawn at"
        " random of softmax_j(q_i . k_j / sqrt K) v_j"
    ),
    paper=Paper("Big Bird: Transformers for Longer Sequences", 2020, "2007.14062"),
    cost=Cost(time=1.0, memory=1.0, state=1.0),
    bidirectional=True,
    shift_period=_shift_period,
    reach=_reach,
)
