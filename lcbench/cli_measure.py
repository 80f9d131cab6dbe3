"""The commands that measure: run, status, merge, env."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lcbench.command import DEVICE_HELP, Command, PlaceType, examples
from lcbench.config import UsageError

if TYPE_CHECKING:
    from lcbench.places import Place
    from lcbench.suite import Kind


@click.command(
    cls=Command,
    epilog=examples(
        "run --method all",
        "run --method vanilla,sliding-window --task mqar:num_pairs=4 --seeds 3",
        "run --method sliding-window:window=128 --context 4k,8k",
        "run --method all --suite standard --dry-run",
        "run --method vanilla --suite standard --task mqar --device cpu --limit 20",
        "run --method vanilla --profile 'vanilla train_step at 4096'",
        "run --method all --suite standard --shard 3/8 --results shard-3",
    ),
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
@click.option(
    "--kind",
    multiple=True,
    type=click.Choice(["quality", "train_step", "prefill", "decode"]),
    help="Only cells of this kind; repeat it for several. Default: all.",
)
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
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Try a suite where it would take too long: at most N training steps, N examples a step and"
    " N scored at a context, and the lowest rung of the cost ladder. Scores then mean nothing and"
    " are kept as those of a suite NAME-limitN.",
)
@click.option(
    "--allow-network",
    is_flag=True,
    help="Leave the network open to methods. Default: none, where the system allows that.",
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
    kind: tuple["Kind", ...],
    seed: tuple[str, ...],
    seeds: int | None,
    device: str | None,
    dtype: str | None,
    jobs: int | None,
    timeout: float | None,
    memory_limit: float | None,
    limit: int | None,
    allow_network: bool,
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
    import os

    from lcbench import confinement, registry, running, terminal
    from lcbench.journal import Folder
    from lcbench.paths import local_results
    from lcbench.pool import LocalPool, default_jobs
    from lcbench.runner import describe_methods, describe_tasks, harness_hash, read_setting
    from lcbench.suite import plan_cells

    requests = running.read_methods(method)
    part = running.read_shard(shard) if shard else None
    if suite is not None:
        registry.source("suite", suite)
    if allow_network:
        os.environ[confinement.OPEN] = "1"
    setting = read_setting(device)
    device_kind = str(setting.environment["device_kind"])
    name = suite or ("standard" if device_kind == "cuda" else "quick")
    chosen = registry.load_suite(name)
    if task:
        chosen = running.with_task_configs(chosen, name, task)
    selection = running.read_selection(
        chosen,
        name,
        only_tasks=bool(task),
        context=context,
        seed=seed,
        seeds=seeds,
        kinds=kind,
    )
    if limit:
        chosen, name = running.limited(chosen, name, limit)
    cells = plan_cells(
        chosen,
        name,
        describe_methods(requests),
        describe_tasks(chosen),
        select=selection,
        dtype=dtype or chosen.dtype,
        device_kind=device_kind,
        harness_hash=harness_hash(),
        timeout_s=timeout,
        deterministic=deterministic,
    )
    if not cells:
        raise UsageError(f"nothing of suite {name!r} is left after --task, --context and --kind")
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


@click.command(cls=Command, epilog=examples("status", "status --suite quick --results shard-3"))
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


@click.command(
    cls=Command, epilog=examples("merge shard-1 shard-2 shard-3 --results results/local")
)
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


@click.command(cls=Command, epilog=examples("env", "env --measure"))
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
    click.echo(f"{'network':16}{setting.network}")
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
