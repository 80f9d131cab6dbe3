"""The commands of a contributor: new, check, submit, validate, verify, review."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lcbench.command import Command, PlaceType, examples
from lcbench.config import UsageError, split_assignments

if TYPE_CHECKING:
    from lcbench.places import Place


@click.command(cls=Command, epilog=examples("new my-window", "new my-window --from sliding-window"))
@click.argument("name")
@click.option(
    "--from", "origin", metavar="METHOD", help="A method to begin from. Default: a running mean."
)
def new(name: str, origin: str | None) -> None:
    """Write the file of a new method, which passes check as it is, its places to edit marked."""
    from lcbench import scaffold

    made = scaffold.create(name, origin)
    click.echo(
        f"Wrote {made.path}. It runs as it is; edit the {made.marks} places marked"
        f" {scaffold.MARK} and take the marks away. Then:\n"
        f"  lcbench check {made.name}                   is it right?\n"
        f"  lcbench run --method vanilla,{made.name}    measure it beside the anchor\n"
        f"  lcbench submit {made.name}                  make a pull request of it"
    )


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
    from lcbench import registry, running, scaffold, terminal
    from lcbench.conformance import check_method

    requests = running.read_methods([name])
    if len(requests) != 1:
        raise UsageError(f"check takes one method at a time, got {name!r}")
    ((method, overrides),) = requests
    spec = registry.load_method(method)
    config = spec.config().override(split_assignments(overrides))
    findings = check_method(spec, config, cost=cost, seconds=timeout)
    terminal.show_findings(name, findings)
    marks = scaffold.marked_lines(registry.source("method", method).path)
    if marks:
        lines = ", ".join(map(str, marks))
        click.echo(f"Still marked {scaffold.MARK} lines {lines}; lcbench submit refuses them.")
    if any(finding.outcome in ("fail", "undecided") for finding in findings):
        sys.exit(1)


@click.command(
    cls=Command, epilog=examples("submit my-window", "submit my-window --suite standard --as me")
)
@click.argument("name")
@click.option("--suite", "-s", help="Which suite's rows. Default: the one there are rows of.")
@click.option(
    "--device",
    type=click.Choice(["cuda", "mps", "cpu"]),
    help="Which device's rows. Default: that of the newest.",
)
@click.option(
    "--results",
    type=PlaceType(must_exist=True),
    help="Where the run put them. Default: results/local.",
)
@click.option(
    "--as", "submitter", metavar="HANDLE", help="Your GitHub handle, to stand in the rows."
)
def submit(
    name: str, suite: str | None, device: str | None, results: "Place | None", submitter: str | None
) -> None:
    """Make a pull request of a method, NAME or NAME:FIELD=VALUE, and its newest local rows.

    Writes one file under results/published, shows what it changes on the board, and prints the
    pull request's title, body and commands; nothing is sent. Exit code 1 says that the rows break a
    rule: then nothing is written.
    """
    from lcbench import pull_request, running, submitting

    requests = running.read_methods([name])
    if len(requests) != 1:
        raise UsageError(f"submit takes one method at a time, got {name!r}")
    handle = submitting.read_handle(submitter)
    request = submitting.Request(*requests[0], suite, device, results, handle)
    gathered = submitting.gather(request)
    submission = submitting.prepare(gathered, request)
    if submission.findings:
        for found in submission.findings:
            row = "" if found.row is None else f", row {found.row}"
            click.echo(f"{found.rule}{row}: {found.message}", err=True)
        raise click.ClickException(
            f"nothing was written: {len(submission.findings)} things are wrong with these rows"
        )
    pull_request.publish(request, gathered, submission)


@click.command(
    cls=Command,
    epilog=examples("verify results/published/quick/my-window/2026-11-24-0123456789ab.parquet"),
)
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--cells", type=click.IntRange(1), default=4, show_default=True, metavar="K",
    help="How many cells to measure again: scores and costs in turn.",
)  # fmt: skip
@click.option(
    "--salt", default="", metavar="TEXT", help="Draw other cells than the file's content draws."
)
def verify(path: Path, cells: int, salt: str) -> None:
    """Measure a few cheap cells of a published file again and compare; write nothing.

    Which cells is decided by the file's content. Exit code 1 says that a number does not agree, or
    that the file breaks a rule. The method's code is run, in child processes.
    """
    from lcbench import verifying

    try:
        report = verifying.verify(path, cells, salt=salt, tell=click.echo)
    except verifying.InvalidFileError as error:
        for found in error.findings:
            click.echo(f"{found.rule}: {found.message}", err=True)
        raise click.ClickException(f"{path.name} is not valid, so nothing was measured") from None
    verifying.show(report)
    if not report.agrees:
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


@click.command(cls=Command, epilog=examples("review", "review --changed-since origin/main"))
@click.option(
    "--changed-since", "ref", default="origin/main", show_default=True, metavar="REF",
    help="What the pull request is made to.",
)  # fmt: skip
@click.option(
    "--cells", type=click.IntRange(1), default=4, show_default=True, metavar="K",
    help="How many cells of each file of results to measure again.",
)  # fmt: skip
def review(ref: str, cells: int) -> None:
    """Tell all that can be told of a pull request: rules, checks, cells measured again, the board.

    Prints Markdown, and adds it to the file named by GITHUB_STEP_SUMMARY. Exit code 1 says that a
    step failed. Methods that were added are run, in child processes.
    """
    import os

    from lcbench import paths, reviewing

    root = paths.checkout()
    if root is None:
        raise UsageError("lcbench is installed here without its repository; review in a clone")
    steps = reviewing.review(ref, root, cells, lambda line: click.echo(line, err=True))
    report = reviewing.to_report(steps)
    click.echo(report)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(report)
    if not all(step.passed for step in steps):
        sys.exit(1)
