import dataclasses
from dataclasses import dataclass

import pytest

from lcbench import registry
from lcbench.method import MethodConfig
from lcbench.picture import half_blocks, miniature


@dataclass(frozen=True, kw_only=True)
class Sizes(MethodConfig):
    window: int = 128
    sinks: int = 4
    block: int = 32
    rate: float = 64.0
    fused: bool = True

    def __post_init__(self) -> None:
        if self.block % 4:
            raise ValueError(f"block must be a multiple of 4, got {self.block}")


SPEC = dataclasses.replace(registry.load_method("vanilla"), config=Sizes)


def test_large_sizes_shrink_together_and_small_ones_stay() -> None:
    assert miniature(SPEC, Sizes(block=64)) == Sizes(window=8, block=4)


def test_a_size_that_the_config_refuses_stays() -> None:
    assert miniature(SPEC, Sizes(block=32)) == Sizes(window=8, block=32)


def test_a_config_of_small_sizes_is_shown_as_it_is() -> None:
    assert miniature(SPEC, Sizes(window=15, block=12)) == Sizes(window=15, block=12)


def test_a_method_may_name_its_own_miniature_for_its_defaults_alone() -> None:
    spec = dataclasses.replace(SPEC, miniature={"window": "3", "block": "4"})
    assert miniature(spec, Sizes()) == Sizes(window=3, block=4)
    assert miniature(spec, Sizes(window=64, block=64)) == Sizes(window=8, block=8)


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        (["#.", "##"], ["┌──┐", "│█▄│", "└──┘"]),
        (["##", "..", ".#"], ["┌──┐", "│▀▀│", "│ ▀│", "└──┘"]),
    ],
)
def test_two_tokens_share_a_character(rows: list[str], lines: list[str]) -> None:
    assert half_blocks(rows) == lines
