"""``mlbench import``, ``parity`` and ``rescore``: what authors published, converted and checked."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlbench import registry
from mlbench.cli.console import (
    cache_folder,
    console,
    data_folder,
    device_name,
    errors,
    thread_count,
)
from mlbench.text import count, named_values, shorten
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench_tools.weights.proving import FixtureResult


def import_(
    method: Annotated[str, typer.Argument(help="The method that the file is of.")],
    file: Annotated[Path, typer.Argument(help="The authors' file: .pth, .ckpt, .safetensors ...")],
    dataset: Annotated[str, typer.Option(help="The data set that it was trained on.")],
    out: Annotated[Path, typer.Option(help="Folder to write checkpoint.safetensors to.")],
    data: Annotated[
        Path | None, typer.Option(help="Where the data set is, for its label names.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Instead: its label names in its order, one per line.")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="Of the labels in FILE: official, alphabetical, or a file of names, one per line."
            " Default: what is known of the release."
        ),
    ] = None,
    graph: Annotated[
        Path | None, typer.Option(help="The label graph, if FILE lacks it: .npy, .npz or .pkl.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="The labels' word vectors, if FILE lacks them.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="If it is not the one of the release.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the head; may be repeated.")
    ] = None,
) -> None:
    """Turn a published checkpoint into one of ours; nothing in the file is run."""
    from mlbench_tools.weights.importing import import_checkpoint
    from mlbench_tools.weights.released_labels import dataset_names, listed_names

    registry.find("dataset", dataset)
    if labels is not None:
        names = listed_names(labels)
    else:
        names = dataset_names(dataset, data or data_folder(), cache_folder())
    checkpoint, converted, released = import_checkpoint(
        *(method, file, dataset, names),
        order=order,
        graph=graph,
        words=words,
        backbone=backbone,
        options=named_values(option or ()),
    )
    target = out / "checkpoint.safetensors"
    try:
        checkpoint.save(target)
    except OSError as error:
        raise SuiteError(f"{target} cannot be written: {error}; give another --out") from error
    unused = converted.unused
    lines = ["every name of the file has its place"]
    if unused:
        lines = [f"not used, as in the authors' own code ({len(unused)}):"]
        lines += ["  " + shorten(unused, 20, "\n  ")]
    settings = checkpoint.spec.settings
    lines += [
        f"{released.title}: {settings.backbone}, {settings.head} {settings.head_options}, "
        f"{count(len(names), 'label')}",
        f"written to {target}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def parity(
    fixtures: Annotated[
        Path,
        typer.Argument(help="A fixture file; its .npz is next to it.", metavar="FIXTURES.json"),
    ],
    only: Annotated[
        list[str] | None, typer.Option(help="Only this fixture or method; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recompute every fixture and print its largest errors; exit code 1 if one fails."""
    from mlbench_tools.weights.fixtures import read_fixtures
    from mlbench_tools.weights.proving import prove

    found = read_fixtures(fixtures)
    known = {one.name for one in found} | {one.method for one in found}
    if strange := [name for name in only or () if name not in known]:
        raise SuiteError(
            f"{fixtures} has no {', '.join(strange)}; it has {', '.join(sorted(known))}"
        )
    results = []
    with errors.status("reading") as status:
        for one in found:
            if not only or one.name in only or one.method in only:
                status.update(one.name)
                results.append(prove(one))
    passed = bool(results) and all(result.passed for result in results)
    if as_json:
        rows = [_as_data(result) for result in results]
        plain = {"file": str(fixtures), "passed": passed, "fixtures": rows}
        typer.echo(json.dumps(plain, indent=1))
    else:
        _show(results)
    if not passed:
        raise typer.Exit(1)


def _as_data(result: FixtureResult) -> dict[str, object]:
    return {
        **asdict(result),
        "largest_absolute_error": max((a.absolute for a in result.arrays), default=None),
        "largest_relative_error": max((a.relative for a in result.arrays), default=None),
        "passed": result.passed,
    }


def _show(results: list[FixtureResult]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("fixture", "method", "array", "absolute", "relative", "allowed", ""):
        numeric = column in ("absolute", "relative", "allowed")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    marks = {True: "[green]ok[/green]", False: "[red]FAIL[/red]"}
    for result in results:
        for one in result.arrays:
            numbers = (f"{one.absolute:.1e}", f"{one.relative:.1e}", f"{result.tolerance:.0e}")
            table.add_row(result.name, result.method, one.array, *numbers, marks[one.passed])
        if result.error is not None:
            table.add_row(result.name, result.method, "", "", "", "", marks[False])
    console.print(table)
    for result in results:
        if result.error is not None:
            errors.print(f"{result.name}: {result.error}", style="red", markup=False)
    passed = sum(result.passed for result in results)
    console.print(f"{passed} of {len(results)} fixtures agree")


def rescore(
    checkpoint: Annotated[
        Path, typer.Argument(help="checkpoint.safetensors of `mlbench import`, or its folder.")
    ],
    dataset: Annotated[str, typer.Option(help="The data set.")],
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    data: Annotated[
        Path | None, typer.Option(help="Where the data sets are. Default: $MLBENCH_DATA.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file that the backbone started from, if any.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the data set, as in year=2014; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding threads.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Default: $MLBENCH_CACHE or ~/.cache/mlbench.")
    ] = None,
) -> None:
    """Score authors' weights and write a record, for the boards of re-scored checkpoints."""
    from mlbench.build import open_model
    from mlbench.cli.evaluate import score_model
    from mlbench.cli.progress import Lines
    from mlbench.engine.checkpoint import load
    from mlbench.store import Store
    from mlbench.types import Places
    from mlbench_tools.weights.rescoring import assert_imported, make_record

    places = Places(
        data=data or data_folder(),
        weights=weights,
        results=Path(),
        cache=cache or cache_folder(),
        device=device_name(device),
        workers=thread_count() if workers is None else workers,
    )
    if checkpoint.is_dir():
        checkpoint = checkpoint / "checkpoint.safetensors"
    loaded = load(checkpoint)
    assert_imported(loaded)
    options = named_values(option or ())
    model = open_model(checkpoint, weights)
    found = score_model(model, dataset, options, places, Lines(), batch_size)
    command = f"mlbench {shlex.join(sys.argv[1:])}"
    record, predictions = make_record(found, loaded, places, command)
    file = Store(results).write(record, predictions)
    errors.print(f"recorded in {file}", markup=False, highlight=False, soft_wrap=True)
