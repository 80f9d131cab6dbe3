"""The leaderboard as tables: on a terminal, in Markdown, as CSV or JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lcbench import ranking, slices
from lcbench.budgets import Budget, within
from lcbench.config import UsageError, did_you_mean
from lcbench.disturbance import tell_disturbed
from lcbench.places import Place
from lcbench.plans import suite_plan

MOST_PROBLEMS = 5
PIPE_WIDTH = 160
"""Columns of a table that is written to something other than a terminal."""


def console() -> Console:
    """Where everything is printed; wide enough for a table when it is not a terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def show_problems(problems: Sequence[tuple[Place, str]], out: Console) -> None:
    """Name the files that could not be read, the first few of many."""
    for path, reason in problems[:MOST_PROBLEMS]:
        out.print(Text(f"{path} was left out: {reason}", style="yellow"), soft_wrap=True)
    if len(problems) > MOST_PROBLEMS:
        out.print(Text(f"and {len(problems) - MOST_PROBLEMS} files more were left out", "yellow"))


BOARD_COLUMNS = (
    *("place_first", "quality", "coverage", "effective_context", "prefill_speed"),
    *("train_speed", "decode_speed", "memory", "state_bytes_per_token", "failed", "pareto"),
)
"""What of `ranking.leaderboard` fits a terminal."""
ENTRY_COLUMNS = ("suite", "device_kind", "method", "config", "dtype")
"""What names a row of the leaderboard."""


def choose_columns(text: str) -> tuple[str, ...]:
    """Names of the leaderboard's columns, separated by commas, or `all`.

    Raises:
        UsageError: A name that is none of them.
    """
    offered = [c.name for c in ranking.board_columns() if c.name not in ENTRY_COLUMNS]
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return tuple(offered)
    for name in names:
        if name not in offered:
            raise UsageError(f"no column {name!r}; {did_you_mean(name, [*offered, 'all'])}")
    return tuple(dict.fromkeys(names)) or BOARD_COLUMNS


TITLES = {"place_first": "Place"}
"""Titles of columns that show another beside their own."""


class Show(NamedTuple):
    """What is asked of a leaderboard."""

    columns: Sequence[str] = ()
    """Names of `ranking.board_columns`; none are those of `BOARD_COLUMNS`, or all in CSV, JSON."""
    budget: Budget | None = None
    """Leave out what was not trained within it, see `budgets.within`."""
    task: str | None = None
    """The only task that counts."""
    context: int | None = None
    """The only context that counts."""


EVERYTHING = Show()


def show_leaderboard(
    frame: pd.DataFrame, out: Console, plan: pd.DataFrame | None, show: Show = EVERYTHING
) -> None:
    """Print a board for each suite and kind of device, and the scores it is made of.

    Args:
        frame: Rows.
        out: Where to.
        plan: What counts, see `ranking.leaderboard`.
        show: Which columns, and of which rows.
    """
    everything, shown = frame, show.columns or BOARD_COLUMNS
    frame = within(frame, show.budget) if show.budget else frame
    board = slices.leaderboard(frame, plan, show.task, show.context)
    frame = slices.narrow(frame, show.task, show.context)
    if board.empty:
        out.print("No results yet. [bold]lcbench run --method all[/] makes some.")
        return
    board["label"] = ranking.entry_labels(board)
    scores, rows = ranking.task_scores(frame), ranking.comparable(frame).frame
    curve = ranking.distance_curve(frame)
    curve = curve[curve["context"] == curve["train_context"]]
    generated = ranking.generated_scores(frame)
    for (suite, device_kind), part in board.groupby(ranking.GROUP):
        out.print()
        out.print(_board_table(f"Leaderboard: {suite} on {device_kind}", part, shown))
        group = {"suite": suite, "device_kind": device_kind}
        of_board = _rows_where(scores, group)
        if len(of_board):
            for table in _scores_tables(of_board, part):
                out.print(table)
        for task, points in _rows_where(curve, group).groupby("task"):
            out.print(_distance_table(str(task), points, part))
        own_words = _rows_where(generated, group).groupby(["task", "task_config"])
        for (task, _), passages in own_words:
            out.print(_generated_table(str(task), passages, part))
        if show.budget == "time":
            raced = slices.narrow(_rows_where(everything, group), show.task, show.context)
            _show_equal_time(raced, part, out)
        out.print(Text(legend(part, shown), style="dim"))
        if suite in ranking.drafts(frame):
            out.print(Text(DRAFT_NOTE, style="yellow"))
        if disturbed := tell_disturbed(_rows_where(rows, group)):
            out.print(Text(disturbed, style="yellow"), soft_wrap=True)
    if show.budget:
        out.print(Text(_BUDGETS[show.budget], style="dim"))
    show_put_aside(everything, out)


