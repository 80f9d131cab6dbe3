from dataclasses import dataclass
from typing import Any, Literal

import pytest

from lcbench.config import Config, UsageError, did_you_mean, digest, split_assignments


@dataclass(frozen=True, kw_only=True)
class Everything(Config):
    """One field of every kind."""

    window: int = 64
    """Keys a query sees."""
    decay: float = 0.5
    """Share kept
    from one segment to the next."""
    gated: bool = False
    positions: Literal["rotary", "sinusoidal"] = "rotary"
    layers: Literal[2, 4] = 2
    cap: int | None = None
    """None for no cap."""
    note: str = ""
    label: str | None = None

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")


@dataclass(frozen=True, kw_only=True)
class Extended(Everything):
    """A field more than its base."""

    extra: int = 1
    """Only here."""
    window: int = 32


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("window", "128", 128),
        ("decay", "1e-3", 0.001),
        ("decay", "2", 2.0),
        ("gated", "true", True),
        ("gated", "False", False),
        ("gated", "1", True),
        ("gated", "0", False),
        ("positions", "sinusoidal", "sinusoidal"),
        ("layers", "4", 4),
        ("cap", "7", 7),
        ("cap", "none", None),
        ("cap", "None", None),
        ("note", "12", "12"),
        ("label", "far", "far"),
        ("label", "none", None),
    ],
)
def test_a_field_of_every_kind_is_read_from_text(name: str, text: str, value: Any) -> None:
    # Every field starts from something else, so that reading nothing would show.
    start = Everything(
        window=3, decay=9.0, gated=text in ("False", "0"), cap=3, note="-", label="-"
    )
    read = getattr(start.override({name: text}), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("window", "wide", "int"),
        ("window", "1.5", "int"),
        ("window", "", "int"),
        ("window", "none", "int"),
        ("decay", "fast", "float"),
        ("gated", "yes", "bool"),
        ("positions", "rotari", "rotary | sinusoidal"),
        ("layers", "3", "2 | 4"),
        ("cap", "x", "int | None"),
    ],
)
def test_text_of_a_wrong_type_names_field_type_and_value(name: str, text: str, kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        Everything().override({name: text})
    assert str(caught.value) == f"config field {name!r} takes {kind}, got {text!r}"


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no config field 'windo'; did you mean 'window'"):
        Everything().override({"windo": "3"})


def test_an_unknown_field_near_nothing_lists_them_all() -> None:
    with pytest.raises(UsageError, match=r"there are: cap, decay, .*window"):
        Everything().override({"zzzzzz": "3"})


def test_a_config_without_fields_says_there_are_none() -> None:
    with pytest.raises(UsageError, match="there are none"):
        Config().override({"window": "3"})


def test_the_reason_a_class_refuses_a_value_comes_through() -> None:
    with pytest.raises(UsageError, match=r"^window must be at least 1, got 0$"):
        Everything().override({"window": "0"})


def test_an_override_leaves_the_config_it_came_from() -> None:
    config = Everything(decay=0.25)
    assert config.override({"window": "8"}) == Everything(decay=0.25, window=8)
    assert config == Everything(decay=0.25)


def test_canonical_text_does_not_depend_on_the_order_of_overrides() -> None:
    one = Everything().override({"window": "8", "decay": "0.1"})
    two = Everything().override({"decay": "0.1", "window": "8"})
    assert one.canonical() == two.canonical()


def test_canonical_text_is_what_published_rows_hold() -> None:
    assert Everything(cap=3).canonical() == (
        '{"cap":3,"decay":0.5,"gated":false,"label":null,"layers":2,"note":"",'
        '"positions":"rotary","window":64}'
    )


def test_canonical_text_tells_any_two_configs_apart() -> None:
    variants = [
        Everything(),
        Everything(window=8),
        Everything(gated=True),
        Everything(cap=0),
        Everything(note="none"),
        Everything(label="none"),
        Everything(label=""),
    ]
    assert len({config.canonical() for config in variants}) == len(variants)


@dataclass(frozen=True, kw_only=True)
class WholeDefault(Config):
    """A float whose default is written as an integer, as method files do."""

    scale: float = 1


def test_equal_configs_have_equal_text_however_a_float_was_written() -> None:
    default, read = WholeDefault(), WholeDefault().override({"scale": "1"})
    assert default == read
    assert default.canonical() == read.canonical()


@pytest.mark.parametrize(
    "config",
    [
        Everything(),
        Everything(window=8, decay=1e-05, gated=True, positions="sinusoidal", layers=4, cap=0),
        Everything(note="a b", label="x=y"),
        Extended(extra=2),
        Extended(window=64),
    ],
)
def test_assignments_read_back_to_the_same_config(config: Everything) -> None:
    assert type(config)().override(split_assignments(config.assignments())) == config


def test_assignments_of_a_none_field_read_back() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Capped(Config):
        cap: int | None = 4

    config = Capped(cap=None)
    assert config.assignments() == "cap=none"
    assert Capped().override(split_assignments("cap=none")) == config


def test_a_default_config_has_no_assignments() -> None:
    assert Everything().assignments() == ""


def test_assignments_may_be_spaced_and_trailed() -> None:
    assert split_assignments(" window = 8 , decay=0.1,") == {"window": "8", "decay": "0.1"}
    assert split_assignments("") == {}


@pytest.mark.parametrize("text", ["window", "window=1,wide", "=3"])
def test_a_part_without_a_field_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="is not a config override; write field=value"):
        split_assignments(text)


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'window' is given twice"):
        split_assignments("window=1,window=2")


def test_field_docs_are_the_strings_below_the_fields() -> None:
    assert Everything.field_docs() == {
        "window": "Keys a query sees.",
        "decay": "Share kept\nfrom one segment to the next.",
        "cap": "None for no cap.",
    }


def test_field_docs_of_a_subclass_include_its_base() -> None:
    docs = Extended.field_docs()
    assert docs["extra"] == "Only here."
    assert docs["decay"] == Everything.field_docs()["decay"]


def test_field_docs_of_a_class_inside_a_function_are_found() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Local(Config):
        size: int = 1
        """Tokens of a block."""

    assert Local.field_docs() == {"size": "Tokens of a block."}


def test_field_types_come_in_the_order_of_declaration() -> None:
    assert list(Extended.field_types()) == [
        "window", "decay", "gated", "positions", "layers", "cap", "note", "label", "extra",
    ]  # fmt: skip


def test_did_you_mean_takes_the_nearest_of_several() -> None:
    assert did_you_mean("slidng-window", ["vanilla", "sliding-window"]) == (
        "did you mean 'sliding-window'?"
    )
    assert did_you_mean("x", []) == "there are none"


def test_the_digest_is_the_start_of_sha_256() -> None:
    assert digest("") == digest(b"") == "e3b0c44298fc1c14"
    assert digest("", 6) == "e3b0c4"
