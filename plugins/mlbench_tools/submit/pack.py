"""``mlbench pack RUN``: one run of a store as a small file to submit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import console
from mlbench.types import PackError

if TYPE_CHECKING:
    from mlbench.store import Store
    from mlbench.types import RunRecord


def pack(
    run: Annotated[
        str, typer.Argument(help="A run id, the first digits of one, or a record's .json.")
    ],
    results: Annotated[Path, typer.Option(help="The store that holds the run.")] = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(help="The .zip to write, by default METHOD-EDITION-RUN.zip in this folder."),
    ] = None,
) -> None:
    """Pack a run's record, predictions and settings into one small file, to submit it.

    The same run gives the same file. What others will see in it, mlbench verify says.
    """
    from mlbench.files import safe_name
    from mlbench.store import Store
    from mlbench_tools.submit.archive import make

    if out is not None and out.suffix.lower() != ".zip":
        raise PackError(
            f"--out {out}: a pack is a zip, and its name ends in .zip, as {out.stem or run}.zip"
        )
    if run.endswith(".json"):
        record = _read(Path(run))
        store = Store(_root(Path(run)))
    else:
        store = Store(results)
        record = _find(store, run)
    predictions = store.predictions(record) if record.status == "ok" else None
    data = make(record, predictions, store.influence(record))
    named = f"{record.spec.method}-{record.identity}-{record.run_id}"
    file = out or Path(f"{safe_name(named)}.zip")
    _write(file, data)
    repeat = "" if record.spec.checkpoint else f"; mlbench repeat {file} makes the run again"
    console.print(
        f"{file}: run {record.run_id}, {len(data) / 2**10:,.0f} KiB; next: mlbench verify {file}"
        f"{repeat}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _find(store: Store, text: str) -> RunRecord:
    """The one record whose run id begins so."""
    found = store.find(text)
    if found is None:
        raise PackError(
            f"{store.root} has no run {text!r} among its {len(store.records())}; the boards and "
            "the names of its records hold the ids, --results names another store"
        )
    return found


def _root(file: Path) -> Path:
    """The store that a record's file lies in."""
    for folder in file.resolve().parents:
        if folder.name == "records":
            return folder.parent
    raise PackError(
        f"{file} lies in no store, so its predictions are not known; give a file of RESULTS/records"
    )


def _read(file: Path) -> RunRecord:
    from pydantic import ValidationError

    from mlbench.types import RunRecord

    try:
        return RunRecord.model_validate_json(file.read_bytes())
    except OSError as error:
        raise PackError(f"{file} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise PackError(
            f"{file} is no record of this mlbench; give a file of RESULTS/records"
        ) from error


def _write(file: Path, data: bytes) -> None:
    try:
        if file.exists() and file.read_bytes() != data:
            raise PackError(f"{file} is there and holds something else; name another with --out")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        raise PackError(
            f"{file} cannot be written ({error.strerror}); name another with --out"
        ) from error
