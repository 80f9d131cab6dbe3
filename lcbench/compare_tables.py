"""A comparison of two methods as tables, CSV or JSON."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from lcbench.compare import Comparison, as_frame
from lcbench.rows import GROUP, tell_put_aside
from lcbench.tables import console, new_table

_KINDS = {"train_step": "training step", "prefill": "prefill", "decode": "decoding"}


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
        for number, (frame, show) in enumerate(
            ((found.scores, _show_scores), (found.costs, _show_costs))
        ):
            part = frame[(frame["suite"] == suite) & (frame["device_kind"] == device_kind)]
            if not part.empty:
                title = f"{found.a} against {found.b}: {suite} on {device_kind}"
                show(title if number == 0 else "What they cost", part, found, out)
    out.print(Text(_legend(found), style="dim"))
    if aside := tell_put_aside(found.put_aside):
        out.print(Text(aside, style="yellow"), soft_wrap=True)


def _show_scores(title: str, scores: pd.DataFrame, found: Comparison, out: Console) -> None:
    table = new_table(title)
    table.add_column("Task")
    for name in ("Tokens", "Unit", "Seeds", "Examples", found.a, found.b, "Difference"):
        table.add_column(name, justify="right")
    table.add_column("p", justify="right")
    table.add_column("Better")
    table.add_column("Would have\nshown", justify="right")
    for row in scores.sort_values(["task", "train_context", "context"]).to_dict("records"):
        table.add_row(*_score_cells(row))
    out.print(table)


def _score_cells(row: Mapping[Any, Any]) -> list[str]:
    in_bits = row["metric"] == "bits_per_byte"
    factor, digits = (1.0, 3) if in_bits else (100.0, 1)
    a, b, gap, low, high, smallest = (
        "–" if pd.isna(row[name]) else f"{row[name] * factor:.{digits}f}"
        for name in ("score_a", "score_b", "difference", "low", "high", "smallest_effect")
    )
    trained = "*" if row["context"] == row["train_context"] else ""
    tokens, unit = f"{row['context']:,}{trained}", "bits/byte" if in_bits else "%"
    p = "<0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    better = row["better"] if isinstance(row["better"], str) else "not told apart"
    counts = [str(row["seeds"]), f"{row['examples']:,}"]
    return [row["task"], tokens, unit, *counts, a, b, f"{gap} [{low}, {high}]", p, better, smallest]


def _show_costs(title: str, costs: pd.DataFrame, found: Comparison, out: Console) -> None:
    table = new_table(f"{title}: {found.a} over {found.b}")
    table.add_column("Step")
    for name in ("Tokens", "Speed", "Peak memory", "State"):
        table.add_column(name, justify="right")
    for row in costs.sort_values(["kind", "context"]).to_dict("records"):
        ratios = [
            "–" if pd.isna(row[name]) else f"{row[name]:.2f}×"
            for name in ("speed", "memory", "state")
        ]
        table.add_row(_KINDS.get(row["kind"], row["kind"]), f"{row['context']:,}", *ratios)
    out.print(table)


def _legend(found: Comparison) -> str:
    return (
        f"Difference: {found.a} less {found.b} on the same examples, with 1.96 standard errors to"
        " either side; p: paired test over examples, each line for itself. Would have shown: the"
        " difference these data reveal 4 times in 5. Seeds are models trained: with one, nothing"
        " is known of another. Speed above 1 is faster, bytes below 1 are fewer. * trained context."
    )
