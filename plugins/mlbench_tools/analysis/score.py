"""``mlbench score FILE``: predictions under any protocol of the literature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench.cli.console import AsJson, Results, console, errors, plain_table
from mlbench.text import count
from mlbench.types import MeasureError, SuiteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlbench_tools.analysis.predictions import ScoredFile
    from mlbench_tools.scoring.measures import Measurement
    from mlbench_tools.scoring.protocols import Protocol


def score(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Predictions (.npz or .csv), the .json of a record, or the beginning of a run id.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Protocols, separated by commas; `all` for every one that may give other numbers."
        ),
    ] = "canonical",
    results: Results = Path("results"),
    by_label: Annotated[
        bool, typer.Option("--by-label", help="Also print the values per label.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the protocols and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score predictions of a file or a run under the protocols of the literature."""
    if show:
        _list(as_json)
        return
    if source is None:
        raise SuiteError("name a file or a run id to score, or give --list to see the protocols")
    from mlbench.metrics.average_precision import check
    from mlbench.metrics.bootstrap import remarks
    from mlbench_tools.analysis.predictions import read
    from mlbench_tools.scoring.protocols import find, measure

    wanted = None if protocol == "all" else [name.strip() for name in protocol.split(",")]
    for name in wanted or ():
        find(name)  # report a misspelt name before a large file is read
    scored = read(source, results)
    given = scored.given
    try:
        check(given.logits, given.targets, scored.names)
    except MeasureError as error:
        raise MeasureError(f"{scored.file}: {error}") from error
    remarked = [f"{scored.file}: {x}" for x in remarks(given.logits, given.targets, scored.names)]
    for warning in (*scored.warnings, *remarked):
        errors.print(f"warning: {warning}", style="yellow")
    found, undefined = measure(given, wanted)
    data = _as_data(scored, found, undefined)
    if as_json:
        typer.echo(json.dumps(data, indent=1, allow_nan=False))
    else:
        _show(data, by_label)


def _as_data(
    scored: ScoredFile, found: Mapping[str, Measurement], undefined: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that was measured, ready for JSON."""
    from mlbench_tools.scoring.protocols import find

    images, labels = scored.given.targets.shape
    return {
        "file": str(scored.file),
        "run_id": scored.run_id,
        "images": images,
        "labels": labels,
        "protocols": {
            name: {
                **_described(find(name)),
                "values": dict(measured.values),
                "by_label": {
                    of: dict(zip(scored.names, _plain(column, scored.names), strict=True))
                    for of, column in measured.by_label.items()
                },
                "curves": {of: numbers.tolist() for of, numbers in measured.curves.items()},
            }
            for name, measured in found.items()
        },
        "undefined": undefined,
    }


def _described(protocol: Protocol) -> dict[str, Any]:
    names = ("version", "oracle", "definition", "source")
    return {name: getattr(protocol, name) for name in names}


def _plain(column: NDArray[Any], names: tuple[str, ...]) -> list[float | str | None]:
    """The cells of a column, with None for NaN, and labels' names for their indices."""
    if column.dtype.kind == "i":
        return [names[i] if i >= 0 else None for i in column.tolist()]
    return [None if value != value else value for value in column.tolist()]


# ---------------------------------------------------------------------------------------- terminal
def _show(data: Mapping[str, Any], by_label: bool) -> None:
    size = f"{count(data['images'], 'image')}, {count(data['labels'], 'label')}"
    console.print(f"{data['file']}: {size}", highlight=False)
    protocols = data["protocols"]
    table = plain_table(("protocol", ""))
    for name, protocol in protocols.items():
        values = protocol["values"].items()
        numbers = "  ".join(f"{value} {_cell(number)}" for value, number in values)
        table.add_row(_marked(name, protocol), numbers)
    for name, reason in data["undefined"].items():
        table.add_row(name, f"not defined: {reason}")
    console.print(table, highlight=False)
    if any(protocol["oracle"] for protocol in protocols.values()):
        console.print(
            "oracle: it reads the answers of the images that it scores; no honest number compares "
            "with it"
        )
    for name, columns in ((name, p["by_label"]) for name, p in protocols.items() if by_label):
        table = plain_table((name, *columns))
        for label in next(iter(columns.values()), ()):
            table.add_row(label, *(_cell(column[label]) for column in columns.values()))
        if columns:
            console.print()
            console.print(table, highlight=False)


def _marked(name: str, protocol: Mapping[str, Any]) -> str:
    return f"{name} (oracle)" if protocol["oracle"] else name


def _cell(value: float | str | None) -> str:
    """A number with two decimals, a count or a word as it is, or a dash for None."""
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _list(as_json: bool) -> None:
    from mlbench_tools.scoring.protocols import PROTOCOLS, TREATMENTS

    protocols = {name: _described(protocol) for name, protocol in PROTOCOLS.items()}
    treatments = {
        name: {"definition": treatment.definition, "source": treatment.source}
        for name, treatment in TREATMENTS.items()
    }
    if as_json:
        typer.echo(json.dumps({"protocols": protocols, "treatments": treatments}, indent=1))
        return
    table = plain_table(("protocol", "version", "definition", "source"))
    for name, row in protocols.items():
        cells = (_marked(name, row), str(row["version"]), row["definition"], row["source"])
        table.add_row(*cells)
    for name, row in treatments.items():
        table.add_row(f"...+{name}", "", row["definition"], row["source"])
    console.print(table, highlight=False)
