"""The Method page: a method's card, all that was measured of it, and how to measure it again."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from lcbench import ranking, registry
from lcbench.app import card, charts, data, measurements, method_charts, page, tasks, url
from lcbench.suite import ANCHOR

SHEETS = Path(__file__).resolve().with_name("methods.json")
"""What every method declares and its measured pictures; `make docs` writes it."""
ALL = "all"
CAPTION = (
    "Who sees whom in one layer, measured: a filled square where the output of the row's token "
    "moves when the column's token changes. Sizes are scaled down for it."
)
TITLES = {
    "method_hash": "method hash", "task_hash": "task hash", "data_hash": "corpus hash",
    "harness_hash": "harness hash",
    "lcbench_version": "lcbench", "dirty": "local changes", "run_id": "run", "cell_id": "cell",
    "env_id": "environment", "device_bytes": "device memory", "ram_bytes": "memory",
    "huge_pages": "huge pages", "omp_wait_policy": "waiting threads", "os": "system",
    "memory_source": "memory counted by",
}  # fmt: skip


def show() -> None:
    """Draw the page."""
    results = page.open_results(
        "Method", "What a method is, all that was measured of it, and how to measure it again."
    )
    sheets = load_sheets()
    name = url.choose("Method", method_names(results, sheets), "method", width=320)
    labels = results.board.loc[results.board["method"] == name, "label"]
    color = results.styles[labels.iloc[0]].color if len(labels) else charts.NEUTRAL
    if name in sheets:
        _show_card(sheets[name], color)
    else:
        _show_no_card(name)
    rows = measurements.load_measurements(results, name)
    if rows.empty:
        st.info("Nothing was measured of it yet:", icon=":material/hide_source:")
        st.code(f"lcbench run --method {name}", language=None)
        return
    _show_scores(data.load_scores(results), name)
    _show_costs(data.load_comparable(results), name)
    _show_failures(rows)
    _show_numbers(rows)


@functools.cache
def load_sheets() -> dict[str, dict[str, Any]]:
    """What is kept of each method, by name."""
    return {sheet["name"]: sheet for sheet in json.loads(SHEETS.read_text(encoding="utf-8"))}


def method_names(results: data.Results, sheets: Mapping[str, Any]) -> list[str]:
    """Methods that have results, then those that have a card alone; the anchor first."""
    measured = set(results.board["method"])
    return sorted(measured | set(sheets), key=lambda m: (m not in measured, m != ANCHOR, m))


def scores_table(scores: pd.DataFrame) -> Styler:
    """Scores of a method everywhere, in each task's own unit beside its floor."""
    keys = ["suite", "device_kind", "label", "task", "train_context", "context"]
    scores = scores.sort_values(keys)
    places = scores[ranking.TASK].drop_duplicates()
    titles = dict(
        zip(
            places.itertuples(index=False, name=None),
            tasks.short_titles(places.to_dict("records")),
            strict=True,
        )
    )
    rows = scores.to_dict("records")
    shown = pd.DataFrame(
        {
            "Suite": scores["suite"],
            "Device": scores["device_kind"],
            "Method": scores["label"],
            "Task": [titles[tuple(row[name] for name in ranking.TASK)] for row in rows],
            "Trained at": scores["train_context"],
            "Context": scores["context"],
            "Score": [measurements.score_text(row["metric"], row["score"]) for row in rows],
            "Floor": [measurements.score_text(row["metric"], row["floor"]) for row in rows],
            "Normalised": scores["normalised"].round(3),
            "95 % interval": [f"{row['low']:.3f}–{row['high']:.3f}" for row in rows],
            "Seeds": scores["num_seeds"],
        }
    ).reset_index(drop=True)
    tokens: dict[Any, Any] = dict.fromkeys(("Trained at", "Context"), "{:,}")
    return shown.style.format(tokens | {"Normalised": "{:.3f}"}, na_rep=page.MISSING)


