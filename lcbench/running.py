"""What `lcbench run` does: read what is asked, take part in a folder, run, show.

Also the other commands' way of reading names with overrides.
"""

import contextlib
import dataclasses
import shlex
import signal
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lcbench import registry
from lcbench.config import UsageError, did_you_mean, split_assignments
from lcbench.suite import ANCHOR, DRAFT, Cell, Kind, Selection, Suite, TaskPlan

FAILED = ["error", "crashed", "invalid"]
"""Statuses after which `run` exits with 1; running out of memory or time is a measurement."""
INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as a shell gives them."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def split_names(values: Sequence[str]) -> list[str]:
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


def read_methods(values: Sequence[str]) -> list[tuple[str, str]]:
    """Read what `--method` names, `all` spelt out.

    Raises:
        UsageError: No name, an unknown one, or overrides that cannot be read.
    """
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


def _read_contexts(values: Sequence[str], suite: Suite, name: str) -> list[int] | None:
    offered = sorted({c for t in suite.tasks for c in t.contexts} | set(suite.cost.contexts))
    chosen: list[int] = []
    for text in split_names(values):
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


def with_task_configs(suite: Suite, name: str, values: Sequence[str]) -> Suite:
    """The suite with a plan for each task asked for, its config overridden as asked.

    Raises:
        UsageError: A task the suite does not have, or overrides that cannot be read.
    """
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


def limited(suite: Suite, name: str, limit: int) -> tuple[Suite, str]:
    """A suite cut to what any machine does in minutes, and the name it then goes by.

    At most `limit` training steps, examples a step and examples scored at each context; of the cost
    ladder its lowest rung, timed briefly. Models, tasks, contexts and learning rates stay. Rows are
    of a suite of another name, a draft, so that they never stand beside the suite's own.
    """
    tasks = tuple(
        dataclasses.replace(
            plan,
            steps=min(plan.steps, limit),
            batch=min(plan.batch, limit),
            max_examples=limit,
        )
        for plan in suite.tasks
    )
    cost = dataclasses.replace(
        suite.cost, contexts=(min(suite.cost.contexts),), seconds=min(suite.cost.seconds, 0.1)
    )
    cut = dataclasses.replace(suite, version=DRAFT, tasks=tasks, cost=cost)
    return cut, f"{name}-limit{limit}"


def read_selection(
    suite: Suite,
    name: str,
    *,
    only_tasks: bool,
    context: Sequence[str],
    seed: Sequence[str],
    seeds: int | None,
    kinds: Sequence[Kind] = (),
) -> Selection:
    """Read what part of a suite is asked for.

    Raises:
        UsageError: A context the suite does not have, or seeds that cannot be read.
    """
    numbers = split_names(seed)
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--seed takes whole numbers from 0, got {', '.join(numbers)}")
    if numbers and seeds is not None:
        raise UsageError("--seed lists seeds and --seeds counts them; give one of the two")
    chosen = [int(number) for number in numbers] or (None if seeds is None else list(range(seeds)))
    tasks = [plan.task for plan in suite.tasks] if only_tasks else None
    return Selection(tasks, _read_contexts(context, suite, name), chosen, kinds or None)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One part of a plan: the `number`-th of `total`, from 1."""

    number: int
    total: int

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Its cells: each cell of a plan is in one shard, and shards take about as long."""
        from lcbench.estimate import estimate_seconds

        taken = [0.0] * self.total
        mine: set[int] = set()
        seconds = [estimate_seconds(cell) for cell in cells]
        for place in sorted(range(len(cells)), key=lambda place: (-seconds[place], place)):
            shard = taken.index(min(taken))
            taken[shard] += seconds[place]
            if shard == self.number - 1:
                mine.add(place)
        return [cell for place, cell in enumerate(cells) if place in mine]


def read_shard(text: str) -> Shard:
    """Read `3/8`.

    Raises:
        UsageError: Text that is not two numbers, or a shard that is not among them.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise UsageError(f"--shard takes K/N, such as 3/8, got {text!r}")
    shard = Shard(int(index), int(count))
    if not 1 <= shard.number <= shard.total:
        raise UsageError(
            f"--shard counts from 1/{shard.total} to {shard.total}/{shard.total}, got {text!r}"
        )
    return shard


@contextlib.contextmanager
def terminable() -> Generator[None, None, None]:
    """Have SIGTERM raise `TerminatedError` where it can."""

    def stop(number: int, frame: object) -> NoReturn:
        raise TerminatedError

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def command_line() -> str:
    """What was typed, for one who wants to go on with it."""
    return shlex.join(["lcbench", *sys.argv[1:]])


def choose_finished(
    cells: Sequence[Cell],
    known: Mapping[str, Any],
    folder: Any,
    *,
    fresh: bool,
    retry_failed: bool,
) -> tuple[dict[str, Any], int]:
    """The plan's cells that need no work, and how many were measured on other machines only."""
    if fresh:
        return {}, 0
    kept = {c.cell_id: known[stem] for c in cells if (stem := folder.stem(c)) in known}
    if retry_failed:
        kept = {i: f for i, f in kept.items() if f.status in ("ok", "unsupported")}
    measured = {stem.partition("-")[0] for stem in known if "-" in stem}
    foreign = sum(folder.stem(c) not in known and c.cell_id in measured for c in cells)
    return kept, foreign


