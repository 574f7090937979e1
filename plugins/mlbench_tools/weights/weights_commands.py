"""``mlbench import``, ``parity`` and ``rescore``: what authors published, converted and checked."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import (
    AsJson,
    Cache,
    Data,
    DatasetOptions,
    Device,
    Results,
    Workers,
    cache_folder,
    console,
    data_folder,
    errors,
    plain_table,
    writing,
)
from mlbench.text import command_line, count, named_values, shorten
from mlbench.types import ModelFile, SuiteError
from mlbench_tools.scoring import evaluate

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
    key: Annotated[
        str | None, typer.Option(help="Of the state dict in FILE, if there are several.")
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
        key=key,
    )
    target = out / "checkpoint.safetensors"
    with writing(target, "; give another --out"):
        checkpoint.save(target)
    if converted.unused:
        unused = shorten(converted.unused, 20, "\n  ")
        used = f"not used, as in the authors' own code ({len(converted.unused)}):\n  {unused}"
    else:
        used = "every name of the file has its place"
    settings = checkpoint.info.spec.settings
    model = f"{settings.backbone}, {settings.head} {settings.head_options}"
    where = f" of {converted.key}" if converted.key else ""
    less = f", without {converted.dropped} before all names" if converted.dropped else ""
    for line in (
        f"read the state dict{where}{less}",
        used,
        f"{released.title}: {model}, {count(len(names), 'label')}",
        f"written to {target}",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def parity(
    fixtures: Annotated[
        Path,
        typer.Argument(help="A fixture file; its .npz is next to it.", metavar="FIXTURES.json"),
    ],
    only: Annotated[
        list[str] | None, typer.Option(help="Only this fixture or method; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every fixture and print its largest errors; exit code 1 if one fails.

    Fixtures of methods that are not here are named, and count as neither.
    """
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
    here = [result for result in results if result.left_out is None]
    passed = bool(here) and all(result.passed for result in here)
    if as_json:
        rows = [asdict(result) | {"passed": result.passed} for result in results]
        data = {"file": str(fixtures), "passed": passed, "fixtures": rows}
        typer.echo(json.dumps(data, indent=1))
    else:
        _show(results)
    if not passed:
        raise typer.Exit(1)


def _show(results: list[FixtureResult]) -> None:
    numbers = ("absolute", "relative", "allowed")
    table = plain_table(("fixture", "method", "array", *numbers, ""), numbers)
    marks = {True: Text("ok", "green"), False: Text("FAIL", "red")}
    for result in results:
        for one in result.arrays:
            numbers = (f"{one.absolute:.1e}", f"{one.relative:.1e}", f"{result.tolerance:.0e}")
            table.add_row(result.name, result.method, one.array, *numbers, marks[one.passed])
        if result.error is not None:
            table.add_row(result.name, result.method, "", "", "", "", marks[False])
    console.print(table)
    for result in results:
        if result.error is not None:
            errors.print(f"{result.name}: {result.error}", style="red")
        if result.left_out is not None:
            console.print(f"{result.name} is left out: {result.left_out}")
    passed = sum(result.passed for result in results)
    left_out = sum(result.left_out is not None for result in results)
    more = f"; {left_out} are of methods that are not here" if left_out else ""
    console.print(f"{passed} of {len(results) - left_out} fixtures agree{more}")


def rescore(
    checkpoint: Annotated[
        Path, typer.Argument(help="checkpoint.safetensors of `mlbench import`, or its folder.")
    ],
    dataset: Annotated[str, typer.Option(help="The data set.")],
    results: Results = Path("results"),
    data: Data = None,
    option: DatasetOptions = None,
    device: Device = "auto",
    batch_size: evaluate.BatchSize = 64,
    workers: Workers = None,
    cache: Cache = None,
) -> None:
    """Score authors' weights and write a record, for the boards of re-scored checkpoints."""
    from mlbench.build import model_file, restore
    from mlbench.engine.checkpoint import load
    from mlbench.store import Store
    from mlbench_tools.weights.rescoring import assert_imported, make_record

    places = evaluate.local_places(data, cache, device, workers)
    loaded = load(model_file(checkpoint))
    assert_imported(loaded)
    model, options = restore(loaded), named_values(option or ())
    opened = ModelFile(model, loaded.info)
    found = evaluate.score_model(opened, dataset, options, places, batch_size)
    evaluate.show(found)
    file = Store(results).write(*make_record(found, loaded, model, places, command_line()))
    errors.print(f"recorded in {file}", soft_wrap=True)
