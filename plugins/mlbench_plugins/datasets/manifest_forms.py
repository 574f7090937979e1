"""Which form a manifest has, told by its ending and what lies in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_coco import from_coco, is_coco
from mlbench_plugins.datasets.manifest_columns import Columns, from_table
from mlbench_plugins.datasets.manifest_folders import from_tree
from mlbench_plugins.datasets.manifest_listing import Listing
from mlbench_plugins.datasets.manifest_tables import read_json, read_table
from mlbench_plugins.datasets.manifest_yolo import from_yolo, home_of, yolo_file
from mlbench_plugins.datasets.photographs import exists

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
YOLO = (".yaml", ".yml", ".txt", ".names")


def locate_source(source: str, root: Path | None) -> Path:
    """The file or folder that stands after the colon, as it is written or below ``root``.

    Raises:
        DataError: there is none.
    """
    tried = [Path(source).expanduser(), *([root / source] if root is not None else [])]
    for place in tried:
        if exists(place):
            return place
    raise DataError(
        f"manifest:{source}: there is no {' and no '.join(map(str, tried))}; name a table of "
        "images (.csv, .tsv, .json, .jsonl, .parquet), a COCO json, a data.yaml or a folder"
    )


def read_listing(place: Path, columns: Columns, root: Path | None, cache: Path) -> Listing:
    """What a manifest of any form says.

    Args:
        place: the file or folder.
        columns: what the user says of a table's columns.
        root: a folder where pictures may be, too.
        cache: where digests of files are kept.

    Raises:
        DataError: it has none of the forms, or is malformed.
    """
    listing = _table(place, columns) or _annotations(place, columns, cache)
    return listing if root is None else replace(listing, folders=(*listing.folders, root))


def name_of(place: Path) -> str:
    """A table's or COCO json's own name; a tree's or YOLO's is its folder's."""
    if place.is_dir():
        name = place.resolve().name
    else:
        name = home_of(place).name if place.suffix.lower() in YOLO else place.stem
    return "-".join(name.split()) or "pictures"


def _table(place: Path, columns: Columns) -> Listing | None:
    """None where it is no table."""
    ending = place.suffix.lower()
    if place.is_dir() or ending in YOLO:
        return None
    if ending in TABLES:
        return from_table(read_table(place), columns)
    if ending != ".json":
        raise DataError(
            f"{place} is no folder and ends in none of {', '.join((*TABLES, '.json', *YOLO))}"
        )
    content = read_json(place)
    if not is_coco(content):
        return from_table(read_table(place, content), columns)
    _refuse_columns(place, columns)
    return from_coco(place, content)


def _annotations(place: Path, columns: Columns, cache: Path) -> Listing:
    _refuse_columns(place, columns)
    yolo = yolo_file(place) if place.is_dir() else place
    return from_tree(place, cache) if yolo is None else from_yolo(yolo)


def _refuse_columns(place: Path, columns: Columns) -> None:
    if columns != Columns():
        raise DataError(
            f"{place} is no table: label_names, separator and the options of columns do not apply; "
            "leave them out (a suite's own `labels` chooses among any set's)"
        )
