"""``mlbench cache``: what the cache holds, what for, and how much it takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from mlbench.cli.console import Cache, cache_folder, console, plain_table
from mlbench.text import count, unknown
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.data.cache_entries import CacheEntry

EXAMPLES = "Examples: mlbench cache | mlbench cache --clear features | mlbench cache --clear"
KINDS = {
    "synthetic-": "pictures of the synthetic data set",
    "decoded-": "which images can be decoded",
    "coco-": "labels of a COCO json",
    "contents-": "digests of image files",
    "page": "what pages show of predictions",
}
"""Beginning of a name -> what it is, for entries that do not say so themselves."""


def cache(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Only these entries, or all of a folder such as features."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Delete them.")] = False,
    cache: Cache = None,
) -> None:
    """List what is in the cache, or delete it; runs make again what they need."""
    from mlbench.data.cache_entries import entries
    from mlbench.files import sweep

    folder = cache or cache_folder()
    sweep(folder.rglob(".*.tmp"))
    chosen = _choose(entries(folder), names or ())
    total = decimal(sum(entry.size for entry in chosen))
    if not clear:
        table = plain_table(("name", "what", "for", "size", "last used"))
        for entry in chosen:
            when = datetime.fromtimestamp(entry.used).isoformat(" ", "minutes")
            kinds = (text for prefix, text in KINDS.items() if entry.name.startswith(prefix))
            what = entry.what or next(kinds, "")
            table.add_row(entry.name, what, entry.purpose, decimal(entry.size), when)
        console.print(table)
        console.print(f"{count(len(chosen), 'item')}, {total}, in {folder}", soft_wrap=True)
        return
    for entry in chosen:
        path = folder / entry.name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    console.print(f"deleted {count(len(chosen), 'item')}, {total}, in {folder}", soft_wrap=True)


def _choose(found: Sequence[CacheEntry], names: Sequence[str]) -> list[CacheEntry]:
    """The entries with these names or in these folders; all without names."""
    chosen: list[CacheEntry] = []
    for name in names:
        here = [e for e in found if e.name == name or Path(name) in Path(e.name).parents]
        if not here:
            known = {e.name for e in found} | {str(Path(e.name).parent) for e in found} - {"."}
            raise SuiteError(unknown(f"entry {name!r} of the cache", name, known))
        chosen += [entry for entry in here if entry not in chosen]
    return chosen if names else list(found)
