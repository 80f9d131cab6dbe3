"""The commands that show: leaderboard, compare, app, report, methods, tasks, suites."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lcbench.command import Command, PlaceType, examples, read_suite
from lcbench.config import UsageError, did_you_mean

if TYPE_CHECKING:
    from lcbench.places import Place


@click.command(
    cls=Command,
    epilog=examples(
        "leaderboard",
        "leaderboard --suite quick --format markdown",
        "leaderboard --results results/local --format csv > board.csv",
        "leaderboard --columns quality,prefill_speed,prefill_roofline",
    ),
)
@click.option("--suite", "-s", help="Only this suite. Default: all that have results.")
@click.option(
    "--results",
    multiple=True,
    type=PlaceType(must_exist=True),
    help="Files, folders or URLs to read. Default: published and local results.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    help="How to print it.",
)
@click.option(
    "--columns",
    default="",
    metavar="NAME,...",
    help="What to show: names as in --format csv, or all. *_roofline is the share of what the"
    " machine could do at best (see env --measure).",
)
@click.option(
    "--budget",
    type=click.Choice(["steps", "time"]),
    help="Count only what was trained in vanilla's steps, or in its time, which shows beside the"
    " scores the training loss that each method had by then. Default: all.",
)
@click.option("--task", help="Count only the scores of this task. Default: all.")
@click.option(
    "--context", type=click.IntRange(1), help="Count only scores and costs at it. Default: all."
)
def leaderboard(
    suite: str | None,
    results: "tuple[Place, ...]",
    form: str,
    columns: str,
    budget: Any | None,
    task: str | None,
    context: int | None,
) -> None:
    """Show the leaderboard of what has been measured."""
    from lcbench import tables

    frame, problems = read_suite(suite, results)
    if task is not None and task not in set(frame["task"].dropna()):
        known = sorted(set(frame["task"].dropna()))
        raise UsageError(f"no results of task {task!r}; {did_you_mean(task, known)}")
    shown = tables.choose_columns(columns) if columns else ()
    tables.show_leaderboard_as(form, frame, problems, tables.Show(shown, budget, task, context))


@click.command(
    cls=Command,
    epilog=examples(
        "compare vanilla sliding-window",
        "compare sliding-window:window=64 sliding-window:window=256 --format csv",
    ),
)
@click.argument("a")
@click.argument("b")
@click.option("--suite", "-s", help="Only this suite. Default: all that have results.")
@click.option(
    "--results",
    multiple=True,
    type=PlaceType(must_exist=True),
    help="Files or folders to read. Default: published and local results.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    help="How to print it.",
)
def compare(a: str, b: str, suite: str | None, results: "tuple[Place, ...]", form: str) -> None:
    """Test two methods, NAME or NAME:FIELD=VALUE, on the examples that both were given."""
    from rich.console import Console

    from lcbench import compare, compare_tables, tables

    frame, problems = read_suite(suite, results)
    tables.show_problems(problems, Console(stderr=True))
    compare_tables.show_comparison_as(form, compare.compare(frame, a, b))


@click.command(cls=Command, epilog=examples("app", "app --results results/local --port 8600"))
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Files or folders to read. Default: published and local results.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: the first free one from 8501."
)
@click.option("--address", default="localhost", show_default=True, help="What to listen on.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def app(results: tuple[Path, ...], port: int | None, address: str, no_browser: bool) -> None:
    """Open the leaderboard in a browser."""
    import importlib.util
    import os
    import subprocess

    if any(importlib.util.find_spec(package) is None for package in ("streamlit", "plotly")):
        raise click.ClickException(
            "the app needs streamlit and plotly: pip install 'lcbench[app]', or in a checkout"
            " pip install -e '.[app]'"
        )
    from lcbench.app import launch

    arguments = launch.arguments(address=address, port=port, headless=no_browser)
    environment = {**os.environ, **launch.environment(list(results))}
    try:
        done = subprocess.run([sys.executable, *arguments], env=environment, check=False)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(done.returncode)


@click.command(
    cls=Command, epilog=examples("report --html board.html", "report --suite quick --html q.html")
)
@click.option(
    "--html",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; one that is there is replaced.",
)
@click.option("--suite", "-s", help="Only this suite. Default: all that have results.")
@click.option(
    "--results",
    multiple=True,
    type=PlaceType(must_exist=True),
    help="Files, folders or URLs to read. Default: published and local results.",
)
def report(file: Path, suite: str | None, results: "tuple[Place, ...]") -> None:
    """Write the leaderboard and its charts into one page that needs no server and no network."""
    import importlib.util

    if importlib.util.find_spec("plotly") is None:
        raise click.ClickException(
            "a report needs plotly: pip install 'lcbench[app]', or in a checkout"
            " pip install -e '.[app]'"
        )
    from lcbench.app import report as pages
    from lcbench.places import write_atomically

    frame, problems = read_suite(suite, results)
    write_atomically(file, pages.report(frame, problems).encode())
    click.echo(f"Wrote {file}")


@click.command(
    cls=Command, epilog=examples("methods", "methods recurrence", "methods sliding-window:window=3")
)
@click.argument("name", metavar="[NAME[:FIELD=VALUE]]", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="How to print it; without a name, markdown and json tell of every method.",
)
def methods(name: str | None, form: str) -> None:
    """List the methods by family, or tell of one: paper, claims, config, and who sees whom."""
    from lcbench import families

    if name is None and form == "text":
        click.echo(families.listing())
        click.echo("lcbench methods NAME tells more of one.")
        return
    from lcbench import gallery

    asked, _, overrides = (name or "").partition(":")
    sheets = [gallery.read_sheet(asked, overrides)] if name else gallery.read_sheets()
    if form == "text":
        click.echo(gallery.as_text(sheets[0]))
    else:
        click.echo(gallery.as_json(sheets) if form == "json" else gallery.as_markdown(sheets))


@click.command(cls=Command, epilog=examples("tasks", "tasks mqar"))
@click.argument("name", required=False)
def tasks(name: str | None) -> None:
    """List the tasks, or tell of one, with an example as a person would read it."""
    if name is None:
        _listing("task", ["family", "metric"])
        return
    from lcbench import cards

    click.echo(cards.task_card(name))


@click.command(
    cls=Command, epilog=examples("suites", "suites quick", "suites quick --gate --results results")
)
@click.argument("name", required=False)
@click.option(
    "--gate",
    is_flag=True,
    help="Judge by results whether its tasks tell methods apart; exit code 1 says that one does"
    " not, or that seeds are missing.",
)
@click.option(
    "--results",
    multiple=True,
    type=PlaceType(must_exist=True),
    help="For --gate: files or folders to read. Default: published and local results.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown"]),
    default="table",
    help="For --gate: markdown tells all that docs/validity.md says of results.",
)
def suites(name: str | None, gate: bool, results: "tuple[Place, ...]", form: str) -> None:
    """List the suites, or tell of one: tasks, contexts, budgets, cost ladder."""
    if name is None:
        if gate:
            raise UsageError("--gate judges one suite: lcbench suites NAME --gate")
        _listing("suite", ["version", "device_kind"])
        return
    if gate:
        from rich.console import Console

        from lcbench import tables
        from lcbench.gate import judge_suite

        frame, problems = read_suite(name, results)
        table, passed = judge_suite(frame, name)
        if form == "markdown":
            from lcbench import evidence

            tables.show_problems(problems, Console(stderr=True))
            click.echo(evidence.report(frame, name))
        else:
            tables.show_gate(name, table, problems)
        sys.exit(0 if passed else 1)
    from lcbench import cards

    click.echo(cards.suite_card(name))


def _listing(kind: Any, columns: Sequence[str]) -> None:
    """Print names, some declared fields and summaries, from source alone."""
    from lcbench import registry

    names = registry.sources(kind)
    rows = [(name, registry.headline(kind, name)) for name in names]
    cells = [[name, *(str(h.fields.get(c, "")) for c in columns), h.summary] for name, h in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns) + 1)]
    for row in cells:
        click.echo(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
            + f"  {row[-1]}"
        )
    click.echo(f"\nlcbench {kind}s NAME tells more of one.")
