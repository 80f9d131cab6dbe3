"""The Tasks page: which method can do what, how far it carries, and what is asked at all."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lcbench import ranking, registry
from lcbench.app import (
    card,
    charts,
    context_charts,
    data,
    page,
    scaling,
    task_charts,
    task_example,
    url,
)
from lcbench.config import UsageError
from lcbench.registry import PluginError

OVER = {"steps": "steps", "seconds": "seconds of training"}
TRAINED = "trained"
"""The choice of each task's trained context, in place of one context for all."""
FACTS = {
    "title": "task",
    "family": "family",
    "metric": "metric",
    "floor_solver": "floor",
    "source": "source",
    "oracle": "oracle",
}
"""What is told of what a task declares, and how it is called."""


def show() -> None:
    """Draw the page."""
    view = page.open_page(
        "Tasks",
        "Who can do what, how far beyond the trained context it holds, and what a task looks like.",
    )
    scores = view.part(data.load_scores(view.results))
    rows = view.part(data.load_comparable(view.results))
    if scores.empty:
        st.info("No task was scored here.", icon=":material/hide_source:")
        return
    places = scores[ranking.TASK].drop_duplicates().sort_values(ranking.TASK)
    places["title"] = short_titles(places.to_dict("records"))
    scores = scores.merge(places, on=ranking.TASK)
    failures = rows[(rows["kind"] == "quality") & (rows["status"] != "ok")]
    failures = failures.merge(places, on=ranking.TASK)
    _show_map(view, scores, failures)
    title = url.choose("Task", list(places["title"]), "task", width=320)
    place = places[places["title"] == title].iloc[0]
    _show_curve(view, scores[scores["title"] == title], failures[failures["title"] == title])
    _show_generated(view, title, places)
    curves = view.part(data.load_learning_curves(view.results)).merge(places, on=ranking.TASK)
    _show_learning(view, curves[curves["title"] == title])
    _show_example(view.suite, str(place["task"]), str(place["task_config"]))


def short_titles(places: Sequence[dict[Any, Any]]) -> list[str]:
    """A name for each row of `ranking.TASK`: the task's alone where there is one of it."""
    count = Counter(place["task"] for place in places)
    full = charts.task_names(places)
    return [
        str(place["task"]) if count[place["task"]] == 1 else name
        for place, name in zip(places, full, strict=True)
    ]


def at_context(frame: pd.DataFrame, context: int | str) -> pd.DataFrame:
    """The rows at a context, or at the one that each task is trained at."""
    wanted = frame["train_context"] if context == TRAINED else context
    return frame[frame["context"] == wanted]


def planned_overrides(suite: str, task: str, config: str) -> tuple[tuple[str, str], ...] | None:
    """The overrides at which an installed suite asks a task so configured, None if it does not.

    What a results file says of a config is compared and never used: it may be of any size.
    """
    try:
        spec = registry.load_task(task)
        for plan in registry.load_suite(suite).tasks:
            if plan.task == task and spec.config().override(plan.config).canonical() == config:
                return tuple(plan.config.items())
    except (UsageError, PluginError):
        return None
    return () if spec.config().canonical() == config else None


def _show_map(view: page.View, scores: pd.DataFrame, failures: pd.DataFrame) -> None:
    contexts = sorted(int(context) for context in scores["context"].unique())
    context = url.choose(
        "At context",
        [TRAINED, *contexts],
        "context",
        lambda c: "trained context of each task" if c == TRAINED else f"{c:,} tokens",
        width=260,
    )
    here = at_context(scores, context)
    if here.empty:
        st.info("Nothing was scored at this context.", icon=":material/hide_source:")
        return
    labels, tasks = list(view.styles), sorted(here["title"].unique())
    squares = task_charts.squares(here, at_context(failures, context), labels, tasks)
    figure = task_charts.heat_map(squares, labels, tasks, view.styles)
    st.plotly_chart(figure, config=charts.CONFIG, alt="Normalised score by method and task")
    st.caption(
        f"Normalised: 0 is the best trivial solver, 1 is perfect. {task_charts.FAILED_SIGN} failed"
        f" (beside a number: some seeds did, and count 0), {task_charts.MISSING_SIGN} not measured."
    )