DRAFT_NOTE = (
    "A draft: no task of it has passed the gate at these budgets, so its scores say that methods"
    " run, not what they can do."
)
"""What stands under the board of a suite that is not published."""
_BUDGETS = {
    "steps": "Counted are models trained for as many steps as vanilla's.",
    "time": "Counted are models trained in vanilla's time, 10 % more forgiven; slower ones are"
    " timeouts and score 0. Losses in equal time are those of learning curves when the fastest"
    " method on the same machine was at its end: a training that is cut short there, with its"
    " learning rate still high, is none that was planned for that time.",
}


def show_put_aside(frame: pd.DataFrame, out: Console) -> None:
    """Say how many rows a board leaves out, and why."""
    if aside := ranking.tell_put_aside(ranking.comparable(frame).put_aside):
        out.print(Text(aside, style="yellow"), soft_wrap=True)


def _board_table(title: str, board: pd.DataFrame, shown: Sequence[str]) -> Table:
    table = new_table(title)
    columns = {column.name: column for column in ranking.board_columns()}
    table.add_column("Method", no_wrap=True)
    for name in shown:
        column = columns[name]
        unit = f"\n{column.unit}" if column.unit else ""
        title = TITLES.get(name, column.title)
        table.add_column(f"{title}{unit}", justify="right")
    for row in board.to_dict("records"):
        values = [board_value(row, columns[name]) for name in shown]
        table.add_row(str(row["label"]), *values)
    return table


def board_value(row: Mapping[Any, Any], column: ranking.BoardColumn) -> str:
    """A value of the leaderboard as it is shown, with its interval or the places it may hold."""
    value = row[column.name]
    if pd.isna(value):
        return "–"
    if column.digits is None:
        return str(value)
    text = f"{value:,.{column.digits}f}"
    if column.name == "quality" and not pd.isna(row["quality_low"]):
        text += f" [{row['quality_low']:.3f}, {row['quality_high']:.3f}]"
    if column.name == "place_first" and row["place_last"] > value:
        text += f"–{row['place_last']:.0f}"
    return text


MOST_PLACES = 8
"""Columns of scores that one table has room for on a terminal."""
_PLACE = ["task", "task_config", "train_context", "context"]


def _scores_tables(scores: pd.DataFrame, board: pd.DataFrame) -> list[Table]:
    """Scores in their own units with the floors below: one table, or one a task if it is wide."""
    # A failure knows neither metric nor floor: those come from whoever finished.
    asked = scores[[*_PLACE, "metric", "floor"]].sort_values("metric", na_position="last")
    asked = asked.drop_duplicates(_PLACE).sort_values(_PLACE)
    if len(asked) <= MOST_PLACES:
        title = "Scores: mean over seeds, in each task's own unit"
        return [_scores_table(title, scores, board, asked)]
    return [
        _scores_table(
            f"{task}, {_unit(str(part['metric'].iloc[0]))}: mean over seeds", scores, board, part
        )
        for (task, _), part in asked.groupby(["task", "task_config"], dropna=False)
    ]


def _unit(metric: str) -> str:
    return "bits/byte" if metric == "bits_per_byte" else "%"


def _scores_table(
    title: str, scores: pd.DataFrame, board: pd.DataFrame, asked: pd.DataFrame
) -> Table:
    """Scores at the places asked, a column each."""
    table = new_table(title)
    table.add_column("Method", no_wrap=True)
    places: list[Any] = asked.to_dict("records")
    several = len(set(asked["task"])) > 1
    for place in places:
        trained = "*" if place["context"] == place["train_context"] else ""
        of_task = f"{place['task']}, {_unit(place['metric'])}\n" if several else ""
        table.add_column(f"{of_task}at {place['context']:,}{trained}", justify="right")
    for entry in board.to_dict("records"):
        own = _rows_of(scores, entry)
        by_place = {tuple(row[k] for k in _PLACE): row for row in own.to_dict("records")}
        cells = [by_place.get(tuple(place[k] for k in _PLACE)) for place in places]
        table.add_row(str(entry["label"]), *(_score_value(cell) for cell in cells))
    table.add_section()
    floors = [_number(place["floor"], place["metric"]) for place in places]
    table.add_row(Text("floor: a trivial solver", style="dim"), *floors, style="dim")
    return table


