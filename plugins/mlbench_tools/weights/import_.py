"""``mlbench import METHOD FILE``: a checkpoint that a method's authors published becomes ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench import registry
from mlbench.cli.console import cache_folder, console, data_folder
from mlbench.text import count, named_values
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench_tools.weights.conversion import Converted

SHOWN = 20
"""Unused names that are listed before they are only counted."""


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
    from mlbench_tools.weights.importing import Request, import_checkpoint
    from mlbench_tools.weights.label_order import dataset_names, listed_names

    registry.find("dataset", dataset)
    names = listed_names(labels) if labels else None
    if names is None:
        names = dataset_names(dataset, data or data_folder(), cache_folder())
    request = Request(
        method=method,
        file=file,
        dataset=dataset,
        names=names,
        order=order,
        graph=graph,
        words=words,
        backbone=backbone,
        options=named_values(option or ()),
    )
    checkpoint, converted, released = import_checkpoint(request)
    target = out / "checkpoint.safetensors"
    try:
        checkpoint.save(target)
    except OSError as error:
        raise SuiteError(f"{target} cannot be written: {error}; give another --out") from error
    _report(converted)
    settings = checkpoint.spec.settings
    told = f"{released.title}: {settings.backbone}, {settings.head} {settings.head_options}"
    console.print(f"{told}, {count(len(names), 'label')}", markup=False, highlight=False)
    console.print(f"written to {target}", markup=False, highlight=False, soft_wrap=True)


def _report(converted: Converted) -> None:
    names = converted.unused
    if not names:
        console.print("every name of the file has its place")
        return
    console.print(f"not used, as in the authors' own code ({len(names)}):")
    for name in names[:SHOWN]:
        console.print(f"  {name}", markup=False, highlight=False)
    if len(names) > SHOWN:
        console.print("  ...")
