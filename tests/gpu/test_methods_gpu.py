"""Every method on CUDA against itself in float64 on the CPU: outputs, gradients, carried states."""

import pytest
import torch
from torch import Tensor

from lcbench import registry
from lcbench.chunkwise import linear_recurrence
from lcbench.method import Method, MethodSpec
from lcbench.probe import Probe, difference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOKENS = 301
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 6e-2}
"""Parts of the output's scale: products of float32 may be TF32's, and layers of bfloat16 add up."""

each_method = pytest.mark.parametrize("name", registry.method_names())
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])


def pair(spec: MethodSpec, dtype: torch.dtype) -> tuple[Method, Method, Tensor]:
    """The method on CUDA in one dtype, on the CPU in float64 with the same numbers, and inputs."""
    probe = Probe(spec, spec.config())
    x = probe.tokens(2, TOKENS, dtype)
    return probe.build(dtype).cuda(), probe.build(dtype).double(), x


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    flat = (actual.detach().double().cpu().reshape(1, -1, 1), expected.detach().reshape(1, -1, 1))
    size, where = difference(*flat)
    assert size < TOLERANCES[dtype], f"{what} at {where} is off by {size:.2g} of scale"


@torch.no_grad()
@each_dtype
@each_method
def test_forward(name: str, dtype: torch.dtype) -> None:
    fast, slow, x = pair(registry.load_method(name), dtype)
    y = fast(x.cuda())[0]
    assert (y.dtype, y.device.type) == (dtype, "cuda")
    assert_near(y, slow(x.double())[0], dtype, "the output")


@each_dtype
@each_method
def test_backward(name: str, dtype: torch.dtype) -> None:
    fast, slow, x = pair(registry.load_method(name), dtype)
    gradients: list[list[Tensor]] = []
    for method, leaf in ((fast, x.cuda()), (slow, x.double())):
        leaf.requires_grad_()
        y: Tensor = method(leaf)[0]
        weight = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view_as(y)
        leaves = [leaf, *method.parameters()]
        gradients.append(list(torch.autograd.grad((y * weight).sum(), leaves)))
    names = ["x", *(name for name, _ in fast.named_parameters())]
    for part, got, wanted in zip(names, *gradients, strict=True):
        assert_near(got, wanted, dtype, f"the gradient of {part}")


@torch.no_grad()
@each_dtype
@each_method
def test_carried_state(name: str, dtype: torch.dtype) -> None:
    spec = registry.load_method(name)
    if not spec.streams or not spec.segment_exact:
        pytest.skip("does not claim that a carried state gives what one call gives")
    fast, slow, x = pair(spec, dtype)
    state, outputs = None, []
    for part in x.cuda().split([130, 1, 1, 64, TOKENS - 196], dim=1):
        y, state = fast(part, state)
        outputs.append(y)
    assert_near(torch.cat(outputs, 1), slow(x.double())[0], dtype, "the output")


@each_dtype
@pytest.mark.parametrize("rule", ["plain", "scalar", "row", "delta", "gated delta"])
def test_chunkwise_core_at_length(rule: str, dtype: torch.dtype) -> None:
    """So long that CUDA works on several groups of chunks."""
    sizes = (16, 16, 4200)
    inputs = {name: torch.randn(*sizes, 16) for name in ("q", "k", "v")}
    inputs["k"] = torch.nn.functional.normalize(inputs["k"], dim=-1)
    if rule in {"scalar", "row", "gated delta"}:
        inputs["log_decay"] = -torch.rand(*sizes, 16 if rule == "row" else 1) / 4
    if "delta" in rule:
        inputs["beta"] = torch.rand(*sizes, 1)
    results: list[tuple[Tensor, ...]] = []
    for device, wide in (("cuda", dtype), ("cpu", torch.float64)):
        leaves = {n: t.to(dtype).to(device, wide).requires_grad_() for n, t in inputs.items()}
        y, state = linear_recurrence(**leaves)
        gradients = torch.autograd.grad(y.sum() + state.sum(), list(leaves.values()))
        results.append((y, state, *gradients))
    for part, got, wanted in zip(["y", "state", *inputs], *results, strict=True):
        assert_near(got, wanted, dtype, part)
