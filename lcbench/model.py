"""The one backbone that hosts any method: a pre-norm decoder with a short convolution a layer.

Embedding, then L layers of (RMSNorm, causal depthwise convolution, the method, residual; RMSNorm,
SwiGLU, residual), RMSNorm, head. The convolution is the same for every method: it binds a token to
the one before it, without which a model this small needs minutes rather than seconds to learn
recall.

Sources: SwiGLU, Shazeer (2020), arXiv:2002.05202. The short convolution before the mixer, Arora et
al. (2023), "Zoology", arXiv:2312.04927.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.config import digest
from lcbench.method import Method, MethodConfig, MethodSpec, ModelShape, State
from lcbench.suite import ModelPlan

INIT_STD = 0.02
"""Standard deviation of the embedding and of the head at the start (GPT-2's)."""

MethodFactory = Callable[[ModelShape], Method]


def build_method(spec: MethodSpec, shape: ModelShape, config: MethodConfig) -> Method:
    """A method in its place in a model.

    Raises:
        ValueError: A place where tokens see what the method does not claim to work with.
    """
    if shape.causal and not spec.causal:
        raise ValueError(
            f"{spec.title} does not claim to be causal: build it with causal=False,"
            " where tokens see both sides"
        )
    if not shape.causal and not spec.bidirectional:
        raise ValueError(
            f"{spec.title} does not claim to be bidirectional: build it with causal=True,"
            " where a token sees itself and the past"
        )
    return spec.build(shape, config)


class LayerState(NamedTuple):
    """What one layer keeps between calls."""

    conv: Tensor
    """The last `width - 1` inputs of the convolution, `[B, width - 1, D]`."""
    method: State


class ShortConvolution(nn.Module):
    """A causal depthwise convolution over the last few tokens, `[B, T, D]` to `[B, T, D]`."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(width, d_model).uniform_(-bound, bound))

    def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Convolve the next T tokens.

        Args:
            x: `[B, T, D]`.
            before: The `width - 1` inputs before x; zeros at the start of a sequence.

        Returns:
            `[B, T, D]`, and the last `width - 1` inputs.
        """
        width, length = len(self.weight), x.shape[1]
        if before is None:
            before = x.new_zeros(x.shape[0], width - 1, x.shape[2])
        padded = torch.cat([before, x], dim=1)
        # A sum of shifted products: on CPU 1.3 to 2 times as fast as a grouped conv1d.
        out = padded[:, :length] * self.weight[0]
        for shift in range(1, width):
            out = torch.addcmul(out, padded[:, shift : shift + length], self.weight[shift])
        return out, padded[:, length:].clone()


class SwiGLU(nn.Module):
    """A gated two-layer perceptron, `[B, T, D]` to `[B, T, D]`."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(d_model, 2 * hidden, bias=False)
        self.outer = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every token by itself."""
        gate, value = self.inner(x).chunk(2, dim=-1)
        return self.outer(F.silu(gate) * value)


class Layer(nn.Module):
    """One layer: short convolution and method, then SwiGLU, each on a residual branch."""

    def __init__(self, plan: ModelPlan) -> None:
        super().__init__()
        self.mix_norm = nn.RMSNorm(plan.d_model)
        self.conv = ShortConvolution(plan.d_model, plan.conv_width)
        self.mlp_norm = nn.RMSNorm(plan.d_model)
        self.mlp = SwiGLU(plan.d_model, plan.mlp_ratio * plan.d_model)
        self.method: Method

    def forward(self, x: Tensor, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """`[B, T, D]` to `[B, T, D]`, and the state after these tokens."""
        before, carried = (state.conv, state.method) if state else (None, None)
        mixed, after = self.conv(self.mix_norm(x), before)
        mixed, kept = self.method(mixed, carried)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), LayerState(after, kept)


class Backbone(nn.Module):
    """A decoder over tokens with a method in every layer.

    Args:
        plan: Its sizes.
        vocab_size: Number of tokens.
        build: Makes the method of one layer.
        train_context: Told to the methods.
        seed: Everything but the method starts the same for every method with this seed.
    """

    def __init__(
        self,
        plan: ModelPlan,
        vocab_size: int,
        build: MethodFactory,
        *,
        train_context: int,
        seed: int,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            _seed_torch(f"backbone {seed}")
            self.embedding = nn.Embedding(vocab_size, plan.d_model)
            self.blocks = [Layer(plan) for _ in range(plan.num_layers)]
            self.layers = nn.ModuleList(self.blocks)
            self.norm = nn.RMSNorm(plan.d_model)
            self.head = nn.Linear(plan.d_model, vocab_size, bias=False)
            nn.init.normal_(self.embedding.weight, std=INIT_STD)
            nn.init.normal_(self.head.weight, std=INIT_STD)
            for index, layer in enumerate(self.blocks):
                _seed_torch(f"method {seed} {index}")
                shape = ModelShape(
                    d_model=plan.d_model,
                    num_heads=plan.num_heads,
                    layer=index,
                    num_layers=plan.num_layers,
                    train_context=train_context,
                )
                layer.method = build(shape)

    def forward(
        self, tokens: Tensor, state: tuple[LayerState, ...] | None = None
    ) -> tuple[Tensor, tuple[LayerState, ...]]:
        """Read the next T tokens.

        Args:
            tokens: `[B, T]`, int64.
            state: What the previous call returned; None at the start of a sequence.

        Returns:
            Hidden vectors `[B, T, D]`, normalised and ready for `head`, and the state. They are not
            logits because most tasks ask at few positions, and the head is the widest product.
        """
        x = self.embedding(tokens)
        after: list[LayerState] = []
        for index, layer in enumerate(self.blocks):
            x, kept = layer(x, state[index] if state else None)
            after.append(kept)
        return self.norm(x), tuple(after)

    @property
    def methods(self) -> list[Method]:
        """The method of each layer."""
        return [layer.method for layer in self.blocks]

    def penalty(self) -> Tensor | None:
        """Sum of the methods' penalties, or None when none has one."""
        terms = [term for method in self.methods if (term := method.penalty()) is not None]
        return torch.stack(terms).sum() if terms else None


def _seed_torch(text: str) -> None:
    torch.manual_seed(int(digest(text, 15), 16))
