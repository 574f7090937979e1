"""Tables of images: CSV, TSV, JSON, JSON lines and Parquet, read into columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlbench.types import DataError
from mlbench_plugins.datasets.photographs import unreadable


@dataclass(frozen=True)
class Table:
    """A table as its columns, each with one cell a row.

    Attributes:
        file: where it stands.
        columns: name -> cells; text in CSV and TSV, and what JSON and Parquet hold.
        places: where each row stands (``line 7``), for errors.
    """

    file: Path
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str]


def read_table(file: Path, content: Any = None) -> Table:
    """A table by the ending of its name: .csv, .tsv, .jsonl, .parquet or .json.

    A json is a list of objects, one an image, or an object of file name -> list of labels.

    Args:
        file: the table.
        content: of a .json, which is parsed already.

    Raises:
        DataError: it cannot be read, is malformed, or has no row.
    """
    match file.suffix.lower():
        case ".csv":
            table = _delimited(file, ",")
        case ".tsv":
            table = _delimited(file, "\t")
        case ".parquet":
            table = _parquet(file)
        case ".jsonl":
            table = _json_lines(file)
        case _:
            table = _json(file, content)
    if not table.places:
        raise DataError(f"{file} has no row; write one an image below the names of the columns")
    return table


def read_text(file: Path) -> str:
    """A text file in UTF-8, with or without its mark.

    Raises:
        DataError: it cannot be read or is in another encoding.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file} line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as "
            "UTF-8 (spreadsheets call it 'CSV UTF-8')"
        ) from error


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, with line ends of any system.

    Raises:
        DataError: it cannot be read or is in another encoding.
    """
    # Not splitlines(), which also cuts at separators that JSON and names may hold, as U+2028.
    return read_text(file).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(file: Path) -> Any:
    """The content of a json, outlines of instances left out.

    Raises:
        DataError: it cannot be read or is no json.
    """
    text = read_text(file)

    def slim(item: dict[str, Any]) -> dict[str, Any]:
        if "image_id" in item:  # polygons are most of an instances json
            item.pop("segmentation", None)
        return item

    try:
        return json.loads(text, object_hook=slim)
    except json.JSONDecodeError as error:
        raise DataError(f"{file} line {error.lineno}: no whole json ({error.msg})") from error


def _delimited(file: Path, delimiter: str) -> Table:
    reader = csv.reader(io.StringIO(read_text(file), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    places: list[str] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _refuse_header(file, header)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{file} line {reader.line_num}: {len(row)} cells, but there are "
                    f"{len(header)} columns; put cells that hold a {_called(delimiter)} in quotes"
                )
            rows.append(row)
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num}: {error}; mend the quotes there") from error
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    return Table(file, dict(zip(header, columns, strict=True)), places)


def _called(delimiter: str) -> str:
    return {",": "comma", "\t": "tab"}[delimiter]


def _refuse_header(file: Path, header: list[str]) -> None:
    if len(header) == 1 and (other := next((d for d in ";\t,|" if d in header[0]), None)):
        raise DataError(
            f"{file} line 1 is one column, {header[0]!r}: {other!r} parts its cells. Save it with "
            "commas as .csv or with tabs as .tsv"
        )
    for at, name in enumerate(header, start=1):
        if not name:
            raise DataError(
                f"{file} line 1: column {at} has no name; name it or leave it out (pandas writes "
                "its row numbers so: to_csv(index=False))"
            )
        if header.index(name) != at - 1:
            raise DataError(f"{file} line 1: two columns are called {name!r}; rename one")
    if not header:
        raise DataError(f"{file} is empty; its first line must name the columns")


def _json_lines(file: Path) -> Table:
    rows: list[Any] = []
    places: list[str] = []
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{file} line {number}: no whole json ({error.msg})") from error
            places.append(f"line {number}")
    return _of_objects(file, rows, places)


def _json(file: Path, content: Any) -> Table:
    if isinstance(content, dict) and all(isinstance(v, list) for v in content.values()):
        rows: list[Any] = [{"image": k, "labels": v} for k, v in content.items()]
    elif isinstance(content, list):
        rows = content
    else:
        raise DataError(
            f"{file} is no table: expected a list of objects such as "
            '{"image": "a.jpg", "labels": ["cat"]}, an object of file name -> list of labels, or '
            "COCO's images, annotations and categories"
        )
    return _of_objects(file, rows, [f"entry {i}" for i in range(1, len(rows) + 1)])


def _of_objects(file: Path, rows: Sequence[Any], places: Sequence[str]) -> Table:
    """Columns of all names that occur; a name that an object lacks is null there."""
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{file} {place}: {row!r} is no object of column name -> value")
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(file, {name: [row.get(name) for row in rows] for name in names}, places)


def _parquet(file: Path) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(file)
    except ImportError as error:
        raise DataError(
            f"{file} needs pyarrow to be read: pip install pyarrow, or save the table as CSV"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as Parquet ({error}); write it again") from error
    columns = {
        str(name): [None if cell is pd.NA else _plain(cell) for cell in frame[name].tolist()]
        for name in frame.columns
    }
    return Table(file, columns, [f"row {i}" for i in range(1, len(frame) + 1)])


def _plain(cell: Any) -> Any:
    """An array as a list."""
    return cell.tolist() if hasattr(cell, "tolist") else cell
