"""Folders of pictures: one folder a label, or tables in the folders of the splits."""

from __future__ import annotations

import posixpath
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlbench.text import count, shorten
from mlbench.types import DataError
from mlbench_plugins.datasets.duplicates import first_copies
from mlbench_plugins.datasets.manifest_columns import IMAGE, filled, from_frame
from mlbench_plugins.datasets.manifest_labels import Columns, choose
from mlbench_plugins.datasets.manifest_listing import (
    SPLITS,
    Listing,
    matrix,
    passed_over,
    pictures_under,
)
from mlbench_plugins.datasets.manifest_tables import read_table
from mlbench_plugins.datasets.photographs import list_folder, naming

TABLES_IN = ("_classes.csv", "metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables of Roboflow and of Hugging Face's image folders, next to the pictures of a split."""


def from_folder(folder: Path, columns: Columns, cache: Path) -> Listing:
    """Read ``<label>/**`` or ``<split>/<label>/**``: an image has its folder's label.

    Files of one name in several label folders are one image with all these labels if their bytes
    are equal, and different images if not: cameras give many pictures the same name.

    If the folder, or the folder of a split, has a table of ``TABLES_IN``, the labels are those of
    the tables.

    Raises:
        DataError: there is no image, or one lies outside the labels' folders.
    """
    if tables := tables_in(folder):
        return _from_tables(folder, tables, columns)
    passed: Counter[str] = Counter()
    files = pictures_under(folder, passed)
    paths = [file.relative_to(folder).parts for file in files]
    fact, doubts = passed_over(passed)
    if not files:
        raise DataError(
            f"{folder} holds no image; it needs one folder a label, with images in it"
            + "".join(f"; {doubt}" for doubt in doubts)
        )
    depth = _depth_of_labels(folder, paths)
    same = _same_pictures(files, [(*parts[:depth], parts[-1]) for parts in paths], cache)
    labels = [{paths[i][depth] for i in copies} for copies in same]
    names = tuple(sorted(set().union(*labels)))
    facts = {"labels": f"{count(len(names), 'folder')}, one a label: {shorten(names)}"}
    if depth:
        facts["split"] = "the folders above the labels"
    if joined := len(files) - len(same):
        facts["copies"] = f"{joined:,} of the same name and bytes in other folders: labels joined"
    return Listing(
        source=folder,
        name=folder.resolve().name,
        folders=(folder,),
        images=["/".join(paths[i]) for i, *_ in same],
        names=names,
        targets=matrix(labels, names),
        splits=[SPLITS[paths[i][0].lower()] for i, *_ in same] if depth else None,
        facts=facts | fact,
        doubts=(*doubts, *_odd_folders(folder, depth, names)),
    )


def _depth_of_labels(folder: Path, paths: Sequence[Sequence[str]]) -> int:
    """0 if the first part of all paths is a label, 1 if a split is above it."""
    top = {parts[0] for parts in paths if len(parts) > 1}
    splits = {name for name in top if name.lower() in SPLITS}
    depth = int(all(parts[0] in splits for parts in paths))
    if len(splits) > 1 and (others := sorted(top - splits)):
        raise DataError(
            f"{folder} has folders of splits ({shorten(sorted(splits))}) and beside them "
            f"{shorten(others)}; move these away, or into one of the splits"
        )
    if stray := next((parts for parts in paths if len(parts) < depth + 2), None):
        raise DataError(
            f"{folder.joinpath(*stray)} is in no label's folder; move it into one, or away. If a "
            "table has the labels, name that instead: manifest:TABLE.csv"
        )
    return depth


def _odd_folders(folder: Path, depth: int, names: Sequence[str]) -> Iterator[str]:
    """Doubts about folders of labels that hold no picture, or are links to others."""
    above = [part for part in list_folder(folder) if part.is_dir()] if depth else [folder]
    places = [place for part in above for place in list_folder(part) if place.is_dir()]
    empty = sorted({place.name for place in places}.difference(names))
    if empty:
        yield f"folders without a picture are no labels: {shorten(empty)}"
    real = {place.resolve(): place for place in places if not place.is_symlink()}
    for place in places:
        if place.is_symlink() and (other := real.get(place.resolve())):
            yield (
                f"{place} is a link to {other.name}: its pictures have both labels; if they should "
                f"not: rm {shlex.quote(str(place))}"
            )


def tables_in(folder: Path) -> dict[str, Path]:
    """Name of a split, or a blank for the folder itself -> its table."""
    parts = [p for p in list_folder(folder) if p.is_dir() and p.name.lower() in SPLITS]
    return {
        "" if place == folder else place.name: place / name
        for place in (folder, *parts)
        for name in TABLES_IN
        if (place / name).is_file()
    }


def _from_tables(folder: Path, tables: Mapping[str, Path], columns: Columns) -> Listing:
    """Read one table for all pictures, or one a split, with paths relative to its folder."""
    import pandas as pd

    frames: list[pd.DataFrame] = []
    for part, table in tables.items():
        with naming(table):
            frame = read_table(table)
            image = choose(frame, list(frame.columns), "image_column", columns.image, IMAGE)
        if image is None or (frames and {*frame.columns} != {*frames[0].columns} - {"split"}):
            first = next(iter(tables.values()))
            raise DataError(
                f"{table}: its columns are others than those of {first}, or name none "
                f"of pictures ({', '.join(IMAGE[:4])}): {shorten(list(frame.columns))}"
            )
        paths = [posixpath.join(part, path) for path in filled(frame, image)]
        heads = [path.split("/")[0].lower() for path in paths]
        frame[image] = paths
        frame.index = pd.Index([f"{part} {at}".strip() for at in frame.index])
        if "split" not in frame.columns and SPLITS.keys() >= set(heads):
            frame["split"] = heads
        frames.append(frame)
    frame = pd.concat(frames)
    with naming(folder):
        found = from_frame(folder / next(iter(tables.values())).name, frame, columns)
    passed: Counter[str] = Counter()
    listed = {folder / image for image in found.images}
    left = [file.name for file in pictures_under(folder, passed) if file not in listed]
    fact, doubts = passed_over(passed)
    if left:
        doubts += (f"{count(len(left), 'picture')} of the folder in no row: {shorten(left)}",)
    return replace(
        found,
        source=folder,
        name=folder.resolve().name,
        folders=(folder,),
        facts={**found.facts, "tables": shorten(sorted(map(str, tables.values()))), **fact},
        doubts=(*found.doubts, *doubts),
    )


def _same_pictures(
    files: Sequence[Path], names: Sequence[tuple[str, ...]], cache: Path
) -> list[list[int]]:
    """The positions of the files of each picture: those of one split and name with its bytes."""
    times = Counter(names)
    copies = first_copies(files, cache, [i for i, name in enumerate(names) if times[name] > 1])
    found: dict[object, list[int]] = defaultdict(list)
    for i, picture in enumerate(zip(names, copies, strict=True)):
        found[picture].append(i)
    return list(found.values())
