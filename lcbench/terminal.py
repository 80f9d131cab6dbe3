"""What a person sees in the terminal: a run's progress, its plan, the leaderboard.

On a terminal one live display moves under the lines of finished cells; elsewhere there are the
lines alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lcbench import ranking
from lcbench.estimate import estimate_bytes, estimate_seconds
from lcbench.runner import Event, Setting, Tally
from lcbench.suite import Cell

if TYPE_CHECKING:
    from lcbench.conformance import Finding


def console() -> Console:
    """Where everything is printed; wide enough for a table when it is not a terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes with a binary unit and three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def score_text(row: Mapping[str, Any]) -> str:
    """A row's score in its metric's unit."""
    if row["metric"] == "bits_per_byte":
        return f"{row['score']:.3f} bits/byte"
    return f"{row['score']:.1%}"


def floor_text(row: Mapping[str, Any]) -> str:
    """What a trivial solver scores, beside a score."""
    if row["metric"] == "bits_per_byte":
        return f"unigram {row['floor']:.3f}"
    return f"floor {row['floor']:.1%}"


def outcome_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A finished cell in one line."""
    first = rows[0]
    if first["status"] != "ok":
        stage = f" in {first['stage']}" if first.get("stage") else ""
        return f"{first['status']}{stage}: {first.get('error') or 'no reason given'}"
    if first["kind"] == "quality":
        scores = ", ".join(f"{score_text(r)} at {r['context']:,}" for r in rows)
        return f"{scores} ({floor_text(first)})"
    text = f"{first['step_ms']:.4g} ms, {first['tokens_per_s']:,.0f} tokens/s"
    if first["method"] != "vanilla":
        text += f", {first['vs_vanilla']:.2f}× vanilla"
    if first.get("peak_bytes") is not None:
        text += f", peak {size(first['peak_bytes'])}"
    return text


class Progress:
    """A run as it goes. Call it with each event; use it as a context manager.

    Args:
        cells: The plan.
        finished: Cells that were finished before.
        setting: What the run is measured on.
        jobs: Quality cells at once.
    """

    def __init__(
        self, cells: Sequence[Cell], finished: Mapping[str, str], setting: Setting, jobs: int
    ) -> None:
        self.console = console()
        self.total = len(cells)
        self.done = sum(cell.cell_id in finished for cell in cells)
        self.jobs = jobs
        self._left = {c.cell_id: _weight(c, jobs) for c in cells if c.cell_id not in finished}
        self._planned = sum(self._left.values())
        self._running: dict[str, tuple[Cell, float, str]] = {}
        self._best: dict[str, tuple[float, str]] = {}
        self._began = monotonic()
        self._live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True
        )
        self._begin(cells, finished, setting)

    def _begin(self, cells: Sequence[Cell], finished: Mapping[str, str], setting: Setting) -> None:
        environment = setting.environment
        methods = ", ".join(dict.fromkeys(cell.method for cell in cells))
        kind, cores = environment["device_kind"], environment["threads"]
        device = f"{environment['device']} ({kind}, {cores} cores)"
        self.console.print(f"Suite [bold]{cells[0].suite}[/] on {device}: {methods}")
        if self.done:
            failed = Counter(finished[c.cell_id] for c in cells if c.cell_id in finished)
            failed = {s: n for s, n in failed.items() if s not in ("ok", "unsupported")}
            self.console.print(f"{self.done} of {self.total} cells are already measured.")
            if failed:
                told = ", ".join(f"{n} {status}" for status, n in sorted(failed.items()))
                self.console.print(
                    f"Among them failed: {told}; --retry-failed measures those again."
                )
        for method, error in {c.method: c.load_error for c in cells if c.load_error}.items():
            self.console.print(Text(f"{method} cannot be loaded and is left out: {error}", "red"))

    def __enter__(self) -> Self:
        if self.console.is_terminal and self._left:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        key = event.cell.cell_id
        if event.topic == "started":
            self._running[key] = (event.cell, monotonic(), "")
        elif event.topic == "finished":
            self._finish(event.cell, event.value)
        elif key in self._running:
            cell, began, note = self._running[key]
            if event.topic == "report":
                v = event.value
                note = (
                    f"step {v['step']}/{v['steps']}, loss {v['loss']:.3f},"
                    f" {v['tokens_per_s']:,.0f} tokens/s"
                )
            else:
                note = str(event.value)
            self._running[key] = (cell, began, note)

    def _finish(self, cell: Cell, rows: Sequence[Mapping[str, Any]]) -> None:
        self._running.pop(cell.cell_id, None)
        self._left.pop(cell.cell_id, None)
        self.done += 1
        if cell.kind == "quality" and rows[0]["status"] == "ok":
            self._note_best(cell, rows[0])
        width = len(str(self.total))
        line = Text(f"[{self.done:{width}}/{self.total}] ", style="dim")
        line.append(f"{cell.label:44}", style="default")
        failed = rows[0]["status"] not in ("ok", "unsupported")
        line.append(outcome_text(rows), style="red" if failed else "default")
        line.append(f"  {duration(float(rows[0]['wall_s']))}", style="dim")
        self.console.print(line, soft_wrap=True)

    def _note_best(self, cell: Cell, row: Mapping[str, Any]) -> None:
        share = (row["score"] - row["floor"]) / (row["ceiling"] - row["floor"])
        if share > self._best.get(str(cell.task), (float("-inf"), ""))[0]:
            text = f"{cell.task} {score_text(row)} {cell.method}"
            self._best[str(cell.task)] = (share, text)

    def _render(self) -> RenderableType:
        now = monotonic()
        elapsed = now - self._began
        parts: list[RenderableType] = []
        for cell, began, note in self._running.values():
            parts.append(Text(f"  {cell.label:44}{now - began:5.0f} s  {note}", style="cyan"))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, self.total), completed=self.done, width=32),
            f"{self.done}/{self.total} cells",
            f"{duration(elapsed)} elapsed",
            f"about {duration(self._remaining(elapsed))} left",
        )
        parts.append(bar)
        if self._best:
            parts.append(Text("best: " + " · ".join(t for _, t in self._best.values()), "green"))
        return Group(*parts)

    def _remaining(self, elapsed: float) -> float:
        """Seconds left: the estimate for what is left, corrected by how it held so far."""
        left = sum(self._left.values())
        under_way = sum(
            min(_weight(cell, self.jobs) * 0.9, monotonic() - began)
            for cell, began, _ in self._running.values()
        )
        finished = self._planned - left
        if finished <= 0.05 * self._planned:
            return max(0.0, left - under_way)
        return max(0.0, left * elapsed / (finished + under_way) - under_way)


def _weight(cell: Cell, jobs: int) -> float:
    seconds = estimate_seconds(cell)
    return seconds / jobs if cell.kind == "quality" else seconds


def show_plan(cells: Sequence[Cell], jobs: int, cores: int) -> None:
    """Print what a run would do, and about what it would take."""
    out = console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("cell", "contexts", "time", "memory"):
        table.add_column(title, justify="left" if title == "cell" else "right")
    for cell in cells:
        contexts = ", ".join(f"{c:,}" for c in cell.contexts)
        table.add_row(
            cell.label,
            contexts,
            f"~{duration(estimate_seconds(cell))}",
            f"~{size(estimate_bytes(cell))}",
        )
    out.print(table)
    total = sum(_weight(cell, jobs) for cell in cells)
    out.print(
        f"{len(cells)} cells, about {duration(total)} with {jobs} quality cells at once on"
        f" {cores} cores. Estimates from operation counts; nothing was run."
    )


def say_interrupted(done: int, total: int, folder: Path) -> None:
    """Say what Ctrl-C left."""
    console().print(
        f"\nStopped. {done} of {total} cells are kept in {folder}; what was under way is not."
        "\nRun the same command again to go on."
    )


def show_results(
    frame: pd.DataFrame, problems: Sequence[tuple[Path, str]], tally: Tally, folder: Path
) -> None:
    """Print the leaderboard of a run and what to do next."""
    out = console()
    show_leaderboard(frame, out)
    show_problems(problems, out)
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(tally.statuses.items()))
    told = (
        f"Measured {tally.measured} cells ({statuses})" if tally.measured else "Nothing to measure"
    )
    out.print(f"\n{told}; {tally.kept} were there before. Results: {tally.sealed or folder}")
    out.print(
        "Next: [bold]lcbench app[/] opens them in a browser;"
        " [bold]lcbench leaderboard[/] prints them again."
    )


def show_problems(problems: Sequence[tuple[Path, str]], out: Console) -> None:
    """Name the files that could not be read."""
    for path, reason in problems:
        out.print(Text(f"{path} was left out: {reason}", style="yellow"))


BOARD_COLUMNS = (
    *("quality", "coverage", "effective_context", "prefill_speed", "train_speed"),
    *("decode_speed", "memory", "state_bytes_per_token", "failed", "pareto"),
)
"""What of `ranking.leaderboard` fits a terminal."""


def show_leaderboard(frame: pd.DataFrame, out: Console) -> None:
    """Print a board for each suite and kind of device, and the scores it is made of."""
    board = ranking.leaderboard(frame)
    if board.empty:
        out.print("No results yet. [bold]lcbench run --method all[/] makes some.")
        return
    board["label"] = ranking.entry_labels(board)
    scores = ranking.task_scores(frame)
    for (suite, device_kind), part in board.groupby(ranking.GROUP):
        out.print()
        out.print(_board_table(f"Leaderboard: {suite} on {device_kind}", part))
        chosen = (scores["suite"] == suite) & (scores["device_kind"] == device_kind)
        if chosen.any():
            out.print(_scores_table(scores[chosen], part))
        out.print(Text(_legend(part), style="dim"))


def _board_table(title: str, board: pd.DataFrame) -> Table:
    table = _table(title)
    columns = {column.name: column for column in ranking.board_columns()}
    table.add_column("Method", no_wrap=True)
    for name in BOARD_COLUMNS:
        column = columns[name]
        unit = f"\n{column.unit}" if column.unit else ""
        table.add_column(f"{column.title}{unit}", justify="right")
    for row in board.to_dict("records"):
        values = [_board_value(row, columns[name]) for name in BOARD_COLUMNS]
        table.add_row(str(row["label"]), *values)
    return table


def _board_value(row: Mapping[Any, Any], column: ranking.BoardColumn) -> str:
    value = row[column.name]
    if pd.isna(value):
        return "–"
    text = f"{value:,.{column.digits or 0}f}"
    if column.name == "quality" and not pd.isna(row["quality_low"]):
        text += f" [{row['quality_low']:.3f}, {row['quality_high']:.3f}]"
    return text


def _scores_table(scores: pd.DataFrame, board: pd.DataFrame) -> Table:
    """Scores in their own units, a column for each task and context, floors below."""
    table = _table("Scores: mean over seeds, in each task's own unit")
    table.add_column("Method", no_wrap=True)
    keys = ["task", "task_config", "train_context", "context"]
    asked = scores[[*keys, "metric", "floor"]].drop_duplicates(keys).sort_values(keys)
    places: list[Any] = asked.to_dict("records")
    for place in places:
        unit = "bits/byte" if place["metric"] == "bits_per_byte" else "%"
        trained = "*" if place["context"] == place["train_context"] else ""
        title = f"{place['task']}, {unit}\nat {place['context']:,}{trained}"
        table.add_column(title, justify="right")
    for entry in board.to_dict("records"):
        own = scores[(scores["method"] == entry["method"]) & (scores["config"] == entry["config"])]
        by_place = {tuple(row[k] for k in keys): row for row in own.to_dict("records")}
        cells = [by_place.get(tuple(place[k] for k in keys)) for place in places]
        table.add_row(str(entry["label"]), *(_score_value(cell) for cell in cells))
    table.add_section()
    floors = [_number(place["floor"], place["metric"]) for place in places]
    table.add_row(Text("floor: a trivial solver", style="dim"), *floors, style="dim")
    return table


def _score_value(cell: Mapping[Any, Any] | None) -> str:
    if cell is None:
        return "–"
    if pd.isna(cell["score"]):
        return "failed"
    return _number(cell["score"], cell["metric"])


def _number(score: float, metric: str) -> str:
    return f"{score:.3f}" if metric == "bits_per_byte" else f"{100 * score:.1f}"


def _legend(board: pd.DataFrame) -> str:
    at = {
        name: "" if pd.isna(value := board[f"{name}_speed_context"].max()) else f" at {value:,.0f}"
        for name in ("prefill", "train", "decode")
    }
    return (
        "Quality: normalised score (0 is the floor, 1 the ceiling), mean over tasks and contexts."
        " Effective context: as far as every task keeps 85 % of its trained-context score;"
        " 0 where one never rose above its floor."
        f"\nSpeed: vanilla's time over the method's, prefill{at['prefill']}, training{at['train']},"
        f" decoding{at['decode']} tokens; above 1 is faster. Memory: peak of a training step over"
        " vanilla's. State: bytes kept a token of context. * trained context."
    )


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )


def show_leaderboard_as(
    form: str, frame: pd.DataFrame, problems: Sequence[tuple[Path, str]]
) -> None:
    """Print the leaderboard as a table, Markdown, CSV or JSON; problems go to standard error."""
    show_problems(problems, Console(stderr=True))
    if form == "table":
        show_leaderboard(frame, console())
        return
    board = ranking.leaderboard(frame)
    if form == "csv":
        print(board.to_csv(index=False), end="")  # noqa: T201 -- data for a pipe
    elif form == "json":
        print(board.to_json(orient="records", indent=2))  # noqa: T201
    else:
        print(_markdown(board))  # noqa: T201


def _markdown(board: pd.DataFrame) -> str:
    columns = {column.name: column for column in ranking.board_columns()}
    names = ["suite", "device_kind", *BOARD_COLUMNS]
    titles = ["Suite", "Device", "Method"]
    titles += [" ".join(filter(None, columns[n][1:3])) for n in BOARD_COLUMNS]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * 3 + " ---: |" * len(BOARD_COLUMNS)]
    for row, label in zip(board.to_dict("records"), ranking.entry_labels(board), strict=True):
        values = [_board_value(row, columns[name]) for name in names[2:]]
        lines.append("| " + " | ".join([row["suite"], row["device_kind"], label, *values]) + " |")
    return "\n".join(lines)


OUTCOME_STYLES = {"pass": "green", "fail": "bold red", "warning": "yellow", "not claimed": "dim"}


def show_findings(name: str, findings: "Sequence[Finding]") -> None:
    """Print what came of a method's conformance check."""
    out = console()
    table = _table(f"Check of {name}")
    table.add_column("Law", no_wrap=True)
    table.add_column("Outcome", no_wrap=True)
    table.add_column("What was seen")
    for finding in findings:
        style = OUTCOME_STYLES[finding.outcome]
        table.add_row(finding.law, Text(finding.outcome, style), Text(finding.detail))
    out.print(table)
    failed = sum(finding.outcome == "fail" for finding in findings)
    out.print(f"{failed} of {len(findings)} laws failed." if failed else "Every law holds.")
