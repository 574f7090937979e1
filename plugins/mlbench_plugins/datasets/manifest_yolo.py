"""YOLO's files: names of labels, and a file of boxes for each image."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mlbench.text import plain_yaml
from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing, passed_over, pictures_under
from mlbench_plugins.datasets.photographs import list_folder, read_lines, read_text, shell_into

NAMES = (".yaml", ".yml", ".txt", ".names")
"""Endings of files that name the labels."""
NAMES_IN = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
"""A folder with one of these is YOLO's."""
_AGAIN = "write it again, in UTF-8"


def from_yolo(file: Path) -> Listing:
    """Read YOLO's files: a box or outline means its label is present; no file means no label.

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
    passed: Counter[str] = Counter()
    found = [
        (image, split or _split_in(Path(os.path.relpath(image, base))))
        for split, places in parts.items()
        for place in places
        for image in _images_of(place, base, passed)
    ]
    if not found:
        raise DataError(f"{file}: there is no image in its folders")
    images, splits = map(list, zip(*found, strict=True))
    label_files = [_label_file(image, base) for image in images]
    for stray, namesake in _without_image(file, label_files).items():
        images.append(images[namesake].with_name(stray.stem + images[namesake].suffix))
        splits.append(splits[namesake])
        label_files.append(stray)
    fact, doubts = passed_over(passed)
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
        facts={
            "labels": f"{len(names)} names in {file.name}; present where a box or outline is",
            "split": "as in the file" if any(parts) else "folders train, val and test, if any",
        }
        | fact,
        doubts=doubts,
    )


def _images_of(place: Path, base: Path, passed: Counter[str]) -> list[Path]:
    """The images under a folder, or those that a list names, one a line."""
    if place.is_dir():
        return pictures_under(place, passed)
    listed = [line.strip() for line in read_lines(place, _AGAIN) if line.strip()]
    tried = ([folder / line for folder in (place.parent, base)] for line in listed)
    return [next((f for f in files if f.is_file()), files[0]) for files in tried]


def _from_yaml(file: Path) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    """The labels, and the folders or lists of each split."""
    text = read_text(file, _AGAIN)
    try:
        content = yaml.load(text, plain_yaml())
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file} is not YAML: {error}") from error
    names = _in_order(content.get("names")) if isinstance(content, dict) else []
    if not names:
        raise DataError(f"{file} has no 'names': a list of labels, or number from 0 -> label")
    for number, name in enumerate(names):
        if not isinstance(name, str):
            written = _in_order(yaml.load(text, yaml.BaseLoader)["names"])  # each as its text
            raise DataError(
                f"{file}: name {number}, {written[number]}, is {name!r} in YAML, no text; put "
                f"names in quotes: names: {json.dumps(written, ensure_ascii=False)}"
            )
    parts: dict[str, list[Path]] = {}
    for split in ("train", "val", "test"):
        named = content.get(split) or []
        for entry in named if isinstance(named, list) else [str(named)]:
            parts.setdefault(split, []).append(_place(file, content.get("path") or ".", entry))
    _check_parts(file, parts)
    return _unique(file, names), parts or {"": [file.parent.resolve()]}


def _in_order(names: Any) -> list[Any]:
    """The names of a list, or of a mapping of all numbers from 0, such as 0 or 00; else none."""
    if isinstance(names, Mapping):
        numbered = {int(n): name for n, name in names.items() if str(n).isdecimal()}
        whole = set(numbered) == set(range(len(names)))
        return [numbered[i] for i in range(len(names))] if whole else []
    return names if isinstance(names, list) else []


def _check_parts(file: Path, parts: Mapping[str, Sequence[Path]]) -> None:
    """Refuse splits that lack pictures to train on or to score, or that share a place."""
    code = (
        f'import yaml; c = yaml.safe_load(open({json.dumps(str(file))}, "rb")); '
        '[c.pop(k, 0) for k in ("train", "val", "test")]; '
        "print(yaml.safe_dump(c, allow_unicode=True, sort_keys=False))"
    )
    without = shell_into(f"python -c {shlex.quote(code)}", file, "unsplit")
    if parts and (len(parts) == 1 or "train" not in parts):
        raise DataError(
            f"{file} names pictures for {' and '.join(parts)} only; add a line "
            f"{'val: FOLDER or test: FOLDER' if 'train' in parts else 'train: FOLDER'}, or leave "
            f"{' and '.join(parts)} out, so that a hash splits the pictures: {without}"
        )
    for split in ("val", "test"):
        if same := {*parts.get(split, ())} & {*parts.get("train", ())}:
            raise DataError(
                f"{file}: train and {split} both name {min(same)}; name others, or leave them out, "
                f"so that a hash splits the pictures: {without}"
            )


def _place(file: Path, path: str, entry: str) -> Path:
    """A folder or list as data.yaml names it; exports often write ``../train`` for ``train``."""
    tried = [
        file.parent / path / entry,
        file.parent / entry,
        file.parent / entry.removeprefix("../"),
    ]
    for place in tried:
        if place.is_dir() or (place.is_file() and place.suffix == ".txt"):
            return place.resolve()
    raise DataError(
        f"{file}: {entry!r} is no folder of images and no .txt with a path of an image a line; "
        f"looked for {tried[0]}"
    )


def _unique(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    found = tuple(name.strip() for name in names)
    if not all(found) or len(set(found)) < len(found):
        raise DataError(f"{file}: a label has no name, or two have the same: {found}")
    return found


def _split_in(path: Path) -> str:
    return next((SPLITS[p.lower()] for p in path.parts[:-1] if p.lower() in SPLITS), "")


def _label_file(image: Path, base: Path) -> Path:
    """The file in ``labels`` for ``images``, or beside the image; the former if neither exists."""
    places = [image.with_suffix(".txt")]
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images" and Path(*parts[:at]).is_relative_to(base):
            parts[at] = "labels"
            places.insert(0, Path(*parts).with_suffix(".txt"))
            break
    tried = (place.with_suffix(ending) for place in places for ending in (".txt", ".TXT"))
    return next(filter(Path.is_file, tried), places[0])


def _without_image(file: Path, expected: Sequence[Path]) -> dict[Path, int]:
    """Label files without an image -> the position of an image with its label file next to it.

    Raises:
        DataError: no label file is there at all, which means another layout.
    """
    if not any(label_file.is_file() for label_file in expected):
        raise DataError(
            f"{file}: none of the {len(expected)} images has a label file, such as {expected[0]}"
        )
    known = {label_file.with_suffix(".txt") for label_file in expected}
    folders = {label_file.parent: place for place, label_file in enumerate(expected)}
    return {
        stray: folders[folder]
        for folder in sorted(folders)
        if "labels" in folder.parts and folder.is_dir()
        for stray in list_folder(folder)
        if stray.suffix.lower() == ".txt" and stray.with_suffix(".txt") not in known
        if stray.name.lower() != "classes.txt"
    }


def _count_objects(label_file: Path, labels: int) -> NDArray[np.int32]:
    """Count the lines of a label file that begin with each label's number: [C]."""
    found_C = np.zeros(labels, np.int32)
    if not label_file.is_file():
        return found_C
    for line, text in enumerate(read_text(label_file, _AGAIN).split("\n"), start=1):
        cells = text.split()
        if not cells:
            continue
        if len(cells) == labels > 1 and {*cells} <= {"0", "1"}:
            raise DataError(
                f"{label_file} line {line}: {text.strip()!r} is no box but a row of 0 and 1, as of "
                "one number a label; write these as a table, a column a label, such as "
                f"image,{','.join(f'label {i}' for i in range(len(cells)))}, and name that: "
                "manifest:TABLE.csv"
            )
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
