"""A leaderboard of a part of what was measured: one task, one context."""

import pandas as pd

from lcbench import ranking


def narrow(rows: pd.DataFrame, task: str | None = None, context: int | None = None) -> pd.DataFrame:
    """The rows, or the part of a plan, of one task and one context; None stands for all.

    Costs belong to no task: their rows stay whatever task is asked for.
    """
    is_cost = rows["kind"] != "quality" if "kind" in rows else pd.Series(False, index=rows.index)
    kept = pd.Series(True, index=rows.index)
    if task is not None:
        kept &= is_cost | (rows["task"] == task)
    if context is not None:
        kept &= (rows["context"] == context).fillna(False)
    return rows if kept.all() else rows[kept]


def leaderboard(
    rows: pd.DataFrame,
    plan: pd.DataFrame | None,
    task: str | None = None,
    context: int | None = None,
) -> pd.DataFrame:
    """`ranking.leaderboard` as if nothing but one task or one context had been asked for.

    Whoever has no row left is still listed, with nothing measured: what is missing must show.

    Args:
        rows: All rows.
        plan: The plan of all rows.
        task: The one that counts; all by default.
        context: The one at which scores and costs count; all by default.
    """
    if plan is not None:
        plan = narrow(plan, task, context)
    kept = narrow(rows, task, context)
    board = ranking.leaderboard(kept, plan)
    if len(kept) == len(rows):
        return board
    counted = ranking.comparable(rows).frame[ranking.ENTRY].drop_duplicates()
    board = board.merge(counted, on=ranking.ENTRY, how="outer", sort=False)
    order = [*ranking.GROUP, "pareto", "quality"]
    return board.sort_values(
        order, ascending=[True] * 3 + [False], kind="stable", ignore_index=True
    )