def _distance_table(task: str, points: pd.DataFrame, board: pd.DataFrame) -> Table:
    """Accuracy at the trained context by how far back the evidence lies."""
    context = int(points["context"].max())
    table = new_table(f"{task} at {context:,} tokens: % right by distance to the evidence")
    table.add_column("Method", no_wrap=True)
    starts = sorted(set(points["distance_from"]))
    for start in starts:
        table.add_column(f"{start:,}–{2 * start - 1:,}" if start > 1 else "1", justify="right")
    for entry in board.to_dict("records"):
        own = _rows_of(points, entry)
        pooled = own.assign(right=own["score"] * own["count"]).groupby("distance_from")
        shares = (pooled["right"].sum() / pooled["count"].sum()).to_dict()
        cells = [f"{100 * shares[start]:.0f}" if start in shares else "–" for start in starts]
        table.add_row(str(entry["label"]), *cells)
    return table


def _generated_table(task: str, passages: pd.DataFrame, board: pd.DataFrame) -> Table:
    """What each method wrote by itself: passages right to the last token, and their chrF."""
    table = new_table(f"{task}, written by the model itself: % exactly right / chrF")
    table.add_column("Method", no_wrap=True)
    contexts = sorted(set(passages["context"]))
    for context in contexts:
        table.add_column(f"at {context:,}", justify="right")
    for entry in board.to_dict("records"):
        own = {row["context"]: row for row in _rows_of(passages, entry).to_dict("records")}
        cells = [_generated_value(own[c]) if c in own else "–" for c in contexts]
        table.add_row(str(entry["label"]), *cells)
    return table


def _generated_value(row: Mapping[Any, Any]) -> str:
    similar = "–" if pd.isna(row["generated_chrf"]) else f"{row['generated_chrf']:.1f}"
    return f"{100 * row['generated_exact_match']:.1f} / {similar}"


def _show_equal_time(rows: pd.DataFrame, board: pd.DataFrame, out: Console) -> None:
    """Print the training loss after equal steps and after equal time, a table a task and machine.

    Args:
        rows: All rows of the board, those that were too slow for its budget among them.
        board: `ranking.leaderboard` with `label`.
        out: Where to.
    """
    raced = ranking.equal_time(rows)
    where = ["task", "task_config", "train_context", "steps", *ranking.MACHINE]
    races = [part for _, part in raced.groupby(where, dropna=False) if len(part) > 1]
    for race in races:
        out.print(_equal_time_table(race, board))
    if not races:
        told = "Losses in equal time: no two methods have learning curves of one task and machine."
        out.print(Text(told, style="dim"))


def _equal_time_table(race: pd.DataFrame, board: pd.DataFrame) -> Table:
    first: Any = race.iloc[0]
    table = new_table(f"{first['task']}, training loss in equal time: {first['device']}")
    table.add_column("Method", no_wrap=True)
    for title in (
        *(f"Loss, nats\nafter {first['steps']:,} steps", "Training time\n× fastest"),
        *(f"Loss, nats\nafter {first['equal_s']:,.1f} s", "Steps\nby then"),
    ):
        table.add_column(title, justify="right")
    for entry in board.to_dict("records"):
        for row in _rows_of(race, entry).to_dict("records"):
            ends = f"{row['loss_at_steps']:.3f}", f"{row['relative_time']:.2f}"
            known = not pd.isna(row["loss_at_time"])
            then = f"{row['loss_at_time']:.3f}", f"{row['steps_at_time']:,.0f}"
            table.add_row(str(entry["label"]), *ends, *(then if known else ("–", "–")))
    return table


def _rows_of(frame: pd.DataFrame, entry: Mapping[Any, Any]) -> pd.DataFrame:
    """The rows of a frame that belong to one entry of the board."""
    return _rows_where(frame, {name: entry[name] for name in ("method", "config", "dtype")})


