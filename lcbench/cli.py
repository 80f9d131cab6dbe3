"""The command line. A command imports what it needs in its body, so help and listings are quick."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lcbench import __version__
from lcbench.config import UsageError, did_you_mean, split_assignments

if TYPE_CHECKING:
    from lcbench.places import Place
    from lcbench.store import ReadResult

DEVICE_HELP = "Default: the first there is."


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


class PlaceType(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A folder or file, or a URL that pyarrow opens.

    Args:
        must_exist: Refuse what is not there.
    """

    name = "place"

    def __init__(self, *, must_exist: bool = False) -> None:
        self.must_exist = must_exist

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Place":
        """Read what was typed."""
        from lcbench.places import read_place

        try:
            place = read_place(value)
            missing = self.must_exist and not place.exists()
        except (UsageError, OSError) as error:
            self.fail(str(error), param, ctx)
        if missing:
            self.fail(f"{value!r} does not exist", param, ctx)
        return place


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


@main.command(
    epilog=examples(
        "run --method all",
        "run --method vanilla,sliding-window --task mqar:num_pairs=4 --seeds 3",
        "run --method sliding-window:window=128 --context 4k,8k",
        "run --method all --suite standard --dry-run",
        "run --method vanilla --profile 'vanilla train_step at 4096'",
        "run --method all --suite standard --shard 3/8 --results shard-3",
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
@click.option("--device", type=click.Choice(["cuda", "mps", "cpu"]), help=DEVICE_HELP)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), help="In place of the suite's."
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1),
    help="Quality cells at once, on a GPU as far as its memory goes; cost cells run alone."
    " Default: one a CPU core, one on a GPU.",
)
@click.option(
    "--timeout", type=click.FloatRange(1), metavar="SECONDS", help="Longest a cell may take."
)
@click.option(
    "--memory-limit",
    type=click.FloatRange(0, min_open=True),
    metavar="GIB",
    help="Most a cell's process may hold. Default: as much as the machine has.",
)
@click.option("--shard", metavar="K/N", help="Only the K-th of N parts of the plan, such as 3/8.")
@click.option(
    "--results",
    type=PlaceType(),
    help="Where results go, a folder or a URL such as s3://bucket/results. Default: results/local.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Only algorithms that give the same bits each time, on a GPU too; an operation without one"
    " fails by its name. Such cells are kept apart from others.",
)
@click.option(
    "--profile",
    metavar="CELL",
    help="Trace one cell of the plan with torch's profiler, print where its time goes, and record"
    " no row. CELL is its name as --dry-run prints it, or the beginning of its id.",
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
    memory_limit: float | None,
    shard: str | None,
    results: "Place | None",
    deterministic: bool,
    profile: str | None,
    dry_run: bool,
    fresh: bool,
    retry_failed: bool,
) -> None:
    """Measure methods and show the leaderboard.

    A finished cell is kept at once: the same command goes on where it was stopped, and a second one
    beside it shares the cells. Exit code 1 says that a method failed; running out of memory or time
    is a measurement, not a failure.
    """
    from lcbench import registry, running, terminal
    from lcbench.journal import Folder
    from lcbench.paths import local_results
    from lcbench.pool import LocalPool, default_jobs
    from lcbench.runner import describe_methods, describe_tasks, harness_hash, read_setting
    from lcbench.suite import plan_cells

    requests = running.read_methods(method)
    part = running.read_shard(shard) if shard else None
    if suite is not None:
        registry.source("suite", suite)
    setting = read_setting(device)
    device_kind = str(setting.environment["device_kind"])
    name = suite or ("standard" if device_kind == "cuda" else "quick")
    chosen = registry.load_suite(name)
    if task:
        chosen = running.with_task_configs(chosen, name, task)
    cells = plan_cells(
        chosen,
        name,
        describe_methods(requests),
        describe_tasks(chosen),
        select=running.read_selection(
            chosen, name, only_tasks=bool(task), context=context, seed=seed, seeds=seeds
        ),
        dtype=dtype or chosen.dtype,
        device_kind=device_kind,
        harness_hash=harness_hash(),
        timeout_s=timeout,
        deterministic=deterministic,
    )
    if not cells:
        raise UsageError(f"nothing of suite {name!r} is left after --task and --context")
    if part:
        cells = part.of(cells)
        if not cells:
            raise UsageError(f"shard {shard} is empty: the plan has fewer cells than shards")
    environment = setting.environment
    parallel = jobs or default_jobs(environment, chosen.threads)
    if dry_run:
        terminal.show_plan(cells, parallel, int(environment["threads"]))
        return
    root = results or local_results()
    setting = running.with_peaks(setting, root, dtype or chosen.dtype)
    folder = Folder(root, name, str(environment["env_id"]))
    if profile is not None:
        folder.prepare()
        running.profile(cells, profile, folder.path)
        return
    pool = LocalPool(
        parallel,
        cell_bytes=round(memory_limit * 2**30) if memory_limit else None,
        device_bytes=int(environment["device_bytes"]) if device_kind == "cuda" else None,
    )
    running.run_and_show(cells, folder, setting, pool, fresh=fresh, retry_failed=retry_failed)


