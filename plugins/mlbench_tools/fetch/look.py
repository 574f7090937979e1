"""``mlbench data list``, ``stats`` and ``show``: what there is, in numbers and in pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mlbench import registry
from mlbench.cli.console import console, errors
from mlbench.types import DatasetCard, PluginError, Sample, Split, SuiteError
from mlbench_tools.fetch.sharing import Data, Json, Name, Options, check_png, opened, save

SHOWN = 400
"""Samples that a sheet has at most: one of 20x20 is 30 million pixels."""


def list_(as_json: Json = False) -> None:
    """List the data sets, their official sizes, and how each is had."""
    rows = []
    for plugin in registry.plugins("dataset"):
        try:
            card = getattr(plugin.load(), "card", None)
        except PluginError as error:
            errors.print(f"{plugin.name}: {error}", style="red", markup=False)
            continue
        if isinstance(card, DatasetCard):
            rows.append({"name": plugin.name, **_row(card)})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "title", "labels", "train", "test", "had by", "licence"):
        numeric = column in ("labels", "train", "test")
        table.add_column(column, overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v or "") for v in row.values()))
    console.print(table, markup=False)


def _row(card: DatasetCard) -> dict[str, object]:
    sizes = {name: split.images for name, split in card.splits.items()}
    fetched = card.archives and all(archive.url for archive in card.archives)
    by_hand = "steps by hand" if card.steps or card.archives else ""
    return {
        "title": card.title,
        "labels": card.labels,
        "train": sizes.get("train"),
        "test": sizes.get("test"),
        "had_by": "fetch" if fetched else by_hand,
        "licence": card.licence,
    }


def stats(
    name: Name,
    data: Data = None,
    option: Options = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the co-occurrence to this .png.")] = None,
    as_json: Json = False,
) -> None:
    """Count images and labels: per image, per class, together, and not at all."""
    import numpy as np

    from mlbench_tools.fetch.pictures import cooccurrence_plot
    from mlbench_tools.fetch.statistics import count
    from mlbench_tools.fetch.statistics_table import tables

    if plot is not None:
        check_png("--plot", plot)
    found = count(name, opened(name, data, option))
    if plot is not None:
        names = [label.name for label in found.labels]
        save(cooccurrence_plot(np.array(found.cooccurrence), names), plot)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    for part in tables(found):
        console.print(part, markup=False)


def show(
    name: Name,
    out: Annotated[Path, typer.Option(help="The picture to write, a .png.")],
    data: Data = None,
    option: Options = None,
    grid: Annotated[str, typer.Option(help="COLUMNSxROWS.")] = "4x4",
    split: Annotated[Split, typer.Option(help="train or test.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw samples with their labels, so that a person can see what was loaded."""
    from mlbench_tools.fetch.pictures import contact_sheet, drawn

    check_png("--out", out)
    sides = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", grid)
    if sides is None:
        raise SuiteError(f"--grid {grid!r} is not COLUMNSxROWS, each from 1 to 99, as in 4x4")
    columns, rows = int(sides[1]), int(sides[2])
    if columns * rows > SHOWN:
        raise SuiteError(
            f"--grid {grid} has {columns * rows:,} samples; draw at most {SHOWN}, as in 20x20"
        )
    splits = opened(name, data, option)
    index = splits.train if split == "train" else splits.test
    samples = drawn(index, rows * columns, seed)
    save(contact_sheet(samples, splits.names, rows, columns), out)
    if as_json:
        told = [_told(sample, splits.names) for sample in samples]
        plain = {"dataset": name, "identity": splits.identity, "split": split, "seed": seed}
        typer.echo(json.dumps({**plain, "written": str(out), "samples": told}, indent=1))


def _told(sample: Sample, names: Sequence[str]) -> dict[str, object]:
    states = list(zip(names, sample.target.tolist(), strict=True))
    return {
        "key": sample.key,
        "file": str(sample.file),
        "labels": [name for name, state in states if state == 1],
        "unknown": [name for name, state in states if state < 0],
    }
