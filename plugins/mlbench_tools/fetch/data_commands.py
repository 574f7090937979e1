"""``mlbench data``: list, fetch, verify, split, count and draw data sets."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn

from mlbench import registry
from mlbench.cli.console import AsJson, Data, cache_folder, console, data_folder, errors
from mlbench.text import count, shorten
from mlbench.types import DataError, PluginError, Split, SuiteError
from mlbench_tools.fetch import text_vectors
from mlbench_tools.fetch.terminal import (
    Name,
    Options,
    as_typed,
    card_of,
    open_dataset,
    output_file,
    print_result,
    progress_bar,
    save,
    table,
)

if TYPE_CHECKING:
    from mlbench_tools.fetch.archives import ArchiveSource

MAX_SAMPLES = 400
"""The most samples on a sheet: one of 20x20 has 30 million pixels."""

data = typer.Typer(
    help="Fetch, verify, summarize and view data sets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data.command(name="list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the data sets with their official sizes and how to get them."""
    rows: list[dict[str, str | int | None]] = []
    for plugin in registry.plugins("dataset"):
        try:
            card = registry.dataset_card(plugin)
        except PluginError as error:
            errors.print(f"{plugin.name}: {error}", style="red")
            continue
        if card:
            fetched = card.archives and all(archive.url for archive in card.archives)
            by_hand = "steps by hand" if card.steps or card.archives else ""
            rows.append(
                {
                    "name": plugin.name,
                    "title": card.title,
                    "labels": card.labels,
                    "train": card.splits["train"].images if "train" in card.splits else None,
                    "test": card.splits["test"].images if "test" in card.splits else None,
                    "had_by": "fetch" if fetched else by_hand,
                    "licence": card.licence,
                }
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    columns = ("name", "title", "labels", "train", "test", "had by", "licence")
    lines = [tuple(row.values()) for row in rows]
    console.print(table(columns, lines, text=("name", "title", "had by", "licence")))


@data.command()
def fetch(
    name: Name,
    root: Annotated[
        Path | None, typer.Option(help="Folder to unpack in. Default: $MLBENCH_DATA.")
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
    as_json: AsJson = False,
) -> None:
    """Download, check and unpack a data set, or print the manual steps.

    An interrupted download resumes; an archive that has been unpacked is not fetched again.
    """
    from mlbench_tools.fetch.archives import sources

    card = card_of(name)
    root = root or data_folder()
    if root is None:
        raise DataError("no folder was given to unpack in; name one with --root DIR")
    errors.print(f"{card.title}: {card.licence}; {card.home}")
    if not (found := sources(card, mirror, archive or ())):
        steps = card.steps or f"No archive of {card.title} can be fetched; see {card.home}"
        print_result(as_json, {"dataset": name, "fetched": [], "steps": steps}, [steps])
        raise typer.Exit(1)
    receipts = [_fetch_archive(source, root) for source in found]
    steps, lines = "", [f"{name} is fetched; next: mlbench data verify {as_typed(name, root)}"]
    try:
        open_dataset(name, root, None)
    except DataError as error:
        steps = card.steps
        official = {name for one in card.archives for name in (one.name, *one.also)}
        if not steps or any(one["archive"] not in official for one in receipts):
            contents = "\n  ".join(
                f"{one['archive']} holds {shorten(one['top'])}, now in {root / one['into']}"
                for one in receipts
            )
            raise DataError(
                f"what was unpacked is not {name}, or not all of it:\n  {contents}\nIf it belongs "
                "to another data set, remove it and fetch that by its name; if more archives "
                f"belong to {name}, fetch them, too. {error}"
            ) from error
        lines = ["The archives are unpacked. What is left are the other steps by hand:", steps]
    plain = {"dataset": name, "root": str(root), "fetched": receipts, "steps": steps}
    print_result(as_json, plain, lines)


def _fetch_archive(source: ArchiveSource, root: Path) -> dict[str, Any]:
    """Fetch one archive, print where it is, and return its receipt."""
    from mlbench_tools.fetch.archives import fetch_archive

    receipt = fetch_archive(source, root)
    again = "was there already" if receipt.get("again") else f"is in {root / receipt['into']}"
    errors.print(f"{receipt['archive']} {again}")
    if source.archive.sha256 is None:
        errors.print(
            f"{receipt['archive']} has the SHA-256 {receipt['sha256']}, not checked against "
            "anything: add #sha256=HEX to its --archive to check it"
        )
    return receipt


@data.command()
def verify(
    name: Name,
    data: Data = None,
    option: Options = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decode every image and print the edition and all problems; exit code 1 if there are any.

    The result is also written next to the data, or to the cache if that folder is read-only.
    """
    from mlbench_tools.fetch.image_check import check_images, tell_bad, tell_repeated, write

    splits = open_dataset(name, data, option)
    with progress_bar("decoding", MofNCompleteColumn()) as progress:
        found = check_images(name, splits, cache_folder(), workers or os.cpu_count() or 1, progress)
    lines = [found.identity + (": not a known edition" if found.known is False else "")]
    for split, part in found.splits.items():
        official = f" (officially {part.official:,})" if part.official else ""
        lines.append(
            f"  {split}: {count(part.images, 'image')} listed{official}, {part.usable:,} usable, "
            f"{part.missing:,} missing, {part.corrupt:,} corrupt"
        )
    root = data or _manifest_folder(name) or data_folder()
    told = [*tell_bad(found, root), *tell_repeated(splits)]
    if told:
        lines.append("  " + shorten(told, 20, "\n  "))
    written = None
    try:
        written = str(write(found, root, cache_folder()))
    except OSError as error:
        errors.print(f"the result cannot be written ({error})")
    plain = found.model_dump() | {"written": written}
    print_result(as_json, plain, [*lines, *([f"written to {written}"] if written else [])])
    if found.bad:
        raise typer.Exit(1)


def _manifest_folder(name: str) -> Path | None:
    """The folder of a name such as ``manifest:photos/photos.csv``; None for other names."""
    argument = name.partition(":")[2]
    place = Path(argument).expanduser()
    if not argument or not place.exists():
        return None
    return place if place.is_dir() else place.parent


data.command()(text_vectors.texts)


@data.command()
def split(
    name: Name,
    data: Data = None,
    option: Options = None,
    out: Annotated[Path | None, typer.Option(help="File to write the keys to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the validation split of train, and whether it is the published one.

    FILE holds its keys, sorted, one per line; the digest is that of `sha256sum FILE`.
    """
    from mlbench.data.stratify import list_digest, list_text

    splits = open_dataset(name, data, option, validation=True)
    assert splits.validation is not None
    keys = sorted(splits.validation.keys)
    digest = list_digest(keys)
    # Opening the data set refuses a list that differs from the published one.
    published = splits.identity in splits.card.validation
    if out is not None:
        with output_file(out):
            out.write_text(list_text(keys), encoding="utf-8", newline="")
    plain = {
        "dataset": name,
        "identity": splits.identity,
        "train": len(splits.train),
        "validation": len(keys),
        "sha256": digest,
        "published": published,
    }
    lines = [
        f"{splits.identity}: {len(keys):,} of {len(keys) + len(splits.train):,} training images",
        f"sha256 {digest}, {'the published list' if published else 'of no published list'}",
    ]
    print_result(as_json, plain if out else plain | {"keys": keys}, lines)


@data.command()
def look(name: Name, data: Data = None, option: Options = None, as_json: AsJson = False) -> None:
    """Show on one page how a data set was understood: warnings, columns, labels, splits, samples.

    `mlbench data look manifest:photos.csv` says which columns are labels, and what was left out.
    """
    from mlbench_tools.fetch.look import page, summary

    logging.disable(logging.WARNING)  # the page has the warnings
    try:
        found = summary(open_dataset(name, data, option))
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for part in page(name, found, as_typed(name, data, option)):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))


@data.command()
def stats(
    name: Name,
    data: Data = None,
    option: Options = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the co-occurrence to this .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count images and labels: per image, per class, in pairs, and images without labels."""
    from pydantic_core import to_json

    from mlbench_tools.fetch.pictures import cooccurrence_plot
    from mlbench_tools.fetch.statistics import label_statistics, tables

    found = label_statistics(name, open_dataset(name, data, option))
    if plot is not None:
        names = [label.name for label in found.labels]
        save(cooccurrence_plot(found.cooccurrence, names), plot)
    if as_json:
        typer.echo(to_json(found, indent=1, fallback=lambda counts: counts.astype(int).tolist()))
        return
    for part in tables(found):
        console.print(part)


@data.command()
def show(
    name: Name,
    out: Annotated[Path, typer.Option(help="The .png file to write.")],
    data: Data = None,
    option: Options = None,
    grid: Annotated[str, typer.Option(help="Grid of samples, COLUMNSxROWS.")] = "4x4",
    split: Annotated[Split, typer.Option(help="train or test.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
) -> None:
    """Draw random samples with their labels to a picture."""
    from mlbench_tools.fetch.pictures import contact_sheet, draw_samples

    sides = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", grid)
    if sides is None or int(sides[1]) * int(sides[2]) > MAX_SAMPLES:
        raise SuiteError(
            f"--grid {grid!r} is not COLUMNSxROWS of at most {MAX_SAMPLES} samples, as in 4x4"
        )
    columns, rows = int(sides[1]), int(sides[2])
    splits = open_dataset(name, data, option)
    index = splits.train if split == "train" else splits.test
    samples = draw_samples(index, rows * columns, seed)
    save(contact_sheet(samples, splits.names, rows, columns), out)
