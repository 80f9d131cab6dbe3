"""One number of many scores: means over task, family and length, their intervals and places."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lcbench.config import digest
from lcbench.rows import ENTRY, GROUP, TASK, comparable
from lcbench.scores import CELL, PASSES, Measured, by_context, lay_out
from lcbench.statistics import ALPHA, places

RESAMPLES = 1000
LEVELS = ("family", "task", "seed", "examples")
"""What the bootstrap can draw anew, from the widest claim to the narrowest."""
OF_THE_SUITE = ("seed", "examples")
"""What it draws for the interval beside quality: the suite's tasks stay as they are."""
_LENGTH = ["group", "length"]
_Floats = NDArray[np.float64]


class _Draws(NamedTuple):
    """Bootstrap draws of quality, paired: column r is one world for every entry."""

    entries: NDArray[np.int64]
    quality: _Floats
    """`[entries, RESAMPLES]`."""
    known: NDArray[np.bool_]
    """`[entries]`: whether every task it tried has the seeds to tell how far they spread."""


def intervals(
    frame: pd.DataFrame, plan: pd.DataFrame | None = None, levels: Sequence[str] = LEVELS
) -> pd.DataFrame:
    """Quality of each entry with the percentile interval (95 %) of a hierarchical bootstrap.

    Drawn anew with replacement are, as `levels` say, the families, the tasks within each family,
    the seeds within each task (a seed keeps its contexts together), and the examples within each
    seed: normal with the row's own `score_se`, which is what drawing many examples comes to. A
    level left out stays as it is: without `family` and `task` the interval is of this suite, with
    them of suites like it. Since seeds differ by their examples too, the last level counts those
    twice, which errs on the wide side and makes up for how few seeds there are.

    Returns:
        A frame with the columns of an entry, `quality`, `low` and `high`; these two NaN where a
        task that was tried has one seed.

    Raises:
        ValueError: A level that there is not.
    """
    unknown = set(levels) - set(LEVELS)
    if unknown:
        raise ValueError(f"levels are of {', '.join(LEVELS)}, got {', '.join(sorted(unknown))}")
    measured = lay_out(comparable(frame).frame, plan)
    quality = mean_quality(measured, by_context(measured.scores), levels)
    quality = quality.rename(columns={"quality_low": "low", "quality_high": "high"})
    return measured.entries.merge(quality, on="entry")[[*ENTRY, "quality", "low", "high"]]


def length_curve(frame: pd.DataFrame, plan: pd.DataFrame | None = None) -> pd.DataFrame:
    """Quality of each entry at each length: means over tasks, then families.

    `length` is the power of two that a context is at least. What failed or was not tried is 0.
    """
    measured = lay_out(comparable(frame).frame, plan)
    curve = _length_curve(measured, weighted(measured, by_context(measured.scores)))
    return measured.entries.merge(curve, on="entry")[[*ENTRY, "length", "quality"]]


def pair_weights(planned: pd.DataFrame) -> pd.DataFrame:
    """The weight of each planned (task as configured and trained, context) in its group's quality.

    Equal shares: to each length of the log grid, there to each family, in it to each task, and of
    that to each of its variants and contexts. Weights of a group add up to 1.
    """
    pairs = planned.drop(columns="seed").drop_duplicates()
    pairs["length"] = 2 ** np.floor(np.log2(pairs["context"])).astype("int64")
    of_family = [*_LENGTH, "family"]
    shares = (
        pairs.groupby("group")["length"].transform("nunique")
        * pairs.groupby(_LENGTH)["family"].transform("nunique")
        * pairs.groupby(of_family)["task"].transform("nunique")
        * pairs.groupby([*of_family, "task"])["task"].transform("size")
    )
    return pairs.assign(weight=1.0 / shares)


