"""Files of predictions: CSV, JSON lines and Parquet, to which an interrupted command appends."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlbench.cli.console import writing
from mlbench.files import atomic_write
from mlbench.text import unknown
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.trained_model import Labelled
    from mlbench.types import ModelInfo

SEPARATOR = ";"
"""Separates the labels of a picture in CSV, as in tables that ``manifest:`` reads."""
COLUMNS = ("image", "labels", "scores", "error", "model", "choice")
CHUNK = 4096
"""Rows of Parquet that are converted at once."""
_ELSEWHERE = "; make room or give write permission there, or name another file"


def shown(text: object) -> str:
    """The name of a file in UTF-8; bytes of it in another encoding are escaped."""
    return str(text).encode(errors="backslashreplace").decode()


def listed(labels: Sequence[str], names: Sequence[str]) -> str:
    """Join labels into a cell that ``manifest:`` reads: a JSON list if any name needs one."""
    if any(re.search("[;|,\uff0c\u3001\uff1b\t\n]|^[\\[{('\"]|[\\]}]$", name) for name in names):
        return json.dumps(list(labels), ensure_ascii=False)
    return SEPARATOR.join(labels)


@dataclass(frozen=True)
class Choice:
    """Which labels of a picture are written.

    Attributes:
        info: the model's.
        top: the number of labels; None for those above a threshold.
        threshold: one for all labels; None for the model's own.
        all_scores: also write the scores of the other labels.
    """

    info: ModelInfo
    top: int | None = None
    threshold: float | None = None
    all_scores: bool = False

    @cached_property
    def digest(self) -> str:
        """Eight hex digits over all that labels and scores depend on, besides the run's id."""
        model = (self.info.created, self.info.calibration, self.info.thresholds)
        decisive = json.dumps((model, self.top, self.threshold, self.all_scores))
        return hashlib.sha256(decisive.encode()).hexdigest()[:8]

    def labels(self, result: Labelled) -> tuple[str, ...]:
        """The labels of a picture, the most likely first."""
        if self.top is not None:
            return result.labels[: self.top]
        if self.threshold is not None:
            return tuple(n for n, score in result.scores.items() if score >= self.threshold)
        return result.above

    def row(self, result: Labelled) -> dict[str, Any]:
        """The fields of a picture."""
        labels = self.labels(result)
        scored = result.labels if self.all_scores else labels
        return {
            "image": shown(result.image),
            "labels": list(labels),
            "scores": {name: result.scores[name] for name in scored},
            "error": shown(result.error) if result.error else None,
            "model": self.info.spec.run_id,
            "choice": self.digest,
        }


@dataclass
class Output:
    """A file to which rows are appended.

    Attributes:
        file: the path that the user named.
        journal: where rows are appended; the file itself, except for Parquet.
        made: True if the journal is made from a finished Parquet file.
        known: picture that was labelled before -> its labels.
        stream: the journal, open for appending.
        end: end of the last whole line that was read, in bytes.
    """

    file: Path
    journal: Path
    made: bool
    choice: Choice
    known: dict[str, list[str]] = field(default_factory=dict)
    stream: IO[str] = field(init=False)
    end: int = 0

    @property
    def is_csv(self) -> bool:
        """True for CSV, False for JSON lines."""
        return self.journal.suffix.lower() == ".csv"

    def write(self, result: Labelled) -> None:
        """Append a picture, and flush it to the operating system."""
        row = self.choice.row(result)
        with writing(f"--out {self.file}", _ELSEWHERE):
            _put(self.stream, self._cells(row) if self.is_csv else row)
            self.stream.flush()

    def header(self) -> list[str]:
        """The columns of CSV: fixed ones, then one a label if all scores are written."""
        names = self.choice.info.label_names if self.choice.all_scores else ()
        return [*COLUMNS, *(f"score:{name}" if name in COLUMNS else name for name in names)]

    def _cells(self, row: dict[str, Any]) -> list[str]:
        names = self.choice.info.label_names
        scores = [f"{row['scores'][name]:.6g}" for name in row["labels"]]
        fixed = [row["image"], listed(row["labels"], names), SEPARATOR.join(scores)]
        others = names if self.choice.all_scores else ()
        more = [f"{row['scores'][name]:.6g}" if row["scores"] else "" for name in others]
        return [*fixed, row["error"] or "", row["model"], row["choice"], *more]

    def resume(self, wanted: Collection[str]) -> None:
        """Read the file; drop an incomplete last line, and the failures among ``wanted``.

        Raises:
            SuiteError: the file has something else, and was not touched.
        """
        if not self.made and not self.journal.exists():
            return
        try:
            if self.made:
                _from_parquet(self.file, self.journal)
            failed = self._read()
        except (ValueError, LookupError, TypeError, csv.Error) as error:  # also of pyarrow
            raise self._refused(f"is not a file of `mlbench predict` ({error})") from error
        os.truncate(self.journal, self.end)
        if not (again := failed.intersection(wanted)):
            return
        with (
            atomic_write(self.journal) as part,
            part.open("w", encoding="utf-8", newline="") as stream,
        ):
            for row in self._rows():
                if (row[0] if self.is_csv else row["image"]) not in again:
                    _put(stream, row)

    def _read(self) -> set[str]:
        """Put the pictures that were labelled into ``known``; return those that failed."""
        failed, model, rows = set(), self.choice.info.spec.run_id, self._rows()
        if self.is_csv and (header := next(rows, None)) not in (None, self.header()):
            first, wanted = ", ".join(header[:8]), ", ".join(self.header()[:8])
            raise self._refused(f"has the columns {first}, and this command would write {wanted}")
        for cells in rows:
            row = dict(zip(self.header(), cells, strict=True)) if self.is_csv else cells
            if row["model"] != model:
                raise self._refused(f"has labels of model {row['model']}, and this one is {model}")
            if row["choice"] != self.choice.digest:
                flags = "another --top, --threshold or --all-scores"
                raise self._refused(f"was written with other thresholds of the model, or {flags}")
            if row["error"]:
                failed.add(row["image"])
            else:
                self.known[row["image"]] = _labels(row["labels"])
        if not self.end and self.journal.stat().st_size:
            raise ValueError("no line of it is whole")
        return failed

    def _rows(self) -> Iterator[Any]:
        """The whole rows: lists of CSV, or objects of JSON."""
        return csv.reader(self._lines()) if self.is_csv else map(json.loads, self._lines())

    def _lines(self) -> Iterator[str]:
        self.end = 0
        with self.journal.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    self.end += len(line)
                    yield line.decode()

    def _refused(self, reason: str) -> SuiteError:
        where = self.file if self.made else self.journal
        if self.made:
            self.journal.unlink(missing_ok=True)
        return SuiteError(f"--out {self.file} {reason}; give another --out, or delete {where}")


