"""What `lcbench status` tells: of the runs in a folder of results, under way or interrupted."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lcbench import journal
from lcbench.journal import RunPlan
from lcbench.locks import is_locked
from lcbench.places import Place


class UnderWay(NamedTuple):
    """A cell that a run works on now."""

    label: str
    since: datetime.datetime | None


class RunStatus(NamedTuple):
    """How far a run has come."""

    plan: RunPlan
    folder: Path
    is_live: bool
    done: int
    failed: int
    """Of those done."""
    under_way: Sequence[UnderWay]

    @property
    def left(self) -> int:
        """Cells that are neither done nor under way."""
        return len(self.plan.cells) - self.done - len(self.under_way)


def read_status(root: Place, suite: str | None = None) -> list[RunStatus]:
    """The runs that have not sealed their results, oldest first.

    Args:
        root: The folder of all suites' results.
        suite: Only this suite's.
    """
    base = journal.local_part(root)
    suites = [suite] if suite else sorted(path.parent.name for path in base.glob("*/runs"))
    found: list[RunStatus] = []
    for name in suites:
        plans = journal.read_plans(base / name / "runs")
        if not plans:
            continue
        places = dict.fromkeys([root / name, base / name])
        finished = journal.read_finished(places)
        under_way = _read_claims(base / name / "claims")
        for path, plan in plans.items():
            stems = [cell.stem for cell in plan.cells]
            statuses = [finished[stem].status for stem in stems if stem in finished]
            busy = [under_way[s] for s in stems if s in under_way and s not in finished]
            failed = sum(status not in ("ok", "unsupported") for status in statuses)
            found.append(RunStatus(plan, base / name, is_locked(path), len(statuses), failed, busy))
    return sorted(found, key=lambda run: run.plan.started_at)


def _read_claims(folder: Path) -> dict[str, UnderWay]:
    """The claims that are held, by stem."""
    held: dict[str, UnderWay] = {}
    for path in sorted(folder.glob("*")):
        if not is_locked(path):
            continue
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            since = datetime.datetime.fromisoformat(note["since"])
            held[path.name] = UnderWay(note["label"], since)
        except (OSError, ValueError, KeyError):  # taken this instant, or given back
            held[path.name] = UnderWay(path.name, None)
    return held


def describe(run: RunStatus, now: datetime.datetime) -> list[str]:
    """A run in lines for a person."""
    plan, total = run.plan, len(run.plan.cells)
    started = datetime.datetime.fromisoformat(plan.started_at).astimezone()
    complete = run.done == total
    what = "in progress" if run.is_live else "complete, not sealed" if complete else "interrupted"
    counts = f"{run.done} of {total} cells done, {run.failed} of them failed"
    lines = [
        f"Suite {plan.suite}, {what}: {counts}, {len(run.under_way)} under way, {run.left} left.",
        f"  started {started:%Y-%m-%d %H:%M:%S}, in {run.folder}",
    ]
    for label, since in run.under_way:
        took = f" for {(now - since).total_seconds():.0f} s" if since else ""
        lines.append(f"  under way{took}: {label}")
    if not run.is_live:
        lines.append(f"  go on with it: {plan.command}")
    return lines
