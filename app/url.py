"""Widgets whose state is in the URL, so that a copied link shows the same view.

What a reader changes is one step for the back button; nothing else writes to the URL. A value that
is the widget's default is left out of it. Streamlit's own binding (`bind="query-params"`) is not
used: it drops what a page shares with the next one, and writing that back is a step of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st


def choose(
    label: str, options: Sequence[Any], key: str, titles: Callable[[Any], str] = str, **rest: Any
) -> Any:
    """What the reader chose of some options, by default the first.

    Args:
        label: What stands above the select box.
        options: At least one, told apart by their text in the URL.
        key: Of the widget, and in the URL.
        titles: What an option is called.
        **rest: For `st.selectbox`; `index` is the default's.
    """
    default = options[rest.pop("index", 0)]
    by_text = {str(option): option for option in options}
    _seed(key, default, lambda texts: by_text.get(texts[-1], default))
    return st.selectbox(
        label, options, key=key, format_func=titles, **_when_changed(key, default), **rest
    )


def choose_some(
    label: str,
    options: Sequence[Any],
    key: str,
    titles: Callable[[Any], str] = str,
    *,
    default: Sequence[Any] = (),
    **rest: Any,
) -> list[Any]:
    """What the reader chose of some options, any number of them, in the order chosen.

    Args:
        label: What stands above the list.
        options: Told apart by their text in the URL.
        key: Of the widget, and in the URL.
        titles: What an option is called.
        default: What is chosen before the reader does.
        **rest: For `st.multiselect`.
    """
    by_text = {str(option): option for option in options}
    offered = [option for option in default if option in options]
    _seed(key, offered, lambda texts: [by_text[text] for text in texts if text in by_text])
    return st.multiselect(
        label, options, key=key, format_func=titles, **_when_changed(key, offered), **rest
    )


def search(label: str, key: str, **rest: Any) -> str:
    """What the reader typed, without blanks around it; `rest` is for `st.text_input`."""
    _seed(key, "", lambda texts: texts[-1])
    return (st.text_input(label, key=key, **_when_changed(key, ""), **rest) or "").strip()


def toggle(label: str, key: str, **rest: Any) -> bool:
    """Whether the reader switched something on; `rest` is for `st.toggle`."""
    _seed(key, False, lambda texts: texts[-1] == "True")
    return st.toggle(label, key=key, **_when_changed(key, False), **rest)


def _seed(key: str, default: Any, read: Callable[[list[str]], Any]) -> None:
    """Give a widget the value that the URL has, or its default.

    The URL is always right: a reader's change is written to it before the page is drawn.
    """
    texts = st.query_params.get_all(key)
    st.session_state[key] = read(texts) if texts else default


def _when_changed(key: str, default: Any) -> dict[str, Any]:
    return {"on_change": _write, "args": (key, default)}


def _write(key: str, default: Any) -> None:
    """Put into the URL what the reader just chose."""
    value = st.session_state[key]
    texts: list[str] = []
    if value != default:
        # An empty choice has to be told from none.
        texts = [str(one) for one in value] or [""] if isinstance(value, list) else [str(value)]
    rest = {name: st.query_params.get_all(name) for name in st.query_params if name != key}
    st.query_params.from_dict(rest | ({key: texts} if texts else {}))
