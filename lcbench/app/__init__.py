"""The leaderboard app: in a wheel its files lie here, in a checkout in the top-level `app/`."""

from lcbench.paths import package_path

__path__ += package_path("app")
