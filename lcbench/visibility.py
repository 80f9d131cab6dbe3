"""Laws of sight: which tokens an output may read, which it does, and from what distance.

Sight is measured by changing tokens and comparing outputs, never read off a mask; by gradients only
on top, since a method that sorts or hashes leaks where its gradients are exactly 0.
"""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcbench.method import Method, MethodConfig, MethodSpec
from lcbench.probe import LENGTHS, MAX_CONTEXT, TOKENS, TOLERANCE, Probe, difference

INFLUENCE = 1e-10
"""A change below this part of the output's scale is rounding: in float64 that is 1e-16 a step."""

LOUDNESS = (1, 3, 30)
"""Norms of a changed future: some methods leak a future only where it is louder than the past."""


def receptive_field(
    spec: MethodSpec,
    config: MethodConfig,
    context: int,
    *,
    causal: bool | None = None,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Who sees whom in one layer, measured: tokens are replaced one by one and outputs compared.

    Args:
        spec: The method.
        config: Its configuration.
        context: T, tokens of the sequence.
        causal: What the method is built for; causal where it can be, unless given.
        seed: Of the parameters and the inputs.

    Returns:
        `[T, T]`, true at (i, j) where output i moves when token j changes.

    Raises:
        ValueError: The method does not claim what it is to be built for.
    """
    return measure_field(Probe(spec, config, seed), context, causal=causal)


@torch.no_grad()
def measure_field(probe: Probe, context: int, *, causal: bool | None = None) -> NDArray[np.bool_]:
    """Who sees whom in the layer a probe stands in; see `receptive_field`."""
    method = probe.build(shape=probe.shape(causal=causal))
    x = probe.tokens(1, context)
    # Three times the norm: a change that a softmax gives no weight to would look like blindness.
    other = 3 * probe.tokens(1, context, stream=1)[0]  # [T, D]
    expected: Tensor = method(x)[0]
    threshold = INFLUENCE * (expected.abs().max().item() or 1.0)
    field = np.zeros((context, context), dtype=np.bool_)
    # A method that holds all T x T scores of 4 heads in float64 then needs at most 256 MiB.
    for changed in torch.split(torch.arange(context), max(1, 2**23 // context**2)):
        inputs = x.repeat(len(changed), 1, 1)
        inputs[torch.arange(len(changed)), changed] = other[changed]
        moved = (method(inputs)[0] - expected).abs().amax(-1)  # [changed, T]
        field[:, changed.numpy()] = ~(moved <= threshold).numpy().T  # a NaN counts as moved
    return field


def causality(probe: Probe) -> str | None:
    """No output moves when later tokens change, change places or are cut off."""
    method = probe.build()
    for length in sorted({*LENGTHS, probe.context}):
        x = probe.tokens(1, length)
        # Every cut of a short sequence; of a long one, as many as a batch may hold.
        cuts = range(1, length, 1 if length <= TOKENS else length // 9)
        broken = _future_seen(probe, method, x, cuts)
        if broken is None and not probe.spec.length_dependent:
            broken = _length_seen(method, x, cuts)
        if broken := broken or _gradient_leak(method, x, cuts):
            return f"T={length}: {broken}"
    return None


def _future_seen(probe: Probe, method: Method, x: Tensor, cuts: range) -> str | None:
    expected: Tensor = method(x)[0]
    past = torch.arange(x.shape[1]) < torch.tensor(cuts)[:, None]  # [cuts, T]
    for change, future in _futures(probe, x, cuts):
        y: Tensor = method(torch.where(past[..., None], x, future))[0]
        gaps = (y - expected).abs().amax(-1).nan_to_num(nan=torch.inf) * past  # [cuts, T]
        cut, output = divmod(int(gaps.argmax()), x.shape[1])
        size = gaps[cut, output].item() / expected.abs().max().item()
        if size > TOLERANCE:
            return f"tokens {cuts[cut]}.. {change} moved output {output} by {size:.2g} of scale"
    return None


def _futures(probe: Probe, x: Tensor, cuts: range) -> Iterator[tuple[str, Tensor]]:
    """What may come after each cut, `[1 or cuts, T, D]`; what comes before is not used."""
    noise = probe.tokens(1, x.shape[1], stream=1)
    for size in LOUDNESS:
        yield f"replaced by noise x{size}", size * noise
    yield "reversed", torch.stack([torch.cat([x[0, :cut], x[0, cut:].flip(0)]) for cut in cuts])


def _length_seen(method: Method, x: Tensor, cuts: range) -> str | None:
    expected: Tensor = method(x)[0]
    for cut in cuts:
        size, output = difference(method(x[:, :cut])[0], expected[:, :cut])
        if size > TOLERANCE:
            return f"tokens {cut}.. cut off moved output {output} by {size:.2g} of scale"
    return None


@torch.enable_grad()
def _gradient_leak(method: Method, x: Tensor, cuts: range) -> str | None:
    leaf = x.clone().requires_grad_()
    y: Tensor = method(leaf)[0]
    for cut in cuts:
        (gradient,) = torch.autograd.grad(y[:, :cut].square().sum(), leaf, retain_graph=True)
        by_token = gradient[0].abs().amax(-1).nan_to_num(nan=torch.inf)  # [T]
        token = cut + int(by_token[cut:].argmax())
        if by_token[token] > TOLERANCE * by_token[:cut].max():
            return f"outputs before {cut} send token {token} a gradient of {by_token[token]:.2g}"
    return None


def two_sided(probe: Probe) -> str | None:
    """Built with `causal=False`, a token reads later ones as well, no farther than the reach."""
    field = measure_field(probe, probe.context, causal=False)
    if not np.triu(field, 1).any():
        return f"T={probe.context}: no output moves when a later token changes"
    return None if probe.reach is None else _beyond(field, probe.reach)


def reach(probe: Probe) -> str | None:
    """The farthest token an output reads is exactly `reach` away; 200 or more if that is None."""
    if probe.reach is None:
        return _bounded(probe)
    context = probe.context
    if probe.reach >= context:
        return f"a reach of {probe.reach} is too long to measure in {MAX_CONTEXT} tokens"
    field = measure_field(probe, context)
    outputs, tokens = field.nonzero()
    farthest = int(abs(outputs - tokens).max(initial=0))
    if farthest < probe.reach:
        return f"T={context}: no output reads farther than {farthest}, declared is {probe.reach}"
    return _beyond(field, probe.reach)


def _beyond(field: NDArray[np.bool_], declared: int) -> str | None:
    outputs, tokens = field.nonzero()
    distances = abs(outputs - tokens)
    nearest = np.where(distances > declared, distances, len(field)).argmin()
    if distances[nearest] <= declared:
        return None
    return (
        f"T={len(field)}: output {outputs[nearest]} moves with token {tokens[nearest]}, "
        f"{distances[nearest]} away; declared is {declared}"
    )


def gives_weights(probe: Probe) -> bool:
    """Whether the method shows its attention weights."""
    return probe.build().weights(probe.tokens(1, 1)) is not None


def weights(probe: Probe) -> str | None:
    """Attention weights, where given, are not 0 exactly where an output moves with a token."""
    sides = ((True, probe.spec.causal), (False, probe.spec.bidirectional))
    for causal in (side for side, claimed in sides if claimed):
        shape, context = probe.shape(causal=causal), probe.context
        given = probe.build(shape=shape).weights(probe.tokens(1, context))
        expected = (1, shape.num_heads, context, context)
        if given is None or given.shape != expected:
            found = None if given is None else list(given.shape)
            return f"T={context}: the weights are {found}, not [B, H, T, T] {list(expected)}"
        largest = given[0].abs().amax(0).numpy()  # [T, T], a NaN where any head has one
        field = measure_field(probe, context, causal=causal)
        for output, token in np.argwhere((largest > INFLUENCE) != field):
            moves = "moves" if field[output, token] else "does not move"
            return (
                f"T={context}, causal={causal}: output {output} {moves} with token {token}, "
                f"whose weight is {largest[output, token]:.2g}"
            )
    return None


def _bounded(probe: Probe) -> str | None:
    # A hundred tokens, not one: what selects by content may rightly pass over any single token.
    method, x = probe.build(), probe.tokens(1, 300)
    expected: Tensor = method(x)[0]
    x[:, :100] = 3 * probe.tokens(1, 100, stream=1)
    if difference(method(x)[0][:, -1:], expected[:, -1:]).size <= INFLUENCE:
        return "T=300: no bound is declared, yet output 299 does not move with tokens 0..99"
    return None


def shift(probe: Probe) -> str | None:
    """Tokens moved by the shift period give the same outputs, moved.

    Two equally long stretches of one sequence are compared, the shift apart, where everything
    within reach lies in both. Without a finite reach every output reads a token that only one
    stretch has, so the law is checked for a finite reach alone.
    """
    period, margin = probe.spec.shift_period(probe.config), probe.reach
    assert period is not None
    assert margin is not None
    method = probe.build()
    for moved in (period, 3 * period):
        length = probe.context + moved
        x = probe.tokens(1, length + moved)
        before: Tensor = method(x[:, :-moved])[0][:, moved:]
        after: Tensor = method(x[:, moved:])[0][:, :-moved]
        inner = slice(margin, None if probe.spec.causal else before.shape[1] - margin)
        size, token = difference(after[:, inner], before[:, inner])
        if size > TOLERANCE:
            return (
                f"T={length}: shifted by {moved} tokens, output {margin + token} differs "
                f"by {size:.2g} of scale"
            )
    return None
