"""What the tests of methods share: a comparison of values and gradients, and slow projections."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lcbench.method import Method
from lcbench.probe import difference

Run = Callable[[Tensor], Tensor]


@pytest.fixture
def assert_agree() -> Callable[[Method, Run, Run, Tensor], None]:
    """Two computations with a method's parameters give one output and one set of gradients."""

    def check(method: Method, actual: Run, expected: Run, x: Tensor) -> None:
        names = ["x", *(name for name, _ in method.named_parameters())]
        results: list[list[Tensor | None]] = []
        for run in (actual, expected):
            leaf = x.clone().requires_grad_()
            y = run(leaf)
            weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).sin()
            leaves = [leaf, *method.parameters()]
            gradients = torch.autograd.grad((y * weight).sum(), leaves, materialize_grads=True)
            results.append([y, *gradients])
        for name, got, wanted in zip(["output", *names], *results, strict=True):
            flat = (got.reshape(1, -1, 1), wanted.reshape(1, -1, 1))
            size, where = difference(*flat)
            assert size < 1e-9, f"{name} at {where} is off by {size:.2g} of scale"

    return check


@pytest.fixture
def project() -> Callable[..., Tensor]:
    """`[B, T, D]` through a linear layer to `[B, H, T, K]`, rotary as complex numbers if asked."""

    def run(linear: nn.Linear, x: Tensor, *, num_heads: int = 4, rotary: bool = False) -> Tensor:
        y = torch.stack(linear(x).chunk(num_heads, dim=-1), dim=1)
        if not rotary:
            return y
        half = y.size(-1) // 2
        frequencies = torch.tensor([10000 ** (-i / half) for i in range(half)], dtype=y.dtype)
        angles = torch.arange(y.size(2), dtype=y.dtype)[:, None] * frequencies
        turned = torch.complex(y[..., :half], y[..., half:]) * torch.exp(1j * angles)
        return torch.cat((turned.real, turned.imag), -1)

    return run


@pytest.fixture
def in_calls() -> Callable[[Method, Tensor, list[int]], Tensor]:
    """A method's output over consecutive calls of the given lengths."""

    def run(method: Method, x: Tensor, lengths: list[int]) -> Tensor:
        state, outputs = None, []
        for part in x.split(lengths, dim=1):
            y, state = method(part, state)
            outputs.append(y)
        return torch.cat(outputs, 1)

    return run


@pytest.fixture
def recur() -> Callable[..., Tensor]:
    """A recurrence with a matrix for a state, one token after the other."""

    def run(q: Tensor, k: Tensor, v: Tensor, *, decay=1.0, beta: Tensor | None = None) -> Tensor:
        """Outputs `[B, H, T, V]` of q, k `[B, H, T, K]`; decay and beta broadcast to `[..., T, K]`.

        A decay multiplies the state before a token is written; beta makes that a correction.
        """
        decay = torch.as_tensor(decay, dtype=v.dtype).expand(k.shape)
        state, outputs = torch.zeros(*k.shape[:2], k.size(3), v.size(3), dtype=v.dtype), []
        for t in range(v.size(2)):
            state = decay[:, :, t, :, None] * state
            written = v[:, :, t]
            if beta is not None:
                recalled = torch.einsum("bhk,bhkv->bhv", k[:, :, t], state)
                written = beta[:, :, t] * (written - recalled)
            state = state + torch.einsum("bhk,bhv->bhkv", k[:, :, t], written)
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], state))
        return torch.stack(outputs, 2)

    return run
