"""Folders that say the labels: one folder a label, or YOLO's file of labels beside an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlbench.types import DataError
from mlbench_plugins.datasets.duplicates import first_copies
from mlbench_plugins.datasets.manifest_listing import (
    LISTED,
    SPLITS,
    Listing,
    matrix,
    pictures_under,
)
from mlbench_plugins.datasets.manifest_tables import read_text

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
"""By one of these a folder is known to be YOLO's."""


# ---------------------------------------------------------------------------- one folder a label
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


# -------------------------------------------------------------------------------------------- YOLO
def yolo_file(folder: Path) -> Path | None:
    """The file that names the labels of a YOLO folder, None if it is none."""
    return next((folder / name for name in YOLO_FILES if (folder / name).is_file()), None)


def home_of(file: Path) -> Path:
    """The folder of the set that a classes.txt or data.yaml belongs to."""
    folder = file.resolve().parent
    return folder.parent if folder.name == "labels" else folder


def from_yolo(file: Path) -> Listing:
    """A label is present where a box or outline of it is; an image without a file has none.

    The label file of ``images/**/a.jpg`` is ``labels/**/a.txt``, or ``a.txt`` beside the image.
    Splits are those of a data.yaml, else the folders ``train``, ``val`` and ``test``, if any.

    Args:
        file: classes.txt, with a name a line, or a data.yaml with ``names``.

    Raises:
        DataError: a file or folder is missing or malformed, or a label file has no image.
    """
    base = home_of(file)
    if file.suffix.lower() in (".yaml", ".yml"):
        names, parts = _from_yaml(file)
    else:
        names, parts = _lines(file), {"": [base]}
    images: list[Path] = []
    splits: list[str] = []
    for split, folders in parts.items():
        for folder in map(Path.resolve, folders):
            found = pictures_under(folder)
            images += found
            splits += [split or _split_in(image.relative_to(folder)) for image in found]
    if not images:
        raise DataError(f"{file}: there is no image in the folders beside it")
    label_files = [_label_file(image, base) for image in images]
    _refuse_strays(file, label_files)
    numbers = [_numbers(label_file, len(names)) for label_file in label_files]
    return Listing(
        source=file,
        folders=(base,),
        images=[(i.relative_to(base) if i.is_relative_to(base) else i).as_posix() for i in images],
        names=names,
        targets=matrix([{names[n] for n in present} for present in numbers], names),
        splits=splits if all(splits) else None,
    )


def _from_yaml(file: Path) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    try:
        content = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise DataError(f"{file} is not YAML: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, Mapping) and set(names) == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file} has no 'names': a list of labels, or number from 0 -> label")
    parts: dict[str, list[Path]] = {}
    for split in ("train", "val", "test"):
        named = content.get(split) or []
        for entry in [named] if isinstance(named, str) else named:
            parts.setdefault(split, []).append(_folder(file, content.get("path") or ".", entry))
    return _unique(file, names), parts or {"": [file.parent]}


def _folder(file: Path, path: str, entry: str) -> Path:
    """A folder as data.yaml names it; exports often say ``../train`` for what lies beside it."""
    tried = [
        file.parent / path / entry,
        file.parent / entry,
        file.parent / entry.removeprefix("../"),
    ]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise DataError(f"{file}: {entry!r} is no folder of images; looked for {tried[0]}")


def _lines(file: Path) -> tuple[str, ...]:
    return _unique(file, [line for line in read_text(file).splitlines() if line.strip()])


def _unique(file: Path, names: Sequence[Any]) -> tuple[str, ...]:
    found = tuple(str(name).strip() for name in names)
    if not found or not all(found) or len(set(found)) < len(found):
        raise DataError(f"{file}: the names of the labels are not all there and different: {found}")
    return found


def _split_in(path: Path) -> str:
    return next((SPLITS[p.lower()] for p in path.parts[:-1] if p.lower() in SPLITS), "")


def _label_file(image: Path, base: Path) -> Path:
    """In ``labels`` for ``images``, or beside the image; the former if neither exists."""
    beside = image.with_suffix(".txt")
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images" and Path(*parts[:at]).is_relative_to(base):
            parts[at] = "labels"
            apart = Path(*parts).with_suffix(".txt")
            return beside if beside.is_file() and not apart.is_file() else apart
    return beside


def _refuse_strays(file: Path, expected: Sequence[Path]) -> None:
    """Label files without an image mean lost images; none at all, another layout."""
    if not any(label_file.is_file() for label_file in expected):
        raise DataError(
            f"{file}: none of the {len(expected)} images has a label file, such as {expected[0]}"
        )
    wanted = set(expected)
    strays = [
        stray
        for folder in sorted({label_file.parent for label_file in expected})
        if folder.is_dir() and "labels" in folder.parts
        for stray in sorted(folder.glob("*.txt"))
        if stray not in wanted and stray.name != "classes.txt"
    ]
    if strays:
        named = ", ".join(map(str, strays[:LISTED]))
        raise DataError(
            f"{file}: {len(strays)} label files have no image, first {named}; put the images "
            "there or take the files away"
        )


def _numbers(label_file: Path, labels: int) -> set[int]:
    """The labels in a label file: the first number of each line."""
    if not label_file.is_file():
        return set()
    found: set[int] = set()
    for line, text in enumerate(read_text(label_file).splitlines(), start=1):
        cells = text.split()
        if not cells:
            continue
        if len(cells) < 5:
            raise DataError(
                f"{label_file} line {line}: {len(cells)} columns; a box has 5 (label x y width "
                "height), an outline more"
            )
        if not cells[0].isdecimal() or int(cells[0]) >= labels:
            raise DataError(
                f"{label_file} line {line}: {cells[0]!r} is no number of the {labels} labels; "
                f"they are counted from 0 to {labels - 1}"
            )
        found.add(int(cells[0]))
    return found
