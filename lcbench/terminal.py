"""What a person sees in the terminal: a run's progress, its plan, the leaderboard.

On a terminal one live display moves under the lines of finished cells; elsewhere there are the
lines alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lcbench.confinement import CUT
from lcbench.estimate import estimate_bytes, estimate_seconds
from lcbench.places import Place
from lcbench.plans import tried_plan
from lcbench.runner import Event, Setting, Tally
from lcbench.suite import ANCHOR, Cell
from lcbench.tables import console, new_table, show_leaderboard, show_problems
from lcbench.task import normalise

if TYPE_CHECKING:
    from lcbench.conformance import Finding
    from lcbench.profiling import Profile


TOOK_WIDTH = len("59 min 59 s")


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


def warning_line(warnings: Sequence[str]) -> str:
    """The first of what is wrong with the machine, and how many more; nothing if nothing is."""
    if not warnings:
        return ""
    more = f"; {len(warnings) - 1} more: lcbench env" if warnings[1:] else ""
    return f"Warning: {warnings[0]}{more}"


def score_text(row: Mapping[str, Any]) -> str:
    """A row's score in its metric's unit."""
    if row["metric"] == "bits_per_byte":
        return f"{row['score']:.3f} bits/byte"
    return f"{100 * row['score']:.1f} %"


def floor_text(row: Mapping[str, Any]) -> str:
    """What a trivial solver scores, beside a score."""
    if row["metric"] == "bits_per_byte":
        return f"unigram {row['floor']:.3f}"
    return f"floor {100 * row['floor']:.1f}"


def outcome_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A finished cell in one line."""
    first = rows[0]
    if first["status"] != "ok":
        stage = f" in {first['stage']}" if first.get("stage") else ""
        return f"{first['status']}{stage}: {first.get('error') or 'no reason given'}"
    if first["kind"] == "quality":
        # Longer contexts may have run out of memory or time beside shorter ones that stand.
        scores = " / ".join(
            score_text(row).partition(" ")[0] if row["status"] == "ok" else str(row["status"])
            for row in rows
        )
        unit = score_text(first).partition(" ")[2]
        contexts = " / ".join(f"{row['context']:,}" for row in rows)
        return f"{scores} {unit} at {contexts}, {floor_text(first)}"
    text = f"{first['tokens_per_s']:,.0f} tokens/s"
    if first["method"] != ANCHOR and first.get("vs_vanilla") is not None:
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
        self._label_width = max(len(cell.label) for cell in cells)
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
        if warning := warning_line(setting.warnings):
            self.console.print(Text(warning, style="yellow"), soft_wrap=True)
        if setting.network != CUT:
            self.console.print(f"Methods run with the network {setting.network}.", soft_wrap=True)
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
            self.console.print(
                Text(f"{method} cannot be loaded, its cells are failures: {error}", "red")
            )

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began to measure."""
        return monotonic() - self._began

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
        elif event.topic == "shared":
            self._share(event.cell)
        elif event.topic == "waiting":
            self.console.print(f"Waiting with {event.cell.label}: {event.value}.")
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
        line.append(f"{duration(float(rows[0]['wall_s'])):>{TOOK_WIDTH}}  ", style="dim")
        line.append(f"{cell.label:{self._label_width}}  ", style="default")
        failed = rows[0]["status"] not in ("ok", "unsupported")
        line.append(outcome_text(rows), style="red" if failed else "default")
        self.console.print(line, soft_wrap=True)

    def _share(self, cell: Cell) -> None:
        self._left.pop(cell.cell_id, None)
        self.done += 1
        width = len(str(self.total))
        place = f"[{self.done:{width}}/{self.total}] {'':{TOOK_WIDTH}}"
        text = f"{place}  {cell.label:{self._label_width}}"
        self.console.print(Text(f"{text}  measured by the other run", "dim"), soft_wrap=True)

    def _note_best(self, cell: Cell, row: Mapping[str, Any]) -> None:
        share = normalise(row["score"], row["floor"], row["ceiling"])
        if share > self._best.get(str(cell.task), (float("-inf"), ""))[0]:
            text = f"{cell.task} {score_text(row)} {cell.method}"
            self._best[str(cell.task)] = (share, text)

    def _render(self) -> RenderableType:
        now = monotonic()
        elapsed = now - self._began
        parts: list[RenderableType] = []
        # Copies: this runs in the display's own thread.
        for cell, began, note in list(self._running.values()):
            text = f"{now - began:10.0f} s  {cell.label:{self._label_width}}  {note}"
            parts.append(Text(text, style="cyan", no_wrap=True, overflow="ellipsis"))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, self.total), completed=self.done, width=32),
            f"{self.done}/{self.total} cells",
            f"{duration(elapsed)} elapsed",
            f"about {duration(self._remaining(elapsed))} left",
        )
        parts.append(bar)
        if self._best:
            parts.append(
                Text("best: " + " · ".join(t for _, t in list(self._best.values())), "green")
            )
        return Group(*parts)

    def _remaining(self, elapsed: float) -> float:
        """Seconds left: the estimate for what is left, corrected by how it held so far."""
        left = sum(list(self._left.values()))
        under_way = sum(
            min(_weight(cell, self.jobs) * 0.9, monotonic() - began)
            for cell, began, _ in list(self._running.values())
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


def say_interrupted(done: int, total: int, folder: Place) -> None:
    """Say what Ctrl-C or SIGTERM left."""
    console().print(
        f"\nStopped. {done} of {total} cells are kept in {folder}; what was under way is not."
        "\nRun the same command again to go on."
    )


def show_results(
    frame: pd.DataFrame,
    problems: Sequence[tuple[Place, str]],
    tally: Tally,
    folder: Place,
    elapsed_s: float,
) -> None:
    """Print the leaderboard of a run and what to do next."""
    out = console()
    show_leaderboard(frame, out, tried_plan(frame))
    show_problems(problems, out)
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(tally.statuses.items()))
    took = f"Measured {tally.measured} cells in {duration(elapsed_s)} ({statuses})"
    told = took if tally.measured else "Nothing to measure"
    shared = f" {tally.shared} were measured by another run." if tally.shared else ""
    out.print(
        f"\n{told}; {tally.kept} were there before.{shared} Results: {tally.sealed or folder}",
        soft_wrap=True,
    )
    if tally.left_to_another:
        out.print("Another run still measures there; it seals the results when it is done.")
    if tally.missing:
        out.print(
            Text(
                f"{tally.missing} finished cells are gone from {folder}: somebody removed them"
                " while the run went on. The same command measures them again.",
                "red",
            ),
            soft_wrap=True,
        )
    out.print(
        "Next: [bold]lcbench app[/] opens them in a browser;"
        " [bold]lcbench leaderboard[/] prints them again."
    )


def show_profile(cell: Cell, profile: "Profile") -> None:
    """Print the operations a cell spent most of its time in, and where the trace lies."""
    out = console()
    table = new_table(f"{cell.label}: {profile.what}, {profile.total_ms:,.1f} ms of operations")
    for title in ("Operation", "Calls", "ms", "Share"):
        table.add_column(title, justify="left" if title == "Operation" else "right")
    for operation in profile.operations:
        share = operation.self_ms / profile.total_ms if profile.total_ms else 0.0
        ms = f"{operation.self_ms:,.2f}"
        table.add_row(Text(operation.name), f"{operation.calls:,}", ms, f"{100 * share:.1f} %")
    out.print(table)
    out.print(
        f"Trace: {profile.path}\nOpen it in https://ui.perfetto.dev or chrome://tracing. No row was"
        " recorded: a profiled call is slower than others.",
        soft_wrap=True,
    )


OUTCOME_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "warning": "yellow",
    "not claimed": "dim",
    "undecided": "bold yellow",
}


def show_findings(name: str, findings: "Sequence[Finding]") -> None:
    """Print what came of a method's conformance check."""
    out = console()
    table = new_table(f"Check of {name}")
    table.add_column("Law", no_wrap=True)
    table.add_column("Outcome", no_wrap=True)
    table.add_column("What was seen")
    for finding in findings:
        style = OUTCOME_STYLES[finding.outcome]
        table.add_row(finding.law, Text(finding.outcome, style), Text(finding.detail))
    out.print(table)
    counts = Counter(finding.outcome for finding in findings)
    told = [f"{counts['fail']} of {len(findings)} laws failed."] if counts["fail"] else []
    if counts["undecided"]:
        told.append(f"{counts['undecided']} could not be decided in time; --timeout gives more.")
    out.print(" ".join(told) or "Every law that is claimed holds.")
