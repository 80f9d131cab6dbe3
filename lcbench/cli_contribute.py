"""The commands of a contributor: check, validate."""

import sys
from pathlib import Path

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


@click.command(
    cls=Command,
    epilog=examples("validate", "validate --changed-since origin/main", "validate --rules"),
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--changed-since",
    metavar="REF",
    help="Hold what was added since a revision, committed or not, to the rules of a pull request.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The checkout to look at. Default: the one this lcbench runs from. None of the code of"
    " another is run.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text",
    show_default=True,
)  # fmt: skip
@click.option("--rules", is_flag=True, help="Print every rule and stop.")
def validate(
    paths: tuple[Path, ...], changed_since: str | None, root: Path | None, form: str, rules: bool
) -> None:
    """Hold submitted results, files or folders, to every rule; tell all that is wrong.

    Without PATHS all published results are held to what they say of themselves; those named, and
    those added since a revision, to the code of the tree too. Exit code 1 says that a rule is
    broken.
    """
    from lcbench.submission_rules import RULES

    if rules:
        widest = max(len(rule) for rule in RULES)
        click.echo("\n".join(f"{rule:<{widest}}  {what}" for rule, what in RULES.items()))
        return
    from lcbench import submission_checks, submission_report

    if paths and changed_since is not None:
        raise UsageError("--changed-since finds the paths itself; leave PATHS out")
    found = submission_checks.look(list(paths), changed_since, root)
    click.echo(submission_report.FORMATS[form](found.findings, found.checked))
    if found.findings:
        sys.exit(1)
