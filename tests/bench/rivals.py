"""Cores and layers beside what their users would otherwise reach for, in alternation, in one run.

    pip install -c constraints.txt -e '.[oracles]'
    python tests/bench/rivals.py [CONTEST ...] [--device cuda] [--dtype bfloat16] [--contexts 4096]

B 1, H 8, K 64. Every figure is a ratio: the rival's median time over ours, both sides timed A B B A
on fresh inputs. Rivals compute in the same dtype on the same device; a compiled one is compiled
before it is timed, and how long that took is said. A rival that is not installed, or cannot do what
is asked, is named with the reason. `growth` fits the exponent in T of every method's layer, and
weighs its forward pass against its inputs and outputs.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench import parts, registry
from lcbench.attention import banded_attention, full_attention
from lcbench.chunkwise import linear_recurrence
from lcbench.config import UsageError
from lcbench.measure import Workload, choose_timer, measure_memory, time_alternating
from lcbench.method import ModelShape

HEADS, WIDTH = 8, 64
D_MODEL = HEADS * WIDTH
WINDOW, NUM_GLOBALS = 256, 64
SEGMENT = 512
GROWTH = (8192, 16_384, 32_768, 65_536)
ROUNDS = 6
HUGE_PAGES, NUM_THREADS = "THP_MEM_ALLOC_ENABLE", "OMP_NUM_THREADS"
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""What has glibc hand out freed memory again, large blocks too, which it else returns each time."""


class Setting(NamedTuple):
    """What one figure is measured at."""

    tokens: int
    dtype: torch.dtype
    device: torch.device

    def randn(self, *sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=self.dtype, device=self.device)


class Side(NamedTuple):
    """One implementation: takes what `inputs` gives, returns the output to differentiate."""

    name: str
    call: Callable[..., Tensor]
    sizes: tuple[tuple[int, ...], ...]
    """Shapes of its inputs."""
    trains: bool = True
    note: str = ""


class AbsentError(Exception):
    """A rival that cannot be measured here, and why."""


Maker = Callable[[Setting], Side]


def forward(side: Side, setting: Setting) -> Workload:
    """`side` on fresh inputs, without gradients."""

    @torch.no_grad()
    def run(tensors: list[Tensor]) -> Tensor:
        return side.call(*tensors)

    return Workload(lambda: [setting.randn(*sizes) for sizes in side.sizes], run)


def train(side: Side, setting: Setting) -> Workload:
    """`side` on fresh inputs, and the gradients of inputs and parameters."""

    def prepare() -> list[Tensor]:
        return [setting.randn(*sizes).requires_grad_() for sizes in side.sizes]

    def run(tensors: list[Tensor]) -> None:
        out = side.call(*tensors)
        out.backward(torch.ones_like(out))

    return Workload(prepare, run)


def core(name: str, call: Callable[..., Tensor], setting: Setting, **options: Any) -> Side:
    """A function of q, k, v, each `[1, H, T, K]`."""
    return Side(name, call, ((1, HEADS, setting.tokens, WIDTH),) * 3, **options)


def on_tokens(name: str, call: Callable[..., Tensor], setting: Setting, **options: Any) -> Side:
    """A function of x `[1, T, D]`."""
    return Side(name, call, ((1, setting.tokens, D_MODEL),), **options)


def layer(setting: Setting, method: str, **overrides: str) -> Side:
    """A layer of one of our methods, its projections included; as many as it has parts."""
    spec = registry.load_method(method)
    resolved = parts.resolve(spec, spec.config().override(overrides))
    depth = max(1, len(resolved.parts))
    shapes = (
        ModelShape(d_model=D_MODEL, num_heads=HEADS, layer=i, num_layers=depth)
        for i in range(depth)
    )
    modules = [resolved.build(shape).to(setting.device, setting.dtype) for shape in shapes]

    def call(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)[0]
        return x

    return on_tokens(f"{method} layer", call, setting)


