"""The chunkwise core against its recurrence: decays, the delta rule, groups, states, precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.chunkwise import linear_recurrence
from lcbench.measure import Workload, measure_memory
from lcbench.probe import difference

HEADS, KEYS, VALUES = 3, 6, 5
DECAYS = {
    "none": None,
    "constant": (1, HEADS, 1, 1),
    "scalar": (2, HEADS, None, 1),
    "row": (2, HEADS, None, KEYS),
    "constant row": (1, 1, 1, KEYS),
    "shared row": (2, 1, None, KEYS),
}


def one_by_one(q, k, v, *, log_decay=None, beta=None, state) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written."""
    sizes, outputs = v.shape[:3], []
    q, k, log_decay, beta = (
        None if part is None else part.expand(*sizes, -1) for part in (q, k, log_decay, beta)
    )
    for t in range(v.size(2)):
        if log_decay is not None:
            state = state * log_decay[:, :, t, :, None].exp()
        written = v[:, :, t]
        if beta is not None:
            recalled = torch.einsum("bhk,bhkv->bhv", k[:, :, t], state)
            written = beta[:, :, t] * (written - recalled)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, :, t], written)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], state))
    return torch.stack(outputs, 2), state


def draw(tokens: int, decay: str, *, delta: bool, shared: bool, strength: float = 1.0) -> dict:
    """Seeded inputs in float64."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    sizes = (2, 1 if shared else HEADS, tokens)
    inputs = {"q": normal(*sizes, KEYS), "k": F.normalize(normal(*sizes, KEYS), dim=-1)}
    inputs |= {"v": normal(2, HEADS, tokens, VALUES), "state": normal(2, HEADS, KEYS, VALUES)}
    if (shape := DECAYS[decay]) is not None:
        shape = [tokens if size is None else size for size in shape]
        inputs["log_decay"] = strength * F.logsigmoid(strength * normal(*shape))
    if delta:
        inputs["beta"] = normal(2, HEADS, tokens, 1).sigmoid()
    return inputs


def assert_same(inputs: dict, tolerance: float = 1e-9) -> None:
    """Outputs, last states and all gradients agree."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    results = []
    for run in (linear_recurrence, one_by_one):
        y, state = run(**leaves)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin()
        loss = (y * weight).sum() + state.square().sum()
        results.append((y, state, *torch.autograd.grad(loss, list(leaves.values()))))
    for name, got, wanted in zip(["y", "state", *leaves], *results, strict=True):
        size = difference(got.reshape(1, -1, 1), wanted.reshape(1, -1, 1)).size
        assert size < tolerance, f"{name} is off by {size:.2g} of scale"


@pytest.mark.parametrize("delta", [False, True], ids=["plain", "delta"])
@pytest.mark.parametrize("shared", [False, True], ids=["own keys", "shared keys"])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("tokens", [1, 3, 64, 131])
def test_values_states_and_gradients(tokens, decay, shared, delta) -> None:
    assert_same(draw(tokens, decay, delta=delta, shared=shared))


@pytest.mark.parametrize("delta", [False, True], ids=["plain", "delta"])
@pytest.mark.parametrize("decay", ["constant", "scalar", "row"])
def test_sequences_of_many_groups(decay, delta) -> None:
    inputs = draw(150, decay, delta=delta, shared=False)
    # So many sequences that a group is one chunk.
    inputs = {
        name: tensor if tensor.size(0) == 1 else tensor.repeat(11, 1, 1, 1)
        for name, tensor in inputs.items()
    }
    assert_same(inputs)


@pytest.mark.parametrize("decay", ["scalar", "row"])
def test_decays_so_strong_that_their_inverses_overflow(decay) -> None:
    # Some tokens keep nearly all of the state, others exp(-50); a chunk keeps exp(-1000).
    inputs = draw(70, decay, delta=False, shared=False, strength=8.0)
    assert inputs["log_decay"][:, :, :64].sum(2).max() < -709
    assert_same(inputs)
    narrow = {name: tensor.float().requires_grad_() for name, tensor in inputs.items()}
    y, state = linear_recurrence(**narrow)
    gradients = torch.autograd.grad(y.sum() + state.sum(), list(narrow.values()))
    assert all(part.isfinite().all() for part in (y, state, *gradients))


