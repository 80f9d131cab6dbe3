"""Laws of training: gradients arrive everywhere, and are the slope of what the method computes."""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import torch
from torch import Tensor

from lcbench.method import Method
from lcbench.probe import Probe

STEP = 1e-6
"""How far parameters and inputs are moved, in float64, to measure a slope."""
SLOPE_TOLERANCE = 1e-5
"""What a measured slope may differ by from the gradient's, as a part of its scale."""


def arrival(probe: Probe) -> str | None:
    """Newly built, every parameter and every input token gets a finite gradient that is not 0."""
    method = probe.build(jitter=0).train()
    with torch.enable_grad():
        x = probe.tokens(2, probe.context).requires_grad_()
        _loss(probe, method, x).backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and (fault := _fault(parameter.grad)):
            return f"T={probe.context}: the gradient of {name} is {fault}"
    for token in range(probe.context):
        if fault := _fault(None if x.grad is None else x.grad[:, token]):
            return f"T={probe.context}: the gradient of input token {token} is {fault}"
    return None


def slope(probe: Probe) -> str | None:
    """Moving a parameter or the input a little changes the output as its gradient says."""
    for length in sorted({3, probe.context}):
        method = probe.build().eval()
        x = probe.tokens(2, length).requires_grad_()
        leaves = {"the input": x} | {
            name: p for name, p in method.named_parameters() if p.requires_grad
        }
        with torch.enable_grad():
            loss = _loss(probe, method, x)
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for number, ((name, leaf), gradient) in enumerate(zip(leaves.items(), found, strict=True)):
            if broken := _slope_fault(probe, method, x, leaf, gradient, number):
                return f"T={length}: {broken.format(name=name)}"
    return None


def _slope_fault(
    probe: Probe, method: Method, x: Tensor, leaf: Tensor, gradient: Tensor | None, number: int
) -> str | None:
    generator = torch.Generator().manual_seed(probe.seed + number)
    direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
    losses: list[float] = []
    with torch.no_grad():
        start = leaf.clone()
        for sign in (1, -1):
            leaf.copy_(start + sign * STEP * direction)
            losses.append(_loss(probe, method, x).item())
        leaf.copy_(start)
    measured = (losses[0] - losses[1]) / (2 * STEP)
    told = 0.0 if gradient is None else (gradient * direction).sum().item()
    length = 0.0 if gradient is None else gradient.norm().item()
    # A loss of thousands, summed over all outputs, leaves a difference of it so many digits less.
    rounding = 1e-13 * max(abs(losses[0]), 1.0) / STEP
    if abs(measured - told) <= SLOPE_TOLERANCE * max(length, abs(measured)) + rounding:
        return None
    return f"along one direction the output's slope in {{name}} is {measured:.4g}, not {told:.4g}"


def _loss(probe: Probe, method: Method, x: Tensor) -> Tensor:
    y: Tensor = method(x)[0]
    loss = (y * probe.tokens(2, x.shape[1], stream=1)).sum()
    penalty = method.penalty()
    return loss if penalty is None else loss + penalty


def _fault(gradient: Tensor | None) -> str | None:
    if gradient is None:
        return "missing"
    if not gradient.isfinite().all():
        return "not finite"
    return None if gradient.any() else "0 everywhere"
