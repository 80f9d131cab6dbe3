"""One self-contained page of a leaderboard: tables and figures, for a paper's appendix or a host.

It needs neither a server nor the network: Plotly's script is in it. What came from results files is
escaped, in tables here and in figures by their builders.
"""

import html
from collections.abc import Iterable, Sequence

import pandas as pd
import plotly.graph_objects as go

from lcbench import ranking, tables
from lcbench.app import charts, context_charts, trade_off_chart
from lcbench.disturbance import tell_disturbed
from lcbench.plans import suite_plan
from lcbench.rows import tell_put_aside

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.75rem; } h2 { margin-top: 2.5rem; } h3 { margin-bottom: 0.25rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #dde3ea; text-align: right; }
th { background: #f2f5f9; font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
p.note { color: #5a6472; font-size: 0.9rem; }
"""
INK = "#1c2430"
"""The colour of text."""
COSTS = (("prefill", "tokens_per_s"), ("train_step", "peak_bytes"), ("decode", "state_bytes"))
"""What is drawn against the context: kind of step, and column."""


def report(frame: pd.DataFrame, problems: Sequence[tuple[object, str]] = ()) -> str:
    """The page of all suites and kinds of device that rows are of.

    Args:
        frame: Rows, of each cell the newest.
        problems: Files that were left out, and why.
    """
    board = ranking.leaderboard(frame, suite_plan(frame))
    board["label"] = ranking.entry_labels(board)
    rows, put_aside = ranking.comparable(frame)
    styles = charts.method_styles(board)
    parts = ["<h1>lcbench leaderboard</h1>", *(_problem(*problem) for problem in problems)]
    if board.empty:
        parts.append("<p>No results yet: <code>lcbench run --method all</code> makes some.</p>")
    # Plotly's script goes with the first figure only.
    has_script = False
    for (suite, device_kind), part in board.groupby(ranking.GROUP, sort=False):
        of_part = (rows["suite"] == suite) & (rows["device_kind"] == device_kind)
        own = rows[of_part].merge(part[[*ranking.ENTRY, "label"]], on=ranking.ENTRY)
        parts.append(f"<h2>{html.escape(f'{suite} on {device_kind}')}</h2>")
        parts += [_board(part), _note(tables.legend(part, tables.BOARD_COLUMNS))]
        parts.append(_note(tell_disturbed(own)))
        for title, figure in _figures(part, own, styles):
            figure.update_layout(template="plotly_white")
            script = figure.to_html(
                full_html=False, include_plotlyjs=not has_script, config=charts.CONFIG
            )
            has_script = True
            parts.append(f"<h3>{html.escape(title)}</h3>\n{script}")
        parts.append(_failures(own))
    parts.append(_note(tell_put_aside(put_aside)))
    return _PAGE.format(style=STYLE, body="\n".join(parts))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>lcbench leaderboard</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _board(board: pd.DataFrame) -> str:
    columns = {column.name: column for column in ranking.board_columns()}
    shown = [columns[name] for name in tables.BOARD_COLUMNS]
    titles = [
        " ".join(filter(None, (tables.TITLES.get(c.name, c.title), c.unit and f"({c.unit})")))
        for c in shown
    ]
    cells = [
        [row["label"], *(tables.board_value(row, column) for column in shown)]
        for row in board.to_dict("records")
    ]
    return _table(["Method", *titles], cells)


def _figures(
    board: pd.DataFrame, rows: pd.DataFrame, styles: dict[str, charts.Style]
) -> Iterable[tuple[str, go.Figure]]:
    axes = trade_off_chart.trade_off_axes()
    known = board[board[["prefill_speed", "quality"]].notna().all(axis=1)]
    if len(known):
        figure = trade_off_chart.trade_off(
            known, axes["prefill_speed"], axes["quality"], styles, INK
        )
        yield "Quality against prefill speed", figure
    scores = ranking.task_scores(rows).merge(board[[*ranking.ENTRY, "label"]], on=ranking.ENTRY)
    missing = rows[~rows["status"].isin(["ok", "unsupported"])]
    places = scores[ranking.TASK].drop_duplicates()
    names = charts.task_names(places.to_dict("records"))
    for name, (_, place) in zip(names, places.iterrows(), strict=True):
        own, lost = (
            frame[(frame[ranking.TASK] == place).all(axis=1)] for frame in (scores, missing)
        )
        if own["score"].notna().any():
            yield f"Score: {name}", context_charts.score_curve(own, lost, styles)
    quantities = {quantity.name: quantity for quantity in context_charts.QUANTITIES}
    for kind, name in COSTS:
        quantity, rungs = quantities[name], rows[rows["kind"] == kind]
        points = rungs[(rungs["status"] == "ok") & (rungs[name] > 0).fillna(value=False)]
        if len(points):
            slopes = ranking.fit_exponents(rungs, quantity.fitted)
            slopes = slopes.merge(board[[*ranking.ENTRY, "label"]], on=ranking.ENTRY)
            lost = missing[missing["kind"] == kind]
            title = f"{quantity.title}: {charts.KIND_TITLES[kind].lower()}"
            yield title, context_charts.scaling(points, lost, slopes, quantity, styles)


def _failures(rows: pd.DataFrame) -> str:
    failed = rows[rows["status"] != "ok"].sort_values(["label", "kind", "context"])
    if failed.empty:
        return _note(f"All {len(rows):,} measurements gave a value.")
    names = ["label", "status", "kind", "task", "context", "seed", "stage", "error"]
    cells = [
        ["–" if pd.isna(value) else value for value in row] for row in failed[names].to_numpy()
    ]
    titles = ["Method", "Status", "Measurement", "Task", "Context", "Seed", "Stage", "Reason"]
    return "<h3>Without a value</h3>\n" + _table(titles, cells)


def _table(titles: Sequence[str], cells: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in cells
    ]
    body = "\n".join(lines)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _problem(where: object, reason: str) -> str:
    return _note(f"{where} was left out: {reason}")


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""
