"""The benchmark.

The command ``mlbench``: every verb is a plugin of the entry-point group ``mlbench.commands``.
Nothing here imports torch: ``mlbench --help`` and ``mlbench list`` answer at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

from mlbench import __version__, registry
from mlbench.cli.console import refuse
from mlbench.registry import Plugin
from mlbench.types import MlbenchError, PluginError

HELP = "One honest benchmark for multi-label image classification."


def make_app(argv: Iterable[str] = ()) -> typer.Typer:
    """The command line.

    Args:
        argv: the words after ``mlbench``. Where the first one names a command, only that command is
            imported; otherwise all are, for the help.
    """
    app = typer.Typer(
        name="mlbench",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(invoke_without_command=True, help=HELP)
    def _version(
        version: bool = typer.Option(False, "--version", help="Print the version."),
    ) -> None:
        if version:
            typer.echo(__version__)
            raise typer.Exit

    found = registry.plugins("command")
    first = next(iter(argv), None)
    for plugin in [p for p in found if p.name == first] or found:
        _add(app, plugin, [other for other in found if other.name == plugin.name])
    return app


def _add(app: typer.Typer, plugin: Plugin, claims: list[Plugin]) -> None:
    """Add one command; one that cannot be imported is listed with the reason."""
    try:
        registry.refuse_clash(claims)
        loaded = plugin.load()
        panel = _panel(plugin)
    except PluginError as error:
        loaded, panel = _broken(error), "Broken"
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=plugin.name, rich_help_panel=panel)
    else:
        examples = getattr(sys.modules.get(loaded.__module__), "EXAMPLES", None)
        app.command(plugin.name, rich_help_panel=panel, epilog=examples)(loaded)


def _broken(error: PluginError) -> Callable[..., Any]:
    def command() -> None:
        raise error

    command.__doc__ = str(error)
    return command


def _panel(plugin: Plugin) -> str:
    """The heading in the help: what the command's package says of itself in its first line."""
    package, dot, _ = plugin.value.partition(":")[0].rpartition(".")
    said = importlib.import_module(package).__doc__ if dot else None
    return said.splitlines()[0].rstrip(".") if said else plugin.distribution


def main() -> None:
    """Run the command line; wrong use and what a user can mend end in one line and exit code 2."""
    try:
        make_app(sys.argv[1:])(prog_name="mlbench")
    except MlbenchError as error:
        refuse(error)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(0)
