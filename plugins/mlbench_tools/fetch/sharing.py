"""What the commands under ``mlbench data`` have in common: arguments, opening, printing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import DownloadColumn as BytesColumn

from mlbench import registry
from mlbench.cli.console import cache_folder, console, data_folder, errors
from mlbench.cli.options import named_values
from mlbench.types import DataError, DatasetCard, PluginError, SuiteError

if TYPE_CHECKING:
    from mlbench.types import Splits
    from mlbench_tools.fetch.unpack import Count

Name = Annotated[str, typer.Argument(help="A data set.")]
Data = Annotated[Path | None, typer.Option(help="Where the data sets are. Default: $MLBENCH_DATA.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset-option",
        "--option",
        help="NAME=VALUE of the data set, as in year=2014; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def card_of(name: str) -> DatasetCard:
    """The card of a data set, which need not be there.

    Raises:
        PluginError: no such data set, or it has no card.
    """
    card = getattr(registry.find("dataset", name).load(), "card", None)
    if not isinstance(card, DatasetCard):
        raise PluginError(f"dataset {name!r} has no card, so nothing is known of its archives")
    return card


def opened(
    name: str, root: Path | None, option: list[str] | None, *, validation: bool = False
) -> Splits:
    """A data set with the options that the command line gives it."""
    from mlbench.data.open import open_splits

    options = named_values(option or ())
    # What is missing is what these commands are asked for; a run is stricter.
    return open_splits(
        name,
        options,
        root or data_folder(),
        cache_folder(),
        validation=validation,
        allow_missing=True,
    )


def write_text(text: str, file: Path) -> None:
    """Write a file that the user named, byte for byte."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(
            f"{file} cannot be written ({error.strerror or error}); name another file"
        ) from error
    errors.print(f"written to {file}", markup=False, highlight=False)


def check_png(option: str, file: Path) -> None:
    """Refuse a name that says another format than the one that is written.

    Raises:
        SuiteError: the name does not end in ``.png``.
    """
    if file.suffix.lower() != ".png":
        raise SuiteError(
            f"{option} {file}: the picture is a PNG; name it {file.with_suffix('.png')}"
            if file.name
            else f"{option} {file} names no file; give one that ends in .png"
        )


def save(picture: object, file: Path) -> None:
    """Write a picture as PNG to a file that the user named."""
    from PIL import Image

    assert isinstance(picture, Image.Image)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, format="PNG")
    except OSError as error:
        raise DataError(
            f"{file} cannot be written ({error.strerror or error}); name another file"
        ) from error
    errors.print(f"written to {file}", markup=False, highlight=False)


def say(as_json: bool, plain: dict[str, object], lines: list[str]) -> None:
    """Print what was found, for a program or for a person."""
    if as_json:
        typer.echo(json.dumps(plain, indent=1))
    else:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(text: str, amount: BytesColumn | MofNCompleteColumn) -> Iterator[Count]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), amount)
    shown = errors.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=errors, transient=True, disable=not shown
    ) as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
