"""The command ``mlbench``: one small file per verb.

Nothing here imports torch at the top: ``mlbench --help`` and ``mlbench list`` answer at once.
"""

from __future__ import annotations

import sys

import typer

from mlbench import __version__
from mlbench.cli.check import check
from mlbench.cli.compare import compare
from mlbench.cli.console import refuse
from mlbench.cli.data import data
from mlbench.cli.evaluate import evaluate
from mlbench.cli.explain import explain
from mlbench.cli.import_ import import_
from mlbench.cli.leaderboard import leaderboard
from mlbench.cli.list import list_plugins
from mlbench.cli.pack import pack
from mlbench.cli.parity import parity
from mlbench.cli.profile import profile
from mlbench.cli.run import run
from mlbench.cli.score import score
from mlbench.cli.show import show
from mlbench.cli.verify import verify
from mlbench.types import MlbenchError

app = typer.Typer(
    name="mlbench",
    help="One honest benchmark for multi-label image classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command(name="list")(list_plugins)
app.command()(show)
app.command()(check)
app.command()(leaderboard)
app.command()(compare)
app.command()(explain)
app.command()(score)
app.command(name="import")(import_)
app.command()(evaluate)
app.command()(parity)
app.command()(pack)
app.command()(verify)
app.command()(profile)
app.add_typer(data, name="data")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """One honest benchmark for multi-label image classification."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; wrong use and what a user can mend end in one line and exit code 2."""
    try:
        app()
    except MlbenchError as error:
        refuse(error)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(0)
