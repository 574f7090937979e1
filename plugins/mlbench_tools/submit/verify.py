"""``mlbench verify PACK``: what a submitted result holds, recomputed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mlbench import registry
from mlbench.cli.console import cache_folder, console
from mlbench.types import PackError

if TYPE_CHECKING:
    from mlbench_tools.submit.archive import Pack
    from mlbench_tools.submit.copies import Seen
    from mlbench_tools.submit.remarks import Kind, Report

FINDINGS, UNREADABLE = 1, 2
"""Exit codes."""


class Unreadable(NamedTuple):
    """A file that is no pack, and why."""

    pack: str
    error: str


def verify(
    packs: Annotated[
        list[Path], typer.Argument(help="Files that `mlbench pack` made.", metavar="PACK")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets: compare every key and target with the set."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Add packs without findings to this store.")
    ] = None,
    supersede: Annotated[
        bool,
        typer.Option("--supersede", help="With --into: take the place of older records."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Recompute scores, parameters and GMACs of submitted results, and say what is wrong with them.

    Without --data, images and labels are held against what the data set's card knows.

    Exit code 0: no finding, though there may be warnings; 1: findings; 2: a file that is no pack.

    This is about results; `mlbench data verify` looks at the images of a data set.
    """
    if supersede and into is None:
        raise PackError("--supersede says what --into may do; name the store with --into")
    earlier: list[Seen] = []
    reports = [_judge(file, data, into, supersede, earlier) for file in packs]
    if as_json:
        typer.echo(json.dumps([_as_data(report) for report in reports], indent=1))
    else:
        for report in reports:
            _show(report)
    code = max(_code(report) for report in reports)
    if code:
        raise typer.Exit(code)


def _judge(
    file: Path, data: Path | None, into: Path | None, supersede: bool, earlier: list[Seen]
) -> Report | Unreadable:
    """What is to be said of a file, after those that were judged ``earlier``; it joins them."""
    from mlbench_tools.submit.archive import read
    from mlbench_tools.submit.checks import verify as look
    from mlbench_tools.submit.copies import Seen, copies

    try:
        pack = read(file)
    except PackError as error:
        return Unreadable(str(file), f"{error}{_perhaps(file)}")
    report = look(pack, data, cache_folder())
    if into is not None:
        return _taken_in(pack, report, into, supersede)
    if earlier:
        report = report.also("copies", copies(pack, earlier))
    if predicted := pack.predicted:
        earlier.append(Seen(str(file), pack.record, lambda _: predicted.predictions))
    return report


def _taken_in(pack: Pack, report: Report, into: Path, supersede: bool) -> Report:
    from mlbench.store import Store
    from mlbench_tools.submit.intake import add, compare

    store = Store(into)
    if report.verdict != "findings":
        report = report.also("store", compare(pack, store, supersede))
    if report.verdict != "findings":
        report = report.model_copy(update={"added": add(pack, store)})
    return report


def _perhaps(file: Path) -> str:
    """What someone may have meant who took this for another command."""
    if not file.exists() and "dataset" in registry.kinds_of(str(file)):
        return f"; to look at the images of a data set: mlbench data verify {file}"
    return ""


def _code(report: Report | Unreadable) -> int:
    if isinstance(report, Unreadable):
        return UNREADABLE
    return FINDINGS if report.verdict == "findings" else 0


def _as_data(report: Report | Unreadable) -> dict[str, object]:
    if isinstance(report, Unreadable):
        return {"pack": report.pack, "verdict": "unreadable", "error": report.error}

    def remarks(kind: Kind, *fields: str) -> list[dict[str, object]]:
        return [remark.model_dump(include={"check", "text", *fields}) for remark in report.of(kind)]

    return {
        "pack": report.pack,
        "run_id": report.run_id,
        "identity": report.identity,
        "verdict": report.verdict,
        "findings": remarks("finding", "expected", "found"),
        "warnings": remarks("warning"),
        "not_checked": remarks("not checked"),
        "checks": list(report.checks),
        "added": report.added,
    }


def _show(report: Report | Unreadable) -> None:
    if isinstance(report, Unreadable):
        _print(f"{report.pack}: unreadable", "red")
        _print(f"  {report.error}")
        return
    _print(f"{report.pack}: run {report.run_id} on {report.identity}")
    styles: dict[Kind, str] = {"finding": "red", "warning": "yellow", "not checked": "dim"}
    for kind, style in styles.items():
        for remark in report.of(kind):
            where = f" ({remark.check})" if kind == "finding" else ""
            _print(f"  {kind}{where}: {remark.text}", style)
            if kind == "finding":
                _print(f"    expected: {remark.expected}")
                _print(f"    found:    {remark.found}")
    said, style = _outcome(report)
    _print(f"  {said}", style)
    if report.added is not None:
        _print(f"  {report.added}")


def _outcome(report: Report) -> tuple[str, str]:
    """The verdict in words, and its style."""
    from mlbench.text import count

    checks = f"in {len(report.checks)} checks"
    warnings = count(len(report.of("warning")), "warning")
    if report.verdict == "findings":
        return f"{count(len(report.of('finding')), 'finding')} {checks}", "red"
    if report.verdict == "warnings":
        return f"no finding, and {warnings} for you to judge, {checks}", "yellow"
    return f"clean: no finding and no warning {checks}", "green"


def _print(text: str, style: str = "") -> None:
    """On one line, whatever a pack says: no text of it begins one."""
    line = text.replace("\n", "\\n")
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
