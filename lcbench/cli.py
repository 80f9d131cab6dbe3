"""The command line. A command imports what it needs in its body, so help and listings are quick."""

import click

from lcbench import __version__, cli_browse, cli_contribute, cli_measure
from lcbench.command import Group

SECTIONS = {
    "Measure": (cli_measure.run, cli_measure.status, cli_measure.merge, cli_measure.env),
    "Browse": (
        *(cli_browse.leaderboard, cli_browse.compare, cli_browse.app, cli_browse.report),
        *(cli_browse.methods, cli_browse.tasks, cli_browse.suites),
    ),
    "Contribute": (
        *(cli_contribute.new, cli_contribute.check, cli_contribute.submit),
        *(cli_contribute.validate, cli_contribute.verify, cli_contribute.review),
    ),
}
"""The commands, as help shows them."""


@click.group(
    cls=Group,
    sections={name: [str(c.name) for c in commands] for name, commands in SECTIONS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nTo start:\n"
    "  lcbench run --method all          measure every method, then show the leaderboard\n"
    "  lcbench leaderboard               show what has been measured\n"
    "  lcbench methods sliding-window    one method in detail",
)
@click.version_option(__version__, prog_name="lcbench")
def main() -> None:
    """Tell how far back a sequence-mixing method really sees, and what each token of that costs."""


for section in SECTIONS.values():
    for command in section:
        main.add_command(command)


if __name__ == "__main__":
    main()
