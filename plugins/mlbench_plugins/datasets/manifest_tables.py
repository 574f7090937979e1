"""Tables of images: CSV, TSV, JSON, JSON lines and Parquet.

Each is read into a data frame of objects whose index says where a row is (``line 7``). CSV is read
with the standard library, as pandas fills short rows and gives no line for a wrong quote.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench.files import picture_endings
from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_listing import SPLITS
from mlbench_plugins.datasets.photographs import read_text, shell_into

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


def read_table(file: Path, content: Any = None) -> pd.DataFrame:
    """Read a table by the ending of its name: .csv, .tsv, .txt, .jsonl, .parquet or .json.

    Args:
        file: the table.
        content: the parsed content of a .json: a list of objects, one per image, or an object of
            file name -> list of labels.

    Returns:
        A row per image; missing cells are None.

    Raises:
        DataError: it is malformed or has no row. The text does not name the file.
    """
    if file.suffix.lower() in (*TEXTS, ".txt"):
        content = read_text(file, ENCODING)
    match file.suffix.lower():
        case ".csv":
            frame = _delimited(file, content, ",")
        case ".tsv":
            frame = _delimited(file, content, "\t")
        case ".txt":
            frame = _list(content)
        case ".jsonl":
            frame = _json_lines(content)
        case ".parquet":
            frame = _parquet(file)
        case _:
            frame = _json(content)
    if not len(frame):
        raise DataError("it has no row; write one per image below the names of the columns")
    return frame.where(frame.notna(), None)


def _delimited(file: Path, text: str, delimiter: str) -> pd.DataFrame:
    import pandas as pd

    csv.field_size_limit(1 << 30)  # characters in a cell; a vector may be longer than 1 << 17
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: dict[str, list[str]] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(file, header, delimiter, text)
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


def _check_header(file: Path, header: list[str], delimiter: str, text: str) -> None:
    if not header:
        raise DataError("it is empty; its first line must name the columns")
    name = shlex.quote(str(file))
    if re.fullmatch("sep=.?", header[0].lower()):
        without = shell_into(f"tail -n +2 {name}", file, "table")
        raise DataError(f"line 1 is {text.splitlines()[0]!r}, a mark for Excel; {without}")
    usual = {"image", "file", "path", "filename", "file_name", "image_path", "labels", "tags"}
    line = delimiter.join(header)
    for other in ";\t,|":
        cells = {cell.strip().lower() for cell in line.split(other)}
        if other != delimiter and other in line and (len(header) == 1 or usual & cells):
            read = f"{json.dumps(str(file))}, sep={json.dumps(other)}"
            convert = (
                f"import pandas; print(pandas.read_csv({read}, dtype=str, keep_default_na=False)"
                f".to_csv(index=False, sep={json.dumps(delimiter)}))"
            )
            raise DataError(
                f"line 1 is one column, {header[0]!r}: {other!r} separates its cells. Save it with "
                "commas as .csv or with tabs as .tsv: "
                + shell_into(f"python -c {shlex.quote(convert)}", file, "new")
            )
    _refuse_picture(file, header, delimiter, text)
    for at, column in enumerate(header, start=1):
        if not column:
            raise DataError(
                f"line 1: column {at} has no name; name it or leave it out (pandas writes its row "
                "numbers so: to_csv(index=False))"
            )
        if header.index(column) != at - 1:
            raise DataError(f"line 1: two columns are called {column!r}; rename one")


def _refuse_picture(file: Path, header: list[str], delimiter: str, text: str) -> None:
    """Refuse a table whose first line names a picture, not the columns."""
    image = next((i for i, cell in enumerate(header) if is_path_of_picture(cell)), None)
    if image is None:
        return
    after = range(image + 1, len(header))
    before = ["split" if c.lower() in SPLITS else f"column {i}" for i, c in enumerate(header)]
    names = [*before[:image], "image", *(f"label {i - image - 1}" for i in after)]
    if len(after) == 1 and header[-1] not in ("0", "1", "-1"):
        names[-1] = "labels"
    add = f"{{ echo {shlex.quote(delimiter.join(names))}; cat {shlex.quote(str(file))}; }}"
    lengths = {line.count(delimiter) for line in text.splitlines() if line.strip()}
    remedy = f"{', '.join(names[:3])}: {shell_into(add, file, 'named')}"
    if len(lengths) > 1:
        remedy = f"{', '.join(names[: image + 1])}, labels, and give every line as many cells: one "
        remedy += "with all labels, separated by ;"
    raise DataError(
        f"line 1 looks like a picture, {header[image]!r}, not like names of columns. Write a line "
        f"with the names of the columns above it, such as {remedy}"
    )


# -------------------------------------------------------------------------------- lists of pictures
_STATES = re.compile(r"(.*?\S)[\s,;]+((?:-?[01])(?:[\s,;]+-?[01])*)")


def is_path_of_picture(text: str) -> bool:
    """True for a path that ends as pictures do."""
    return Path(text.strip()).suffix.lower() in picture_endings()


def is_list_of_pictures(text: str) -> bool:
    """True if the first line of a text begins with a picture, as in ``photos/a.jpg 1 0 1``."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return any(map(is_path_of_picture, re.findall(r"\S+(?=[\s,;]|$)", first.replace(",", " "))))


def _list(text: str) -> pd.DataFrame:
    """Read one picture a line: its path, then 1 or 0 for each label."""
    import pandas as pd

    rows: dict[str, list[str]] = {}
    width = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        found = _STATES.fullmatch(line.strip())
        cells = [found[1], *re.split(r"[\s,;]+", found[2])] if found else []
        width = width or len(cells)
        if not cells or len(cells) != width:
            raise DataError(
                f"line {number}: {line.strip()!r} is no picture with 1 or 0 for each label, as "
                "a.jpg 1 0 1. A .txt is a list of such lines, or YOLO's names of labels; write "
                "names of labels as a table: .csv, with a first line image,labels and lines such "
                "as a.jpg,cat;dog"
            )
        rows[f"line {number}"] = cells
    columns = ["image", *(f"label {i}" for i in range(width - 1))]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)


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
    if isinstance(content, dict) and all(
        isinstance(v, list | str | dict) for v in content.values()
    ):
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
