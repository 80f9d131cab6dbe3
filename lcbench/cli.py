"""The command line. A command imports what it needs in its body, so help and listings are quick."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lcbench import __version__
from lcbench.config import UsageError, did_you_mean, split_assignments

if TYPE_CHECKING:
    from lcbench.store import ReadResult
    from lcbench.suite import Cell, Selection, Suite, TaskPlan

FAILED = ["error", "crashed", "invalid"]
"""Statuses after which `run` exits with 1; running out of memory or time is a measurement."""
INTERRUPTED = 130


class Command(click.Command):
    """A command that tells what a person got wrong in a paragraph, not in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        from lcbench.registry import PluginError

        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from None
        except PluginError as error:
            raise click.ClickException(str(error)) from None


class Group(click.Group):
    """A command group that names the nearest command when one is misspelt."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        name = args[0] if args else ""
        if name and self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(
                f"No such command {name!r}; {did_you_mean(name, self.list_commands(ctx))}", ctx
            )
        return super().resolve_command(ctx, args)


def examples(*commands: str) -> str:
    """The end of a command's help."""
    lines = "\n".join(f"  lcbench {command}" for command in commands)
    return f"\b\nExamples:\n{lines}"


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lcbench")
def main() -> None:
    r"""How far back can a sequence-mixing method really see, and what does each token of that cost?

    \b
    lcbench run --method all          measure every method, then show the leaderboard
    lcbench leaderboard               show what has been measured
    lcbench methods sliding-window    one method in detail
    """


def _split(values: Sequence[str]) -> list[str]:
    """Repeated and comma-separated values as one list, in order, each once."""
    parts = [part.strip() for value in values for part in value.split(",")]
    return list(dict.fromkeys(filter(None, parts)))


def split_requests(values: Sequence[str]) -> list[tuple[str, str]]:
    """Read names with overrides, `sliding-window:window=512,vanilla` among them.

    A piece with `=` and no name before it continues the overrides of the name before it.
    """
    requests: list[tuple[str, str]] = []
    for piece in (p.strip() for value in values for p in value.split(",")):
        name, _, overrides = piece.partition(":")
        if "=" in name and requests:
            before, earlier = requests.pop()
            requests.append((before, f"{earlier},{piece}"))
        elif piece:
            requests.append((name, overrides))
    return list(dict.fromkeys(requests))


def _read_methods(values: Sequence[str]) -> list[tuple[str, str]]:
    from lcbench import registry
    from lcbench.suite import ANCHOR

    requests = split_requests(values)
    known = registry.method_names()
    if not requests:
        raise UsageError("--method names no method; write --method all, or names")
    if ("all", "") in requests:
        everyone = sorted(known, key=lambda name: (name != ANCHOR, name))
        requests = [(name, "") for name in everyone] + [r for r in requests if r[0] != "all"]
        requests = list(dict.fromkeys(requests))
    for name, overrides in requests:
        if name == "all":
            raise UsageError("all takes no overrides; name the methods that have the field")
        if name not in known:
            raise UsageError(f"no method {name!r}; {did_you_mean(name, [*known, 'all'])}")
        split_assignments(overrides)
    return requests


def _read_contexts(values: Sequence[str], suite: "Suite", name: str) -> list[int] | None:
    offered = sorted({c for t in suite.tasks for c in t.contexts} | set(suite.cost.contexts))
    chosen: list[int] = []
    for text in _split(values):
        if text == "all":
            return None
        digits = text.lower().replace("_", "")
        scale = 1024 if digits.endswith("k") else 1
        if not digits.removesuffix("k").isdecimal():
            raise UsageError(f"--context takes a number of tokens such as 4096 or 4k, got {text!r}")
        context = int(digits.removesuffix("k")) * scale
        if context not in offered:
            raise UsageError(
                f"suite {name!r} has no context {context:,};"
                f" it has {', '.join(f'{c:,}' for c in offered)}"
            )
        chosen.append(context)
    return chosen or None