def costs_table(rows: pd.DataFrame) -> Styler:
    """Times and memory of a method everywhere, the ladder's rungs in order."""
    rows = rows.sort_values(["suite", "device_kind", "label", "kind", "context"])
    shown = pd.DataFrame(
        {
            "Suite": rows["suite"],
            "Device": rows["device_kind"],
            "Method": rows["label"],
            "Step": rows["kind"].map(charts.KIND_TITLES),
            "Context": rows["context"],
            "Median (ms)": rows["step_ms"].round(3),
            "Tokens/s": rows["tokens_per_s"].round(0),
            "Speed": rows["vs_vanilla"].round(2),
            "Peak": rows["peak_bytes"],
            "State": rows["state_bytes"],
        }
    ).reset_index(drop=True)
    formats: dict[Any, Any] = {
        "Median (ms)": measurements.time_text,
        "Tokens/s": "{:,.0f}",
        "Speed": "{:.2f}×",
    }
    formats |= {"Context": "{:,}"} | dict.fromkeys(("Peak", "State"), charts.size_text)
    return shown.style.format(formats, na_rep=page.MISSING)


def failures_table(rows: pd.DataFrame) -> Styler:
    """What gave no value when last tried, and why; a method's own limits come last."""
    failed = rows[(rows["status"] != "ok") & rows["is_newest"]]
    failed = failed.assign(limit=failed["status"] == "unsupported")
    failed = failed.sort_values(["limit", "suite", "label", measurements.MEASURED, "context"])
    shown = pd.DataFrame(
        {
            "Suite": failed["suite"],
            "Device": failed["device_kind"],
            "Method": failed["label"],
            "Measurement": failed[measurements.MEASURED],
            "Context": failed["context"],
            "Seed": failed["seed"],
            "Status": failed["value"],
            "Stage": failed["stage"],
            "Reason": failed["error"],
        }
    ).reset_index(drop=True)
    return shown.style.format({"Context": "{:,}"}, na_rep=page.MISSING)


def told_of(row: Mapping[Any, Any], names: Sequence[str]) -> pd.DataFrame:
    """Columns of a row in words, those that are null left out."""
    told = [(TITLES.get(name, name), _text(name, row[name])) for name in names]
    return pd.DataFrame([pair for pair in told if pair[1]], columns=["", " "])


