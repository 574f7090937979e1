"""YOLO's form: a file of names, and beside each image a text file with a line an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_listing import LISTED, SPLITS, Listing, pictures_under
from mlbench_plugins.datasets.manifest_tables import read_lines, read_text
from mlbench_plugins.datasets.photographs import is_file, is_folder, unreadable

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
"""By one of these a folder is known to be YOLO's."""


def yolo_file(folder: Path) -> Path | None:
    """The file that names the labels of a YOLO folder, None if it is none."""
    return next((folder / name for name in YOLO_FILES if is_file(folder / name)), None)


def home_of(file: Path) -> Path:
    """The folder of the set that a classes.txt or data.yaml belongs to."""
    folder = file.resolve().parent
    return folder.parent if folder.name == "labels" else folder


def from_yolo(file: Path) -> Listing:
    """A label is present where a box or outline of it is; an image without a file has none.

    The label file of ``images/**/a.jpg`` is ``labels/**/a.txt``, or ``a.txt`` beside the image.
    Splits are those of a data.yaml, else the folders ``train``, ``val`` and ``test``, if any.
    A label file without an image stands for one that is missing; it has the ending of others there.

    Args:
        file: classes.txt, with a name a line, or a data.yaml with ``names``.

    Raises:
        DataError: a file or folder is missing or malformed.
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
    strays = _strays(file, label_files)
    for stray, beside in strays.items():
        images.append(images[beside].with_name(stray.stem + images[beside].suffix))
        splits.append(splits[beside])
    counts = [_count_objects(label_file, len(names)) for label_file in (*label_files, *strays)]
    objects_NC = np.stack(counts)
    return Listing(
        source=file,
        folders=(base,),
        images=[(i.relative_to(base) if i.is_relative_to(base) else i).as_posix() for i in images],
        names=names,
        targets=(objects_NC > 0).astype(np.int8),
        splits=splits if all(splits) else None,
        objects=objects_NC,
        missing=_without_images(file, list(strays)),
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
        if is_folder(folder):
            return folder
    raise DataError(f"{file}: {entry!r} is no folder of images; looked for {tried[0]}")


def _lines(file: Path) -> tuple[str, ...]:
    return _unique(file, [line for line in read_lines(file) if line.strip()])


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
            return beside if is_file(beside) and not is_file(apart) else apart
    return beside


def _strays(file: Path, expected: Sequence[Path]) -> dict[Path, int]:
    """Label files without an image, and the place of an image whose label file lies beside each.

    Raises:
        DataError: no label file is there at all, which means another layout.
    """
    if not any(is_file(label_file) for label_file in expected):
        raise DataError(
            f"{file}: none of the {len(expected)} images has a label file, such as {expected[0]}"
        )
    wanted = {*expected}
    beside = {label_file.parent: place for place, label_file in enumerate(expected)}
    return {
        stray: beside[folder]
        for folder in sorted(beside)
        if "labels" in folder.parts and is_folder(folder)
        for stray in _texts(folder)
        if stray not in wanted and stray.name != "classes.txt"
    }


def _texts(folder: Path) -> list[Path]:
    try:  # not glob(), which takes a locked folder for an empty one
        return sorted(file for file in folder.iterdir() if file.suffix == ".txt")
    except OSError as error:
        raise unreadable(folder, error, "listed") from error


def _without_images(file: Path, strays: Sequence[Path]) -> str | None:
    if not strays:
        return None
    named = ", ".join(map(str, strays[:LISTED]))
    return (
        f"{file}: {len(strays)} label files have no image, first {named}; put the images there "
        "or take the files away"
    )


def _count_objects(label_file: Path, labels: int) -> NDArray[np.int32]:
    """How many lines of a label file begin with the number of each label: [C]."""
    found_C = np.zeros(labels, np.int32)
    if not is_file(label_file):
        return found_C
    for line, text in enumerate(read_lines(label_file), start=1):
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
        found_C[int(cells[0])] += 1
    return found_C