def _show_curve(view: page.View, scores: pd.DataFrame, failures: pd.DataFrame) -> None:
    failures = scaling.failed(failures)
    figure = context_charts.score_curve(scores, failures, view.styles)
    task_charts.mark_trained(figure, sorted(scores["train_context"].unique()))
    st.plotly_chart(figure, config=charts.CONFIG, alt="Score against context")
    st.caption("Mean over seeds. The dashed line is the trained context, the dotted one the floor.")


def _show_generated(view: page.View, title: str, places: pd.DataFrame) -> None:
    passages = view.part(data.load_generated_scores(view.results))
    passages = passages.merge(places, on=ranking.TASK)
    passages = passages[passages["title"] == title]
    if passages.empty:
        return
    st.caption("Passages that the models wrote by themselves, going on from their own words.")
    page.table(generated_table(passages), alt="Passages that the models wrote")


def generated_table(passages: pd.DataFrame) -> pd.DataFrame:
    """Lines of `ranking.generated_scores` as they are shown."""
    passages = passages.sort_values(["label", "context"])
    return pd.DataFrame(
        {
            "Method": passages["label"],
            "Context": passages["context"],
            "Exactly right (%)": (100 * passages["generated_exact_match"]).round(1),
            "chrF": passages["generated_chrf"].round(1),
            "Passages": passages["num_generated"].astype("int64"),
        }
    )


def _show_learning(view: page.View, curves: pd.DataFrame) -> None:
    if curves.empty:
        st.caption("No learning curve was kept of this task: runs of an older lcbench have none.")
        return
    over = url.choose("Learning curve over", list(OVER), "over", OVER.__getitem__, width=260)
    machines = curves.groupby(ranking.MACHINE, dropna=False).ngroup()
    told = (
        "Training loss within each span of the steps, mean over seeds; no score. It may rise in the"
        " first half, where contexts climb to the trained one and recall gets harder."
    )
    if over == "seconds":
        # Where most entries were trained; of equals the first.
        most = curves.groupby(machines)["label"].nunique().idxmax()
        curves = curves[machines == most]
        told += (
            " Where one line ends, others are in the midst of a training planned for longer, their"
            " learning rates still high: that is not what they would reach if planned for the time."
        )
        number = len(set(machines))
        if number > 1:
            device = page.code(curves["device"].iloc[0])
            told += f" Seconds of one of {number} machines alone: {device}."
    means = data.with_labels(ranking.mean_curves(curves), view.results)
    figure = task_charts.learning_curve(means, over, view.styles)
    st.plotly_chart(figure, config=charts.CONFIG, alt=f"Training loss against {over}")
    st.caption(told)


def _show_example(suite: str, task: str, config: str) -> None:
    known = registry.sources("task")
    if task not in known:
        st.info(
            f"Task {page.code(task)} is not installed here, so there is no example of it to show.",
            icon=":material/extension_off:",
        )
        return
    overrides = planned_overrides(suite, task, config)
    st.subheader("An example", anchor=False)
    told = registry.headline("task", task)
    st.caption(told.summary)
    try:
        example = task_example.load_example(task, overrides or ())
    except task_example.NoExampleError as error:
        st.warning(f"No example: {page.code(error)}", icon=":material/error:")
        return
    if legend := task_example.legend_html(example):
        st.html(legend)
    st.html(task_example.example_html(example))
    configured = "as the suite asks it" if overrides is not None else "at the task's defaults"
    st.caption(f"{example.context:,} tokens, {configured} but for the length.")
    fields = {name: str(told.fields.get(name, "")) for name in FACTS}
    fields["metric"] = fields["metric"].replace("_", " ")
    card.facts({title: fields[name] for name, title in FACTS.items()})
