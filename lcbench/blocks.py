"""What two or more methods use unchanged: heads, positions and caches.

Letters: B batch, T new tokens, S keys, D width, H heads, K head width.
"""

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.method import ModelShape


class Heads(nn.Module):
    """The four projections of attention: D to H heads of K for queries, keys and values, and back.

    Args:
        shape: Where the method stands.
        rotary: Whether queries and keys are turned by their positions.
        key_ratio: Width of a head's queries and keys over that of its values, D / H.

    Raises:
        ValueError: Rotary positions with an odd width of queries.
    """

    def __init__(self, shape: ModelShape, *, rotary: bool = True, key_ratio: float = 1.0) -> None:
        super().__init__()
        self.key_dim = max(1, round(key_ratio * shape.head_dim))
        if rotary and self.key_dim % 2:
            raise ValueError(
                f"rotary positions turn pairs: a key's head_dim must be even, got {self.key_dim} "
                f"(d_model {shape.d_model} over num_heads {shape.num_heads})"
            )
        self.num_heads, self.rotary = shape.num_heads, rotary
        self.q = nn.Linear(shape.d_model, shape.num_heads * self.key_dim, bias=False)
        self.k = nn.Linear(shape.d_model, shape.num_heads * self.key_dim, bias=False)
        self.v = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.o = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def split(self, x: Tensor, position: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values `[B, H, T, K]` of x `[B, T, D]` that begins at `position`."""
        q, k, v = (split_heads(project(x), self.num_heads) for project in (self.q, self.k, self.v))
        if self.rotary:
            q, k = rotate(q, k, positions=positions_of(x, position))
        return q, k, v

    def merge(self, y: Tensor) -> Tensor:
        """Join what the heads read, `[B, H, T, K]`, into `[B, T, D]`."""
        return self.o(y.transpose(1, 2).flatten(2))


def positions_of(x: Tensor, start: int) -> Tensor:
    """Positions `[T]` of the tokens of x `[B, T, D]`, where float64 angles can be made of them."""
    # Apple's GPUs have no float64, which the angles of far positions need.
    device = "cpu" if x.device.type == "mps" else x.device
    return torch.arange(start, start + x.size(1), device=device)


def split_heads(y: Tensor, num_heads: int) -> Tensor:
    """`[..., T, D]` seen as `[..., H, T, K]`."""
    return y.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def rotate(*tensors: Tensor, positions: Tensor) -> list[Tensor]:
    """Turn each pair of features `(i, i + K/2)` by an angle proportional to the token's position.

    Source: Su et al. (2021), "RoFormer", arXiv:2104.09864, section 3.2, with base 10,000.

    Args:
        tensors: Queries and keys `[B, H, T, K]`, K even.
        positions: `[T]` integers.
    """
    angles = angles_of(positions, tensors[0].size(-1))
    return [turn(tensor, angles) for tensor in tensors]


def turn(tensor: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of features `(i, i + K/2)` of `[..., T, K]` by the angles `[T, K/2]`."""
    wide = torch.promote_types(tensor.dtype, torch.float32)
    cos, sin = (part.to(tensor.device, wide) for part in (angles.cos(), angles.sin()))
    return cast(Tensor, _Turn.apply(tensor.to(wide), cos, sin)).to(tensor.dtype)


class _Turn(torch.autograd.Function):
    """`turn` into one buffer: plain arithmetic fills seven, which takes a CPU far longer."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, tensor: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        ctx.save_for_backward(cos, sin)
        out = tensor.new_empty(tensor.shape)
        (a, b), (first, second) = tensor.chunk(2, dim=-1), out.chunk(2, dim=-1)
        torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=second).addcmul_(a, sin)
        return out

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return cast(Tensor, _Turn.apply(grad, cos, -sin)), None, None


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of positions `[T]` at geometric frequencies: `[T, width]`, float64.

    Source: Vaswani et al. (2017), arXiv:1706.03762, section 3.5, in Transformer-XL's order.

    Raises:
        ValueError: An odd width.
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions come in pairs: width must be even, got {width}")
    angles = angles_of(positions, width)
    return torch.cat((angles.sin(), angles.cos()), -1)


def angles_of(positions: Tensor, width: int, *, base: float = 10_000.0) -> Tensor:
    """Position times `base^(-2i / width)`: `[T, width / 2]`, float64 for the far positions."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
    return positions.double()[:, None] * base**-exponents


def unit(x: Tensor) -> Tensor:
    """Vectors `[..., K]` scaled to length 1, the shortest ones to less."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


class RMSNorm(nn.RMSNorm):
    """torch's, in the dtype of its input: under autocast a weight in float32 would be refused."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale each vector `[..., width]` to a root mean square of 1, and by the weight."""
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Steps(nn.Module):
    """How far each head's clock moves with a token, and how much of its state is left after it.

    Source: Gu and Dao (2023), "Mamba", arXiv:2312.00752, sections 3.5 and 3.6, with one rate a head
    as in Mamba-2, arXiv:2405.21060, section 7.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.logits = nn.Linear(shape.d_model, shape.num_heads, bias=False)
        # At first a token takes a step between 0.001 and 0.1, of which the bias is the softplus'
        # inverse, and a step of 1 leaves between e^-1 and e^-16.
        step = torch.empty(shape.num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.log_rate = nn.Parameter(torch.empty(shape.num_heads).uniform_(1, 16).log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps and logarithms of decays for x `[B, T, D]`: `[B, H, T, 1]`, float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus(self.logits(x).to(wide) + self.bias.to(wide))  # [B, T, H]
        step = step.transpose(1, 2)[..., None]
        return step, step * -self.log_rate.to(wide).exp()[:, None, None]


class WindowCache(NamedTuple):
    """The last keys and values of a sequence, no more than a window needs."""

    position: int
    """Tokens seen so far."""
    k: Tensor
    """`[B, H, S, K]`."""
    v: Tensor


def extend_window(
    cache: WindowCache | None, k: Tensor, v: Tensor, *, keep: int
) -> tuple[Tensor, Tensor, WindowCache]:
    """Put the cached keys and values before new ones `[B, H, T, K]`.

    Returns:
        All keys, all values, and a cache of the last `keep` of each that owns its storage.
    """
    position = k.size(2)
    if cache is not None:
        position += cache.position
        k, v = torch.cat((cache.k, k), 2), torch.cat((cache.v, v), 2)
    start = max(0, k.size(2) - keep)
    return k, v, WindowCache(position, owned(k[:, :, start:]), owned(v[:, :, start:]))


def owned(tensor: Tensor) -> Tensor:
    """A contiguous copy: a view in a state would keep alive all of the tensor it looks into."""
    return tensor.clone(memory_format=torch.contiguous_format)


class KVCache(NamedTuple):
    """All keys and values of a sequence, in buffers with room to grow.

    States that follow from one another share buffers; each reads its own first `position` rows.
    """

    position: int
    """Rows of `k` and `v` that belong to this state."""
    k: Tensor
    """`[B, H, capacity, K]`."""
    v: Tensor
    filled: Tensor
    """`[B]`, on the CPU, shared like the buffers: rows written by whichever state went farthest."""


def grow_cache(cache: KVCache | None, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, KVCache]:
    """Append new keys and values `[B, H, T, K]` to all earlier ones.

    Without gradients a row is written once, into spare room, not copied with every token. A state
    that another one has already continued is copied first, so each state stays what it was.

    Returns:
        All keys, all values `[B, H, S, K]`, and the cache that holds them.
    """
    if cache is None:
        return k, v, _full_cache(k, v)
    length, total = cache.position, cache.position + k.size(2)
    if torch.is_grad_enabled() and (k.requires_grad or cache.k.requires_grad):
        k = torch.cat((cache.k[:, :, :length], k), 2)
        v = torch.cat((cache.v[:, :, :length], v), 2)
        return k, v, _full_cache(k, v)
    # What was made in inference mode takes no writes outside of it.
    sealed = cache.k.is_inference() and not torch.is_inference_mode_enabled()
    if sealed or total > cache.k.size(2) or not bool((cache.filled == length).all()):
        capacity = total + max(256, total // 8)
        cache = cache._replace(
            k=_with_room(cache.k[:, :, :length], capacity),
            v=_with_room(cache.v[:, :, :length], capacity),
            filled=torch.empty_like(cache.filled),
        )
    cache.k[:, :, length:total] = k
    cache.v[:, :, length:total] = v
    cache.filled.fill_(total)
    return cache.k[:, :, :total], cache.v[:, :, :total], cache._replace(position=total)


def _full_cache(k: Tensor, v: Tensor) -> KVCache:
    return KVCache(k.size(2), k, v, torch.full((k.size(0),), k.size(2)))


def _with_room(rows: Tensor, capacity: int) -> Tensor:
    """A buffer of `capacity` rows that begins with `rows` `[B, H, S, K]`."""
    batch, heads, length, width = rows.shape
    buffer = rows.new_empty(batch, heads, capacity, width)
    buffer[:, :, :length] = rows
    return buffer


def position_of(state: Any, *, causal: bool) -> int:
    """The position of the next token.

    Raises:
        ValueError: A state where tokens see both sides: the past would have to be computed anew.
    """
    if state is None:
        return 0
    if not causal:
        raise ValueError(
            "a bidirectional method cannot go on from a state: give the whole sequence"
        )
    return state.position