def _rows_where(frame: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a frame that have these values."""
    chosen = pd.Series(data=True, index=frame.index)
    for name, value in values.items():
        chosen &= frame[name] == value
    return frame[chosen]


def _score_value(cell: Mapping[Any, Any] | None) -> str:
    if cell is None:
        return "–"
    if pd.isna(cell["score"]):
        return "failed"
    return _number(cell["score"], cell["metric"])


def _number(score: float, metric: str) -> str:
    return f"{score:.3f}" if metric == "bits_per_byte" else f"{100 * score:.1f}"


def legend(board: pd.DataFrame, shown: Sequence[str]) -> str:
    """How such columns of a leaderboard are to be read."""
    at = {
        name: "" if pd.isna(value := board[f"{name}_speed_context"].max()) else f" at {value:,.0f}"
        for name in ("prefill", "train", "decode")
    }
    roofline = (
        "\nRoofline share: the least time this machine's own matrix products and copies would need"
        " for the work, over the time taken; – until lcbench env --measure was run before."
    )
    return (
        "Quality: normalised score (0 is the floor, 1 the ceiling), mean over tasks, families and"
        " lengths, with what other seeds and examples would have given. Place: by quality; those"
        " that cannot be told apart share it, and one seed a task tells nobody apart."
        " Effective context: as far as every task keeps 85 % of its trained-context score;"
        " 0 where one never rose above its floor."
        f"\nSpeed: vanilla's time over the method's, prefill{at['prefill']}, training{at['train']},"
        f" decoding{at['decode']} tokens; above 1 is faster. Memory: peak of a training step over"
        " vanilla's. State: bytes kept a token of context. * trained context."
    ) + (roofline if any(name.endswith("_roofline") for name in shown) else "")


def new_table(title: str) -> Table:
    """An empty table in the house style."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )


def show_leaderboard_as(
    form: str,
    frame: pd.DataFrame,
    problems: Sequence[tuple[Place, str]],
    show: Show,
) -> None:
    """Print the leaderboard as a table, Markdown, CSV or JSON; problems go to standard error.

    Without columns to show, CSV and JSON hold all there are.
    """
    show_problems(problems, Console(stderr=True))
    if form == "table":
        show_leaderboard(frame, console(), suite_plan(frame), show)
        return
    show_put_aside(frame, Console(stderr=True))
    shown = show.columns
    counted = within(frame, show.budget) if show.budget else frame
    board = slices.leaderboard(counted, suite_plan(frame), show.task, show.context)
    if form == "markdown":
        print(_markdown(board, shown or BOARD_COLUMNS))  # noqa: T201 -- data for a pipe
        return
    board = board[[*ENTRY_COLUMNS, *shown]] if shown else board
    if form == "csv":
        print(board.to_csv(index=False), end="")  # noqa: T201
    else:
        print(board.to_json(orient="records", indent=2))  # noqa: T201


def _markdown(board: pd.DataFrame, shown: Sequence[str]) -> str:
    columns = {column.name: column for column in ranking.board_columns()}
    titles = ["Suite", "Device", "Method"]
    titles += [
        " ".join(filter(None, (TITLES.get(n, columns[n].title), columns[n].unit))) for n in shown
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * 3 + " ---: |" * len(shown)]
    for row, label in zip(board.to_dict("records"), ranking.entry_labels(board), strict=True):
        values = [board_value(row, columns[name]) for name in shown]
        lines.append("| " + " | ".join([row["suite"], row["device_kind"], label, *values]) + " |")
    return "\n".join(lines)


def show_gate(suite: str, table: pd.DataFrame, problems: Sequence[tuple[Place, str]]) -> None:
    """Print what the gate says of each task of a suite, with the scores it says so by."""
    show_problems(problems, Console(stderr=True))
    out = console()
    shown = new_table(f"Gate: {suite}, normalised scores at the trained context")
    for title in ("Task", "Method", "Seeds", "Worst", "Median", "Best", "Verdict"):
        shown.add_column(title, justify="right" if title in _OF_SEEDS else "left")
    # A verdict that holds for the whole task stands in each of its rows: once is enough to read.
    verdicts = table["verdict"].mask(table.duplicated(["task", "verdict"]), "")
    for row, verdict in zip(table.to_dict("records"), verdicts, strict=True):
        scores = [f"{row[name]:.3f}" for name in ("worst", "median", "best")]
        shown.add_row(row["task"], row["method"], str(row["seeds"]), *scores, verdict)
    out.print(shown)


_OF_SEEDS = ("Seeds", "Worst", "Median", "Best")
