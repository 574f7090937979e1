"""``mlbench data verify`` and ``split``: which edition is in hand, and which part validates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn

from mlbench.cli.console import cache_folder, data_folder
from mlbench.text import count
from mlbench_tools.fetch.sharing import Data, Json, Name, Options, bar, opened, say, write_text


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
    from mlbench_tools.fetch.census import examine, plain, write

    splits = opened(name, data, option)
    with bar("decoding", MofNCompleteColumn()) as progress:
        found = examine(name, splits, cache_folder(), workers or os.cpu_count() or 1, progress)
    written = write(found, data or _home(name) or data_folder(), cache_folder())
    unknown = found.known is False
    lines = [f"{found.identity}: no edition that we know" if unknown else found.identity]
    lines += [f"  {found.standing}"] if found.standing else []
    for split, part in found.splits.items():
        of = f" (officially {part.official:,})" if part.official else ""
        lines.append(
            f"  {split}: {count(part.images, 'image')} listed{of}, {part.usable:,} usable, "
            f"{part.missing:,} missing, {part.corrupt:,} corrupt"
        )
    if found.fewer:
        lacking = " or ".join(f"{n:,} of {edition}" for edition, n in found.fewer.items())
        lines.append(f"  images are missing: {lacking}; unpack it again")
    lines += [f"  {image.file}: {image.reason}" for image in found.bad[:20]]
    if len(found.bad) > 20:
        lines.append(f"  ... and {len(found.bad) - 20} more")
    say(as_json, plain(found) | {"written": str(written)}, [*lines, f"written to {written}"])
    if not found.complete:
        raise typer.Exit(1)


def _home(name: str) -> Path | None:
    """The folder that a data set's name leads to, as ``manifest:photos/photos.csv`` does."""
    argument = name.partition(":")[2]
    if not argument:
        return None
    place = Path(argument).expanduser()
    if place.is_file():
        return place.parent
    return place if place.is_dir() else None


def split(
    name: Name,
    data: Data = None,
    option: Options = None,
    out: Annotated[Path | None, typer.Option(help="File to write the keys to.")] = None,
    as_json: Json = False,
) -> None:
    """Say which part of train is the validation split, and whether it is the published one.

    FILE holds its keys, sorted, one per line; the digest is what sha256sum says of it.
    """
    from mlbench.data.stratify import list_digest, list_text

    splits = opened(name, data, option, validation=True)
    assert splits.validation is not None
    keys = sorted(splits.validation.keys)
    found = list_digest(keys)
    # A list that differs from the published one was refused when the split was made.
    published = splits.identity in splits.card.validation
    if out is not None:
        write_text(list_text(keys), out)
    plain = {
        "dataset": name,
        "identity": splits.identity,
        "train": len(splits.train),
        "validation": len(keys),
        "sha256": found,
        "published": published,
    }
    said = "the published list" if published else "of no published list"
    lines = [
        f"{splits.identity}: {len(keys):,} of {len(keys) + len(splits.train):,} training images",
        f"sha256 {found}, {said}",
    ]
    say(as_json, plain if out else plain | {"keys": keys}, lines)
