"""Attention in a band beside torch's causal attention, and how each method's layer grows with T.

    THP_MEM_ALLOC_ENABLE=1 python tests/bench/core_speed.py [--seconds 0.5] [--threads 2]

The switch is the one every cell runs under. Ratios are paired: both sides in alternation, on one
machine; the exponents are the slope of log cost over log T from 4k to 32k tokens, at B = 1.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench import registry
from lcbench.attention import banded_attention
from lcbench.measure import Workload, measure_memory, time_alternating
from lcbench.method import ModelShape

CPU = torch.device("cpu")
LADDER = (4096, 8192, 16384, 32768)


class Shape(NamedTuple):
    """Sizes of one attention."""

    batch: int
    heads: int
    tokens: int
    width: int
    window: int


SHAPES = (
    Shape(128, 4, 32, 16, 64),
    Shape(32, 4, 128, 16, 64),
    Shape(8, 4, 512, 16, 64),
    Shape(1, 8, 4096, 64, 64),
    Shape(1, 8, 4096, 64, 256),
    Shape(1, 8, 16384, 64, 256),
)


def forward(call: Callable[..., Tensor], sizes: tuple[int, ...], inputs: int) -> Workload:
    """`call` on fresh inputs, without gradients."""

    @torch.no_grad()
    def run(tensors: list[Tensor]) -> Tensor:
        return call(*tensors)

    return Workload(lambda: [torch.randn(sizes) for _ in range(inputs)], run)


def train(call: Callable[..., Tensor], sizes: tuple[int, ...], inputs: int) -> Workload:
    """`call` on fresh inputs, and its gradients."""

    def prepare() -> list[Tensor]:
        leaves = [torch.randn(sizes, requires_grad=True) for _ in range(inputs)]
        return [*leaves, torch.randn(sizes)]

    def run(tensors: list[Tensor]) -> None:
        call(*tensors[:-1]).backward(tensors[-1])

    return Workload(prepare, run)


def compare_cores(seconds: float) -> None:
    """Banded against full causal attention, milliseconds and full over banded."""
    click.echo(
        f"{'B':>4} {'H':>2} {'T':>6} {'K':>3} {'W':>4}" + 2 * f"{'ms':>9} {'full':>9} {'x':>6}"
    )
    full = partial(F.scaled_dot_product_attention, is_causal=True)
    for shape in SHAPES:
        batch, heads, tokens, width, window = shape
        line = f"{batch:4} {heads:2} {tokens:6} {width:3} {window:4}"
        for kind in (forward, train):
            banded = kind(
                partial(banded_attention, window=window), (batch, heads, tokens, width), 3
            )
            rival = kind(full, (batch, heads, tokens, width), 3)
            ours, theirs = time_alternating(banded, rival, CPU, seconds=seconds)
            assert theirs is not None
            ratio = theirs.median_ms / ours.median_ms
            line += f"{ours.median_ms:9.2f} {theirs.median_ms:9.2f} {ratio:6.2f}"
        click.echo(line)


def grow_layers(seconds: float, d_model: int, num_heads: int) -> None:
    """Each method's layer at its default configuration over the ladder, and the exponents."""
    for name in registry.method_names():
        spec = registry.load_method(name)
        layer = spec.build(ModelShape(d_model=d_model, num_heads=num_heads), spec.config())
        for kind in (forward, train):
            times: list[float] = []
            peaks: list[float] = []
            for tokens in LADDER:
                work = kind(lambda x, layer=layer: layer(x)[0], (1, tokens, d_model), 1)
                # The fastest: what else runs on the machine only ever adds.
                repeats = time_alternating(work, None, CPU, seconds=seconds)[0].repeats_ns
                times.append(min(repeats) / 1e6)
                peaks.append((measure_memory(work, CPU).peak_bytes or 0) / 2**20)
            click.echo(f"{name:>16} {kind.__name__:>7} ms  {_curve(times)}")
            click.echo(f"{'':>24} MiB {_curve(peaks)}")


def _curve(values: list[float]) -> str:
    exponent = np.polyfit(np.log(LADDER), np.log(values), 1)[0]
    return "".join(f"{value:10.1f}" for value in values) + f"   T^{exponent:.2f}"


@click.command()
@click.option("--seconds", default=0.5, help="Of timing for each figure.")
@click.option("--threads", default=2, help="Threads torch may use.")
@click.option("--d-model", default=64, help="Width of the layers.")
@click.option("--num-heads", default=4, help="Heads of the layers.")
def main(seconds: float, threads: int, d_model: int, num_heads: int) -> None:
    """Print both tables."""
    torch.set_num_threads(threads)
    huge_pages = os.environ.get("THP_MEM_ALLOC_ENABLE", "unset")
    click.echo(f"torch {torch.__version__}, {threads} threads, THP_MEM_ALLOC_ENABLE {huge_pages}")
    compare_cores(seconds)
    click.echo(f"layers of D {d_model}, H {num_heads} at T = {', '.join(map(str, LADDER))}")
    grow_layers(seconds, d_model, num_heads)


if __name__ == "__main__":
    main()
