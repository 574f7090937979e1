"""``mlbench evaluate CHECKPOINT``: its scores on the test split of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mlbench.cli.console import (
    AsJson,
    Cache,
    Data,
    DatasetOptions,
    Device,
    Workers,
    cache_folder,
    console,
    data_folder,
    device_name,
    errors,
    thread_count,
    writing,
)
from mlbench.text import count, named_values, shorten
from mlbench.types import MeasureError, SuiteError

if TYPE_CHECKING:
    from mlbench.metrics.bootstrap import Count
    from mlbench.types import (
        Index,
        ModelFile,
        ModelInfo,
        Places,
        Predictions,
        RunSpec,
        Scores,
        Splits,
    )

BatchSize = Annotated[int, typer.Option(min=1)]


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint, its folder, or a model of an installed format.")
    ],
    dataset: Annotated[str, typer.Option(help="The data set.")],
    data: Data = None,
    option: DatasetOptions = None,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = None,
    cache: Cache = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write logits, targets, keys and names to this .npz.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the scores of a checkpoint on the test split, as records hold them."""
    from mlbench.build import open_model

    places = local_places(data, cache, device, workers)
    opened = open_model(checkpoint)
    options = named_values(option or ())
    found = score_model(opened, dataset, options, places, batch_size)
    if predictions is not None:
        _keep(found, predictions)
    show(found, checkpoint if as_json else None)


def local_places(data: Path | None, cache: Path | None, device: str, workers: int | None) -> Places:
    """The places that the flags of ``evaluate`` name, with their defaults."""
    from mlbench.types import Places

    return Places(
        data=data or data_folder(),
        results=Path(),
        cache=cache or cache_folder(),
        device=device_name(device),
        workers=thread_count() if workers is None else workers,
    )


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model.

    Attributes:
        names: names of the labels, the columns of the predictions, in the model's order.
        average_precision: percent per label, None if it has none.
        remarks: what a reader of the scores should know.
        splits: the data set that it was scored on.
        dataset, options: plugin name and options that it is recorded under.
        started: time of the start, in ISO 8601.
    """

    names: tuple[str, ...]
    scores: Scores
    average_precision: tuple[float | None, ...]
    remarks: tuple[str, ...]
    predictions: Predictions
    splits: Splits
    dataset: str
    options: Mapping[str, Any]
    started: str


def score_model(
    model: ModelFile,
    dataset: str,
    options: Mapping[str, Any],
    places: Places,
    batch_size: int = 64,
) -> Evaluation:
    """Score a model on the test split of a data set, under the canonical protocol.

    Progress is reported whenever nothing was printed for a while.

    Raises:
        SuiteError: the labels are not those of the model.
        DataError: files are missing or damaged.
        MeasureError: no label of the test split can be scored.
    """
    from mlbench.cli.progress import Reminder
    from mlbench.data.decode import problems, unusable
    from mlbench.data.open import open_splits
    from mlbench.executors.run_status import Followed
    from mlbench.metrics.average_precision import unscorable
    from mlbench.metrics.bootstrap import remarks, score

    started = datetime.now(UTC).isoformat(timespec="seconds")
    progress = Followed("", 0)
    with Reminder("scoring", lambda: [progress.now.text]):
        progress.phase("data")
        spec, names = model.info.spec, model.info.label_names
        dataset, options = complete_options(spec, dataset, options)
        splits = open_splits(dataset, options, places.data, places.cache)
        test = select_labels(model.info, splits, dataset)
        if reason := unscorable(test.targets, names):
            raise MeasureError(f"the test split of {splits.identity}: {reason}")
        if bad := problems(test.files, places.cache, places.workers, progress.count):
            raise unusable(bad, test.files)
        progress.phase("evaluation")
        predictions = _predict(model, test, places, progress.count, batch_size)
        progress.phase("metrics")
        scores, precisions = score(predictions.logits, predictions.targets)
    noted = tuple(remarks(predictions.logits, predictions.targets, names))
    about = splits, dataset, options, started
    return Evaluation(names, scores, precisions, noted, predictions, *about)


def complete_options(
    spec: RunSpec, dataset: str, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The data set's name and options to score a model on; options not given are the model's own.

    On another data set, an option of the model is kept only if its recipe sets the same there.
    """
    from mlbench.registry import recorded_as
    from mlbench.tracks import for_dataset, recipe_of

    name, _ = recorded_as(dataset, options)
    trained_on, trained = recorded_as(spec.dataset, spec.dataset_options)
    if trained_on != name:
        published = for_dataset(recipe_of(spec.method).dataset_options, name).items()
        trained = {key: value for key, value in trained.items() if (key, value) in published}
    return recorded_as(dataset, {**trained, **options})


def _predict(
    model: ModelFile, test: Index, places: Places, tell: Count, batch_size: int
) -> Predictions:
    import torch

    from mlbench.data.loader import ImageSource
    from mlbench.data.transforms import Transform, make_view
    from mlbench.engine.distributed import World
    from mlbench.engine.evaluation import Evaluator

    device, network = torch.device(places.device), model.network
    if isinstance(network, torch.nn.Module):
        network = network.to(device).to(memory_format=torch.channels_last)
    source = ImageSource(test, Transform(make_view(model.info.settings)), 0, places.workers, device)
    how = World(), device
    return Evaluator(test, source, *how, count=tell, batch_size=batch_size).predict(network)


def select_labels(info: ModelInfo, splits: Splits, dataset: str) -> Index:
    """The test split with the labels of the model, in the model's order, matched by name.

    Only a model that was trained on some of the data set's labels may lack others.
    """
    names = info.label_names
    unknown = [name for name in names if name not in splits.names]
    untrained = [name for name in splits.names if name not in names]
    if unknown or (untrained and info.spec.labels is None):
        lacks = [f"{dataset} lacks {shorten(unknown)}"] if unknown else []
        lacks += [f"the model lacks {shorten(untrained)}"] if untrained else []
        raise SuiteError(
            f"the labels of {dataset} are not those of the model: {'; '.join(lacks)}; "
            f"evaluate it on {info.spec.dataset}, which it was trained on"
        )
    return splits.test.select([splits.names.index(name) for name in names])


def show(found: Evaluation, as_json_of: Path | None = None) -> None:
    """Print scores and what a reader should know of them; as JSON for a checkpoint."""
    for remark in found.remarks:
        errors.print(f"warning: {remark}", style="yellow")
    if as_json_of is not None:
        data = {
            "checkpoint": str(as_json_of),
            "identity": found.splits.identity,
            "images": len(found.predictions.keys),
            "scores": found.scores.model_dump(),
            "average_precision": dict(zip(found.names, found.average_precision, strict=True)),
        }
        typer.echo(json.dumps(data, indent=1))
        return
    images, labels = count(len(found.predictions.keys), "test image"), len(found.names)
    console.print(f"{found.splits.identity}: {images}, {count(labels, 'label')}", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.scores:
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    console.print(table)


def _keep(found: Evaluation, file: Path) -> None:
    import numpy as np

    with writing(file, "; name another file with --predictions"):
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            file,
            logits=found.predictions.logits,
            targets=found.predictions.targets,
            keys=np.array(found.predictions.keys),
            names=np.array(found.names),
        )
    errors.print(f"written to {file}")
