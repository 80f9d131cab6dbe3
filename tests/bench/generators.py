"""Tokens a second that each synthetic task draws on all cores, one stream of examples a core.

    python tests/bench/generators.py [TASK ...]

Default configs; a context in which a task does not fit is a dash.
"""

import multiprocessing
import time

import click
import numpy as np

from lcbench import registry
from lcbench.environment import usable_cores

CONTEXTS = (64, 512, 1024, 4096, 65_536)
BATCH_TOKENS = 2**16
SECONDS = 0.5


def tokens_per_s(task: str, context: int) -> float:
    """What one stream draws; 0 for a context in which the task does not fit."""
    spec = registry.load_task(task)
    sampler, rng = spec.build(spec.config(), "train"), np.random.default_rng(0)
    batch = max(1, BATCH_TOKENS // context)
    try:
        sampler.sample(rng, batch, context)
    except ValueError:
        return 0.0
    drawn, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        sampler.sample(rng, batch, context)
        drawn += batch * context
    return drawn / (time.perf_counter() - began)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("tasks", nargs=-1, type=click.Choice(registry.task_names()))
def main(tasks: tuple[str, ...]) -> None:
    """Print a line a task, in million tokens a second; of no task, all synthetic ones."""
    names = tasks or [name for name in registry.task_names() if not registry.load_task(name).real]
    cores = usable_cores()
    header = f"M tokens/s, {cores} streams"
    click.echo(f"{header:26}" + "".join(f"{context:8,}" for context in CONTEXTS))
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for name in names:
            rates = [
                sum(pool.starmap(tokens_per_s, [(name, context)] * cores, chunksize=1)) / 1e6
                for context in CONTEXTS
            ]
            told = "".join(f"{rate:8.0f}" if rate else "       -" for rate in rates)
            click.echo(f"{name:26}{told}")


if __name__ == "__main__":
    main()
