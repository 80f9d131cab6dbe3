"""How training went: learning curves, and methods held side by side at equal steps and equal time.

A suite gives every method the same steps, so its scores are at equal steps. What a method would
have had in the time of a faster one only its learning curve tells, and only as training loss.
"""

import numpy as np
import pandas as pd

from lcbench.rows import ENTRY, GROUP, TASK, comparable
from lcbench.store import CURVE, latest

MACHINE = ["env_id", "device", "threads", "deterministic"]
"""Within equal ones seconds may be compared, and nowhere else."""
CURVE_COLUMNS = (*CURVE, *MACHINE)
"""The columns of rows read here, beside those of `ranking.COLUMNS`."""
_LISTS = {"curve_steps": "steps", "curve_s": "seconds", "curve_loss_nats": "loss_nats"}
_MODEL = [*ENTRY, *TASK, "seed"]


def learning_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """How each model was trained: a row each (entry, task, seed, point), with its `MACHINE`.

    `steps` were done and `seconds` had passed by the end of a point's span; `loss_nats` is the mean
    training loss within it. Where contexts climb (`TaskPlan.ramp`), that of the first half is of
    shorter contexts. Of a model trained more than once the newest counts; one without a curve,
    measured before there were any, has no row.

    Args:
        frame: Rows with at least `ranking.COLUMNS` and `CURVE_COLUMNS`.
    """
    rows = comparable(frame).frame
    rows = rows[(rows["kind"] == "quality") & (rows["status"] == "ok")]
    rows = latest(rows[rows[list(_LISTS)].notna().all(axis=1)], _MODEL)
    lengths = pd.DataFrame({name: rows[name].map(len) for name in _LISTS}, dtype="int64")
    rows = rows[lengths.eq(lengths["curve_s"], axis=0).all(axis=1)]
    number = lengths.loc[rows.index, "curve_s"]
    curves = rows[[*_MODEL, *MACHINE]].loc[rows.index.repeat(number)].reset_index(drop=True)
    curves["point"] = curves.groupby(_MODEL).cumcount()
    for name, title in _LISTS.items():
        values = np.concatenate([np.zeros(0), *rows[name]])
        curves[title] = values.astype("int64") if title == "steps" else values
    return curves


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of each entry on each task, at the steps that all of them have.

    Args:
        curves: Rows of `learning_curves`; of one `MACHINE`, where seconds are to mean something.
    """
    keys = [*ENTRY, *TASK]
    means = curves.groupby([*keys, "steps"])[["seconds", "loss_nats"]].mean()
    means["num_seeds"] = curves.groupby([*keys, "steps"])["seed"].nunique()
    means = means.reset_index()
    every = means.merge(curves.groupby(keys)["seed"].nunique().rename("every").reset_index())
    return every[every["num_seeds"] == every["every"]].drop(columns="every")


def equal_time(frame: pd.DataFrame) -> pd.DataFrame:
    """Training loss of each entry on each task after equal steps, and after equal time.

    Compared are entries trained for the same steps of a task on the same `MACHINE`, by the mean of
    their curves over seeds that all of them have; who lacks the seed that most have is left out.
    A row's columns, beside the entry's, task's and machine's:

    - `num_seeds`, `steps`: what the means are of, and the steps all were trained for.
    - `loss_at_steps`: loss of the last span, so after equal steps.
    - `train_s`: seconds of training in all; `equal_s`: those of the fastest of the entries.
    - `relative_time`: the one over the other, 1 for the fastest.
    - `loss_at_time`, `steps_at_time`: loss and steps after `equal_s`, between the points of its
      curve in a straight line; NaN where that was before the first point.

    What this does not say: how well a method does when it is planned for that time. Learning rates
    fall and contexts climb to the end of the steps, so a training cut short is no training of fewer
    steps, and its loss is higher than that of one. A method that is slow at first (kernels that are
    compiled) pays for that here as it does not in a long training. And a training loss is no score:
    it is of the trained context alone, and by span, so a little behind what the model had learned.

    Args:
        frame: Rows with at least `ranking.COLUMNS` and `CURVE_COLUMNS`.
    """
    curves = learning_curves(frame)
    curves["last"] = curves.groupby(_MODEL)["steps"].transform("max")
    race = [*GROUP, *TASK, *MACHINE, "last"]
    parts = [_raced(part) for _, part in curves.groupby(race, dropna=False)]
    columns = [*ENTRY, *TASK, *MACHINE, *_RACED]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


_RACED = ("num_seeds", "steps", "loss_at_steps", "train_s", "equal_s", "relative_time",
          "loss_at_time", "steps_at_time")  # fmt: skip


def _raced(curves: pd.DataFrame) -> pd.DataFrame:
    """`equal_time` of the curves of one task on one machine."""
    means = mean_curves(_of_shared_seeds(curves))
    raced = means.drop_duplicates(ENTRY, keep="last")
    raced = raced.rename(columns={"loss_nats": "loss_at_steps", "seconds": "train_s"})
    fastest = float(raced["train_s"].min())
    raced = raced.assign(equal_s=fastest, relative_time=raced["train_s"] / fastest)
    by_entry = [part for _, part in means.groupby(ENTRY)]
    for name, title in (("loss_nats", "loss_at_time"), ("steps", "steps_at_time")):
        raced[title] = [
            np.interp(fastest, part["seconds"], part[name], left=np.nan) for part in by_entry
        ]
    raced[MACHINE] = curves[MACHINE].iloc[0].to_list()
    return raced[[*ENTRY, *TASK, *MACHINE, *_RACED]]


def _of_shared_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """The curves of entries that have the seed most have, of those seeds that all of them have."""
    models = curves[[*ENTRY, "seed"]].drop_duplicates()
    common = models["seed"].value_counts().sort_index().idxmax()
    models = models.merge(models.loc[models["seed"] == common, ENTRY])
    shared = models["seed"].value_counts()
    seeds = shared.index[shared == shared.max()]
    return curves[curves["seed"].isin(seeds)].merge(models[ENTRY].drop_duplicates())
