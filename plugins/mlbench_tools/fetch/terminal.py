"""Arguments, data sets and output of the commands under ``mlbench data``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from mlbench import registry
from mlbench.cli.console import cache_folder, console, data_folder, errors, plain_table, writing
from mlbench.text import named_values
from mlbench.types import PluginError, SuiteError

if TYPE_CHECKING:
    from PIL import Image

    from mlbench.types import DatasetCard, Splits
    from mlbench_tools.fetch.unpack import OnProgress

Name = Annotated[str, typer.Argument(help="Name of a data set.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset-option",
        "--option",
        help="Option of the data set, NAME=VALUE, e.g. year=2014. May be repeated.",
    ),
]


def card_of(name: str) -> DatasetCard:
    """The card of a data set, whose files may be missing; raise PluginError without a card."""
    card = registry.dataset_card(registry.find("dataset", name))
    if card is None:
        raise PluginError(f"dataset {name!r} has no card, so nothing is known of its archives")
    return card


def open_dataset(
    name: str, root: Path | None, option: list[str] | None, *, validation: bool = False
) -> Splits:
    """Open a data set; missing images are no error, as these commands are to find them."""
    from mlbench.data.open import Subset, open_splits

    subset = Subset(validation=validation, allow_missing=True)
    given = named_values(option or ())
    return open_splits(name, given, root or data_folder(), cache_folder(), subset)


def as_typed(name: str, root: Path | None, option: Iterable[str] | None = ()) -> str:
    """The arguments of a shell that name a data set, its folder and its options again."""
    folder = ["--data", str(root)] if root else []
    return shlex.join([name, *folder, *(f"--option={one}" for one in option or ())])


def save(picture: Image.Image, file: Path) -> None:
    """Write a picture to a file that the user named; the ending decides the format."""
    try:
        with output_file(file):
            picture.save(file)
    except ValueError as error:
        raise SuiteError(f"{file}: {error}; name a file that ends in .png") from error


@contextmanager
def output_file(file: Path) -> Iterator[None]:
    """Create the folder of a file that the user named, and say that the file was written."""
    with writing(file, "; name another file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    errors.print(f"written to {file}")


def print_result(as_json: bool, plain: Mapping[str, object], lines: list[str]) -> None:
    """Print a result for a program or for a person."""
    if as_json:
        typer.echo(json.dumps(plain, indent=1))
        return
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], text: Sequence[str]) -> Table:
    """A table whose columns hold numbers, except those named as text."""
    made = plain_table(columns, set(columns) - set(text))
    for row in rows:
        made.add_row(*(f"{v:,}" if isinstance(v, int) else str(v or "") for v in row))
    return made


@contextmanager
def progress_bar(text: str, amount: ProgressColumn | None = None) -> Iterator[OnProgress]:
    """A progress bar on a terminal, nothing elsewhere; it counts bytes without an ``amount``."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        amount or DownloadColumn(),
        TimeRemainingColumn(),
    )
    hidden = not errors.is_terminal
    with Progress(*columns, console=errors, transient=True, disable=hidden) as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
