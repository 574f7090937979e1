"""Folders that say the labels: one folder a label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlbench.types import DataError
from mlbench_plugins.datasets.duplicates import first_copies
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing, matrix, pictures_under


def from_tree(folder: Path, cache: Path) -> Listing:
    """``folder/<label>/**`` or ``folder/<split>/<label>/**``: an image has its folder's label.

    Files of one name in several label folders are one image with all these labels if their bytes
    are equal, and images of their own if not: cameras name many pictures alike.

    Args:
        folder: the tree; hidden folders are left out.
        cache: where digests of files are kept.

    Raises:
        DataError: there is no image, or one that lies in no label's folder.
    """
    files = pictures_under(folder)
    paths = [file.relative_to(folder).parts for file in files]
    split = bool(paths) and all(parts[0].lower() in SPLITS for parts in paths)
    depth = 1 if split else 0
    for file, parts in zip(files, paths, strict=True):
        if len(parts) < depth + 2:
            raise DataError(
                f"{file} lies in no label's folder; move it into one, or away. If a table holds "
                "the labels, name that instead: manifest:TABLE.csv"
            )
    if not files:
        raise DataError(f"{folder} holds no image; it needs one folder a label, with images in it")
    copies = _same_named_copies(files, depth, folder, cache)
    labels: dict[int, set[str]] = defaultdict(set)
    for place, parts in enumerate(paths):
        labels[copies[place]].add(parts[depth])
    names = tuple(sorted(set().union(*labels.values())))
    kept = sorted(labels)
    return Listing(
        source=folder,
        folders=(folder,),
        images=["/".join(paths[place]) for place in kept],
        names=names,
        targets=matrix([labels[place] for place in kept], names),
        splits=[SPLITS[paths[place][0].lower()] for place in kept] if split else None,
    )


def _same_named_copies(files: Sequence[Path], depth: int, folder: Path, cache: Path) -> list[int]:
    """For every file, the place of the first one of the same split, name and bytes."""
    namesakes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, file in enumerate(files):
        namesakes[*file.relative_to(folder).parts[:depth], file.name].append(place)
    several = [place for places in namesakes.values() if len(places) > 1 for place in places]
    copies = first_copies([files[place] for place in several], cache)
    first: dict[tuple[Any, ...], int] = {}
    found = list(range(len(files)))
    for place, copy in zip(several, copies, strict=True):
        split = files[place].relative_to(folder).parts[:depth]
        found[place] = first.setdefault((*split, files[place].name, copy), place)
    return found
