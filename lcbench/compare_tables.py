"""A comparison of two methods as tables, CSV or JSON."""

import pandas as pd
from rich.console import Console
from rich.text import Text

from lcbench.compare import Comparison, as_frame
from lcbench.compare_text import Sheet, cost_sheet, legend, part_of, score_sheet, verdict
from lcbench.rows import GROUP, tell_put_aside
from lcbench.tables import console, new_table

_LEFT = ("Task", "Step", "Better")
"""Titles of columns that hold words."""


def show_comparison_as(form: str, found: Comparison) -> None:
    """Print a comparison as a table, CSV or JSON; what was put aside goes to standard error."""
    if form == "table":
        _show(found, console())
        return
    Console(stderr=True).print(tell_put_aside(found.put_aside), end="")
    whole = as_frame(found)
    if form == "csv":
        print(whole.to_csv(index=False), end="")  # noqa: T201 -- data for a pipe
    else:
        print(whole.to_json(orient="records", indent=2))  # noqa: T201


def _show(found: Comparison, out: Console) -> None:
    places = pd.concat([found.scores[GROUP], found.costs[GROUP]]).drop_duplicates()
    for suite, device_kind in places.sort_values(GROUP).itertuples(index=False):
        part = part_of(found, suite, device_kind)
        if len(part.scores):
            title = f"{found.a} against {found.b}: {suite} on {device_kind}"
            _show_sheet(title, score_sheet(part), out)
        if len(part.costs):
            _show_sheet(f"What they cost: {found.a} over {found.b}", cost_sheet(part), out)
        for line in verdict(part):
            out.print(Text(line))
        out.print()
    out.print(Text(legend(found), style="dim"))
    if aside := tell_put_aside(found.put_aside):
        out.print(Text(aside, style="yellow"), soft_wrap=True)


def _show_sheet(title: str, sheet: Sheet, out: Console) -> None:
    table = new_table(title)
    for name in sheet.titles:
        wrapped = name.replace("Would have ", "Would have\n")
        table.add_column(Text(wrapped), justify="left" if name in _LEFT else "right")
    for cells in sheet.cells:
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)
