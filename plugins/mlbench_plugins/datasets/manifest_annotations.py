"""Manifests that are no tables: COCO's instances, a folder per label, and YOLO's files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mlbench.types import DataError
from mlbench_plugins.datasets.duplicates import first_copies
from mlbench_plugins.datasets.instances import convert_instances
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing, matrix, pictures_under
from mlbench_plugins.datasets.photographs import list_folder, read_lines, read_text

YOLO = (".yaml", ".yml", ".txt", ".names")
_YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
"""A folder with one of these is YOLO's."""
_AGAIN = "write it again, in UTF-8"


def from_coco(file: Path, content: Any) -> Listing:
    """A parsed instances json; a label is present where an instance, crowds included, is annotated.

    The labels are in the order of their ids. A category that no image has stays, as a label
    without a positive.

    Raises:
        DataError: a part is missing, an id is used twice, or an annotation names an image or a
            category that is not there.
    """
    found = convert_instances(file, content)
    return Listing(
        source=file,
        name=file.resolve().stem,
        folders=(file.parent, file.parent / "images"),
        images=found.files,
        names=found.names,
        targets=found.targets,
        objects=found.objects,
        places=[f"image id {number}" for number in found.ids],
    )


# ---------------------------------------------------------------------------------------- folders
def from_folder(folder: Path, cache: Path) -> Listing:
    """A folder of images: YOLO's if it has a file of names, else one folder per label."""
    names = next((folder / name for name in _YOLO_FILES if (folder / name).is_file()), None)
    return _from_tree(folder, cache) if names is None else from_yolo(names)


def _from_tree(folder: Path, cache: Path) -> Listing:
    """``folder/<label>/**`` or ``folder/<split>/<label>/**``: an image has its folder's label.

    Files of one name in several label folders are one image with all these labels if their bytes
    are equal, and different images if not: cameras give many pictures the same name.

    Raises:
        DataError: there is no image, or one that is in no label's folder.
    """
    files = pictures_under(folder)
    paths = [file.relative_to(folder).parts for file in files]
    depth = int(bool(paths) and all(parts[0].lower() in SPLITS for parts in paths))
    for file, parts in zip(files, paths, strict=True):
        if len(parts) < depth + 2:
            raise DataError(
                f"{file} is in no label's folder; move it into one, or away. If a table has the "
                "labels, name that instead: manifest:TABLE.csv"
            )
    if not files:
        raise DataError(f"{folder} holds no image; it needs one folder a label, with images in it")
    copies = _same_named_copies(files, [(*parts[:depth], parts[-1]) for parts in paths], cache)
    labels: dict[int, set[str]] = defaultdict(set)
    for place, parts in enumerate(paths):
        labels[copies[place]].add(parts[depth])
    names = tuple(sorted(set().union(*labels.values())))
    kept = sorted(labels)
    return Listing(
        source=folder,
        name=folder.resolve().name,
        folders=(folder,),
        images=["/".join(paths[place]) for place in kept],
        names=names,
        targets=matrix([labels[place] for place in kept], names),
        splits=[SPLITS[paths[place][0].lower()] for place in kept] if depth else None,
    )


def _same_named_copies(
    files: Sequence[Path], names: Sequence[tuple[str, ...]], cache: Path
) -> list[int]:
    """For every file, the position of the first one of the same split, name and bytes."""
    times = Counter(names)
    copies = first_copies(files, cache, [i for i, name in enumerate(names) if times[name] > 1])
    first: dict[tuple[Any, ...], int] = {}
    return [
        first.setdefault((*name, copy), i)
        for i, (name, copy) in enumerate(zip(names, copies, strict=True))
    ]


