"""What commands are made of: errors a person can act on, places, the ends of help texts."""

from typing import TYPE_CHECKING, Any

import click

from lcbench.config import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lcbench.places import Place
    from lcbench.store import ReadResult

DEVICE_HELP = "Default: the first there is."


class Command(click.Command):
    """A command that tells what a person got wrong in a paragraph, not in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        from lcbench.registry import PluginError

        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from None
        except PluginError as error:
            raise click.ClickException(str(error)) from None


class Group(click.Group):
    """A command group that names the nearest command when one is misspelt.

    Args:
        sections: Titles, and the names of the commands that help lists under each.
    """

    def __init__(self, *args: Any, sections: "Mapping[str, Sequence[str]]", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, section by section."""
        widest = max(len(name) for names in self.sections.values() for name in names)
        for title, names in self.sections.items():
            with formatter.section(title):
                limit = formatter.width - widest - 6
                formatter.write_dl(
                    [
                        (name.ljust(widest), self.commands[name].get_short_help_str(limit))
                        for name in names
                    ]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        name = args[0] if args else ""
        if name and self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(
                f"No such command {name!r}; {did_you_mean(name, self.list_commands(ctx))}", ctx
            )
        return super().resolve_command(ctx, args)


class PlaceType(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A folder or file, or a URL that pyarrow opens.

    Args:
        must_exist: Refuse what is not there.
    """

    name = "place"

    def __init__(self, *, must_exist: bool = False) -> None:
        self.must_exist = must_exist

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Place":
        """Read what was typed."""
        from lcbench.places import read_place

        try:
            place = read_place(value)
            missing = self.must_exist and not place.exists()
        except (UsageError, OSError) as error:
            self.fail(str(error), param, ctx)
        if missing:
            self.fail(f"{value!r} does not exist", param, ctx)
        return place


def examples(*commands: str) -> str:
    """The end of a command's help."""
    lines = "\n".join(f"  lcbench {command}" for command in commands)
    return f"\b\nExamples:\n{lines}"


def read_suite(suite: str | None, results: "Sequence[Place]") -> "ReadResult":
    """The newest rows of one suite or all, of these files and folders or the usual ones."""
    from lcbench import paths, store, tiers

    where = list(results) or [paths.published_results(), paths.local_results()]
    read = tiers.read_rows(where)
    frame = store.latest(read.frame)
    if suite is not None:
        if suite not in set(frame["suite"]):
            raise UsageError(
                f"no results of suite {suite!r}; {did_you_mean(suite, set(frame['suite']))}"
            )
        frame = frame[frame["suite"] == suite]
    return read._replace(frame=frame)
