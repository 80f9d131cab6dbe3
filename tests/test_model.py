from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcbench.method import (
    Cost,
    Method,
    MethodConfig,
    MethodSpec,
    ModelShape,
    Paper,
    state_tensors,
)
from lcbench.model import Backbone, ShortConvolution, build_method
from lcbench.suite import ModelPlan

PLAN = ModelPlan(d_model=8, num_layers=3, num_heads=2)
VOCAB = 11


class RunningSum(Method):
    """A decaying sum of what was read, with a weight: the plainest thing that has a state."""

    def __init__(self, shape: ModelShape, config: MethodConfig) -> None:
        super().__init__(shape, config)
        self.mix = nn.Linear(shape.d_model, shape.d_model)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept = torch.zeros_like(x[:, 0]) if state is None else state
        outputs = []
        for token in x.unbind(1):
            kept = 0.9 * kept + token
            outputs.append(kept)
        return self.mix(torch.stack(outputs, 1)), kept


class Greedy(RunningSum):
    """Draws more random numbers than its rivals when it is built, and has more weights."""

    def __init__(self, shape: ModelShape, config: MethodConfig) -> None:
        super().__init__(shape, config)
        self.wide = nn.Linear(shape.d_model, 100 * shape.d_model)
        torch.rand(1000)


class Stateless(Method):
    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        return torch.tanh(x), None


class Costly(Stateless):
    """Asks a penalty of its layer's number plus one."""

    def penalty(self) -> Tensor:
        return torch.tensor(float(self.shape.layer + 1))


def build(
    method: Callable[[ModelShape, MethodConfig], Method] = RunningSum,
    *,
    plan: ModelPlan = PLAN,
    seed: int = 0,
) -> Backbone:
    def of_layer(shape: ModelShape) -> Method:
        return method(shape, MethodConfig())

    return Backbone(plan, VOCAB, of_layer, train_context=32, seed=seed).double()


def tokens(length: int = 17) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("conv_width", [1, 2, 4, 7])
@pytest.mark.parametrize("cuts", [[1] * 17, [16, 1], [1, 16], [2, 3, 12]])
def test_a_sequence_read_in_parts_gives_what_one_call_gives(
    conv_width: int, cuts: list[int]
) -> None:
    model = build(plan=ModelPlan(d_model=8, num_layers=3, num_heads=2, conv_width=conv_width))
    whole, whole_state = model(tokens())
    state, parts = None, []
    for part in tokens().split(cuts, dim=1):
        hidden, state = model(part, state)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-12)
    for carried, expected in zip(state_tensors(state), state_tensors(whole_state), strict=True):
        torch.testing.assert_close(carried, expected, rtol=1e-12, atol=1e-12)


def test_a_prefix_can_be_continued_twice() -> None:
    model = build()
    _, state = model(tokens())
    first, _ = model(tokens(5), state)
    again, _ = model(tokens(5), state)
    assert torch.equal(first, again)


def test_the_state_carries_the_tokens_before() -> None:
    model = build()
    _, state = model(tokens())
    assert not torch.allclose(model(tokens(5), state)[0], model(tokens(5))[0])


def test_no_token_reads_its_future() -> None:
    model = build()
    changed = tokens().clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCAB
    differs = (model(tokens())[0] - model(changed)[0]).abs().amax(dim=(0, 2)) > 0
    assert differs.tolist() == [False] * 9 + [True] * 8


def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    model = build()
    torch.testing.assert_close(model(tokens())[0][1:], model(tokens()[1:])[0])


def shared(model: Backbone) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if ".method." not in name}


