"""The commands of a contributor: check."""

import sys

import click

from lcbench.command import Command, examples
from lcbench.config import UsageError, split_assignments


@click.command(
    cls=Command, epilog=examples("check sliding-window", "check sliding-window:window=7 --no-cost")
)
@click.argument("name")
@click.option(
    "--cost/--no-cost",
    default=True,
    help="Also measure how time grows, which takes seconds and can only warn. Default: yes.",
)
@click.option(
    "--timeout", type=click.FloatRange(1), default=60, show_default=True, metavar="SECONDS",
    help="Longest a check may take; laws it does not come to are undecided.",
)  # fmt: skip
def check(name: str, cost: bool, timeout: float) -> None:
    """Hold a method, NAME or NAME:FIELD=VALUE, to the contract; write nothing.

    Exit code 1 says that a law failed or could not be decided in time.
    """
    import os

    # Read when torch is loaded: its profiler, which weighs memory, would chatter on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from lcbench import registry, running, terminal
    from lcbench.conformance import check_method

    requests = running.read_methods([name])
    if len(requests) != 1:
        raise UsageError(f"check takes one method at a time, got {name!r}")
    ((method, overrides),) = requests
    spec = registry.load_method(method)
    config = spec.config().override(split_assignments(overrides))
    findings = check_method(spec, config, cost=cost, seconds=timeout)
    terminal.show_findings(name, findings)
    if any(finding.outcome in ("fail", "undecided") for finding in findings):
        sys.exit(1)
