"""``mlbench data``: what there is, and to fetch, verify, count and draw it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import DownloadColumn as BytesColumn
from rich.table import Table

from mlbench import registry
from mlbench.cli.console import cache_folder, console, data_folder, errors
from mlbench.cli.options import named_values
from mlbench.types import DataError, DatasetCard, PluginError, Split, SuiteError

if TYPE_CHECKING:
    from mlbench.datasets.unpack import Count
    from mlbench.types import Splits

data = typer.Typer(
    help="Fetch, verify, count and look at data sets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(help="A data set.")]
Data = Annotated[
    Path | None, typer.Option(help="Where the data sets are.  [default: $MLBENCH_DATA]")
]
Options = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of the data set, as in year=2014; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@data.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the data sets, their official sizes, and how each is had."""
    rows = []
    for plugin in registry.plugins("dataset"):
        try:
            card = getattr(plugin.load(), "card", None)
        except PluginError as error:
            errors.print(f"{plugin.name}: {error}", style="red", markup=False)
            continue
        if isinstance(card, DatasetCard):
            rows.append({"name": plugin.name, **_row(card)})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "title", "labels", "train", "test", "had by", "licence"):
        numeric = column in ("labels", "train", "test")
        table.add_column(column, overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v or "") for v in row.values()))
    console.print(table, markup=False)


def _row(card: DatasetCard) -> dict[str, object]:
    sizes = {name: split.images for name, split in card.splits.items()}
    fetched = card.archives and all(archive.url for archive in card.archives)
    by_hand = "steps by hand" if card.steps or card.archives else ""
    return {
        "title": card.title,
        "labels": card.labels,
        "train": sizes.get("train"),
        "test": sizes.get("test"),
        "had_by": "fetch" if fetched else by_hand,
        "licence": card.licence,
    }


@data.command()
def fetch(
    name: Name,
    root: Annotated[
        Path | None, typer.Option(help="Folder to unpack in.  [default: $MLBENCH_DATA]")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Folder or address with the archives' official names.")
    ] = None,
    archive: Annotated[
        list[str] | None,
        typer.Option(
            help="Take this file or address instead, whatever its name; #sha256=HEX at its end "
            "is checked; may be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download, check and unpack a data set, or say what to do by hand.

    A download that was cut goes on where it stopped; what is unpacked already is not fetched again.
    """
    from mlbench.datasets.fetch import fetch as bring
    from mlbench.datasets.fetch import sources

    card = _card(name)
    root = root or data_folder()
    if root is None:
        raise DataError("no folder was given to unpack in; name one with --root DIR")
    errors.print(f"{card.title}: {card.licence}; {card.home}", markup=False, highlight=False)
    found = sources(card, mirror, archive or ())
    if not found:
        steps = card.steps or f"No archive of {card.title} can be fetched; see {card.home}"
        _say(as_json, {"dataset": name, "fetched": [], "steps": steps}, [steps])
        raise typer.Exit(1)
    receipts = []
    for source in found:
        receipt = bring(source, root, lambda text: _bar(text, BytesColumn()))
        receipts.append(receipt)
        again = "was there already" if receipt.get("again") else f"is in {root / receipt['into']}"
        errors.print(f"{receipt['archive']} {again}", markup=False, highlight=False)
    _say(
        as_json,
        {"dataset": name, "root": str(root), "fetched": receipts, "steps": ""},
        [f"{name} is fetched; next: mlbench data verify {name} --data {root}"],
    )


@data.command()
def verify(
    name: Name,
    data: Data = None,
    option: Options = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads.")] = None,
    as_json: Json = False,
) -> None:
    """Say which edition this is and which images are missing or corrupt; exit code 1 if any is.

    Every image is decoded once. The result is written beside the data, or into the cache where
    the data cannot be written to.
    """
    from mlbench.datasets.coverage import examine, write

    splits = _open(name, data, option)
    with _bar("decoding", MofNCompleteColumn()) as progress:
        found = examine(name, splits, cache_folder(), workers or os.cpu_count() or 1, progress)
    written = write(found, data or data_folder(), cache_folder())
    lines = [found.identity if found.known else f"{found.identity}: no edition that we know"]
    for split, part in found.splits.items():
        of = f" (officially {part.official:,})" if part.official else ""
        lines.append(
            f"  {split}: {part.images:,} images listed{of}, {part.usable:,} usable, "
            f"{part.missing:,} missing, {part.corrupt:,} corrupt"
        )
    lines += [f"  {image.file}: {image.reason}" for image in found.bad[:20]]
    if len(found.bad) > 20:
        lines.append(f"  ... and {len(found.bad) - 20} more")
    plain = found.model_dump(mode="json") | {"written": str(written)}
    _say(as_json, plain, [*lines, f"written to {written}"])
    if found.bad:
        raise typer.Exit(1)


@data.command()
def stats(
    name: Name,
    data: Data = None,
    option: Options = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the co-occurrence to this .png.")] = None,
    as_json: Json = False,
) -> None:
    """Count images and labels: per image, per class, together, and not at all."""
    import numpy as np

    from mlbench.cli.statistics import tables
    from mlbench.datasets.pictures import cooccurrence_plot
    from mlbench.datasets.statistics import count

    found = count(name, _open(name, data, option))
    if plot is not None:
        names = [label.name for label in found.labels]
        _save(cooccurrence_plot(np.array(found.cooccurrence), names), plot)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    for part in tables(found):
        console.print(part, markup=False)


@data.command()
def show(
    name: Name,
    out: Annotated[Path, typer.Option(help="The picture to write, a .png.")],
    data: Data = None,
    option: Options = None,
    grid: Annotated[str, typer.Option(help="COLUMNSxROWS.")] = "4x4",
    split: Annotated[Split, typer.Option(help="train or test.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
) -> None:
    """Draw samples with their labels, so that a person can see what was loaded."""
    from mlbench.datasets.pictures import contact_sheet

    sides = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", grid)
    if sides is None:
        raise SuiteError(f"--grid {grid!r} is not COLUMNSxROWS, each from 1 to 99, as in 4x4")
    splits = _open(name, data, option)
    index = splits.train if split == "train" else splits.test
    _save(contact_sheet(index, splits.names, int(sides[2]), int(sides[1]), seed), out)


# ------------------------------------------------------------------------------------------ sharing
def _card(name: str) -> DatasetCard:
    card = getattr(registry.find("dataset", name).load(), "card", None)
    if not isinstance(card, DatasetCard):
        raise PluginError(f"dataset {name!r} has no card, so nothing is known of its archives")
    return card


def _open(name: str, root: Path | None, option: list[str] | None) -> Splits:
    from mlbench.data.splits import open_splits

    return open_splits(name, named_values(option or ()), root or data_folder(), cache_folder())


def _save(picture: object, file: Path) -> None:
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


def _say(as_json: bool, plain: dict[str, object], lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(plain, indent=1))
    else:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar(text: str, amount: BytesColumn | MofNCompleteColumn) -> Iterator[Count]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), amount)
    shown = errors.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=errors, transient=True, disable=not shown
    ) as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
