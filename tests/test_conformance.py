"""A sound toy method keeps every law, and each planted defect breaks the law that is there for it.

Source: none; the toy is a windowed softmax without positions, small enough to be seen to be right.
"""

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcbench import growth, registry
from lcbench.conformance import LAWS, TIMED_LAWS, check_law, check_method
from lcbench.method import (
    UNDECLARED,
    Cost,
    Method,
    MethodConfig,
    MethodSpec,
    ModelShape,
    Paper,
    built_by_parts,
)
from lcbench.probe import Probe
from lcbench.visibility import receptive_field

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    window: int = 5

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")


class Toy(Method):
    """Softmax over a band of W tokens; the state is the last W - 1 inputs."""

    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        super().__init__(shape, config)
        self.window = config.window
        self.q, self.k, self.v = (nn.Linear(shape.d_model, shape.d_model) for _ in range(3))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        seen = x if state is None else torch.cat([state, x], dim=1)
        return self.attend(x, seen) @ self.values(seen), self.keep(seen, state)

    def attend(self, x: Tensor, seen: Tensor) -> Tensor:
        """What each query gives each token, `[B, T, S]`."""
        distance = self.distance(x, seen)
        hidden = distance >= self.window
        hidden |= (distance < 0) if self.shape.causal else (distance <= -self.window)
        scores = self.q(x) @ self.k(seen).mT / x.shape[-1] ** 0.5
        return scores.masked_fill(hidden, -torch.inf).softmax(-1)

    def weights(self, x: Tensor) -> Tensor:
        return self.attend(x, x)[:, None].expand(-1, self.shape.num_heads, -1, -1)

    def distance(self, x: Tensor, seen: Tensor) -> Tensor:
        """How far back each token is from each query, `[T, S]`; negative for a later one."""
        return torch.arange(seen.shape[1] - x.shape[1], seen.shape[1])[:, None] - torch.arange(
            seen.shape[1]
        )

    def values(self, seen: Tensor) -> Tensor:
        return self.v(seen)

    def keep(self, seen: Tensor, state: Tensor | None) -> Tensor | None:
        return seen[:, max(0, seen.shape[1] - self.window + 1) :].clone()


SOUND = MethodSpec(
    build=Toy,
    config=ToyConfig,
    title="Toy window",
    family="local",
    equation="y_i = sum_{i - W < j <= i} softmax(q_i k_j) v_j",
    paper=Paper("Attention Is All You Need", 2017, "1706.03762"),
    cost=Cost(time=2, memory=2, state=0),
    bidirectional=True,
    reach=lambda config: config.window - 1,
)


class PeeksAhead(Toy):
    def distance(self, x: Tensor, seen: Tensor) -> Tensor:
        return super().distance(x, seen) + 1


class HearsALoudFuture(Toy):
    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:
        y, kept = super().forward(x, state)
        return y / x.abs().amax((1, 2), keepdim=True).clamp(min=8), kept


class ReadsTheLength(Toy):
    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:
        y, kept = super().forward(x, state)
        return y * x.shape[1], kept


class OneTooFar(Toy):
    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        super().__init__(shape, config)
        self.window += 1


class OneTooNear(Toy):
    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        super().__init__(shape, config)
        self.window -= 1


