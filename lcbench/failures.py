"""What is told of a call that failed: a status, and a reason that names nobody and no folder."""

import getpass
import re
import traceback
from pathlib import Path
from typing import Any, Literal

from lcbench.config import UsageError

Status = Literal["ok", "oom", "timeout", "crashed", "error", "unsupported", "invalid", "usage"]
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:|~\w*)?(?:[\\/][^\s\\/:'\"()\[\],]+)*[\\/]")
"""The part of a path before its last slash, where a path begins."""
_ASKED = re.compile(
    r"(?:[Tt]ried to allocate|Unable to allocate) (?P<count>[\d.]+) ?(?P<unit>[KMGTP]iB|bytes)"
)
"""How torch's allocators and numpy's name the allocation that failed."""
_UNITS = {"bytes": 1, **{f"{prefix}iB": 1024**n for n, prefix in enumerate("KMGTP", 1)}}


def scrub(text: str) -> str:
    """Text without folders or names: a path keeps its last part only."""
    for private, word in ((str(Path.home()), "~"), (_user(), "user")):
        if len(private) > 1:
            text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", word, text)
    return _FOLDERS.sub("", text)[:500]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def failure_of(error: BaseException) -> dict[str, Any]:
    """Status, scrubbed reason, traceback, and bytes asked for, of what a cell's work raised."""
    text = scrub(str(error).strip().partition("\n")[0])
    status: Status = _status_of(error)
    plain = status in ("usage", "unsupported", "invalid")
    return {
        "status": status,
        "error": text if plain else f"{type(error).__name__}: {text}",
        "details": traceback.format_exc(),
        "asked_bytes": _asked_bytes(str(error)) if status == "oom" else None,
    }


def _asked_bytes(text: str) -> int | None:
    found = _ASKED.search(text)
    return round(float(found["count"]) * _UNITS[found["unit"]]) if found else None


def _status_of(error: BaseException) -> Status:
    import torch

    if isinstance(error, UsageError):
        return "usage"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "oom"
    if "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "oom"
    # An error class may name its own status: see `contract`.
    named = vars(type(error)).get("status")
    return named if named in ("unsupported", "invalid") else "error"