@pytest.mark.parametrize("rival", [Greedy, Stateless])
def test_all_but_the_method_starts_the_same_whatever_the_method(rival: type[Method]) -> None:
    one, two = shared(build()), shared(build(rival))
    assert one.keys() == two.keys()
    assert len(one) == 5 * PLAN.num_layers + 3
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_seed_decides_every_weight() -> None:
    one, again, other = (build(seed=seed).state_dict() for seed in (3, 3, 4))
    drawn = [name for name in one if "norm" not in name]
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_no_two_layers_start_alike() -> None:
    weights = [layer.method.mix.weight for layer in build().blocks]
    assert not torch.equal(weights[0], weights[1])
    convolutions = [layer.conv.weight for layer in build().blocks]
    assert not torch.equal(convolutions[0], convolutions[1])


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    build(Greedy)
    assert torch.equal(torch.rand(4), expected)


def test_a_method_is_told_where_it_stands() -> None:
    shapes: list[ModelShape] = []

    def note(shape: ModelShape, config: MethodConfig) -> Method:
        shapes.append(shape)
        return Stateless(shape, config)

    build(note)
    assert shapes == [
        ModelShape(d_model=8, num_heads=2, layer=layer, num_layers=3, train_context=32)
        for layer in range(3)
    ]


def test_weights_of_the_methods_are_trained_with_the_rest() -> None:
    model = build()
    model.head(model(tokens())[0]).sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []
    assert sum("method" in name for name, _ in model.named_parameters()) == 2 * PLAN.num_layers


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_short_convolution_is_torchs_own(width: int) -> None:
    torch.manual_seed(0)
    conv = ShortConvolution(6, width).double()
    x = torch.randn(3, 10, 6, dtype=torch.float64)
    weight = conv.weight.T[:, None]  # [D, 1, width]
    expected = F.conv1d(F.pad(x.mT, (width - 1, 0)), weight, groups=6).mT
    out, kept = conv(x)
    torch.testing.assert_close(out, expected)
    assert torch.equal(kept, x[:, 10 - (width - 1) :])


def test_the_short_convolution_keeps_inputs_older_than_one_short_call() -> None:
    conv = ShortConvolution(1, 4)
    _, kept = conv(torch.tensor([[[1.0], [2.0]]]))
    assert kept.flatten().tolist() == [0, 1, 2]
    _, kept = conv(torch.tensor([[[3.0]]]), kept)
    assert kept.flatten().tolist() == [1, 2, 3]


def test_the_convolutions_state_does_not_keep_the_whole_sequence_alive() -> None:
    _, kept = ShortConvolution(4, 4)(torch.randn(1, 4096, 4))
    assert kept.untyped_storage().nbytes() == 3 * 4 * 4


def test_penalties_of_all_layers_are_summed() -> None:
    penalty = build(Costly).penalty()
    assert penalty is not None
    assert penalty.item() == 1 + 2 + 3


def test_layers_without_a_penalty_are_left_out_of_the_sum() -> None:
    def only_last(shape: ModelShape, config: MethodConfig) -> Method:
        return (Costly if shape.layer == 2 else Stateless)(shape, config)

    penalty = build(only_last).penalty()
    assert penalty is not None
    assert penalty.item() == 3
    assert build(Stateless).penalty() is None


@pytest.mark.parametrize(
    ("claimed", "asked", "message"),
    [
        ("causal", False, "Greedy does not claim to be bidirectional: build it with causal=True"),
        ("bidirectional", True, "Greedy does not claim to be causal: build it with causal=False"),
    ],
)
def test_a_method_is_not_built_for_what_it_does_not_claim(claimed, asked, message) -> None:
    spec = MethodSpec(
        build=Greedy,
        config=MethodConfig,
        title="Greedy",
        family="test",
        equation="y = x",
        paper=Paper("None", 2026, "2601.00001"),
        cost=Cost(1.0, 1.0, 0.0),
        causal=claimed == "causal",
        bidirectional=claimed == "bidirectional",
    )
    shapes = {causal: ModelShape(d_model=8, num_heads=2, causal=causal) for causal in (True, False)}
    with pytest.raises(ValueError, match=message):
        build_method(spec, shapes[asked], MethodConfig())
    assert isinstance(build_method(spec, shapes[not asked], MethodConfig()), Greedy)