def _with_task_configs(suite: "Suite", name: str, values: Sequence[str]) -> "Suite":
    """The suite with a plan for each task asked for, its config overridden as asked."""
    import dataclasses

    requests = split_requests(values)
    plans = {plan.task: plan for plan in suite.tasks}
    if ("all", "") in requests:
        requests = [(task, "") for task in plans] + [r for r in requests if r[0] != "all"]
    chosen: list[TaskPlan] = []
    for task, overrides in requests:
        if task not in plans:
            raise UsageError(
                f"suite {name!r} has no task {task!r}; {did_you_mean(task, [*plans, 'all'])}"
            )
        config = {**plans[task].config, **split_assignments(overrides)}
        chosen.append(dataclasses.replace(plans[task], config=config))
    return dataclasses.replace(suite, tasks=tuple(chosen))


def _selection(
    suite: "Suite",
    name: str,
    *,
    only_tasks: bool,
    context: Sequence[str],
    seed: Sequence[str],
    seeds: int | None,
) -> "Selection":
    from lcbench.suite import Selection

    numbers = _split(seed)
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--seed takes whole numbers from 0, got {', '.join(numbers)}")
    if numbers and seeds is not None:
        raise UsageError("--seed lists seeds and --seeds counts them; give one of the two")
    chosen = [int(number) for number in numbers] or (None if seeds is None else list(range(seeds)))
    tasks = [plan.task for plan in suite.tasks] if only_tasks else None
    return Selection(tasks, _read_contexts(context, suite, name), chosen)


