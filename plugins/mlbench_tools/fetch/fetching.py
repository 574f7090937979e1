"""``mlbench data fetch``: a data set's archives, or what to do by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import DownloadColumn

from mlbench.cli.console import cache_folder, data_folder, errors
from mlbench.types import DataError
from mlbench_tools.fetch.sharing import Json, Name, bar, card_of, say


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
    from mlbench_tools.fetch.archives import fetch as bring
    from mlbench_tools.fetch.archives import sources

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
        if source.archive.sha256 is None:
            text = (
                f"{receipt['archive']} has the SHA-256 {receipt['sha256']}, not checked against "
                "anything: add #sha256=HEX to its --archive to check it"
            )
            errors.print(text, markup=False, highlight=False)
    official = {archive.name for archive in card.archives}
    by_hand = bool(card.steps) and all(one["archive"] in official for one in receipts)
    fault = _fault(name, root)
    if fault and not by_hand:
        raise DataError(_other_data(name, root, receipts, fault))
    steps = card.steps if fault else ""
    lines = [f"{name} is fetched; next: mlbench data verify {name} --data {root}"]
    if steps:
        lines = ["The archives are unpacked. What is left are the other steps by hand:", steps]
    say(
        as_json,
        {"dataset": name, "root": str(root), "fetched": receipts, "steps": steps},
        lines,
    )


def _fault(name: str, root: Path) -> str:
    """Why the data set cannot be opened there, empty if it can."""
    from mlbench.data.open import open_splits

    try:
        open_splits(name, {}, root, cache_folder(), allow_missing=True)
    except DataError as error:
        return str(error)
    return ""


def _other_data(name: str, root: Path, receipts: list[dict[str, Any]], fault: str) -> str:
    held = "\n  ".join(
        f"{one['archive']} holds {', '.join(one['top'][:5])}"
        f"{', ...' if len(one['top']) > 5 else ''}, now in {root / one['into']}"
        for one in receipts
    )
    return (
        f"what was unpacked is not {name}, or not all of it:\n  {held}\nIf it belongs to another "
        f"data set, remove it and fetch that by its name; if more archives belong to {name}, fetch "
        f"them, too. {fault}"
    )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold a folder against other fetches; the lock lies in the cache, to leave it clean."""
    from filelock import FileLock, Timeout

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