class Copy(nn.Module):
    """An identity whose output may be written to."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def bare(module: nn.Module) -> nn.Module:
    """The module with every square projection an identity, so that its core is what is timed."""
    for name, part in list(module.named_children()):
        if isinstance(part, nn.Linear) and part.in_features == part.out_features:
            # A copy where a query would be scaled in place, which a caller's tensor must not be.
            setattr(module, name, Copy() if name.startswith("query") else nn.Identity())
        else:
            bare(part)
    return module


# Vanilla


def our_vanilla(setting: Setting) -> Side:
    return core("full_attention", full_attention, setting)


def sdpa(setting: Setting) -> Side:
    return core("SDPA", partial(F.scaled_dot_product_attention, is_causal=True), setting)


def torch_mha(setting: Setting) -> Side:
    """torch's own module, the oracle's layer."""
    module = nn.MultiheadAttention(D_MODEL, HEADS, bias=False, batch_first=True)
    module = module.to(setting.device, setting.dtype)
    mask = nn.Transformer.generate_square_subsequent_mask(
        setting.tokens, device=setting.device, dtype=setting.dtype
    )

    def call(x: Tensor) -> Tensor:
        return module(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]

    return on_tokens("torch MultiheadAttention", call, setting)


# Sliding window


def our_window(setting: Setting) -> Side:
    return core("banded_attention", partial(banded_attention, window=WINDOW), setting)


def longformer_module(setting: Setting) -> Any:
    """Hugging Face's Longformer self-attention; two-sided, `WINDOW` keys and the query."""
    try:
        from transformers import LongformerConfig
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
    except ImportError:
        raise AbsentError("transformers is not installed") from None
    config = LongformerConfig(
        hidden_size=D_MODEL,
        num_attention_heads=HEADS,
        attention_window=[WINDOW],
        num_hidden_layers=1,
        attention_probs_dropout_prob=0.0,
    )
    return LongformerSelfAttention(config, 0).to(setting.device, setting.dtype)


def longformer(setting: Setting, *, num_globals: int = 0, projected: bool = False) -> Side:
    """Longformer over x `[1, T, D]`, with globals evenly spread, with or without projections."""
    module = longformer_module(setting)
    if not projected:
        bare(module)
    every = setting.tokens // num_globals if num_globals else setting.tokens + 1
    is_global = ((torch.arange(setting.tokens, device=setting.device) + 1) % every == 0)[None]
    options = {
        "attention_mask": torch.where(is_global, 10000.0, 0.0).to(setting.dtype),
        "is_index_masked": torch.zeros_like(is_global),
        "is_index_global_attn": is_global,
        "is_global_attn": bool(num_globals),
    }
    name = "Longformer (transformers)" + (", layer" if projected else "")
    return on_tokens(name, lambda x: module(x, **options)[0], setting)


def local_attention(setting: Setting) -> Side:
    try:
        from local_attention import LocalAttention
    except ImportError:
        raise AbsentError("local-attention is not installed") from None
    module = LocalAttention(
        dim=WIDTH,
        window_size=WINDOW,
        causal=True,
        exact_windowsize=True,
        use_rotary_pos_emb=False,
        autopad=True,
    )
    return core("local-attention", module.to(setting.device), setting)