class DropsAGradient(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return super().values(seen).detach()


class DropsHalfAGradient(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return super().values(seen + seen.detach()) / 2


class HoldsEveryPair(Toy):
    """Local in what it reads, but it writes down every pair on the way."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:
        seen = x if state is None else torch.cat([state, x], dim=1)
        _ = self.q(x) @ self.k(seen).mT
        return self.v(x), self.keep(seen, state)


class WritesIntoAnInferenceState(Toy):
    def keep(self, seen: Tensor, state: Tensor | None) -> Tensor | None:
        if state is not None:
            state.mul_(1)
        return super().keep(seen, state)


class OverflowsFarFromTheStart(Toy):
    read = 0

    def values(self, seen: Tensor) -> Tensor:
        self.read += seen.shape[1]
        return super().values(seen) * (torch.nan if self.read > 16_384 else 1)


class DrawsADropout(Toy):
    generator = torch.Generator().manual_seed(0)

    def values(self, seen: Tensor) -> Tensor:
        values = super().values(seen)
        if self.training:
            values = values * torch.rand(1, generator=self.generator, dtype=seen.dtype)
        return values


class PatchesTorch(Toy):
    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        super().__init__(shape, config)
        torch.nn.functional.softmax = torch.softmax


class PatchesAnOperator(Toy):
    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        super().__init__(shape, config)
        torch.Tensor.__matmul__ = torch.matmul


class ForgetsTheLastToken(Toy):
    def keep(self, seen: Tensor, state: Tensor | None) -> Tensor:
        return seen[:, -self.window : -1].clone()


class WritesIntoItsState(Toy):
    def keep(self, seen: Tensor, state: Tensor | None) -> Tensor:
        kept = super().keep(seen, state)
        assert kept is not None
        return kept if state is None or state.shape != kept.shape else state.copy_(kept)


class OverflowsWhenLong(Toy):
    def values(self, seen: Tensor) -> Tensor:
        long_and_low = seen.shape[1] > 1024 and seen.dtype == torch.bfloat16
        return super().values(seen) * (torch.inf if long_and_low else 1.0)


class KeepsTheWholeInputAlive(Toy):
    def keep(self, seen: Tensor, state: Tensor | None) -> Tensor:
        return seen[:, max(0, seen.shape[1] - self.window + 1) :]


class NeverForgetsWhileDecoding(Toy):
    def keep(self, seen: Tensor, state: Tensor | None) -> Tensor | None:
        decoding = state is not None and seen.shape[1] == state.shape[1] + 1
        return seen if decoding else super().keep(seen, state)


class KeepsNoState(Toy):
    """A toy that cannot stream."""

    def keep(self, seen: Tensor, state: Tensor | None) -> None:
        return None


class PutsTimeFirst(Toy):
    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:
        y, kept = super().forward(x, None if state is None else state.transpose(0, 1))
        return y, None if kept is None else kept.transpose(0, 1)


class MixesExamples(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return super().values(seen / seen.abs().amax())


class RemembersTheLongestCall(Toy):
    longest = 1

    def values(self, seen: Tensor) -> Tensor:
        self.longest = max(self.longest, seen.shape[1])
        return super().values(seen) / self.longest


class RemembersWhatItWasNotTrainedFor(Toy):
    longest = 1

    def values(self, seen: Tensor) -> Tensor:
        self.longest = max(self.longest, seen.shape[1])
        return super().values(seen) * min(1.0, self.shape.train_context / self.longest)


class ScalesItsInputInPlace(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return super().values(seen.mul_(1.5))


class SeesAnotherWindowInTraining(Toy):
    def distance(self, x: Tensor, seen: Tensor) -> Tensor:
        return super().distance(x, seen) + int(torch.is_grad_enabled())


class DrawsNoise(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return super().values(seen + 0.01 * torch.randn_like(seen))


class AnswersInFloat32(Toy):
    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:
        y, kept = super().forward(x, state)
        return y.float(), kept


class HidesItsFarthestWeight(Toy):
    def weights(self, x: Tensor) -> Tensor:
        return super().weights(x).masked_fill(self.distance(x, x) == self.window - 1, 0)


class ShowsWeightsItDoesNotUse(Toy):
    def weights(self, x: Tensor) -> Tensor:
        self.window += 1
        shown = super().weights(x)
        self.window -= 1
        return shown


class ShowsOneHead(Toy):
    def weights(self, x: Tensor) -> Tensor:
        return super().weights(x)[:, 0]


class ShowsCausalWeightsOnly(Toy):
    def weights(self, x: Tensor) -> Tensor:
        return super().weights(x).tril()


class CountsPositions(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return super().values(seen) * torch.arange(seen.shape[1], dtype=seen.dtype)[:, None].cos()


class IsAlwaysCausal(Toy):
    def distance(self, x: Tensor, seen: Tensor) -> Tensor:
        distance = super().distance(x, seen)
        return distance.where(distance >= 0, self.window)


class StopsTheClock(Toy):
    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        super().__init__(shape, config)
        time.perf_counter = lambda: 0.0


class Reseeds(Toy):
    def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
        torch.manual_seed(0)
        super().__init__(shape, config)


class DoesNotRun(Toy):
    def values(self, seen: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nfor this device")


class Undocumented(Toy):
    __doc__ = None


@dataclass(frozen=True, kw_only=True)
class UncheckedConfig(MethodConfig):
    window: int = 5


@dataclass(frozen=True, kw_only=True)
class VagueConfig(MethodConfig):
    window: int = 5

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError("must be positive")


def _planted(law: str, build: Callable[..., Method] = Toy, **claims: Any) -> Any:
    name = getattr(build, "__name__", "Toy") + "".join(f"-{claim}" for claim in claims)
    return pytest.param(law, dataclasses.replace(SOUND, build=build, **claims), id=name)


PLANTED = [
    _planted("causality", PeeksAhead),
    _planted("causality", HearsALoudFuture),
    _planted("causality", ReadsTheLength),
    _planted("reach", OneTooFar),
    _planted("reach", OneTooNear),
    _planted("reach", reach=lambda _: None),
    _planted("reach", reach=lambda _: 5000),
    _planted("two-sided", IsAlwaysCausal),
    _planted("weights", HidesItsFarthestWeight),
    _planted("weights", ShowsWeightsItDoesNotUse),
    _planted("weights", ShowsOneHead),
    _planted("weights", ShowsCausalWeightsOnly),
    _planted("shift", CountsPositions),
    _planted("gradients", DropsAGradient),
    _planted("slope", DropsHalfAGradient),
    _planted("segments", ForgetsTheLastToken),
    _planted("state-value", WritesIntoItsState),
    _planted("state-value", WritesIntoAnInferenceState),
    _planted("state-growth", OverflowsFarFromTheStart),
    _planted("state-growth", KeepsTheWholeInputAlive),
    _planted("state-growth", NeverForgetsWhileDecoding),
    _planted("state-growth", PutsTimeFirst),
    _planted("state-growth", cost=Cost(time=2, memory=2, state=1)),
    _planted("long-context", OverflowsWhenLong),
    _planted("batch", MixesExamples),
    _planted("determinism", RemembersTheLongestCall),
    _planted("determinism", RemembersWhatItWasNotTrainedFor),
    _planted("determinism", ScalesItsInputInPlace),
    _planted("determinism", SeesAnotherWindowInTraining),
    _planted("determinism", DrawsNoise),
    _planted("determinism", DrawsADropout),
    _planted("shape", AnswersInFloat32),
    _planted("shape", KeepsNoState),
    _planted("shape", DoesNotRun),
    _planted("side-effects", StopsTheClock),
    _planted("side-effects", PatchesTorch),
    _planted("side-effects", PatchesAnOperator),
    _planted("side-effects", Reseeds),
    _planted("side-effects", DrawsNoise),
    _planted("memory", HoldsEveryPair, cost=Cost(time=2, memory=1, state=0)),
    _planted("memory", cost=Cost(time=2, memory=3, state=0)),
    _planted("config", config=UncheckedConfig),
    _planted("config", config=VagueConfig),
    _planted("metadata", paper=Paper("", 2017, "1706.03762")),
    _planted("metadata", paper=Paper("Attention Is All You Need", 2017, "cs/1706")),
    _planted("metadata", paper=Paper("Attention Is All You Need", 217, "1706.03762")),
    _planted("metadata", Undocumented),
]


@pytest.fixture(autouse=True)
def _put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)
    monkeypatch.setattr(torch.nn.functional, "softmax", torch.nn.functional.softmax)
    monkeypatch.setattr(torch.Tensor, "__matmul__", torch.Tensor.__matmul__)
    # The toy holds every pair of tokens, many times over.
    monkeypatch.setattr(growth, "WEIGHED", (512, 1024))


@pytest.mark.parametrize(("law", "spec"), PLANTED)
def test_a_planted_defect_breaks_its_law(law: str, spec: MethodSpec) -> None:
    finding = check_law(_law(law), spec)
    assert finding.outcome == "fail"
    assert finding.detail


@pytest.mark.parametrize("window", [2, 5, 90])
def test_a_sound_method_keeps_every_law(window: int) -> None:
    findings = check_method(SOUND, ToyConfig(window=window), cost=False)
    at_defaults = window == ToyConfig().window
    wanted = {law.name: "pass" for law in LAWS} | ({} if at_defaults else {"memory": "not claimed"})
    assert {f.law: (f.outcome, f.detail) for f in findings if f.outcome != wanted[f.law]} == {}
    assert [finding.law for finding in findings] == [law.name for law in LAWS]


def test_laws_that_are_not_claimed_are_not_checked() -> None:
    spec = dataclasses.replace(
        SOUND, build=KeepsNoState, streams=False, causal=False, shift_period=lambda _: None
    )
    findings = {finding.law: finding for finding in check_method(spec, cost=False)}
    unclaimed = {name for name, finding in findings.items() if finding.outcome == "not claimed"}
    assert unclaimed == {"causality", "shift", "segments", "state-value", "state-growth"}
    assert {findings[name].outcome for name in findings.keys() - unclaimed} == {"pass"}


def test_a_method_that_shows_no_weights_does_not_claim_them() -> None:
    class ShowsNone(Toy):
        weights = Method.weights

    spec = dataclasses.replace(SOUND, build=ShowsNone)
    assert check_law(_law("weights"), spec).outcome == "not claimed"


def test_a_failure_shows_the_smallest_case() -> None:
    spec = dataclasses.replace(SOUND, build=PeeksAhead)
    causality = check_law(_law("causality"), spec).detail
    assert causality.startswith("T=2: tokens 1.. replaced by noise x1 moved output 0 by ")
    spec = dataclasses.replace(SOUND, build=OneTooFar)
    assert check_law(_law("reach"), spec).detail.endswith("5 away; declared is 4")
    spec = dataclasses.replace(SOUND, build=DropsAGradient)
    assert check_law(_law("gradients"), spec).detail == "T=67: the gradient of v.weight is missing"
    spec = dataclasses.replace(SOUND, build=HidesItsFarthestWeight)
    detail = check_law(_law("weights"), spec).detail
    assert detail == "T=67, causal=True: output 4 moves with token 0, whose weight is 0"


def test_an_exception_is_a_failure_told_by_its_type_and_first_line() -> None:
    spec = dataclasses.replace(SOUND, build=DoesNotRun)
    assert check_law(_law("batch"), spec).detail == "RuntimeError: no kernel"


def test_a_reach_too_long_to_measure_is_checked_on_a_smaller_configuration() -> None:
    spec = dataclasses.replace(SOUND, build=OneTooFar)
    detail = check_law(_law("reach"), spec, ToyConfig(window=4096)).detail
    assert detail.startswith("window=128: T=259: ")


def test_a_check_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    check_law(_law("determinism"), dataclasses.replace(SOUND, build=DrawsNoise))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("causal", [True, False])
def test_the_receptive_field_is_the_band(causal: bool) -> None:
    field = receptive_field(SOUND, ToyConfig(window=3), 9, causal=causal)
    distance = np.subtract.outer(np.arange(9), np.arange(9))
    band = (distance >= 0) & (distance < 3) if causal else abs(distance) < 3
    np.testing.assert_array_equal(field, band)


def test_equal_probes_build_equal_modules() -> None:
    first, second, other = (Probe(SOUND, ToyConfig(), seed).build() for seed in (3, 3, 4))
    weight = first.state_dict()["q.weight"]
    assert torch.equal(weight, second.state_dict()["q.weight"])
    assert not torch.equal(weight, other.state_dict()["q.weight"])


def test_time_is_measured_as_an_exponent() -> None:
    class Sleeps(Toy):
        def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, None]:
            time.sleep(x.shape[1] * 5e-6)
            return x, None

    spec = dataclasses.replace(SOUND, build=Sleeps)
    assert 0.7 < growth.time_exponent(Probe(spec, ToyConfig())) < 1.3


@pytest.mark.parametrize(
    ("measured", "outcome"), [(0.5, "pass"), (1.2, "pass"), (1.9, "warning"), (0.1, "warning")]
)
def test_a_time_that_grows_otherwise_only_warns(
    monkeypatch: pytest.MonkeyPatch, measured: float, outcome: str
) -> None:
    monkeypatch.setattr(growth, "time_exponent", lambda probe: measured)
    spec = dataclasses.replace(SOUND, cost=Cost(time=1, memory=2, state=0))
    (law,) = TIMED_LAWS
    finding = check_law(law, spec)
    assert finding.outcome == outcome
    assert f"exponent {measured:.2f} from T=4096 to 16384 forward, declared is 1" in finding.detail
    assert check_law(law, spec, ToyConfig(window=7)).outcome == "not claimed"


def test_torchs_own_compiler_may_wrap_its_functions() -> None:
    script = (
        "from lcbench import surroundings as s, registry\n"
        "from lcbench.probe import Probe\n"
        "spec = registry.load_method('vanilla')\n"
        "import torch._dynamo\n"
        "print(s.side_effects(Probe(spec, spec.config())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "None"


class LoopsOverTokens(Toy):
    def values(self, seen: Tensor) -> Tensor:
        return torch.cat([super(LoopsOverTokens, self).values(t) for t in seen.split(1, 1)], 1)


def test_a_loop_over_tokens_is_weighed_at_shorter_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "WEIGHED_LOOPS", (128, 256))
    monkeypatch.setattr(growth, "MOST_OPERATIONS", 2)
    told = [
        check_law(_law("memory"), dataclasses.replace(SOUND, build=build)).detail
        for build in (Toy, LoopsOverTokens)
    ]
    assert "from T=512 to 1024 forward" in told[0]
    assert "from T=128 to 256 forward" in told[1]


class Hangs(Toy):
    """Never answers."""

    def values(self, seen: Tensor) -> Tensor:
        while True:
            time.sleep(0.01)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
def test_a_check_ends_in_time_and_says_what_it_did_not_come_to() -> None:
    findings = check_method(dataclasses.replace(SOUND, build=Hangs), seconds=0.5)
    outcomes = {finding.law: finding.outcome for finding in findings}
    assert outcomes["metadata"] == "pass"
    assert outcomes["shape"] == outcomes["time"] == "undecided"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.fixture
def composite(monkeypatch: pytest.MonkeyPatch) -> MethodSpec:
    """A method of two parts, of which the second peeks ahead by its own fault."""
    specs = {"sound": SOUND, "peeks": dataclasses.replace(SOUND, build=PeeksAhead)}
    monkeypatch.setattr(registry, "load_method", lambda name: specs[name])
    return dataclasses.replace(
        SOUND, build=built_by_parts, cost=UNDECLARED, config=ToyConfig,
        parts=lambda config: ("sound", "sound", f"peeks:window={config.window}"),
    )  # fmt: skip


def test_a_fault_of_one_part_is_found_in_its_layer(composite: MethodSpec) -> None:
    finding = check_law(_law("causality"), composite, ToyConfig(window=3))
    assert finding.outcome == "fail"
    assert finding.detail.startswith("layer 2, peeks:window=3: T=2: tokens 1.. replaced by")


def test_a_law_that_a_part_claims_is_checked_of_it(composite: MethodSpec) -> None:
    assert check_law(_law("metadata"), composite).outcome == "pass"
    assert check_law(_law("config"), composite).outcome == "pass"
    assert check_law(_law("segments"), composite).outcome == "fail"
    memory = check_law(_law("memory"), composite, ToyConfig(window=3))
    assert memory.outcome == "pass"
    assert memory.detail.startswith("layer 0, sound: exponent ")


def test_every_part_is_probed_at_the_layer_it_stands_in(
    composite: MethodSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[ModelShape] = []

    class Notes(Toy):
        def __init__(self, shape: ModelShape, config: ToyConfig) -> None:
            super().__init__(shape, config)
            shapes.append(shape)

    spec = dataclasses.replace(SOUND, build=Notes)
    monkeypatch.setattr(registry, "load_method", lambda name: spec)
    check_law(_law("batch"), composite)
    assert {(shape.layer, shape.num_layers) for shape in shapes} == {(0, 3), (2, 3)}


def _law(name: str) -> Any:
    return next(law for law in LAWS if law.name == name)
