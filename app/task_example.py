"""One example of a task as a person would read it, as HTML that holds nothing of a results file."""

import html
from typing import Any

import streamlit as st

from lcbench import examples, registry
from lcbench.config import UsageError
from lcbench.examples import Example, Piece
from lcbench.registry import PluginError

SHORTEST_TEXT = 512
"""Characters of text that a reader needs to see what a task asks."""
_MARKS = {
    "": "",
    "evidence": "background:rgba(230,115,0,.30);border-bottom:2px dashed #e67300;",
    "asked": "background:rgba(38,147,255,.28);border-bottom:2px solid #2693ff;font-weight:700;",
}
_BOX = (
    "font-family:'Source Code Pro',ui-monospace,monospace;font-size:.875rem;line-height:1.9;"
    "max-height:24rem;overflow:auto;padding:.75rem 1rem;border-radius:.375rem;"
    "border:1px solid rgba(127,136,148,.35);"
)
_ANSWERS = (
    "margin-top:.75rem;padding-top:.5rem;border-top:1px solid rgba(127,136,148,.35);"
    "white-space:pre-wrap;overflow-wrap:anywhere;opacity:.85;"
)


class NoExampleError(Exception):
    """Why there is no example to show."""


@st.cache_resource(max_entries=64, show_spinner="Drawing an example …")
def load_example(name: str, overrides: tuple[tuple[str, str], ...]) -> Example:
    """An example of an installed task, drawn when it is first asked for.

    It is drawn here and not kept in a file since real tasks read the library of the interpreter
    that runs: a kept example would be that of another machine.

    Raises:
        NoExampleError: A task that is not installed here, or that cannot be drawn from.
    """
    try:
        spec = registry.load_task(name)
        task = spec.build(spec.config().override(dict(overrides)), "test")
        return examples.draw_example(
            name, task, SHORTEST_TEXT if task.is_text else examples.SHORTEST
        )
    except (UsageError, PluginError) as error:
        raise NoExampleError(str(error)) from None
    except Exception as error:
        raise NoExampleError(f"{type(error).__name__}: {error}") from error


def example_html(example: Example) -> str:
    """The tokens of an example, those that are asked and their evidence marked."""
    spans = [_span(piece) for piece in example.pieces]
    if example.is_text:
        flow, text = "white-space:pre-wrap;overflow-wrap:anywhere;", "".join(spans)
    elif example.columns is None:
        flow, text = "overflow-wrap:anywhere;", " ".join(spans)
    else:
        flow, text = "white-space:pre;line-height:1.15;", _lines(spans, example.columns)
    answers = html.escape(example.answers)
    return (
        f'<div style="{_BOX}"><div style="{flow}">{text}</div>'
        f'<div style="{_ANSWERS}">{answers}</div></div>'
    )


def legend_html(example: Example) -> str:
    """What the marks of an example mean; empty where it has none."""
    marks = {piece.mark for piece in example.pieces}
    told = {"asked": "an answer is due", "evidence": "the evidence it needs"}
    return " &nbsp; ".join(_span(Piece(told[m], m)) for m in ("asked", "evidence") if m in marks)


def _lines(spans: list[str], columns: int) -> str:
    starts = range(0, len(spans), columns)
    return "\n".join(" ".join(spans[start : start + columns]) for start in starts)


def _span(piece: Piece) -> str:
    text: Any = html.escape(piece.text).replace("↵", "↵\n")
    if not piece.mark:
        return text
    wanted = (
        f'<span style="opacity:.75">→{html.escape(piece.wanted)}</span>' if piece.wanted else ""
    )
    style = f"{_MARKS[piece.mark]}border-radius:3px;padding:1px 3px;"
    return f'<span style="{style}">{text}{wanted}</span>'