def flex_window(setting: Setting, *, mask_inside: bool = False) -> Side:
    """Compiled FlexAttention under a band mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def in_band(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (q - k < WINDOW)

    compiled = torch.compile(flex_attention, dynamic=False)
    # Uncompiled, the mask of 16k tokens takes gigabytes.
    build = torch.compile(create_block_mask, dynamic=False)
    sizes = (None, None, setting.tokens, setting.tokens)
    mask = create_block_mask if setting.tokens <= 4096 else build

    def make() -> Any:
        return mask(in_band, *sizes, device=setting.device.type)

    ready = make()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        block_mask = make() if mask_inside else ready
        out = compiled(q, k, v, block_mask=block_mask)
        assert isinstance(out, Tensor)
        return out

    inputs = [setting.randn(1, HEADS, setting.tokens, WIDTH) for _ in range(3)]
    began = time.perf_counter()
    try:
        with torch.no_grad():
            call(*inputs)
    except Exception as error:  # noqa: BLE001 - a compiler that is missing fails in its own ways
        raise AbsentError(f"FlexAttention does not compile here: {type(error).__name__}") from None
    note = f"compiled in {time.perf_counter() - began:.0f} s"
    on_cuda = setting.device.type == "cuda"
    name = "FlexAttention" + (", mask built inside" if mask_inside else "")
    return core(name, call, setting, trains=on_cuda, note=note)


def dense_band(setting: Setting) -> Side:
    """SDPA with the band as a mask: what one writes first."""
    if setting.tokens > 8192:
        raise AbsentError("one figure would take minutes")
    row = torch.arange(setting.tokens, device=setting.device)
    behind = row[:, None] - row
    mask = (behind >= 0) & (behind < WINDOW)
    return core(
        "SDPA, dense mask", partial(F.scaled_dot_product_attention, attn_mask=mask), setting
    )


# Window and globals


def our_sparse(setting: Setting, *, projected: bool = True) -> Side:
    every = str(setting.tokens // NUM_GLOBALS)
    if projected:
        return layer(setting, "sparse-global", window=str(WINDOW), global_every=every)
    spec = registry.load_method("sparse-global")
    config = spec.config().override(
        {"window": str(WINDOW), "global_every": every, "positions": "none"}
    )
    module = bare(spec.build(ModelShape(d_model=D_MODEL, num_heads=HEADS), config))
    return on_tokens("sparse-global core", lambda x: module(x)[0], setting)


def our_window_bare(setting: Setting) -> Side:
    """The band alone on the same heads, cut from x as the sparse core cuts them."""

    def call(x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)
        return banded_attention(heads, heads, heads, window=WINDOW)

    return on_tokens("sliding-window core", call, setting)


# Segment recurrence


def our_recurrence(setting: Setting) -> Side:
    return layer(setting, "recurrence", segment=str(SEGMENT), memory=str(SEGMENT))


def transformer_xl(setting: Setting) -> Side:
    """Hugging Face's Transformer-XL layer, segment by segment; 4.47.1 is the last that has it."""
    try:
        from transformers.models.deprecated.transfo_xl import modeling_transfo_xl
    except ImportError:
        raise AbsentError("transformers is not installed, or newer than 4.47.1") from None
    module = modeling_transfo_xl.RelPartialLearnableMultiHeadAttn(
        HEADS, D_MODEL, WIDTH, 0.0, r_w_bias=None, r_r_bias=None
    )
    for name in ("r_w_bias", "r_r_bias"):
        nn.init.zeros_(getattr(module, name))
    module = module.to(setting.device, setting.dtype)

    def step(x: Tensor, memory: Tensor | None) -> Tensor:
        keys = x.size(0) + (0 if memory is None else memory.size(0))
        future = torch.ones(x.size(0), keys, device=x.device).triu(keys - x.size(0) + 1).bool()
        distances = torch.arange(keys - 1, -1, -1)
        return module(x, sinusoid(distances).to(x)[:, None], future[..., None], mems=memory)[0]

    return on_tokens("Transformer-XL (transformers), layer", segmented(step), setting)


def xlnet(setting: Setting) -> Side:
    """XLNet's layer segment by segment: the same attention, which transformers still has."""
    try:
        from transformers import XLNetConfig
        from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention
    except ImportError:
        raise AbsentError("transformers is not installed") from None
    config = XLNetConfig(d_model=D_MODEL, n_head=HEADS, d_inner=8, n_layer=1, dropout=0.0)
    module = XLNetRelativeAttention(config)
    for parameter in (module.q, module.k, module.v, module.o, module.r):
        nn.init.normal_(parameter, std=0.02)
    for parameter in (module.r_w_bias, module.r_r_bias):
        nn.init.zeros_(parameter)
    module = module.to(setting.device, setting.dtype)

    def step(x: Tensor, memory: Tensor | None) -> Tensor:
        keys = x.size(0) + (0 if memory is None else memory.size(0))
        future = torch.ones(x.size(0), keys, device=x.device).triu(keys - x.size(0) + 1)
        r = sinusoid(torch.arange(keys, -x.size(0), -1)).to(x)[:, None]
        return module(x, None, future.to(x)[..., None, None], None, r, None, mems=memory)[0]

    return on_tokens("XLNet (transformers), layer", segmented(step), setting)