@torch.no_grad()
@pytest.mark.parametrize("delta", [False, True], ids=["plain", "delta"])
def test_bfloat16_inputs_are_worked_on_in_float32(delta) -> None:
    inputs = draw(131, "row", delta=delta, shared=False)
    coarse = {n: t.bfloat16() if n != "state" else t.float() for n, t in inputs.items()}
    y, state = linear_recurrence(**coarse)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    wide = linear_recurrence(**{name: tensor.double() for name, tensor in coarse.items()})
    assert difference(state.double().flatten(2), wide.state.flatten(2)).size < 1e-5
    assert difference(y.double().flatten(2), wide.y.flatten(2)).size < 2**-8
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear_recurrence(**coarse).state, state)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 131])
def test_the_state_it_is_given_stays_what_it_was(tokens) -> None:
    inputs = draw(tokens, "scalar", delta=True, shared=False)
    kept = inputs["state"].clone()
    _, after = linear_recurrence(**inputs)
    after.zero_()
    assert torch.equal(inputs["state"], kept)


@torch.no_grad()
def test_long_memories_of_equal_keys_stay_exact() -> None:
    """The delta rule's chunk of one key again and again, where its triangle is worst."""
    inputs = draw(320, "none", delta=True, shared=False)
    inputs["k"] = inputs["k"][:, :, :1].expand(-1, -1, 320, -1)
    inputs["beta"] = torch.ones_like(inputs["beta"])
    expected = one_by_one(**inputs)[0]
    narrow = linear_recurrence(**{name: tensor.float() for name, tensor in inputs.items()}).y
    assert difference(narrow.double().flatten(2), expected.flatten(2)).size < 1e-5


@pytest.mark.parametrize("trains", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize(("decay", "delta"), [("scalar", False), ("scalar", True), ("row", False)])
def test_memory_beyond_inputs_and_outputs_is_small(decay, delta, trains) -> None:
    tokens, width = 16_384, 32
    sizes = (1, 4, tokens, width)

    def prepare() -> dict[str, Tensor]:
        decays = torch.rand(1, 4, tokens, width if decay == "row" else 1)
        inputs = {"q": torch.randn(sizes), "k": torch.randn(sizes), "v": torch.randn(sizes)}
        inputs |= {"log_decay": -decays} | ({"beta": torch.rand(1, 4, tokens, 1)} if delta else {})
        return {name: tensor.requires_grad_(trains) for name, tensor in inputs.items()}

    def call(inputs: dict[str, Tensor]) -> object:
        y, _ = linear_recurrence(**inputs)
        return torch.autograd.grad(y, list(inputs.values()), torch.ones_like(y)) if trains else y

    peak = measure_memory(Workload(prepare, call), torch.device("cpu")).peak_bytes
    inputs = sum(tensor.nbytes for tensor in prepare().values())
    output = 4 * tokens * width * 4
    made = output * 2 + inputs if trains else output
    assert peak is not None
    assert peak < made + 2 * output + 2**24


def test_one_head_equals_hugging_faces_lightning_attention() -> None:
    """MiniMax's layer is retention without positions, with a norm and a gate of its own."""
    minimax = pytest.importorskip("transformers.models.minimax.modeling_minimax")
    configuration = pytest.importorskip("transformers").MiniMaxConfig(
        hidden_size=32, num_attention_heads=4, head_dim=8, num_hidden_layers=2, block_size=16
    )
    theirs = minimax.MiniMaxLightningAttention(configuration, 0).eval()
    x = torch.randn(2, 100, 32)
    with torch.no_grad():
        y, state = theirs(x, (x, x), None)
        parts = theirs.act_fn(theirs.qkv_proj(x)).view(2, 100, 4, 24).transpose(1, 2)
        log_decay = -theirs.slope_rate[None]
        ours = linear_recurrence(*parts.split(8, -1), log_decay=log_decay)
        joined = theirs.norm(ours.y.transpose(1, 2).flatten(2))
        joined = theirs.out_proj(torch.sigmoid(theirs.output_gate(x)) * joined)
    assert difference(joined, y).size < 1e-5
    assert difference(ours.state.flatten(2), state.flatten(2)).size < 1e-5


def test_rows_that_decay_under_the_delta_rule_equal_hugging_faces_kimi_linear() -> None:
    kimi = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
    inputs = draw(131, "row", delta=True, shared=False)
    ours = linear_recurrence(**{name: tensor.float() for name, tensor in inputs.items()})
    by_token = {n: t.float().transpose(1, 2) for n, t in inputs.items() if n != "state"}
    y, state = kimi.recurrent_kimi_delta_attention(
        by_token["q"],
        by_token["k"],
        by_token["v"],
        by_token["log_decay"],
        by_token["beta"][..., 0],
        initial_state=inputs["state"].float(),
        output_final_state=True,
    )
    scaled = y.transpose(1, 2) * KEYS**0.5
    assert difference(ours.y.flatten(2), scaled.flatten(2)).size < 1e-5
    assert difference(ours.state.flatten(2), state.flatten(2)).size < 1e-5
