"""Cards: facts in two columns, as HTML of what plug-ins declare, never of a results file."""

import html
import re
from collections.abc import Mapping

import streamlit as st

_TERM = "opacity:.65;margin:0;padding:0;font-weight:400;min-width:5.5rem;overflow-wrap:anywhere;"
_TOLD = "margin:0 0 .5rem 0;padding:0;overflow-wrap:anywhere;"
_GRID = (
    "display:grid;grid-template-columns:fit-content(40%) minmax(0,1fr);column-gap:1rem;"
    "margin:0;padding:0;"
)


def facts(told: Mapping[str, str]) -> None:
    """Draw terms and what is told of each; empty ones are left out."""
    items = [
        f'<dt style="{_TERM}">{html.escape(term)}</dt><dd style="{_TOLD}">{_prose(text)}</dd>'
        for term, text in told.items()
        if text
    ]
    st.html(f'<dl style="{_GRID}">{"".join(items)}</dl>')


def _prose(text: str) -> str:
    """A docstring's sentence: what stands in backticks is code."""
    told = html.escape(" ".join(text.split()))
    return re.sub(r"`([^`]+)`", r'<code style="font-size:.875em">\1</code>', told)
