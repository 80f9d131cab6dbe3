"""What a method tells of itself, with its picture: for the terminal, for the docs, for the app."""

import json
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

from lcbench import parts, registry
from lcbench.config import split_assignments, type_name
from lcbench.families import by_family, heading
from lcbench.method import MethodConfig
from lcbench.parts import Resolved
from lcbench.picture import TOKENS, Picture, draw, half_blocks

WIDTH = 96
REGENERATE = "make docs"
CAPTION = (
    f"Who sees whom, measured in one layer on {TOKENS} tokens: a mark in row i, column j where the"
    " output at token i moves when token j changes."
)


class Field(NamedTuple):
    """One field of a config."""

    name: str
    value: str
    type: str
    doc: str


class Sheet(NamedTuple):
    """All that is shown of a method at one configuration; only text, numbers and lists of them."""

    name: str
    title: str
    family: str
    summary: str
    equation: str
    paper: dict[str, Any]
    """`title`, `year`, `arxiv`."""
    layers: list[str]
    """The parts of one period, for a method made of parts."""
    sees: list[str]
    reach: int | None
    shift_period: int | None
    streams: bool
    cost: dict[str, float]
    """Exponents of `time`, `memory` and `state` in T."""
    config: list[Field]
    pictures: list[Picture]


def read_sheet(name: str, overrides: str = "") -> Sheet:
    """Load a method, at its defaults with overrides such as `window=3`, and measure its picture.

    Raises:
        UsageError: No such method, an unknown field, or a refused value.
        PluginError: Its file cannot be used.
    """
    default = registry.load_method(name).config()
    method = parts.load(name, default.override(split_assignments(overrides)))
    return _sheet(name, method)


def read_sheets() -> list[Sheet]:
    """Every method at its defaults, family by family."""
    groups = by_family(registry.method_names())
    return [read_sheet(name) for names in groups.values() for name in names]


def _sheet(name: str, method: Resolved) -> Sheet:
    spec, config = method.spec, method.config
    sides = {"the past": spec.causal, "both sides": spec.bidirectional}
    return Sheet(
        name=name,
        title=spec.title,
        family=spec.family,
        summary=registry.headline("method", name).summary,
        equation=spec.equation,
        paper=spec.paper._asdict(),
        layers=[part.request for part in method.parts],
        sees=[side for side, claimed in sides.items() if claimed],
        reach=spec.reach(config),
        shift_period=spec.shift_period(config),
        streams=spec.streams,
        cost=spec.cost._asdict(),
        config=_fields(config),
        pictures=draw(method),
    )


def _fields(config: MethodConfig) -> list[Field]:
    kinds, docs = type(config).field_types(), type(config).field_docs()
    return [
        Field(name, str(getattr(config, name)), type_name(kind), docs.get(name, ""))
        for name, kind in kinds.items()
    ]


def _facts(sheet: Sheet) -> dict[str, str]:
    """What a method claims, in words."""
    period, growth = sheet.shift_period, sheet.cost["state"]
    positions = "absolute" if period is None else "relative"
    if period is not None and period > 1:
        positions = f"relative, with period {period}"
    state = "constant" if growth == 0 else f"grows as T^{growth:g}"
    facts = {
        "family": sheet.family,
        "layers": ", ".join(sheet.layers) + ", and so on" if sheet.layers else "",
        "sees": " or ".join(sheet.sees),
        "reach": "unbounded" if sheet.reach is None else f"{sheet.reach:,} tokens in one layer",
        "positions": positions,
        "decoding": f"state {state}" if sheet.streams else "keeps no state",
        "cost": f"time T^{sheet.cost['time']:g}, memory T^{sheet.cost['memory']:g}"
        " between 4k and 32k tokens",
    }
    return {label: text for label, text in facts.items() if text}


def _paper(sheet: Sheet) -> str:
    return f"{sheet.paper['title']} ({sheet.paper['year']})"


def as_text(sheet: Sheet) -> str:
    """A method for the terminal."""
    arxiv = f"arXiv:{sheet.paper['arxiv']}"
    facts = {"paper": f"{_paper(sheet)}, {arxiv}", "reads": sheet.equation, **_facts(sheet)}
    lines = [f"{sheet.name}: {sheet.title}", *_wrap(sheet.summary, "  "), ""]
    for label, text in facts.items():
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"  {label:11} ", subsequent_indent=" " * 14
        )
    lines += ["", "Config" if sheet.config else "No config fields."]
    for field in sheet.config:
        lines.append(f"  {field.name}={field.value}  ({field.type})")
        lines += _wrap(field.doc, "    ")
    return "\n".join([*lines, "", *_wrap(CAPTION, ""), *_drawn(sheet.pictures)])


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _drawn(pictures: list[Picture]) -> list[str]:
    """Pictures as text, two beside each other."""
    lines: list[str] = []
    for first in range(0, len(pictures), 2):
        beside = [_framed(picture) for picture in pictures[first : first + 2]]
        lines += [("  " + "  ".join(line)).rstrip() for line in zip(*beside, strict=True)]
    return lines


def _framed(picture: Picture) -> list[str]:
    told = ": ".join(filter(None, (picture.part, picture.config))) or "at its defaults"
    body = half_blocks(picture.rows)
    return [told.ljust(len(body[0])), *body]


def as_json(sheets: Iterable[Sheet]) -> str:
    """Methods for the app, which reads this and never loads one."""
    values = [
        sheet._asdict()
        | {
            "facts": _facts(sheet),
            "config": [field._asdict() for field in sheet.config],
            "pictures": [picture._asdict() for picture in sheet.pictures],
        }
        for sheet in sheets
    ]
    return json.dumps(values, indent=1, ensure_ascii=False)


def as_markdown(sheets: Iterable[Sheet]) -> str:
    """Methods for the docs, those of a family in a row."""
    lines = [
        "# Methods",
        "",
        f"Made from what the methods declare; `{REGENERATE}` writes it anew. T is tokens, and"
        " exponents hold between 4k and 32k of them. `lcbench check NAME` verifies the claims.",
        "",
        CAPTION + " Sizes are scaled down for it.",
    ]
    family = None
    for sheet in sheets:
        if sheet.family != family:
            family = sheet.family
            lines += ["", f"## {heading(family)}"]
        lines += _section(sheet)
    return "\n".join(lines)


def _section(sheet: Sheet) -> list[str]:
    link = f"[{_paper(sheet)}](https://arxiv.org/abs/{sheet.paper['arxiv']})"
    lines = ["", f"### {sheet.name}", "", f"{sheet.title}. {sheet.summary}", ""]
    lines += ["```", *_wrap(sheet.equation, ""), "```", "", f"- paper: {link}"]
    lines += [f"- {label}: {text}" for label, text in _facts(sheet).items() if label != "family"]
    if sheet.config:
        lines += ["", "| field | default | type | |", "| --- | --- | --- | --- |"]
    for field in sheet.config:
        cells = (f"`{field.name}`", f"`{field.value}`", field.type, " ".join(field.doc.split()))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, "", "```", *_drawn(sheet.pictures), "```"]
