"""How the app is started: the command line and what it is told through the environment.

`lcbench app` runs `[sys.executable, *arguments()]` with `environment(results)` added to its own.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULTS = "LCBENCH_RESULTS"
"""Environment variable naming the files and folders to read, separated by `os.pathsep`."""
ENTRY = Path(__file__).resolve().with_name("leaderboard.py")
"""The script that Streamlit runs."""

_SETTINGS = {
    "browser.gatherUsageStats": "false",
    "server.showEmailPrompt": "false",
    "server.fileWatcherType": "none",
    "runner.magicEnabled": "false",
    "client.toolbarMode": "minimal",
    "theme.baseRadius": "0.375rem",
    "theme.paddingTop": "1.5rem",
    "theme.headingFontSizes": '["1.75rem", "1.75rem", "1.25rem"]',
    "theme.light.primaryColor": "#0072b2",
    "theme.light.textColor": "#1c2430",
    "theme.light.secondaryBackgroundColor": "#f2f5f9",
    "theme.light.dataframeHeaderBackgroundColor": "#f2f5f9",
    "theme.dark.primaryColor": "#56b4e9",
    "theme.dark.backgroundColor": "#11161d",
    "theme.dark.secondaryBackgroundColor": "#1b232d",
    "theme.dark.dataframeHeaderBackgroundColor": "#1b232d",
}


def arguments(
    *, address: str = "localhost", port: int | None = None, headless: bool = False
) -> list[str]:
    """What follows the interpreter on the command line.

    Args:
        address: What the server binds to; anything but `localhost` lets others in.
        port: Where it listens. By default the first free one from 8501.
        headless: Start no browser.
    """
    settings = {**_SETTINGS, "server.address": address}
    if port is not None:
        settings["server.port"] = str(port)
    if headless:
        settings["server.headless"] = "true"
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return ["-m", "streamlit", "run", str(ENTRY), *flags]


def environment(results: Sequence[Path]) -> Mapping[str, str]:
    """The variables that tell the app what to read; none for published and local results."""
    if not results:
        return {}
    return {RESULTS: os.pathsep.join(str(path.resolve()) for path in results)}
