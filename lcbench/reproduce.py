"""The `lcbench run` command that measures a row again."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    *("kind", "suite", "method", "config", "task", "task_config", "recipe", "context", "seed"),
    *("dtype", "device_kind", "deterministic"),
)
"""The columns of a row that its command is made of."""


def run_command(row: Mapping[str, Any]) -> str:
    """The command whose plan is the cell of a row and nothing else, quoted for a shell.

    Every field of a config is spelt out, as the defaults of another version may be others. It gives
    the same cell id where method, task, suite and harness are those of the row: the hashes and the
    commit that stand beside it tell which.

    Args:
        row: At least `COLUMNS`, as Python values, null as None. A row without a recipe is older
            than that column; it is taken to be of a cell of its one context.

    Raises:
        ValueError: A config or a recipe that is not a JSON object.
    """
    words = ["lcbench", "run", "--suite", row["suite"], "--kind", row["kind"]]
    words += ["--method", _request(row["method"], row["config"])]
    if row["kind"] == "quality":
        words += ["--task", _request(row["task"], row["task_config"] or "{}")]
    contexts = _read_object(row["recipe"] or "{}").get("contexts") or [row["context"]]
    words += ["--context", ",".join(str(context) for context in contexts)]
    if row["kind"] == "quality":
        words += ["--seed", str(row["seed"])]
    words += ["--device", row["device_kind"]]
    if row["dtype"]:
        words += ["--dtype", row["dtype"]]
    if row["deterministic"]:
        words.append("--deterministic")
    return shlex.join(words)


def _request(name: str, config: str) -> str:
    """A name with every field of its config, as the command line reads it."""
    fields = _read_object(config)
    if not fields:
        return name
    return f"{name}:" + ",".join(f"{field}={_text(value)}" for field, value in fields.items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def _read_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"a config or recipe is a JSON object, got {text[:80]!r}")
    return value
