"""Seconds from opening the Board to its first rows, and from a filter's change to new ones.

`python -m tests.bench.app_in_browser` starts the app on 100,000 rows (or, with a folder, on what
lies there), opens it once to warm the server, and prints the median and worst of some repeats in
Chromium. What Chromium takes to load Streamlit's own client is part of the first number.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from lcbench.app import launch
from tests.bench.test_store_bench import write_rows

CELL = "[data-testid=stDataFrame] table[role=grid] td"
REPEATS = 7
FILTERS = ("task", "search")


@contextmanager
def server(results: Path) -> Iterator[str]:
    """The address of an app that shows some results."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *launch.arguments(port=port, headless=True)]
    environment = {**os.environ, **launch.environment([results])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
        try:
            yield f"http://localhost:{port}"
        finally:
            running.terminate()


def seconds(act: Callable[[], object], tab: Any, done: str) -> float:
    """From an act to when a condition in the page holds."""
    start = time.perf_counter()
    act()
    tab.wait_for_function(done)
    return time.perf_counter() - start


def open_board(tab: Any, address: str) -> float:
    """Seconds from asking for the page to a board with numbers."""
    tab.goto("about:blank")
    return seconds(
        lambda: tab.goto(address), tab, f"document.querySelectorAll('{CELL}').length > 9"
    )


def change(tab: Any, what: str, number: int) -> float:
    """Seconds from a reader's choice to a board that shows it, a different one each time."""
    before = tab.locator(CELL).all_text_contents()[:40]
    differs = (
        f"[...document.querySelectorAll('{CELL}')].slice(0, 40).map(c => c.textContent).join()"
        f" !== {before!r}.join()"
    )
    if what == "search":
        tab.get_by_label("Find a method").fill(f"method-{number + 2}")
        return seconds(lambda: tab.keyboard.press("Enter"), tab, differs)
    tab.get_by_label("Task", exact=True).first.click()
    options = tab.get_by_role("option")
    options.nth(number + 1).wait_for()
    return seconds(lambda: options.nth(number + 1).click(), tab, differs)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", help="a folder of results")
    results = parser.parse_args().results
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        if results is None:
            results = write_rows(Path(folder)).parent
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(60_000)
        with server(results) as address:
            wait_for(address)
            open_board(tab, address)
            tell("open", [open_board(tab, address) for _ in range(REPEATS)])
            for what in FILTERS:
                open_board(tab, address)
                tell(what, [change(tab, what, number) for number in range(REPEATS)])
        browser.close()


def wait_for(address: str) -> None:
    """Return when the server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"no app answers at {address}")


def tell(what: str, taken: list[float]) -> None:
    """Print a line of what was measured."""
    print(f"{what:7} median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s")  # noqa: T201


if __name__ == "__main__":
    main()