def _put(stream: IO[str], row: Any) -> None:
    """Write a row: a list as CSV, an object as JSON."""
    if isinstance(row, list):
        csv.writer(stream, lineterminator="\n").writerow(row)
    else:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _labels(cell: Any) -> list[str]:
    """The labels of a row; the inverse of ``listed`` for CSV."""
    if not isinstance(cell, str):
        return list(cell)
    found: list[str] = json.loads(cell) if cell.startswith("[") else cell.split(SEPARATOR)
    return found if cell else []


@contextmanager
def open_output(file: Path, choice: Choice, wanted: Collection[str]) -> Iterator[Output]:
    """Open a file for appending pictures; drop the rows of ``wanted`` pictures that failed.

    Parquet cannot be appended to: its rows gather in ``FILE.part.jsonl`` and are converted when
    the block ends without an error.

    Raises:
        SuiteError: the ending is unknown, the file was not written with this model and choice, or
            it cannot be written.
    """
    form, known = file.suffix.lower(), (".csv", ".jsonl", ".parquet")
    if form not in known:
        raise SuiteError(unknown(f"ending {form!r} of --out {file}", form, known))
    journal = file.with_name(f"{file.name}.part.jsonl") if form == ".parquet" else file
    made = form == ".parquet" and file.exists() and not journal.exists()
    output = Output(file, journal, made, choice)
    with writing(f"--out {file}", _ELSEWHERE):
        file.parent.mkdir(parents=True, exist_ok=True)
        output.resume(wanted)
        output.stream = journal.open("a", encoding="utf-8", newline="")
        if output.is_csv and output.stream.tell() == 0:
            _put(output.stream, output.header())
    with output.stream:
        yield output
    if form == ".parquet":
        with writing(f"--out {file}", _ELSEWHERE):
            _to_parquet(journal, file)
            journal.unlink()


def _to_parquet(journal: Path, file: Path) -> None:
    pa, parquet = _pyarrow(file)
    special = {
        "labels": pa.list_(pa.string()),
        "scores": pa.map_(pa.string(), pa.float64()),
    }
    schema = pa.schema({name: special.get(name, pa.string()) for name in COLUMNS})
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
    with (
        parquet.ParquetFile(file) as opened,
        atomic_write(journal) as part,
        part.open("w", encoding="utf-8") as lines,
    ):
        for row in (row for batch in opened.iter_batches(CHUNK) for row in batch.to_pylist()):
            _put(lines, row | {"scores": dict(row["scores"])})


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SuiteError(
            f"--out {file}: Parquet needs pyarrow; `pip install pyarrow`, or give a .csv"
        ) from error
    return pyarrow, parquet
