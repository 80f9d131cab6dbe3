"""What a suite asks of every method, as the plan that ranking counts by."""

from collections.abc import Iterable

import pandas as pd

from lcbench import ranking, registry
from lcbench.config import UsageError
from lcbench.registry import PluginError


def suite_plan(frame: pd.DataFrame) -> pd.DataFrame | None:
    """The plan of the suites in a frame: their tasks and contexts, for the seeds anyone tried.

    With it a variant of a task, or a context beyond the suite's, that one method tried changes
    nobody's quality. A suite that is not installed, or of which nothing planned was tried, counts
    by what its rows tried.

    Returns:
        A frame with `ranking.PLAN` and each task's `family`, or None where there are no quality
        rows. A task that is not installed has none.
    """
    tried = frame[frame["kind"] == "quality"][ranking.PLAN].drop_duplicates()
    parts: list[pd.DataFrame] = []
    for suite, rows in tried.groupby("suite"):
        asked = _asked(str(suite))
        seeds = rows[["seed"]].drop_duplicates()
        planned = asked.merge(seeds, how="cross").assign(suite=suite)[ranking.PLAN]
        overlap = planned.merge(rows.astype(planned.dtypes.to_dict()), on=ranking.PLAN)
        parts.append(rows if overlap.empty else planned)
    if not parts:
        return None
    return _with_families(pd.concat(parts, ignore_index=True))


def tried_plan(frame: pd.DataFrame) -> pd.DataFrame | None:
    """The plan that asks for what was tried and no more: that of one run, which may be a part."""
    tried = frame[frame["kind"] == "quality"][ranking.PLAN].drop_duplicates()
    return None if tried.empty else _with_families(tried.reset_index(drop=True))


def _with_families(plan: pd.DataFrame) -> pd.DataFrame:
    families = plan["task"].map(_families(plan["task"].unique()))
    # Where no family is known, pandas would take the column for one of numbers.
    return plan.assign(family=families.astype(object))


def _families(tasks: Iterable[str]) -> dict[str, str]:
    """The family that each task declares, read from its source: nothing is imported."""
    known = registry.sources("task")
    fields = {task: registry.headline("task", task).fields for task in tasks if task in known}
    # The file of a task may not parse, or name no family in so many words.
    return {task: str(found["family"]) for task, found in fields.items() if "family" in found}


def _asked(name: str) -> pd.DataFrame:
    """Task, config, trained context and context of all that a suite asks."""
    places: list[tuple[str, str, int, int]] = []
    try:
        for plan in registry.load_suite(name).tasks:
            config = registry.load_task(plan.task).config().override(plan.config).canonical()
            places += [(plan.task, config, plan.train_context, c) for c in plan.contexts]
    except (UsageError, PluginError):
        places = []
    return pd.DataFrame(places, columns=["task", "task_config", "train_context", "context"])