def weighted(measured: Measured, cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with the `weight`, `length`, `family` and `task` that the plan gives them."""
    cells = cells.merge(measured.entries[["entry", "group"]], on="entry")
    cells = cells.merge(pair_weights(measured.planned), on=["group", "trained", "context"])
    # A merge may put rows in any order, and sums round by it.
    return cells.sort_values(CELL, ignore_index=True)


def mean_quality(
    measured: Measured, cells: pd.DataFrame, levels: Sequence[str] = OF_THE_SUITE
) -> pd.DataFrame:
    """Quality, its interval, coverage and passing context of each entry that has a plan."""
    planned = measured.planned
    cells = weighted(measured, cells)
    quality = (cells["normalised"] * cells["weight"]).groupby(cells["entry"]).sum()
    by_entry = measured.scores.groupby("entry")
    num_ok, num_seeds = by_entry["ok"].sum(), by_entry["seed"].nunique()
    part = measured.entries[["entry", "group"]]
    part = part[part["group"].isin(planned["group"])].set_index("entry")
    places = planned[["group", "trained", "context"]].drop_duplicates().groupby("group").size()
    # Seeds that only rivals tried are no holes of this one.
    num_planned = part.pop("group").map(places) * num_seeds.reindex(part.index, fill_value=1)
    part["quality"] = quality.reindex(part.index, fill_value=0.0)
    part["coverage"] = num_ok.reindex(part.index, fill_value=0) / num_planned
    drawn = _draw(measured, cells, levels)
    tails = np.quantile(drawn.quality, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
    tails[:, ~drawn.known] = np.nan
    names = ["quality_low", "quality_high"]
    part = part.join(pd.DataFrame(tails.T, index=drawn.entries, columns=names))
    return part.join(_passing_contexts(measured, cells)).reset_index()


def place_intervals(measured: Measured, cells: pd.DataFrame) -> pd.DataFrame:
    """The first and last place each entry may hold on its board, by draws at every level."""
    drawn = _draw(measured, weighted(measured, cells), LEVELS)
    entries = measured.entries.loc[drawn.entries, ["entry", *GROUP]].reset_index(drop=True)
    for _, rivals in entries.groupby(GROUP):
        rows = rivals.index.to_numpy()
        first, last = places(drawn.quality[rows], drawn.known[rows])
        entries.loc[rows, "place_first"], entries.loc[rows, "place_last"] = first, last
    return entries.reindex(columns=["entry", "place_first", "place_last"])


def _length_curve(measured: Measured, cells: pd.DataFrame) -> pd.DataFrame:
    """Quality at each length planned, of cells with weights."""
    lengths = pair_weights(measured.planned)[_LENGTH].drop_duplicates()
    count = lengths.groupby("group")["length"].transform("size")
    lengths = measured.entries[["entry", "group"]].merge(lengths.assign(count=count), on="group")
    shares = cells.assign(quality=cells["normalised"] * cells["weight"])
    own = shares.groupby(["entry", "length"])["quality"].sum().reset_index()
    curve = lengths.merge(own, on=["entry", "length"], how="left")
    curve["quality"] = curve["quality"].fillna(0.0) * curve["count"]
    return curve[["entry", "length", "quality"]].sort_values(["entry", "length"])


def _passing_contexts(measured: Measured, cells: pd.DataFrame) -> pd.Series:
    """The longest length up to which an entry's quality stays at `PASSES`; 0 if it never was."""
    curve = _length_curve(measured, cells)
    unbroken = (curve["quality"] >= PASSES - 1e-12).groupby(curve["entry"]).cummin()
    reached = curve["length"].where(unbroken, 0).astype("float64")
    return reached.groupby(curve["entry"]).max().rename("passing_context")


def _draw(measured: Measured, cells: pd.DataFrame, levels: Sequence[str]) -> _Draws:
    """Draws of quality; `cells` has weights.

    Each level draws by the names of what it draws from: so rivals do not change a method's draws,
    and all methods are drawn alike.
    """
    shares = _seed_shares(measured, cells)
    copies = _draw_tasks(measured, levels)
    entries, shares["row"] = np.unique(shares["entry"], return_inverse=True)
    drawn = np.zeros((len(entries), RESAMPLES))
    entry_names, task_names = _names(measured.entries[ENTRY]), _names(measured.tasks[TASK])
    for _, stratum in shares.groupby(["group", "trained", "num_seeds"]):
        group, task, size = (_first(stratum, name) for name in ("group", "trained", "num_seeds"))
        rows = stratum["row"].to_numpy()[::size]
        own = _draw_seeds(stratum, size, task_names[task], levels)
        if "examples" in levels:
            names = [task_names[task] + entry_names[entry] for entry in entries[rows]]
            own = own + _noise(stratum, size, names)
        drawn[rows] += own * copies.of_task[group, task]
    for row, group in enumerate(measured.entries.loc[entries, "group"]):
        drawn[row] /= copies.total[group]
    alone = shares.loc[shares["num_seeds"] < 2, "row"]
    return _Draws(entries, drawn.clip(0.0, 1.0), ~np.isin(np.arange(len(entries)), alone))


def _seed_shares(measured: Measured, cells: pd.DataFrame) -> pd.DataFrame:
    """What each seed of each (entry, task) adds to quality, and the variance of its examples."""
    keys = ["entry", "trained", "seed"]
    own = measured.scores[[*keys, "context", "normalised", "variance"]]
    own = own.rename(columns={"normalised": "own"})
    seeds = own[keys].drop_duplicates().merge(cells[[*CELL, "group", "normalised", "weight"]])
    seeds = seeds.merge(own, how="left").sort_values([*keys, "context"])
    # A context that a seed lacks takes the others' mean there, which leaves quality what it is.
    seeds["share"] = seeds["own"].fillna(seeds["normalised"]) * seeds["weight"]
    seeds["variance"] = seeds["variance"].fillna(0.0) * seeds["weight"] ** 2
    shares = seeds.groupby([*keys, "group"])[["share", "variance"]].sum().reset_index()
    shares["num_seeds"] = shares.groupby(["entry", "trained"])["seed"].transform("size")
    return shares


class _Copies(NamedTuple):
    """How often each draw holds a task, and the weight that the drawn tasks add up to."""

    of_task: dict[tuple[int, int], _Floats]
    """By group and task: `[RESAMPLES]`."""
    total: dict[int, _Floats]
    """By group."""


def _draw_tasks(measured: Measured, levels: Sequence[str]) -> _Copies:
    """Draw families, and tasks within each, as the plan of each group has them."""
    of_task: dict[tuple[int, int], _Floats] = {}
    total: dict[int, _Floats] = {}
    for _, pairs in pair_weights(measured.planned).groupby("group"):
        group = _first(pairs, "group")
        families = sorted(pairs["family"].unique())
        of_family = _multiplicities(families, drawn="family" in levels)
        total[group] = np.zeros(RESAMPLES)
        for family, part in pairs.groupby("family"):
            tasks = sorted(part["task"].unique())
            within = _multiplicities(tasks, drawn="task" in levels)
            for task, rows in part.groupby("task"):
                copies = of_family[families.index(family)] * within[tasks.index(task)]
                of_task |= {(group, int(code)): copies for code in rows["trained"].unique()}
                total[group] += copies * rows["weight"].sum()
    return _Copies(of_task, total)


def _names(frame: pd.DataFrame) -> list[str]:
    """Each row as one text."""
    return [json.dumps(row) for row in frame.astype(str).to_numpy().tolist()]


def _first(frame: pd.DataFrame, name: str) -> int:
    return int(frame[name].to_numpy()[0])


def _multiplicities(names: Sequence[str], *, drawn: bool) -> _Floats:
    """How often each name is among as many draws with replacement: `[names, RESAMPLES]`."""
    count = len(names)
    if not drawn:
        return np.ones((count, RESAMPLES))
    return _rng(*names).multinomial(count, np.full(count, 1 / count), RESAMPLES).T.astype(float)


def _draw_seeds(stratum: pd.DataFrame, size: int, name: str, levels: Sequence[str]) -> _Floats:
    """Means over drawn seeds of entries that have equally many on one task: `[entries, draws]`."""
    draws = np.full((RESAMPLES, size), 1 / size)
    if "seed" in levels:
        draws = _rng(name).multinomial(size, np.full(size, 1 / size), RESAMPLES) / size
    values = stratum["share"].to_numpy().reshape(-1, size)
    # Not a matrix product: how BLAS rounds a row depends on how many rows there are.
    return np.einsum("ns,rs->nr", values, draws)


def _noise(stratum: pd.DataFrame, size: int, names: Sequence[str]) -> _Floats:
    """What other examples would have changed in those means: `[entries, draws]`."""
    deviations = np.sqrt(stratum["variance"].to_numpy().reshape(-1, size).sum(axis=1)) / size
    noise = np.zeros((len(deviations), RESAMPLES))
    for row, (deviation, name) in enumerate(zip(deviations, names, strict=True)):
        if deviation > 0:
            noise[row] = deviation * _rng(name).standard_normal(RESAMPLES)
    return noise


def _rng(*names: str) -> np.random.Generator:
    return np.random.default_rng(int(digest("\0".join(names)), 16))