def segmented(step: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[[Tensor], Tensor]:
    """A layer over x `[1, T, D]` as a training loop drives it: memory is the segment before."""

    def call(x: Tensor) -> Tensor:
        memory, outputs = None, []
        for part in x.transpose(0, 1).split(SEGMENT):
            outputs.append(step(part, memory))
            memory = part.detach()
        return torch.cat(outputs).transpose(0, 1)

    return call


def sinusoid(distances: Tensor) -> Tensor:
    """Sines, then cosines: `[keys, D]`."""
    angles = distances[:, None] * 10000 ** (-torch.arange(0, D_MODEL, 2) / D_MODEL)
    return torch.cat((angles.sin(), angles.cos()), -1)


# Constant state


def our_retention(setting: Setting) -> Side:
    """The chunkwise core under the fixed decays of retention."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_recurrence(q, k, v, log_decay=_decays(q)[..., None, None].log()).y

    return core("chunkwise, fixed decays", call, setting)


def our_delta(setting: Setting) -> Side:
    """The chunkwise core under the delta rule, with one decay a head."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        beta = torch.full_like(q[..., :1], 0.5)
        decay = _decays(q)[..., None, None].log()
        return linear_recurrence(q, F.normalize(k, dim=-1), v, log_decay=decay, beta=beta).y

    return core("chunkwise, gated delta rule", call, setting)


def loop(setting: Setting, *, delta: bool, indexed: bool = False) -> Side:
    """The same recurrence token by token, cut by `unbind`, or `indexed` as first written.

    Each index has a gradient as large as what it cuts from, so that one trains in T squared.
    """

    def tokens(part: Tensor) -> Sequence[Tensor]:
        return [part[:, :, t] for t in range(part.size(2))] if indexed else part.unbind(2)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k = F.normalize(k, dim=-1) if delta else k
        decay = _decays(q)[..., None, None]
        state, outputs = q.new_zeros(1, HEADS, WIDTH, WIDTH), []
        for q_t, k_t, v_t in zip(tokens(q), tokens(k), tokens(v), strict=True):
            state = decay * state
            if delta:
                v_t = 0.5 * (v_t - (k_t[..., None, :] @ state).squeeze(-2))
            state = state + k_t[..., :, None] * v_t[..., None, :]
            outputs.append(q_t[..., None, :] @ state)
        return torch.cat(outputs, 2)

    return core("loop, indexing" if indexed else "loop, unbound", call, setting)


def _decays(q: Tensor) -> Tensor:
    """One for each head: `[1, H]`."""
    return 1 - 2 ** (-5 - torch.arange(HEADS, dtype=q.dtype, device=q.device))[None]


class Contest(NamedTuple):
    """One of ours, and its rivals."""

    ours: Maker
    rivals: tuple[Maker, ...]
    contexts: tuple[int, ...] = (1024, 4096, 16_384)


CONTESTS = {
    "vanilla": Contest(our_vanilla, (sdpa,), (1024, 4096, 8192)),
    "vanilla-layer": Contest(partial(layer, method="vanilla"), (torch_mha,), (1024, 4096)),
    "window": Contest(
        our_window,
        (
            longformer,
            local_attention,
            flex_window,
            partial(flex_window, mask_inside=True),
            dense_band,
        ),
    ),
    "window-layer": Contest(
        partial(layer, method="sliding-window", window=str(WINDOW)),
        (partial(longformer, projected=True),),
    ),
    "sparse": Contest(
        partial(our_sparse, projected=False),
        (our_window_bare, partial(longformer, num_globals=NUM_GLOBALS)),
    ),
    "sparse-layer": Contest(
        our_sparse,
        (
            partial(layer, method="sliding-window", window=str(WINDOW)),
            partial(longformer, num_globals=NUM_GLOBALS, projected=True),
        ),
    ),
    "recurrence": Contest(our_recurrence, (transformer_xl, xlnet)),
    "retention": Contest(
        our_retention,
        (partial(loop, delta=False), partial(loop, delta=False, indexed=True)),
        (4096,),
    ),
    "delta-rule": Contest(
        our_delta, (partial(loop, delta=True), partial(loop, delta=True, indexed=True)), (4096,)
    ),
}


def compare(contest: Contest, setting: Setting, seconds: float) -> Iterator[str]:
    """Lines that tell how many times as long each rival takes."""
    ours = contest.ours(setting)
    for maker in contest.rivals:
        try:
            rival = maker(setting)
        except AbsentError as reason:
            yield f"{_rival_name(maker)}: {reason}"
            continue
        figures: list[str] = []
        for kind in (forward, train):
            if kind is train and not rival.trains:
                figures.append("train: it has no backward here")
                continue
            timing, other = time_alternating(
                kind(ours, setting), kind(rival, setting), setting.device, seconds=seconds
            )
            assert other is not None
            noise = max(timing.iqr_ms / timing.median_ms, other.iqr_ms / other.median_ms)
            figures.append(
                f"{kind.__name__} {timing.median_ms:9.2f} ms, {other.median_ms:10.2f} ms:"
                f" {other.median_ms / timing.median_ms:6.2f}x" + (" noisy" if noise > 0.2 else "")
            )
        note = f" ({rival.note})" if rival.note else ""
        yield f"{rival.name:28} {' | '.join(figures)}{note}"


def _rival_name(maker: Maker) -> str:
    return getattr(maker, "__name__", None) or maker.func.__name__  # type: ignore[attr-defined]


def grow(names: Sequence[str], setting: Setting) -> Iterator[str]:
    """Lines with each method's times over the ladder, its exponent, and its forward's memory."""
    for name in names:
        spec = registry.load_method(name)
        if spec.cost.time > 1:
            continue
        for kind in (forward, train):
            works: list[Workload] = []
            share = 0.0
            for tokens in GROWTH:
                here = setting._replace(tokens=tokens)
                work = kind(layer(here, name), here)
                works.append(work)
                if kind is forward:
                    # The output is allocated within the call, the input before it.
                    moved = 2 * tokens * D_MODEL * here.dtype.itemsize
                    peak = measure_memory(work, here.device).peak_bytes or math.nan
                    share = max(share, (peak + moved / 2) / moved)
            times = _fastest(works, setting.device)
            exponent = np.polyfit(np.log(GROWTH), np.log(times), 1)[0]
            curve = "".join(f"{value:10.1f}" for value in times)
            memory = f", peak {share:.1f}x inputs and outputs" if kind is forward else ""
            yield f"{name:>18} {kind.__name__:>7} ms {curve}   T^{exponent:.2f}{memory}"


def _fastest(works: Sequence[Workload], device: torch.device) -> list[float]:
    """Milliseconds that each takes at its fastest, all of them timed in turn, round after round.

    What else a machine runs only ever adds, for seconds on end: one after the other the sizes would
    be timed on machines of different speeds.
    """
    time_once = choose_timer(device)
    times = [[time_once(work) for work in works] for _ in range(ROUNDS)]
    return [min(of_one) / 1e6 for of_one in zip(*times, strict=True)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("contests", nargs=-1)
@click.option("--device", default="cpu", help="cpu or cuda.")
@click.option("--dtype", default="float32", help="float32 or bfloat16.")
@click.option("--contexts", default=None, help="Such as 4096,16384, in place of each contest's.")
@click.option("--seconds", default=2.0, help="Of timing for each figure.")
@click.option("--threads", default=2, help="Threads torch may use.")
@click.option("--keep-memory", is_flag=True, help="Use freed memory again, as on a GPU.")
@click.option("--method", "methods", multiple=True, help="For growth: these alone.")
def main(
    contests: tuple[str, ...],
    device: str,
    dtype: str,
    contexts: str | None,
    seconds: float,
    threads: int,
    keep_memory: bool,
    methods: tuple[str, ...],
) -> None:
    """Print the ratios of the named contests, or of all."""
    known = (*CONTESTS, "growth")
    for name in contests:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
    for name in methods:
        try:
            registry.source("method", name)
        except UsageError as error:
            raise click.BadParameter(str(error)) from None
    _start_again_with(threads, KEEP_MEMORY if keep_memory else {})
    click.echo(
        f"torch {torch.__version__}, {device}, {dtype}, {threads} threads, "
        f"{HUGE_PAGES} {os.environ.get(HUGE_PAGES, 'unset')}"
        f"{', memory kept' if keep_memory else ''}; ours, theirs: theirs over ours"
    )
    for name in contests or known:
        if name == "growth":
            setting = Setting(0, getattr(torch, dtype), torch.device(device))
            click.echo(f"\ngrowth of layers, D {D_MODEL}, T = {', '.join(map(str, GROWTH))}")
            for line in grow(methods or registry.method_names(), setting):
                click.echo(f"  {line}")
            continue
        contest = CONTESTS[name]
        chosen = map(int, contexts.split(",")) if contexts else contest.contexts
        for tokens in chosen:
            click.echo(f"\n{name} at {tokens:,}")
            setting = Setting(tokens, getattr(torch, dtype), torch.device(device))
            for line in compare(contest, setting, seconds):
                click.echo(f"  {line}")


def _start_again_with(threads: int, memory: Mapping[str, str]) -> None:
    """Start again with the allocator's switches, and the threads that every cell has.

    All are read once. `torch.set_num_threads`, called with whatever number, makes MKL take slower
    routines for the small products within a fused kernel.
    """
    wanted = {HUGE_PAGES: os.environ.get(HUGE_PAGES, "1"), NUM_THREADS: str(threads)}
    wanted.update(memory)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    main()
