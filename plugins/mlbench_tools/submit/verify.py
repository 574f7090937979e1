"""``mlbench verify PACK``: recompute a submitted result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import AsJson, cache_folder, console
from mlbench.text import count
from mlbench.types import MlbenchError, PackError
from mlbench_tools.submit.remarks import Remark, RemarkKind, VerifyReport, finding

if TYPE_CHECKING:
    from mlbench.store import Store
    from mlbench.types import Places, RunRecord
    from mlbench_tools.submit.pack_file import Pack

EXIT_CODES = {"clean": 0, "warnings": 0, "findings": 1, "unfinished": 2, "unreadable": 2}
KINDS: dict[RemarkKind, tuple[str, str]] = {
    "finding": ("findings", "red"),
    "warning": ("warnings", "yellow"),
    "not checked": ("not_checked", "dim"),
}
"""Kind of remark -> its list in the JSON, and its style."""


def verify(
    packs: Annotated[
        list[Path], typer.Argument(help="Files that `mlbench pack` made.", metavar="PACK")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets: compare every key and target with them."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Add packs without findings to this store.")
    ] = None,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="With --into: replace older records.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute scores, parameters and GMACs of submitted results, and list what is wrong.

    Without --data, images and labels are compared with the card of the data set.

    Exit code 0: no finding, though there may be warnings; 1: findings; 2: a file is not a pack, or
    the data set or the store of one cannot be used.

    This is about results; `mlbench data verify` checks the images of a data set.
    """
    from mlbench.store import Store
    from mlbench.types import Places

    if supersede and into is None:
        raise PackError("--supersede needs --into; name the store with --into")
    store = None if into is None else Store(into)
    places = None
    if data is not None:
        places = Places(data=data, results=Path("results"), cache=cache_folder())
    reports = []
    for file in packs:
        reports.append(_verify_one(file, places, store, supersede))
        if not as_json:
            _show(reports[-1])
    if as_json:
        typer.echo(json.dumps([_as_data(report) for report in reports], indent=1, default=str))
    code = max(EXIT_CODES[report.verdict] for report in reports)
    if code:
        raise typer.Exit(code)


def _verify_one(
    file: Path, places: Places | None, store: Store | None, supersede: bool
) -> VerifyReport:
    """Check one file, and add it to the store if there is no finding."""
    from mlbench_tools.submit import five_checks, pack_file

    report = VerifyReport(str(file))
    try:
        pack = pack_file.read(file)
        report.run_id, report.identity = pack.record.run_id, pack.record.identity
        report = five_checks.verify(pack, places)
        if store is not None and not report.of("finding"):
            report.extend("store", superseding(pack.record, store, supersede))
            if not report.of("finding"):
                report.added = _add(pack, store)
    except MlbenchError as error:
        report.error = str(error)
    return report


def superseding(new: RunRecord, store: Store, supersede: bool) -> Iterator[Remark]:
    """Check that a record may take the place of the store's record of the same run, if any.

    Raises:
        StoreError: the store's record of this run is damaged.
    """
    old = store.find(new.run_id)
    if old is None or _same(old, new):
        return
    if new.began <= old.began:
        text = f"{store.root} has a record of this run that did not start earlier"
    elif old.status == "ok" and new.status != "ok":
        text = f"{store.root} has this run with a score, and the pack's diverged"
    elif not supersede:
        text = f"{store.root} has this run already; --supersede replaces its record"
    else:
        return
    yield finding(text, _described(old), _described(new))


def _add(pack: Pack, store: Store) -> str:
    """Write record and predictions to a store, and note the time in the record.

    Returns:
        A sentence on the outcome.

    Raises:
        StoreError: the store cannot be written to, or its record of this run is damaged.
    """
    old = store.find(pack.record.run_id)
    if old is not None and _same(old, pack.record):
        return f"is in {store.root} already"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = pack.record.model_copy(update={"added": now})
    file = store.write(record, pack.predictions)
    if old is None:
        return f"added as {file}"
    return (
        f"added as {file}; this run of {_described(record)} supersedes that of {_described(old)}, "
        "which is kept beside it"
    )


def _same(old: RunRecord, new: RunRecord) -> bool:
    """Return whether two records are equal, except for when they were added; NaN equals NaN."""
    leaving = {"added", "digest", "predictions_sha256"}
    return old.model_dump_json(exclude=leaving) == new.model_dump_json(exclude=leaving)


def _described(record: RunRecord) -> str:
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    return f"{record.started}, {score}, commit {(record.commit or 'unknown')[:12]}"


def _as_data(report: VerifyReport) -> dict[str, object]:
    plain = vars(report) | {"verdict": report.verdict}
    del plain["remarks"]
    for kind, (name, _) in KINDS.items():
        plain[name] = [remark._asdict() for remark in report.of(kind)]
    return plain


def _show(report: VerifyReport) -> None:
    if report.error:
        _print(f"{report.pack}: {report.verdict}", "red")
        _print(f"  {report.error}")
        return
    _print(f"{report.pack}: run {report.run_id} on {report.identity}")
    for kind, (_, style) in KINDS.items():
        for remark in report.of(kind):
            _print(f"  {kind} ({remark.check}): {remark.text}", style)
            if kind == "finding":
                _print(f"    expected: {remark.expected}")
                _print(f"    found:    {remark.found}")
    numbers = [count(len(report.of(kind)), kind) for kind in ("finding", "warning")]
    _print(f"  {report.verdict}: {', '.join(numbers)} in {len(report.checks)} checks")
    if report.added:
        _print(f"  {report.added}")


def _print(text: str, style: str = "") -> None:
    """Print one line: line breaks in a pack's texts are escaped."""
    line = text.replace("\n", "\\n")
    console.print(line, style=style, highlight=False, soft_wrap=True)