# ------------------------------------------------------------------------------------------- YOLO
def from_yolo(file: Path) -> Listing:
    """A label is present where a box or outline of it is; an image without a file has none.

    The label file of ``images/**/a.jpg`` is ``labels/**/a.txt``, or ``a.txt`` in the image's own
    folder. Splits are those of a data.yaml, else the folders ``train``, ``val`` and ``test``, if
    any. A label file without an image is listed as an image that is missing.

    Args:
        file: classes.txt, with a name per line, or a data.yaml with ``names``.

    Raises:
        DataError: a file or folder is missing or malformed.
    """
    base = file.resolve().parent
    if base.name == "labels":
        base = base.parent
    if file.suffix.lower() in (".yaml", ".yml"):
        names, parts = _from_yaml(file)
    else:
        lines = [line for line in read_lines(file, _AGAIN) if line.strip()]
        names, parts = _unique(file, lines), {"": [base]}
    found = [
        (image, split or _split_in(image.relative_to(folder)))
        for split, folders in parts.items()
        for folder in map(Path.resolve, folders)
        for image in pictures_under(folder)
    ]
    if not found:
        raise DataError(f"{file}: there is no image in its folders")
    images, splits = map(list, zip(*found, strict=True))
    label_files = [_label_file(image, base) for image in images]
    for stray, namesake in _without_image(file, label_files).items():
        images.append(images[namesake].with_name(stray.stem + images[namesake].suffix))
        splits.append(splits[namesake])
        label_files.append(stray)
    objects_NC = np.stack([_count_objects(label_file, len(names)) for label_file in label_files])
    return Listing(
        source=file,
        name=base.resolve().name,
        folders=(base,),
        images=[(i.relative_to(base) if i.is_relative_to(base) else i).as_posix() for i in images],
        names=names,
        targets=(objects_NC > 0).astype(np.int8),
        splits=splits if all(splits) else None,
        objects=objects_NC,
    )


def _from_yaml(file: Path) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    try:
        content = yaml.safe_load(read_text(file, _AGAIN))
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
    """A folder as data.yaml names it; exports often write ``../train`` for ``train``."""
    tried = [
        file.parent / path / entry,
        file.parent / entry,
        file.parent / entry.removeprefix("../"),
    ]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise DataError(f"{file}: {entry!r} is no folder of images; looked for {tried[0]}")


def _unique(file: Path, names: Sequence[Any]) -> tuple[str, ...]:
    found = tuple(str(name).strip() for name in names)
    if not all(found) or len(set(found)) < len(found):
        raise DataError(f"{file}: a label has no name, or two have the same: {found}")
    return found


def _split_in(path: Path) -> str:
    return next((SPLITS[p.lower()] for p in path.parts[:-1] if p.lower() in SPLITS), "")


def _label_file(image: Path, base: Path) -> Path:
    """In ``labels`` for ``images``, or in the image's folder; the former if neither exists."""
    same_folder = image.with_suffix(".txt")
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images" and Path(*parts[:at]).is_relative_to(base):
            parts[at] = "labels"
            apart = Path(*parts).with_suffix(".txt")
            return same_folder if same_folder.is_file() and not apart.is_file() else apart
    return same_folder


def _without_image(file: Path, expected: Sequence[Path]) -> dict[Path, int]:
    """Label files without an image -> the position of an image with its label file next to it.

    Raises:
        DataError: no label file is there at all, which means another layout.
    """
    if not any(label_file.is_file() for label_file in expected):
        raise DataError(
            f"{file}: none of the {len(expected)} images has a label file, such as {expected[0]}"
        )
    known = {*expected}
    folders = {label_file.parent: place for place, label_file in enumerate(expected)}
    return {
        stray: folders[folder]
        for folder in sorted(folders)
        if "labels" in folder.parts and folder.is_dir()
        for stray in list_folder(folder)
        if stray.suffix == ".txt" and stray.name != "classes.txt" and stray not in known
    }


def _count_objects(label_file: Path, labels: int) -> NDArray[np.int32]:
    """How many lines of a label file begin with the number of each label: [C]."""
    found_C = np.zeros(labels, np.int32)
    if not label_file.is_file():
        return found_C
    for line, text in enumerate(read_text(label_file, _AGAIN).split("\n"), start=1):
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
