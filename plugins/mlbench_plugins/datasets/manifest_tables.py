"""Tables of images: CSV, TSV, JSON, JSON lines and Parquet.

Each is read into a data frame of objects whose index says where a row is (``line 7``). CSV is read
with the standard library, as pandas fills short rows and gives no line for a wrong quote.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench.types import DataError
from mlbench_plugins.datasets.photographs import read_text

if TYPE_CHECKING:
    import pandas as pd

TEXTS = (".csv", ".tsv", ".jsonl")
ENCODING = "save the file as UTF-8 (spreadsheets call it 'CSV UTF-8')"


def read_json(file: Path) -> Any:
    """The content of a json, without the outlines of instances, which are most of it.

    Raises:
        DataError: it cannot be read or is no json.
    """

    def slim(item: dict[str, Any]) -> dict[str, Any]:
        if "image_id" in item:
            item.pop("segmentation", None)
        return item

    try:
        return json.loads(read_text(file, ENCODING), object_hook=slim)
    except json.JSONDecodeError as error:
        raise DataError(f"{file} line {error.lineno}: no whole json ({error.msg})") from error


def read_table(file: Path, content: Any) -> pd.DataFrame:
    """A table by the ending of its name: .csv, .tsv, .jsonl, .parquet or .json.

    Args:
        file: the table.
        content: text of a .csv, .tsv or .jsonl. Of a .json, parsed: a list of objects, one per
            image, or an object of file name -> list of labels.

    Returns:
        A row per image; missing cells are None.

    Raises:
        DataError: it is malformed or has no row. The text does not name the file.
    """
    match file.suffix.lower():
        case ".csv":
            frame = _delimited(content, ",")
        case ".tsv":
            frame = _delimited(content, "\t")
        case ".jsonl":
            frame = _json_lines(content)
        case ".parquet":
            frame = _parquet(file)
        case _:
            frame = _json(content)
    if not len(frame):
        raise DataError("it has no row; write one per image below the names of the columns")
    return frame.where(frame.notna(), None)


def _delimited(text: str, delimiter: str) -> pd.DataFrame:
    import pandas as pd

    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: dict[str, list[str]] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                called = {",": "comma", "\t": "tab"}[delimiter]
                raise DataError(
                    f"line {reader.line_num}: {len(row)} cells, but there are {len(header)} "
                    f"columns; put cells that contain a {called} in quotes"
                )
            rows[f"line {reader.line_num}"] = row
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error}; correct the quotes there") from error
    return pd.DataFrame.from_dict(rows, orient="index", columns=header, dtype=object)


def _check_header(header: list[str]) -> None:
    if not header:
        raise DataError("it is empty; its first line must name the columns")
    if len(header) == 1 and (other := next((d for d in ";\t,|" if d in header[0]), None)):
        raise DataError(
            f"line 1 is one column, {header[0]!r}: {other!r} separates its cells. Save it with "
            "commas as .csv or with tabs as .tsv"
        )
    for at, name in enumerate(header, start=1):
        if not name:
            raise DataError(
                f"line 1: column {at} has no name; name it or leave it out (pandas writes its row "
                "numbers so: to_csv(index=False))"
            )
        if header.index(name) != at - 1:
            raise DataError(f"line 1: two columns are called {name!r}; rename one")


def _json_lines(text: str) -> pd.DataFrame:
    rows: dict[str, Any] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows[f"line {number}"] = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"line {number}: no whole json ({error.msg})") from error
    return _of_objects(rows)


def _json(content: Any) -> pd.DataFrame:
    if isinstance(content, dict) and all(isinstance(v, list) for v in content.values()):
        content = [{"image": k, "labels": v} for k, v in content.items()]
    if not isinstance(content, list):
        raise DataError(
            "it is no table: expected a list of objects such as "
            '{"image": "a.jpg", "labels": ["cat"]}, an object of file name -> list of labels, or '
            "COCO's images, annotations and categories"
        )
    return _of_objects({f"entry {i}": row for i, row in enumerate(content, start=1)})


def _of_objects(rows: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    for place, row in rows.items():
        if not isinstance(row, dict):
            raise DataError(f"{place}: {row!r} is no object of column name -> value")
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=object)


def _parquet(file: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_parquet(file).astype(object)
    except ImportError as error:
        raise DataError(
            "Parquet needs pyarrow to be read: pip install pyarrow, or save the table as CSV"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"it cannot be read as Parquet ({error}); write it again") from error
    frame.index = pd.Index([f"row {i}" for i in range(1, len(frame) + 1)])
    return frame.rename(columns=str)