@main.command(
    epilog=examples(
        "run --method all",
        "run --method vanilla,sliding-window --task mqar:num_pairs=4 --seeds 3",
        "run --method sliding-window:window=128 --context 4k,8k",
        "run --method all --suite standard --dry-run",
    )
)
@click.option(
    "--method",
    "-m",
    multiple=True,
    required=True,
    metavar="NAME[:FIELD=VALUE]",
    help="all, or methods; repeat it or separate by commas; fields override a method's config.",
)
@click.option("--suite", "-s", help="What to ask. Default: quick on a CPU, standard on a GPU.")
@click.option(
    "--task",
    "-t",
    multiple=True,
    help="Only these tasks of the suite, NAME[:FIELD=VALUE], and no cost.",
)
@click.option("--context", "-c", multiple=True, help="Only these contexts, such as 4096 or 4k.")
@click.option("--seed", multiple=True, help="Only these seeds, in place of the suite's.")
@click.option("--seeds", type=click.IntRange(1), help="This many seeds, from 0.")
@click.option(
    "--device", type=click.Choice(["cuda", "mps", "cpu"]), help="Default: the first there is."
)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), help="In place of the suite's."
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1),
    help="Quality cells at once; cost cells run alone. Default: one a CPU core, one on a GPU.",
)
@click.option(
    "--timeout", type=click.FloatRange(1), metavar="SECONDS", help="Longest a cell may take."
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go. Default: results/local.",
)
@click.option("--dry-run", is_flag=True, help="Print the planned cells, with estimates, and stop.")
@click.option("--fresh", is_flag=True, help="Measure again what is already measured.")
@click.option("--retry-failed", is_flag=True, help="Measure again the cells that failed.")
def run(
    method: tuple[str, ...],
    suite: str | None,
    task: tuple[str, ...],
    context: tuple[str, ...],
    seed: tuple[str, ...],
    seeds: int | None,
    device: str | None,
    dtype: str | None,
    jobs: int | None,
    timeout: float | None,
    results: Path | None,
    dry_run: bool,
    fresh: bool,
    retry_failed: bool,
) -> None:
    """Measure methods and show the leaderboard.

    A finished cell is kept at once: the same command goes on where it was stopped. Exit code 1 says
    that a method failed; running out of memory or time is a measurement, not a failure.
    """
    from lcbench import registry, runner, terminal
    from lcbench.paths import local_results
    from lcbench.suite import plan_cells

    requests = _read_methods(method)
    if suite is not None:
        registry.source("suite", suite)
    setting = runner.read_setting(device)
    device_kind = str(setting.environment["device_kind"])
    name = suite or ("standard" if device_kind == "cuda" else "quick")
    chosen = registry.load_suite(name)
    if task:
        chosen = _with_task_configs(chosen, name, task)
    cells = plan_cells(
        chosen,
        name,
        runner.describe_methods(requests),
        runner.describe_tasks(chosen),
        select=_selection(
            chosen, name, only_tasks=bool(task), context=context, seed=seed, seeds=seeds
        ),
        dtype=dtype or chosen.dtype,
        device_kind=device_kind,
        harness_hash=runner.harness_hash(),
        timeout_s=timeout,
    )
    if not cells:
        raise UsageError(f"nothing of suite {name!r} is left after --task and --context")
    cores = int(setting.environment["threads"])
    parallel = jobs or (max(1, cores // max(1, chosen.threads)) if device_kind == "cpu" else 1)
    if dry_run:
        terminal.show_plan(cells, parallel, cores)
        return
    folder = runner.Folder(results or local_results(), name)
    folder.prepare()
    with folder.locked():
        finished = _finished(folder, cells, fresh=fresh, retry_failed=retry_failed)
        _run_and_show(cells, folder, setting, parallel, finished)


def _finished(
    folder: Any, cells: "Sequence[Cell]", *, fresh: bool, retry_failed: bool
) -> dict[str, str]:
    """The plan's cells that need no work."""
    from lcbench import store

    if fresh:
        return {}
    known = store.finished_cells(folder.path)
    planned = {cell.cell_id for cell in cells}
    kept = {i: s for i, s in known.items() if i in planned}
    if retry_failed:
        kept = {i: s for i, s in kept.items() if s in ("ok", "unsupported")}
    return kept


def _run_and_show(
    cells: "Sequence[Cell]", folder: Any, setting: Any, jobs: int, finished: dict[str, str]
) -> None:
    from lcbench import runner, store, terminal

    progress = terminal.Progress(cells, finished, setting, jobs)
    try:
        with progress:
            tally = runner.run_cells(
                cells, folder, runner.LocalPool(jobs), setting, progress, finished=finished
            )
    except KeyboardInterrupt:
        terminal.say_interrupted(progress.done, len(cells), folder.path)
        sys.exit(INTERRUPTED)
    except OSError as error:
        raise click.ClickException(
            f"a finished cell could not be written to {folder.path}: {error.strerror or error}."
            f" {progress.done} of {len(cells)} cells are kept; make room and run the same command"
            " again, or name another folder with --results."
        ) from None
    read = store.read_rows([folder.path])
    planned = {cell.cell_id for cell in cells}
    frame = store.latest(read.frame[read.frame["cell_id"].isin(planned)])
    terminal.show_results(frame, read.problems, tally, folder.path, progress.elapsed_s)
    if frame["status"].isin(FAILED).any():
        sys.exit(1)


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


@main.command(epilog=examples("methods", "methods recurrence"))
@click.argument("name", required=False)
def methods(name: str | None) -> None:
    """List the methods, or tell of one: its paper, claims, config fields and defaults."""
    if name is None:
        _listing("method", ["family"])
        return
    from lcbench import cards

    click.echo(cards.method_card(name))


@main.command(epilog=examples("tasks", "tasks mqar"))
@click.argument("name", required=False)
def tasks(name: str | None) -> None:
    """List the tasks, or tell of one, with an example as a person would read it."""
    if name is None:
        _listing("task", ["family", "metric"])
        return
    from lcbench import cards

    click.echo(cards.task_card(name))


@main.command(epilog=examples("suites", "suites quick"))
@click.argument("name", required=False)
def suites(name: str | None) -> None:
    """List the suites, or tell of one: tasks, contexts, budgets, cost ladder."""
    if name is None:
        _listing("suite", ["version", "device_kind"])
        return
    from lcbench import cards

    click.echo(cards.suite_card(name))


@main.command(epilog=examples("env"))
def env() -> None:
    """Tell what lcbench sees of this machine."""
    from lcbench import runner

    setting = runner.read_setting(None)
    for columns in (setting.environment, setting.provenance):
        for name, value in columns.items():
            if name.endswith("_bytes"):
                value = f"{value / 2**30:.1f} GiB"
            click.echo(f"{name:16}{'-' if value is None else value}")


@main.command(
    epilog=examples(
        "leaderboard",
        "leaderboard --suite quick --format markdown",
        "leaderboard --results results/local --format csv > board.csv",
    )
)
@click.option("--suite", "-s", help="Only this suite. Default: all that have results.")
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Files or folders to read. Default: published and local results.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    help="How to print it.",
)
@click.option(
    "--budget",
    type=click.Choice(["steps", "time"]),
    help="Count only what was trained in vanilla's steps, or in its time. Default: all.",
)
def leaderboard(
    suite: str | None, results: tuple[Path, ...], form: str, budget: Any | None
) -> None:
    """Show the leaderboard of what has been measured."""
    from lcbench import tables

    frame, problems = _read_suite(suite, results)
    tables.show_leaderboard_as(form, frame, problems, budget)


def _read_suite(suite: str | None, results: Sequence[Path]) -> "ReadResult":
    """The newest rows of one suite or all, of these files and folders or the usual ones."""
    from lcbench import paths, store

    where = list(results) or [paths.published_results(), paths.local_results()]
    read = store.read_rows(where)
    frame = store.latest(read.frame)
    if suite is not None:
        if suite not in set(frame["suite"]):
            raise UsageError(
                f"no results of suite {suite!r}; {did_you_mean(suite, set(frame['suite']))}"
            )
        frame = frame[frame["suite"] == suite]
    return read._replace(frame=frame)


@main.command(
    epilog=examples(
        "compare vanilla sliding-window",
        "compare sliding-window:window=64 sliding-window:window=256 --format csv",
    )
)
@click.argument("a")
@click.argument("b")
@click.option("--suite", "-s", help="Only this suite. Default: all that have results.")
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Files or folders to read. Default: published and local results.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    help="How to print it.",
)
def compare(a: str, b: str, suite: str | None, results: tuple[Path, ...], form: str) -> None:
    """Test two methods, NAME or NAME:FIELD=VALUE, on the examples that both were given."""
    from rich.console import Console

    from lcbench import compare, compare_tables, tables

    frame, problems = _read_suite(suite, results)
    tables.show_problems(problems, Console(stderr=True))
    compare_tables.show_comparison_as(form, compare.compare(frame, a, b))


@main.command(epilog=examples("check sliding-window", "check sliding-window:window=7 --cost"))
@click.argument("name")
@click.option(
    "--cost",
    is_flag=True,
    help="Also measure how time grows, which takes longer and can only warn.",
)
def check(name: str, cost: bool) -> None:
    """Hold a method, NAME or NAME:FIELD=VALUE, to the contract; write nothing."""
    from lcbench import registry, terminal
    from lcbench.conformance import check_method

    requests = _read_methods([name])
    if len(requests) != 1:
        raise UsageError(f"check takes one method at a time, got {name!r}")
    ((method, overrides),) = requests
    spec = registry.load_method(method)
    config = spec.config().override(split_assignments(overrides))
    findings = check_method(spec, config, cost=cost)
    terminal.show_findings(name, findings)
    if any(finding.outcome == "fail" for finding in findings):
        sys.exit(1)


@main.command(epilog=examples("app", "app --results results/local --port 8600"))
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
        sys.exit(INTERRUPTED)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
