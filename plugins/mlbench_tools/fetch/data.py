"""``mlbench data``: what there is, and to fetch, verify, count and draw it."""

from __future__ import annotations

import typer

from mlbench_tools.fetch.fetching import fetch
from mlbench_tools.fetch.look import list_, show, stats
from mlbench_tools.fetch.verify_images import split, verify

data = typer.Typer(
    help="Fetch, verify, count and look at data sets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data.command(name="list")(list_)
for command in (fetch, verify, split, stats, show):
    data.command()(command)