def _text(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return charts.size_text(float(value)) if name.endswith("_bytes") else str(value)


def _show_card(sheet: Mapping[str, Any], color: str) -> None:
    told, drawn = st.columns([3, 2], gap="large")
    with told:
        st.subheader(sheet["title"], anchor=False)
        st.markdown(sheet["summary"])
        paper = sheet["paper"]
        st.link_button(
            f"{paper['title']} ({paper['year']})",
            f"https://arxiv.org/abs/{paper['arxiv']}",
            icon=":material/article:",
            type="tertiary",
        )
        st.code(sheet["equation"], language=None, wrap_lines=True)
        card.facts(sheet["facts"])
        if sheet["config"]:
            st.caption("Config fields and their defaults")
            fields = sheet["config"]
            card.facts({f"{f['name']}={f['value']}": f"{f['doc']} ({f['type']})" for f in fields})
    with drawn:
        for number, picture in enumerate(sheet["pictures"]):
            at = ": ".join(filter(None, (picture["part"], picture["config"])))
            st.plotly_chart(
                method_charts.attention(picture["rows"], color),
                config=charts.CONFIG,
                key=f"picture-{number}",
                alt="Who sees whom",
            )
            st.caption(f"At {page.code(at)}." if at else "At its defaults.")
        st.caption(CAPTION)


def _show_no_card(name: str) -> None:
    """What there is to tell of a method that did not come with this copy of lcbench."""
    st.subheader(page.code(name), anchor=False)
    if name in registry.sources("method"):
        st.markdown(page.code(registry.headline("method", name).summary))
        st.caption(
            "A file of this machine's own. Its card with its picture: "
            + page.code(f"lcbench methods {name}")
        )
        return
    st.info(
        "Known from its results alone: its file did not come with this copy of lcbench, so there"
        " is no card and no picture of it.",
        icon=":material/extension_off:",
    )


def _show_scores(scores: pd.DataFrame, name: str) -> None:
    own = scores[scores["method"] == name]
    if own.empty:
        return
    st.subheader("Scores", anchor=False)
    st.caption("Mean over seeds, in each task's own unit. Normalised: 0 is the floor, 1 perfect.")
    page.table(scores_table(own), alt="Scores everywhere")


def _show_costs(rows: pd.DataFrame, name: str) -> None:
    own = rows[(rows["method"] == name) & (rows["kind"] != "quality") & (rows["status"] == "ok")]
    if own.empty:
        return
    st.subheader("Costs", anchor=False)
    st.caption("Of one layer. Speed is vanilla's time over the method's, timed in the same breath.")
    page.table(costs_table(own), alt="Costs everywhere")


def _show_failures(rows: pd.DataFrame) -> None:
    newest = int(rows["is_newest"].sum())
    failures = failures_table(rows)
    st.subheader("Failures", anchor=False)
    if failures.index.empty:
        st.caption(f"None: all {newest:,} measurements gave a value.")
        return
    st.caption(f"{len(failures.index):,} of {newest:,} measurements gave no value.")
    page.table(failures, alt="Failures")


def _show_numbers(rows: pd.DataFrame) -> None:
    st.subheader("Measure it again", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for label, column, key in (
            ("Suite", "suite", "in_suite"),
            ("Measurement", measurements.MEASURED, "in_measurement"),
            ("Context", "context", "in_context"),
        ):
            offered = [ALL, *sorted(rows[column].unique())]
            chosen = url.choose(label, offered, key, width=180)
            rows = rows if chosen == ALL else rows[rows[column] == chosen]
    told = dict(zip(rows["id"], map(_number_title, rows.to_dict("records")), strict=True))
    identity = url.choose("Number", list(told), "row", told.__getitem__)
    _show_number(rows[rows["id"] == identity].iloc[0].to_dict())
    with st.expander(f"All {len(rows):,} of these with their commands"):
        page.table(_numbers_table(rows), alt="Every measurement")


def _number_title(row: Mapping[Any, Any]) -> str:
    seed = "" if row["kind"] != "quality" else f" · seed {row['seed']}"
    return (
        f"{row['label']} · {row['suite']} · {row[measurements.MEASURED]} at {row['context']:,}"
        f"{seed} · {row['device_kind']}: {row['value']}"
    )


def _show_number(row: Mapping[Any, Any]) -> None:
    st.code(row["command"], language=None, wrap_lines=True)
    counted = "" if row["counts"] else " The leaderboard counts newer ones in its place."
    st.caption(
        f"Measured {row['started_at']:%Y-%m-%d %H:%M} UTC. The same code gives the same cell:"
        f" check its commit out to get back to it.{counted}"
    )
    if row["error"] is not None and not pd.isna(row["error"]):
        st.markdown("Reason: " + page.code(row["error"]))
    if row["warning"] is not None and not pd.isna(row["warning"]):
        st.markdown("Warning: " + page.code(row["warning"]))
    for place, title, names in zip(
        st.columns(2),
        ("Code", "Machine"),
        (measurements.CODE, measurements.MACHINE),
        strict=True,
    ):
        with place:
            st.caption(title)
            page.table(told_of(row, names), alt=title, height="content")


def _numbers_table(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Measured": rows[measurements.MEASURED],
            "Context": rows["context"],
            "Seed": rows["seed"],
            "Value": rows["value"],
            "Counts": rows["counts"],
            "Command": rows["command"],
            "Suite": rows["suite"],
            "Method": rows["label"],
            "Device": rows["device"].fillna(rows["device_kind"]),
            "Environment": rows["env_id"],
            "Method hash": rows["method_hash"],
            "Commit": rows["commit"],
            "Started": rows["started_at"],
        }
    )