@main.command(epilog=examples("status", "status --suite quick --results shard-3"))
@click.option("--suite", "-s", help="Only this suite. Default: all.")
@click.option(
    "--results",
    type=PlaceType(),
    help="Where the run writes, as told to it. Default: results/local.",
)
def status(suite: str | None, results: "Place | None") -> None:
    """Tell of runs in progress or interrupted: done, failed, left, where."""
    import datetime

    from lcbench.paths import local_results
    from lcbench.status import describe, read_status

    where = results or local_results()
    runs = read_status(where, suite)
    now = datetime.datetime.now(datetime.UTC)
    for found in runs:
        click.echo("\n".join(describe(found, now)))
    if not runs:
        of_suite = f" of suite {suite!r}" if suite else ""
        click.echo(
            f"No run{of_suite} is in progress or interrupted in {where}."
            " lcbench run --method all starts one; lcbench leaderboard shows what is done."
        )


@main.command(epilog=examples("merge shard-1 shard-2 shard-3 --results results/local"))
@click.argument("folders", nargs=-1, required=True, type=PlaceType(must_exist=True))
@click.option(
    "--results", type=PlaceType(), required=True, help="Where the merged results go, folder or URL."
)
@click.option("--newest", is_flag=True, help="Of several measurements of a cell take the newest.")
def merge(folders: "tuple[Place, ...]", results: "Place", newest: bool) -> None:
    """Seal the results of several FOLDERS, such as a run's shards, into one file a suite."""
    from lcbench import merging

    try:
        merged = merging.merge(folders, results, newest=newest)
    except OSError as error:
        raise click.ClickException(
            f"{results} cannot be written: {error.strerror or error}; nothing was taken away"
        ) from None
    for part in merged:
        click.echo(f"{part.suite}: {part.cells} cells, {part.rows} rows in {part.path}")


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


@main.command(epilog=examples("methods", "methods recurrence", "methods sliding-window:window=3"))
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


@main.command(epilog=examples("tasks", "tasks mqar"))
@click.argument("name", required=False)
def tasks(name: str | None) -> None:
    """List the tasks, or tell of one, with an example as a person would read it."""
    if name is None:
        _listing("task", ["family", "metric"])
        return
    from lcbench import cards

    click.echo(cards.task_card(name))


@main.command(epilog=examples("suites", "suites quick", "suites quick --gate --results results"))
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
def suites(name: str | None, gate: bool, results: "tuple[Place, ...]") -> None:
    """List the suites, or tell of one: tasks, contexts, budgets, cost ladder."""
    if name is None:
        if gate:
            raise UsageError("--gate judges one suite: lcbench suites NAME --gate")
        _listing("suite", ["version", "device_kind"])
        return
    if gate:
        from lcbench import tables
        from lcbench.gate import judge_suite

        frame, problems = _read_suite(name, results)
        table, passed = judge_suite(frame, name)
        tables.show_gate(name, table, problems)
        sys.exit(0 if passed else 1)
    from lcbench import cards

    click.echo(cards.suite_card(name))


@main.command(epilog=examples("env", "env --measure"))
@click.option("--device", type=click.Choice(["cuda", "mps", "cpu"]), help=DEVICE_HELP)
@click.option(
    "--measure",
    is_flag=True,
    help="Measure the fastest matrix products and copies, about 15 seconds on an idle machine, and"
    " keep them for the roofline share of later runs.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where they are kept. Default: results/local.",
)
def env(device: str | None, measure: bool, results: Path | None) -> None:
    """Tell what lcbench sees of this machine."""
    from lcbench import machine, runner
    from lcbench.paths import local_results

    setting = runner.read_setting(device)
    for columns in (setting.environment, setting.provenance):
        for name, value in columns.items():
            if name.endswith("_bytes"):
                value = f"{value / 2**30:.1f} GiB"
            click.echo(f"{name:16}{'-' if value is None else value}")
    root, env_id = results or local_results(), str(setting.environment["env_id"])
    kept = None
    if measure:
        try:
            peaks = machine.measure(str(setting.environment["device_kind"]))
        except RuntimeError as error:
            raise click.ClickException(str(error)) from None
        kept = machine.write(peaks, root, env_id)
    else:
        peaks = machine.read([root], env_id)
    click.echo(f"{'peaks':16}{machine.describe(peaks)}")
    if kept:
        click.echo(f"Kept in {kept}")
    for warning in setting.warnings:
        click.secho(f"Warning: {warning}", fg="yellow")
    if not setting.warnings:
        click.echo("Nothing seen that would spoil a measurement.")


@main.command(
    epilog=examples(
        "leaderboard",
        "leaderboard --suite quick --format markdown",
        "leaderboard --results results/local --format csv > board.csv",
        "leaderboard --columns quality,prefill_speed,prefill_roofline",
    )
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
    help="Count only what was trained in vanilla's steps, or in its time. Default: all.",
)
def leaderboard(
    suite: str | None,
    results: "tuple[Place, ...]",
    form: str,
    columns: str,
    budget: Any | None,
) -> None:
    """Show the leaderboard of what has been measured."""
    from lcbench import tables

    frame, problems = _read_suite(suite, results)
    shown = tables.choose_columns(columns) if columns else ()
    tables.show_leaderboard_as(form, frame, problems, tables.Show(shown, budget))


def _read_suite(suite: str | None, results: "Sequence[Place]") -> "ReadResult":
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

    frame, problems = _read_suite(suite, results)
    tables.show_problems(problems, Console(stderr=True))
    compare_tables.show_comparison_as(form, compare.compare(frame, a, b))


@main.command(epilog=examples("check sliding-window", "check sliding-window:window=7 --no-cost"))
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
        sys.exit(130)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
