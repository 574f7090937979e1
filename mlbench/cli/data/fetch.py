"""``mlbench data fetch``: a data set's archives, or what to do by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout
from rich.progress import DownloadColumn

from mlbench.cli.console import cache_folder, data_folder, errors
from mlbench.cli.data.sharing import Json, Name, bar, card_of, say
from mlbench.types import DataError


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
    as_json: Json = False,
) -> None:
    """Download, check and unpack a data set, or say what to do by hand.

    A download that was cut goes on where it stopped; what is unpacked already is not fetched again.
    """
    from mlbench.datasets.fetch import fetch as bring
    from mlbench.datasets.fetch import sources

    card = card_of(name)
    root = root or data_folder()
    if root is None:
        raise DataError("no folder was given to unpack in; name one with --root DIR")
    errors.print(f"{card.title}: {card.licence}; {card.home}", markup=False, highlight=False)
    found = sources(card, mirror, archive or ())
    if not found:
        steps = card.steps or f"No archive of {card.title} can be fetched; see {card.home}"
        say(as_json, {"dataset": name, "fetched": [], "steps": steps}, [steps])
        raise typer.Exit(1)
    receipts = []
    for source in found:
        with _alone(root):
            receipt = bring(source, root, lambda text: bar(text, DownloadColumn()))
        receipts.append(receipt)
        again = "was there already" if receipt.get("again") else f"is in {root / receipt['into']}"
        errors.print(f"{receipt['archive']} {again}", markup=False, highlight=False)
    say(
        as_json,
        {"dataset": name, "root": str(root), "fetched": receipts, "steps": ""},
        [f"{name} is fetched; next: mlbench data verify {name} --data {root}"],
    )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold a folder against other fetches; the lock lies in the cache, to leave it clean."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    try:
        with FileLock(folder / f"{name}.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(
            f"another `mlbench data fetch` is writing to {root}; wait until it has ended, then "
            "repeat the command, or name another folder with --root"
        ) from error
