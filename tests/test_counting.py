"""Counted work against closed forms."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lcbench import registry
from lcbench.attention import banded_attention
from lcbench.counting import Work, count_work
from lcbench.measure import Workload
from lcbench.method import ModelShape

B, H, T, S, K, D = 2, 3, 40, 40, 16, 48


def work_of(call: Callable[..., object], *inputs: Tensor) -> Work:
    return count_work(Workload(lambda: inputs, lambda given: call(*given)))


def flops_of(call: Callable[..., object], *inputs: Tensor) -> int:
    flops = work_of(call, *inputs).flops
    assert flops is not None
    return flops


def heads(length: int = T, width: int = K, *, grad: bool = False) -> Tensor:
    return torch.randn(B, H, length, width, requires_grad=grad)


def test_a_linear_layer_multiplies_and_adds_once_a_weight_and_token() -> None:
    layer = nn.Linear(D, 80)
    x = torch.randn(B, T, D)
    with torch.no_grad():
        assert flops_of(layer, x) == 2 * B * T * D * 80


def test_a_training_step_of_a_linear_layer_is_three_passes() -> None:
    layer = nn.Linear(D, 80)

    def step(x: Tensor) -> None:
        layer(x).sum().backward()

    assert flops_of(step, torch.randn(B, T, D, requires_grad=True)) == 3 * 2 * B * T * D * 80


@pytest.mark.parametrize(
    ("call", "shapes", "expected"),
    [
        (torch.mv, [(30, 40), (40,)], 2 * 30 * 40),
        (torch.dot, [(40,), (40,)], 2 * 40),
        (torch.baddbmm, [(5, 3, 4), (5, 3, 7), (5, 7, 4)], 2 * 5 * 3 * 7 * 4),
        (lambda s, a, b: s.baddbmm_(a, b), [(5, 3, 4), (5, 3, 7), (5, 7, 4)], 2 * 5 * 3 * 7 * 4),
        (lambda s, a, b: s.addmm_(a, b), [(3, 4), (3, 7), (7, 4)], 2 * 3 * 7 * 4),
        (lambda s, a, v: s.addmv_(a, v), [(3,), (3, 7), (7,)], 2 * 3 * 7),
        (torch.addbmm, [(3, 4), (5, 3, 7), (5, 7, 4)], 2 * 5 * 3 * 7 * 4),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(5, 3, 7), (5, 7, 4)], 840),
        (lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), [(5, 8, 8), (5, 8, 3)],
         5 * 8 * 8 * 3),
        (lambda x, w: F.conv1d(x, w), [(2, 4, 20), (6, 4, 3)], 2 * 2 * 6 * 18 * 4 * 3),
        (lambda x: torch.fft.fft(x * 1j), [(4, 64)], 5 * 4 * 64 * 6),
        (torch.fft.rfft, [(4, 64)], 5 * 4 * 64 * 6 // 2),
        (torch.fft.irfft, [(4, 33)], 5 * 4 * 64 * 6 // 2),
        (lambda x: x.cumsum(0).softmax(-1), [(9, 9)], 0),
    ],
)  # fmt: skip
def test_every_kind_of_product_is_counted(
    call: Callable[..., Any], shapes: list[tuple[int, ...]], expected: int
) -> None:
    assert flops_of(call, *(torch.randn(shape) for shape in shapes)) == expected


def test_fused_attention_is_counted_as_the_plain_products_are() -> None:
    q, k, v = heads(), heads(S), heads(S, 24)
    expected = 2 * B * H * T * S * (K + 24)
    assert flops_of(lambda: q @ k.mT @ v) == expected
    with sdpa_kernel(SDPBackend.MATH):
        assert flops_of(F.scaled_dot_product_attention, q, k, v) == expected
    same_width = heads(S)
    assert flops_of(F.scaled_dot_product_attention, q, k, same_width) == 4 * B * H * T * S * K
    mask = torch.ones(T, S, dtype=torch.bool).tril()
    masked = flops_of(lambda: F.scaled_dot_product_attention(q, k, same_width, attn_mask=mask))
    assert masked == 4 * B * H * T * S * K


def test_a_causal_kernel_counts_the_pairs_it_may_see() -> None:
    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    q, k, v = heads(), heads(), heads()
    assert flops_of(causal, q, k, v) == 4 * B * H * K * T * (T + 1) // 2
    # Aligned at the first query and key: of more queries than keys the last see all.
    assert flops_of(causal, heads(5), heads(3), heads(3)) == 4 * B * H * K * (1 + 2 + 3 + 3 + 3)


@pytest.mark.parametrize("causal", [False, True])
def test_the_backward_of_fused_attention_scores_again(causal: bool) -> None:
    def step(*qkv: Tensor) -> None:
        F.scaled_dot_product_attention(*qkv, is_causal=causal).sum().backward()

    pairs = T * (T + 1) // 2 if causal else T * T
    inputs = (heads(grad=True) for _ in range(3))
    assert flops_of(step, *inputs) == (2 + 5) * 2 * B * H * K * pairs


@pytest.mark.parametrize(
    "name",
    ["flash", "efficient", "cudnn", "flash_for_cpu", "fused_overrideable"],
)
@pytest.mark.parametrize("backward", [False, True])
def test_a_formula_finds_its_arguments_by_name_in_every_fused_attention(
    name: str, backward: bool
) -> None:
    from lcbench import counting

    stem, _, suffix = name.partition("_")
    packet = getattr(
        torch.ops.aten,
        f"_scaled_dot_product_{stem}_attention"
        + (f"_{suffix}" if suffix else "")
        + ("_backward" if backward else ""),
    )
    shapes: dict[str, Any] = dict.fromkeys(("query", "key", "value"), (B, H, T, K))
    arguments = [a.name for a in packet.default._schema.arguments]
    assert "is_causal" in arguments
    given = [shapes.get(name, name == "is_causal") for name in arguments]
    once = 2 * B * H * K * T * (T + 1) // 2
    assert counting._FORMULAS[packet](*given, out_shape=None) == (5 if backward else 2) * once


def test_a_band_costs_close_to_its_window() -> None:
    window, length = 64, 2048
    q, k, v = (torch.randn(1, 2, length, 16) for _ in range(3))
    band = 4 * 2 * length * window * 16
    counted = flops_of(lambda: banded_attention(q, k, v, window=window))
    # A block of queries scores the union of their windows: up to 128 + 63 keys for 64.
    assert band < counted < 3.1 * band


def test_what_a_backward_computes_again_is_counted_again() -> None:
    window, length = 64, 2048
    q, k, v = (torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3))

    def forward() -> Tensor:
        return banded_attention(q, k, v, window=window)

    with torch.no_grad():
        once = flops_of(forward)
    # Scores again, which are half of it, and twice as many products for the gradients.
    assert flops_of(lambda: forward().sum().backward()) == once * (1 + 0.5 + 2)


def test_vanilla_is_four_projections_and_half_a_square() -> None:
    spec = registry.load_method("vanilla")
    layer = spec.build(ModelShape(d_model=D, num_heads=H), spec.config())
    x = torch.randn(B, T, D)
    with torch.no_grad():
        flops, touched = work_of(lambda x: layer(x)[0], x)
    assert flops == 2 * B * T * D * D * 4 + 4 * B * D * T * (T + 1) // 2
    assert touched == 4 * (4 * D * D + B * T * D)


def test_decoding_touches_weights_and_the_state_it_reads() -> None:
    spec = registry.load_method("vanilla")
    layer = spec.build(ModelShape(d_model=D, num_heads=H), spec.config())
    with torch.no_grad():
        _, state = layer(torch.randn(1, 100, D))
        _, state = layer(torch.randn(1, 1, D), state)
        flops, touched = work_of(lambda x: layer(x, state)[0], torch.randn(1, 1, D))
    assert flops == 2 * D * D * 4 + 4 * D * 102
    weights, cache, token = 4 * D * D, 2 * 102 * D, D
    # Beside them the new row that is written, and how many rows are filled.
    assert 4 * (weights + cache + token) <= (touched or 0) <= 4 * (weights + cache + 3 * token) + 64


def test_a_tensor_is_touched_once_however_often_it_is_read() -> None:
    weight, x = torch.randn(16, 16), torch.randn(4, 16)

    def call(x: Tensor) -> Tensor:
        for _ in range(5):
            x = x @ weight
        return x + weight.sum() + weight[:4]

    assert work_of(call, x).touched_bytes == weight.nbytes + x.nbytes


def test_only_the_rows_gathered_are_touched() -> None:
    table = torch.randn(1000, 16)
    rows = torch.tensor([3, 5])
    taken = 2 * 16 * 4 + rows.nbytes
    assert work_of(lambda: table[rows]).touched_bytes == taken
    assert work_of(lambda: F.embedding(rows, table)).touched_bytes == taken
    assert work_of(lambda: table[3:5] + 1).touched_bytes == 2 * 16 * 4


def test_an_operation_that_hides_its_work_leaves_it_unknown() -> None:
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    @torch.library.custom_op("lcbench_test::hidden", mutates_args=())
    def hidden(x: Tensor) -> Tensor:
        return x @ x

    x = torch.randn(8, 8)
    assert work_of(hidden, x) == Work(None, None)
    packet: Any = torch.ops.lcbench_test.hidden
    register_flop_formula(packet)(lambda shape, **_: 2 * math.prod(shape) * shape[-1])
    try:
        assert work_of(hidden, x).flops == 2 * 8**3
    finally:
        del flop_registry[packet]


def test_counting_changes_neither_the_result_nor_the_gradients() -> None:
    layer = nn.Linear(8, 8)
    x = torch.randn(4, 8)
    seen: list[Tensor] = []
    work_of(lambda x: seen.append(layer(x)), x)
    assert torch.equal(seen[0], layer(x))