def say_beginning(
    progress: Any, cells: Sequence[Cell], visit: Any, finished: Mapping[str, Any], foreign: int
) -> None:
    """Say what is done here that a person may not expect."""
    if foreign:
        progress.console.print(
            f"{foreign} cost cells were measured on another machine, or with another torch or"
            " Python; they are measured here too, since times are compared on one machine only."
        )
    mine = {visit.folder.stem(cell) for cell in cells if cell.cell_id not in finished}
    for plan in visit.others:
        common = len(mine & {cell.stem for cell in plan.cells})
        what = f"sharing its {common} cells" if common else "it has none of this run's cells"
        progress.console.print(f"Another run is measuring here ({plan.command}): {what}.")


def with_peaks(setting: Any, root: Any, dtype: str) -> Any:
    """The setting with what `lcbench env --measure` found, if it was asked."""
    from lcbench import journal, machine
    from lcbench.paths import local_results

    places = [journal.local_part(root), local_results()]
    peaks = machine.read(places, setting.environment["env_id"])
    columns = peaks.columns(dtype) if peaks else {}
    return setting._replace(environment={**setting.environment, **columns})


def profile(cells: Sequence[Cell], name: str, folder: Path) -> None:
    """Trace one cell of a plan and show where its time goes.

    Raises:
        UsageError: A name that is no cell's, or several cells'.
    """
    import click

    from lcbench import profiling, terminal

    cell = profiling.choose_cell(cells, name)
    try:
        traced = profiling.profile_cell(cell, folder)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    terminal.show_profile(cell, traced)


def run_and_show(
    cells: Sequence[Cell], folder: Any, setting: Any, pool: Any, *, fresh: bool, retry_failed: bool
) -> None:
    """Run a plan in a folder and show what came of it; exits as `lcbench run` does."""
    import click

    from lcbench import journal, terminal

    done, progress = 0, None
    try:
        with terminable(), journal.Visit(folder, cells, setting.run_id, command_line()) as visit:
            known = folder.finished()
            finished, foreign = choose_finished(
                cells, known, folder, fresh=fresh, retry_failed=retry_failed
            )
            done = len(finished)
            statuses = {cell_id: outcome.status for cell_id, outcome in finished.items()}
            progress = terminal.Progress(cells, statuses, setting, pool.jobs)
            say_beginning(progress, cells, visit, finished, foreign)
            tally = _run(cells, visit, pool, setting, progress, finished)
    except KeyboardInterrupt as stop:
        done = progress.done if progress else done
        terminal.say_interrupted(done, len(cells), folder.path)
        sys.exit(TERMINATED if isinstance(stop, TerminatedError) else INTERRUPTED)
    except OSError as error:
        done = progress.done if progress else done
        raise click.ClickException(
            f"results could not be written to {folder.sealed}: {error.strerror or error}."
            f" {done} of {len(cells)} cells are kept; make room and run the same command"
            " again, or name another folder with --results."
        ) from None
    _show(cells, folder, setting, tally, progress.elapsed_s)


def _run(
    cells: Sequence[Cell],
    visit: Any,
    pool: Any,
    setting: Any,
    progress: Any,
    finished: Mapping[str, Any],
) -> Any:
    from lcbench import runner

    with progress:
        return runner.run_cells(cells, visit, pool, setting, progress, finished=finished)


def _show(cells: Sequence[Cell], folder: Any, setting: Any, tally: Any, elapsed_s: float) -> None:
    from lcbench import store, terminal

    read = store.read_rows(folder.places())
    planned = {cell.cell_id for cell in cells}
    env_id = setting.environment["env_id"]
    rows = read.frame[read.frame["cell_id"].isin(planned)]
    frame = store.latest(rows[(rows["kind"] == "quality") | (rows["env_id"] == env_id)])
    terminal.show_results(frame, read.problems, tally, folder.sealed, elapsed_s)
    if tally.missing or frame["status"].isin(FAILED).any():
        sys.exit(1)
