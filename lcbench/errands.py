"""What children are sent to do: torch and plug-ins are loaded there, and never in the parent.

Light to import, since each child imports it; what it needs, the fork server has loaded.
"""

import os
from typing import Any

from lcbench import confinement
from lcbench.isolation import HUGE_PAGES, WAIT_POLICY, Send
from lcbench.suite import Cell


def describe(name: str, overrides: str, send: Send) -> list[Any]:
    """The fields of a method's `MethodCard`."""
    from lcbench.cells import describe_method

    return list(describe_method(name, overrides))


def look_around(device: str | None, send: Send) -> dict[str, Any]:
    """The columns that tell of this machine and of the code, and what would spoil a timing."""
    from lcbench.environment import pick_device, read_environment, read_provenance
    from lcbench.noise import complaints, read_machine

    kind = pick_device(device)
    # Before torch is used here, which would be seen as somebody's work.
    warnings = complaints(read_machine(kind))
    settings = {
        "huge_pages": os.environ.get(HUGE_PAGES) == "1",
        "omp_wait_policy": os.environ.get(WAIT_POLICY),
    }
    return {
        "environment": read_environment(kind, settings),
        "provenance": read_provenance(),
        "warnings": warnings,
        "network": confinement.network(),
    }


def measure(fields: dict[str, Any], send: Send) -> list[dict[str, Any]]:
    """A cell's work, from its fields to the columns of its rows."""
    from lcbench.cells import Watcher, check_sources, guard_cell, run_cell

    watcher = Watcher(
        stage=lambda name: send("stage", name),
        report=lambda report: send("report", report._asdict()),
    )
    cell = Cell(**fields)
    # First: to find out whether the parts of a method were edited may take loading it.
    guard = guard_cell(cell)
    check_sources(cell)
    return run_cell(cell, watcher, guard)
