"""Read cards, folders and files of data sets of photographs."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mlbench.files import read_yaml
from mlbench.types import DataError, DatasetCard

_FOLDER = Path(__file__).parent

HEIF_REMEDY = "HEIC needs a decoder: pip install pillow-heif, or convert the pictures to JPEG"


@functools.cache
def read_card(file: str, name: str | None = None) -> DatasetCard:
    """Read and check the card of a data set of photographs.

    Its budget is that of ``fine_tuning.yaml``, with the settings that the card changes.

    Args:
        file: name of the YAML file in this folder, without its ending.
        name: the entry in the file, if it describes several data sets.

    Raises:
        ValidationError: from pydantic; a field is unknown, missing or malformed.
    """
    content = read_yaml(_FOLDER / f"{file}.yaml")
    fields = content if name is None else content[name]
    budget = read_yaml(_FOLDER / "fine_tuning.yaml") | fields.get("budget", {})
    return DatasetCard(**{**fields, "budget": budget})


def list_folder(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name; hidden ones are left out.

    Raises:
        DataError: a name is not UTF-8.
    """
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    for name in names:
        if (plain := name.encode(errors="backslashreplace").decode()) != name:
            raise DataError(f"{folder}: the name {plain} is not UTF-8; rename the file")
    return [folder / name for name in names]


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Put a file or folder in front of the errors of this block that do not name it."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(str(place)):
            raise
        raise DataError(f"{place}: {error}") from error


def shell_into(command: str, file: Path, word: str) -> str:
    """A command that writes into a new file beside ``file``, and the advice to name that."""
    made = file.with_suffix(f".{word}{file.suffix}")
    return f"{command} > {shlex.quote(str(made))} makes the file to name instead"


def choose(dataset: str, option: str, value: object, known: Iterable[object]) -> None:
    """Check that an option of a data set has a known value.

    Raises:
        DataError: the value is unknown; the text lists the known ones.
    """
    names = tuple(known)
    if value not in names:
        raise DataError(
            f"{dataset} has no {option}={value!r}; choose from {', '.join(map(str, names))}"
        )


def read_bytes(file: Path, remedy: str) -> bytes:
    """The content of a file.

    Raises:
        DataError: it is missing; the text ends with the remedy.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file} is missing; {remedy}") from None


def read_text(file: Path, remedy: str) -> str:
    """The text of a file in UTF-8, without byte order marks; lines end in LF.

    Args:
        file: to read.
        remedy: what to do if it is missing or in another encoding.

    Raises:
        DataError: it is missing or not UTF-8.
    """
    data = read_bytes(file, remedy)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        return text.replace("\n\ufeff", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        byte = data[error.start]
        raise DataError(f"{file} line {line}: byte {byte:#04x} is not UTF-8; {remedy}") from error


def read_lines(file: Path, remedy: str) -> list[str]:
    """The lines of ``read_text``, at least one; empty last lines are dropped.

    Raises:
        DataError: as ``read_text``, or the file is empty.
    """
    text = read_text(file, remedy)
    if not text.strip():
        raise DataError(f"{file} is empty; {remedy}")
    # str.splitlines() would also split at Unicode's rarer separators, which names may contain.
    return text.rstrip("\n").split("\n")


def read_xml(file: Path, remedy: str) -> ElementTree.Element:
    """The root of an XML file; errors as ``read_text``."""
    try:
        return ElementTree.fromstring(read_text(file, remedy))
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is no whole XML: {error}; {remedy}") from error


def read_object(file: Path, remedy: str, form: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        file: to read.
        remedy: what to do if it is malformed.
        form: what the object is, for the error.

    Raises:
        DataError: as ``read_text``, or it is not JSON, no object, or empty.
    """
    try:
        content = json.loads(read_text(file, remedy))
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}; {remedy}") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{file} is not a JSON object of {form}; {remedy}")
    return content


def read_keys(file: Path, remedy: str) -> list[str]:
    """The image paths in a list of one per line; see ``unique_keys``."""
    lines = enumerate(read_lines(file, remedy), start=1)
    return unique_keys(((f"{file} line {number}", line) for number, line in lines), remedy)


def unique_keys(paths: Iterable[tuple[str, str]], remedy: str) -> list[str]:
    """Keys with forward slashes, from (place in a file, image path).

    Raises:
        DataError: a line is no path of an image, or two name the same image.
    """
    keys: dict[str, None] = {}
    for where, path in paths:
        key = path.strip().replace("\\", "/")
        if not key or key.endswith("/"):
            raise DataError(f"{where}: {path!r} is no path of an image; {remedy}")
        if key in keys:
            raise DataError(f"{where}: image {key} is listed twice; {remedy}")
        keys[key] = None
    return list(keys)


def refuse_shared(train: Sequence[str], test: Sequence[str], remedy: str) -> None:
    """Check that no key is in both splits.

    Raises:
        DataError: some are; the text names the first.
    """
    trained = set(train)
    shared = [key for key in test if key in trained]
    if shared:
        raise DataError(
            f"{len(shared)} images are in both splits, the first is {shared[0]!r}; {remedy}"
        )
