"""The app as a reader meets it: a real server, a real browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from lcbench.app import leaderboard

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright, which is not installed"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need chromium on the PATH"),
]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Below a page's path Streamlit's own client asks for these first, and finds them at the root.
EXPECTED_404 = ("/_stcore/health", "/_stcore/host-config")


@pytest.fixture(scope="module")
def folder(sample: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the results lie that a server shows."""
    made = tmp_path_factory.mktemp("shown")
    sample.write(made)
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Where a server shows the sample, to each test in a session of its own."""
    from lcbench.app import launch

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *launch.arguments(port=port, headless=True)]
    with subprocess.Popen(
        command,
        env={**os.environ, **launch.environment([folder])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            address = f"http://localhost:{port}"
            _wait(f"{address}/_stcore/health")
            yield address
        finally:
            server.terminate()


def _wait(address: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address)
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(url: str, browser: Any) -> Iterator[Any]:
    """A new reader's tab; it fails the test on an error or a request that leaves the machine."""
    page = browser.new_page(base_url=url, viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: _note_error(said, wrong))
    page.on("request", lambda request: _note_foreign(request.url, url, wrong))
    yield page
    page.close()
    assert not wrong


def _note_error(said: Any, wrong: list[str]) -> None:
    if said.type == "error" and not said.location["url"].endswith(EXPECTED_404):
        wrong.append(f"{said.text} {said.location['url']}")


def _note_foreign(address: str, own: str, wrong: list[str]) -> None:
    if not address.startswith((own, own.replace("http", "ws"), "data:", "blob:")):
        wrong.append(f"asked for {address}")


def test_a_reader_browses_filters_shares_and_downloads(
    tab: Any, url: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto("/")
    board = tab.locator("[data-testid=stDataFrame]").first
    board.wait_for()
    cells = board.locator("table[role=grid] td")
    cells.first.wait_for(state="attached")
    shown = cells.all_text_contents()
    assert "vanilla" in shown
    assert "0.494" in shown
    assert max(len(text) for text in shown) < 30

    tab.goto("/?columns=quality&columns=effective_context&only=mqar")
    tab.get_by_text("Everything counts mqar only").wait_for()
    # A file made before it is asked for is gone when the page is drawn anew, and looked for still.
    assert not [address for address in asked if address.startswith(f"{url}/media/")]
    with tab.expect_download() as waiting:
        tab.get_by_role("button", name="Download CSV").click()
    saved = tmp_path_factory.mktemp("downloads") / "board.csv"
    waiting.value.save_as(saved)
    code = "from lcbench.cli import main; main()"
    columns = "quality,quality_low,quality_high,effective_context"
    command = ["leaderboard", "--results", str(folder), "--format", "csv", "--task", "mqar"]
    printed = subprocess.run(
        [sys.executable, "-c", code, *command, "--columns", columns],
        capture_output=True,
        text=True,
        check=True,
    )
    assert saved.read_text() == printed.stdout

    tab.get_by_label("Find a method").fill("window=512")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/*q=window*")
    tab.wait_for_function("document.querySelector('table[role=grid]').rows.length === 2")
    shared = tab.url
    tab.goto("about:blank")
    tab.goto(shared)
    cells.first.wait_for(state="attached")
    assert cells.first.text_content() == "sliding-window:window=512"

    tab.get_by_role("link", name="Trade-off").click()
    tab.wait_for_url("**/trade-off*q=window*")
    tab.wait_for_function("document.querySelectorAll('.textpoint').length === 1")


def test_back_undoes_one_step_at_a_time(tab: Any):
    tab.goto("/")
    tab.get_by_role("heading", name="Leaderboard").wait_for()
    find = tab.get_by_label("Find a method")
    find.fill("recurrence")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/?q=recurrence")
    for link, path in (("Trade-off", "trade-off"), ("Scaling", "scaling")):
        tab.get_by_role("link", name=link).click()
        tab.wait_for_url(f"**/{path}?q=recurrence")
        tab.get_by_role("heading", name=link).wait_for()
    for heading, searched, path in (
        ("Trade-off", "recurrence", "**/trade-off?q=recurrence"),
        ("Leaderboard", "recurrence", "**/?q=recurrence"),
        ("Leaderboard", "", "**/"),
    ):
        tab.go_back()
        tab.wait_for_url(path)
        tab.get_by_role("heading", name=heading).wait_for()
        playwright.expect(find).to_have_value(searched)


@pytest.mark.parametrize("page", leaderboard.PAGES, ids=lambda page: page.module)
def test_every_page_opens_from_a_link_in_both_themes_and_on_a_phone(tab: Any, page: Any):
    for theme, width in (("light", 1400), ("dark", 1400), ("dark", 390)):
        tab.emulate_media(color_scheme=theme)
        tab.set_viewport_size({"width": width, "height": 1000})
        tab.goto(f"/{'' if page is leaderboard.PAGES[0] else page.path}?q=vanilla")
        tab.get_by_role("heading", level=2).first.wait_for()
        tab.locator("[data-testid=stStatusWidget]").wait_for(state="detached")
        assert tab.locator("[data-testid=stException]").count() == 0
        # Tables scroll by themselves; the page must not.
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_every_page_draws_its_chart_and_follows_a_link(tab: Any):
    tab.goto("/")
    for link, path in (("Trade-off", "trade-off"), ("Scaling", "scaling")):
        tab.get_by_role("link", name=link).click()
        tab.wait_for_url(f"**/{path}*")
        tab.get_by_role("heading", name=link).wait_for()
        tab.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    tab.goto("/scaling?quantity=peak_bytes&step=prefill")
    tab.get_by_text("Peak memory, bytes").wait_for()
    legend = tab.locator(".js-plotly-plot .legendtext").all_text_contents()
    assert any("memory ∝ T" in text for text in legend)
    assert tab.get_by_text("out of memory", exact=True).count() == 1
