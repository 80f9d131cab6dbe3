"""The Submit page: the way from a file to a pull request, and the rules to hold a file to."""

import pandas as pd
import streamlit as st

from lcbench.app import page
from lcbench.paths import published_results
from lcbench.submission import MOST_BYTES, RULES, Finding, check_content, name_by_rows, read_tree

STEPS = (
    ("Begin with a file that already passes every check", "lcbench new my-method"),
    ("Make it your method: one file, `methods/my_method.py`", None),
    ("Hold it to the contract, within a minute", "lcbench check my-method"),
    ("Measure it beside the anchor", "lcbench run --method vanilla,my-method"),
    ("Gather its rows into one file, held to the rules", "lcbench submit my-method"),
    ("Look at what you would send", "lcbench validate --changed-since origin/main"),
)


def show() -> None:
    """Draw the page."""
    st.header("Submit", anchor=False)
    st.caption("A method enters the leaderboard by one pull request: its file and its results.")
    _show_steps()
    _show_validator()
    with st.expander(f"All {len(RULES)} rules"):
        page.table(pd.DataFrame(RULES.items(), columns=["Rule", "What it holds"]))


def _show_steps() -> None:
    st.subheader("Six steps", anchor=False)
    for number, (what, command) in enumerate(STEPS, 1):
        st.markdown(f"{number}. {what}")
        if command is not None:
            st.code(command, language="shell")
    st.markdown(
        "`lcbench submit` prints the pull request's title, text and git commands. It holds one"
        " method file and one Parquet file, and changes nothing else."
    )


def _show_validator() -> None:
    st.subheader("Hold a file to the rules", anchor=False)
    uploaded = st.file_uploader(
        f"A Parquet file of results, at most {MOST_BYTES:,} bytes",
        type="parquet",
        max_upload_size=1,  # in units of 2**20 bytes
        key="submission",
        help="It is read here and kept nowhere; nothing in it is run.",
    )
    if uploaded is None:
        return
    content = uploaded.read(MOST_BYTES + 1)
    name = name_by_rows(content, uploaded.name)
    findings = check_content(content, name, read_tree(published=published_results()))
    st.markdown(f"Read as {page.code(name)}, held to this copy of lcbench and what it publishes.")
    if findings:
        _show_findings(findings)
    else:
        st.success("No rule is broken.", icon=":material/check_circle:")


def _show_findings(findings: list[Finding]) -> None:
    broken = {finding.rule: RULES[finding.rule] for finding in findings}
    count = len(findings)
    st.error(
        f"{count} fault{'s' if count > 1 else ''}, of {len(broken)} of {len(RULES)} rules.",
        icon=":material/error:",
    )
    columns = {
        "Rule": [finding.rule for finding in findings],
        "Row": pd.array([finding.row for finding in findings], dtype="Int64"),
        "What is wrong": [finding.message for finding in findings],
        "What must be": [broken[finding.rule] for finding in findings],
    }
    page.table(pd.DataFrame(columns))
