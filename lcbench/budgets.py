"""What training spent, and the rows that are left when all may spend alike.

A suite gives every method the same steps of the same tokens, so a leaderboard of its rows is the
view at equal steps. Equal time needs no second run, only honesty: a row says how long its training
took, and whoever needed longer than `vanilla` had not finished when vanilla had. Nor would a score
read in the middle of training tell what it had by then: learning rates fall and contexts climb to
the end that was planned, so half of a training is no training of half the steps.
"""

from typing import Literal

import pandas as pd

from lcbench.rows import ENTRY, GROUP, TASK, as_float, comparable
from lcbench.suite import ANCHOR

Budget = Literal["steps", "time"]
MARGIN = 0.1
"""Share by which a time may exceed vanilla's and count as equal: two runs of one method differ by
about as much on a quiet machine."""
BUDGET_COLUMNS = ("train_steps", "train_tokens", "train_s")
"""The columns of rows read here, beside those of `ranking.COLUMNS`."""
_ASKED = [*GROUP, *TASK]


def budgets(frame: pd.DataFrame) -> pd.DataFrame:
    """What the training of each entry on each task took: medians over its seeds.

    `time_vs_vanilla` is its seconds over vanilla's, so below 1 is faster; NaN where vanilla's are
    not known. Seconds are of training alone, examples included and scoring not, on the machine and
    under the load of the run: they are no benchmark of speed, which the cost ladder is.
    """
    rows = _trained(comparable(frame).frame)
    spent = rows.groupby([*ENTRY, *TASK])[list(BUDGET_COLUMNS)].median().reset_index()
    spent["time_vs_vanilla"] = spent["train_s"] / _of_vanilla(rows, spent, "train_s")
    return spent


def within(frame: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """The rows that count when all may spend what vanilla spent on the same task.

    Left out are quality rows whose spending, or vanilla's, is not known or not of the budget:

    - `steps`: rows of another number of steps than vanilla's.
    - `time`: none for taking long, but a row whose training took more than vanilla's median seconds
      by over `MARGIN` counts as a `timeout`, so as a score of 0: cut off then, it would have had
      some score, which nobody measured.

    What failed stays a failure, and rows of the cost ladder stay as they are.
    """
    rows = comparable(frame).frame
    column = "train_steps" if budget == "steps" else "train_s"
    allowed = _of_vanilla(_trained(rows), rows, column)
    own = as_float(rows, column)
    scored = (rows["kind"] == "quality") & (rows["status"] == "ok")
    unknown = scored & (own.isna() | allowed.isna())
    if budget == "steps":
        return rows[~(unknown | scored & (own != allowed))]
    late = scored & (own > allowed * (1 + MARGIN))
    cut = rows.assign(
        status=rows["status"].mask(late, "timeout"), score=as_float(rows, "score").mask(late)
    )
    return cut[~unknown]


def _trained(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a model that was trained: contexts it was scored at share its training."""
    rows = rows[(rows["kind"] == "quality") & (rows["status"] == "ok")]
    rows = rows.assign(**{name: as_float(rows, name) for name in BUDGET_COLUMNS})
    return rows.drop_duplicates([*ENTRY, *TASK, "seed"])


def _of_vanilla(trained: pd.DataFrame, rows: pd.DataFrame, column: str) -> pd.Series:
    """Vanilla's median of a column on the task of each row: of all its configs, if several."""
    anchor = trained[trained["method"] == ANCHOR].groupby(_ASKED)[column].median()
    places = pd.MultiIndex.from_frame(rows[_ASKED])
    return pd.Series(anchor.reindex(places).to_numpy(), index=rows.index, dtype="float64")
