"""The leaderboard app: in a wheel its files lie here, in a checkout in the top-level `app/`."""

from typing import TYPE_CHECKING

from lcbench.paths import package_path

if TYPE_CHECKING:
    # A type checker does not follow `__path__`; to it the checkout's folder is a package.
    from app import board as board  # noqa: TID251
    from app import card as card  # noqa: TID251
    from app import charts as charts  # noqa: TID251
    from app import compare as compare  # noqa: TID251
    from app import compare_charts as compare_charts  # noqa: TID251
    from app import context_charts as context_charts  # noqa: TID251
    from app import data as data  # noqa: TID251
    from app import launch as launch  # noqa: TID251
    from app import leaderboard as leaderboard  # noqa: TID251
    from app import measurements as measurements  # noqa: TID251
    from app import method as method  # noqa: TID251
    from app import method_charts as method_charts  # noqa: TID251
    from app import page as page  # noqa: TID251
    from app import report as report  # noqa: TID251
    from app import runs as runs  # noqa: TID251
    from app import scaling as scaling  # noqa: TID251
    from app import task_charts as task_charts  # noqa: TID251
    from app import task_example as task_example  # noqa: TID251
    from app import tasks as tasks  # noqa: TID251
    from app import trade_off as trade_off  # noqa: TID251
    from app import trade_off_chart as trade_off_chart  # noqa: TID251
    from app import url as url  # noqa: TID251

__path__ += package_path("app")
