"""Files of predictions: CSV, JSON lines and Parquet, to which an interrupted command appends."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlbench.files import atomic_write
from mlbench.text import unknown
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.trained_model import Labelled

SEPARATOR = ";"
"""Between the labels of a picture in CSV, as in tables that ``manifest:`` reads."""
CHUNK = 4096
"""Rows of Parquet that are converted at once."""


@dataclass(frozen=True)
class Choice:
    """Which labels of a picture are written.

    Attributes:
        model: id of the run that trained the model, written with every row.
        names: labels of the model.
        top: the number of labels; None for those above a threshold.
        threshold: of all labels; None for those of the model.
        all_scores: also write the scores of the other labels.
    """

    model: str
    names: tuple[str, ...]
    top: int | None = None
    threshold: float | None = None
    all_scores: bool = False

    def labels(self, result: Labelled) -> tuple[str, ...]:
        """The labels of a picture, the most likely first."""
        if self.top is not None:
            return result.labels[: self.top]
        if self.threshold is not None:
            return tuple(n for n, score in result.scores.items() if score >= self.threshold)
        return result.above

    def row(self, result: Labelled) -> dict[str, Any]:
        """The fields of a picture: image, labels, scores, error and model."""
        labels = self.labels(result)
        scored = result.labels if self.all_scores else labels
        return {
            "image": str(result.image),
            "labels": list(labels),
            "scores": {name: result.scores[name] for name in scored},
            "error": result.error,
            "model": self.model,
        }


@dataclass
class Output:
    """A file that is open for appending.

    Attributes:
        known: the pictures that it has.
    """

    stream: IO[str]
    choice: Choice
    form: str
    known: set[str] = field(default_factory=set)

    def write(self, result: Labelled) -> None:
        """Append a picture; it is on its way to the disk when this returns."""
        row = self.choice.row(result)
        if self.form == ".csv":
            csv.writer(self.stream, lineterminator="\n").writerow(self._cells(row))
        else:
            self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.stream.flush()

    def header(self) -> list[str]:
        """The columns of CSV: fixed ones, then one a label if all scores are written."""
        fixed = ["image", "labels", "scores", "error", "model"]
        return [*fixed, *(self.choice.names if self.choice.all_scores else ())]

    def _cells(self, row: dict[str, Any]) -> list[str]:
        scores = [f"{row['scores'][name]:.6g}" for name in row["labels"]]
        fixed = [row["image"], SEPARATOR.join(row["labels"]), SEPARATOR.join(scores)]
        others = self.choice.names if self.choice.all_scores else ()
        more = [f"{row['scores'][name]:.6g}" if row["scores"] else "" for name in others]
        return [*fixed, row["error"] or "", row["model"], *more]


@contextmanager
def open_output(file: Path, choice: Choice) -> Iterator[Output]:
    """Open a file for appending; a last line that was cut is removed.

    Parquet cannot be appended to: its rows gather in ``FILE.part.jsonl`` and are converted when
    the block ends without an error.

    Raises:
        SuiteError: the ending is unknown, the file is another model's or has another form, or it
            cannot be written.
    """
    form = file.suffix.lower()
    if form not in (".csv", ".jsonl", ".parquet"):
        known = (".csv", ".jsonl", ".parquet")
        raise SuiteError(unknown(f"ending {form!r} of --out {file}", form, known))
    journal = file.with_name(f"{file.name}.part.jsonl") if form == ".parquet" else file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if form == ".parquet" and file.exists() and not journal.exists():
            _from_parquet(file, journal)
        _drop_cut_line(journal)
        with journal.open("a+", encoding="utf-8", newline="") as stream:
            output = Output(stream, choice, journal.suffix.lower())
            output.known = _read_known(output, file)
            stream.seek(0, io.SEEK_END)
            if output.form == ".csv" and stream.tell() == 0:
                csv.writer(stream, lineterminator="\n").writerow(output.header())
            yield output
        if form == ".parquet":
            _to_parquet(journal, file)
            journal.unlink()
    except OSError as error:
        raise SuiteError(f"--out {file} cannot be written ({error.strerror or error})") from error


def _drop_cut_line(file: Path) -> None:
    """Remove what follows the last line feed."""
    if not file.exists():
        return
    with file.open("rb+") as stream:
        end = size = stream.seek(0, io.SEEK_END)
        while end:
            start = max(0, end - (1 << 16))
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            stream.truncate(end)


def _read_known(output: Output, file: Path) -> set[str]:
    """The pictures in the file."""
    output.stream.seek(0)
    remedy = "give another --out, or delete the file"
    known = set()
    try:
        if output.form == ".csv":
            rows = csv.reader(output.stream)
            header = next(rows, output.header())
            if header != output.header():
                raise SuiteError(
                    f"--out {file} has the columns {', '.join(header[:8])}, and this command would "
                    f"write {', '.join(output.header()[:8])}; {remedy}"
                )
            parsed: Iterator[Any] = ({"image": row[0], "model": row[4]} for row in rows)
        else:
            parsed = map(json.loads, output.stream)
        for row in parsed:
            if row["model"] != output.choice.model:
                raise SuiteError(
                    f"--out {file} has labels of model {row['model']}, and this one is "
                    f"{output.choice.model}; {remedy}"
                )
            known.add(row["image"])
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        text = f"--out {file} is not a file of `mlbench predict` ({error}); {remedy}"
        raise SuiteError(text) from error
    return known


def _to_parquet(journal: Path, file: Path) -> None:
    pa, parquet = _pyarrow(file)
    scores = pa.map_(pa.string(), pa.float64())
    columns = {
        "image": pa.string(),
        "labels": pa.list_(pa.string()),
        "scores": scores,
        "error": pa.string(),
        "model": pa.string(),
    }
    schema = pa.schema(columns)
    with (
        journal.open(encoding="utf-8") as lines,
        atomic_write(file) as part,
        parquet.ParquetWriter(part, schema) as writer,
    ):
        rows: list[dict[str, Any]] = []
        for line in lines:
            row = json.loads(line)
            rows.append(row | {"scores": list(row["scores"].items())})
            if len(rows) == CHUNK:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


def _from_parquet(file: Path, journal: Path) -> None:
    _, parquet = _pyarrow(file)
    try:
        with (
            parquet.ParquetFile(file) as opened,
            atomic_write(journal) as part,
            part.open("w", encoding="utf-8") as lines,
        ):
            for row in (row for batch in opened.iter_batches(CHUNK) for row in batch.to_pylist()):
                row["scores"] = dict(row["scores"])
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    except (ValueError, KeyError, TypeError) as error:  # those of pyarrow are ValueErrors
        raise SuiteError(
            f"--out {file} is not a file of `mlbench predict` ({error}); give another --out, or "
            "delete the file"
        ) from error


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SuiteError(
            f"--out {file}: Parquet needs pyarrow; `pip install pyarrow`, or give a .csv"
        ) from error
    return pyarrow, parquet
