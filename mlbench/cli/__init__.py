"""The benchmark.

The command ``mlbench``. Every subcommand is a plugin of the entry-point group ``mlbench.commands``.
Nothing here imports torch, so that ``mlbench --help`` and ``mlbench list`` are fast.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

from mlbench import __version__, registry
from mlbench.cli.console import print_error
from mlbench.cli.run import refuse_fields
from mlbench.registry import Plugin
from mlbench.types import MlbenchError, PluginError

HELP = "One honest benchmark for multi-label image classification."


def make_app(argv: Iterable[str] = ()) -> typer.Typer:
    """Make the command line.

    If the first argument is a command, only that is imported; otherwise all are, for the help.

    Raises:
        SuiteError: an option of ``mlbench run`` is one that ``--set`` replaced.
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

    first, *rest = [*argv, ""]
    if first == "run":
        refuse_fields(rest)
    found = registry.plugins("command")
    for plugin in [p for p in found if p.name == first] or found:
        _add(app, plugin)
    return app


def _add(app: typer.Typer, plugin: Plugin) -> None:
    """Add one command; if it cannot be imported or built, list it with the reason."""
    try:
        loaded, panel = registry.find("command", plugin.name).load(), _panel(plugin)
        alone = typer.Typer()
        _register(alone, plugin, loaded, panel)
        with registry.typed_errors([plugin], f"command of {plugin.package} cannot be built"):
            typer.main.get_command(alone)  # raises anything on a signature that it cannot read
    except PluginError as error:
        loaded, panel = _broken(error), "Broken"
    _register(app, plugin, loaded, panel)


def _register(app: typer.Typer, plugin: Plugin, loaded: Any, panel: str) -> None:
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=plugin.name, rich_help_panel=panel)
    else:
        module = sys.modules.get(getattr(loaded, "__module__", ""))
        examples = getattr(module, "EXAMPLES", None)
        # Whatever is typed behind a broken command, the answer is its reason.
        takes = dict.fromkeys(("ignore_unknown_options", "allow_extra_args"), panel == "Broken")
        app.command(plugin.name, rich_help_panel=panel, epilog=examples, context_settings=takes)(
            loaded
        )


def _broken(error: PluginError) -> Callable[..., Any]:
    def command() -> None:
        raise error

    command.__doc__ = str(error)
    return command


def _panel(plugin: Plugin) -> str:
    """Return the heading: the first docstring line, up to a colon, of the command's package."""
    package, dot, _ = plugin.value.partition(":")[0].rpartition(".")
    doc = importlib.import_module(package).__doc__ if dot else None
    return doc.splitlines()[0].partition(":")[0].rstrip(".") if doc else plugin.distribution


def main() -> None:
    """Run the command line; errors that a user can fix print one line and exit with code 2."""
    try:
        make_app(sys.argv[1:])(prog_name="mlbench")
    except SystemExit as end:  # also if the reader closed the output, as `head` does
        sys.exit(0 if isinstance(end.__context__, BrokenPipeError) else end.code)
    except Exception as error:
        if (known := _for_user(error)) is None:
            raise
        print_error(known)
        sys.exit(2)


def _for_user(error: Exception) -> MlbenchError | None:
    """The error if a user can fix it, in our words if it is the system's; else None."""
    if isinstance(error, MlbenchError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # takes what Python writes at its end
        what = error.filename or "standard output or a temporary file"
        return MlbenchError(f"{what} cannot be written ({error.strerror}); make room there")
    if isinstance(error, RuntimeError):
        from mlbench.data.loader import is_out_of_memory

        if is_out_of_memory(error):
            said = ". ".join(str(error).split(". ")[:2])
            remedy = "give a smaller --batch-size if the command takes it, or another --device"
            return MlbenchError(f"{said}; {remedy}")
    return None
