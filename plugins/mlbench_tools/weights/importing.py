"""A released file -> a checkpoint of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlbench import registry
from mlbench.build import CORE_PARAMETERS, build
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.model import MultiLabelModel
from mlbench.tracks import merge, of_dataset
from mlbench.types import (
    LabelContext,
    Places,
    Recipe,
    Released,
    RunSpec,
    Settings,
    WeightsError,
)
from mlbench_tools.weights import label_order as known
from mlbench_tools.weights.conversion import (
    Converted,
    convert,
    count_labels,
    few,
    fill,
    from_labels,
    recognise,
    reorder,
)
from mlbench_tools.weights.reading import read, state_dict

HEAD = "head."


@dataclass(frozen=True)
class Request:
    """What is to be imported, and what its file does not say.

    Attributes:
        method: name of the recipe.
        file: as its authors published it.
        dataset: that it was trained on; ``names`` are its labels.
        order: of the labels in the file, if the user knows better (see ``released_order``).
        graph, words: files of what the method needs and the file lacks.
        backbone: if it is not the one of the release.
        options: of the head.
    """

    method: str
    file: Path
    dataset: str
    names: tuple[str, ...]
    order: str | None = None
    graph: Path | None = None
    words: Path | None = None
    backbone: str | None = None
    options: Mapping[str, Any] | None = None


def import_checkpoint(request: Request) -> tuple[Checkpoint, Converted, Released]:
    """Read, convert and reorder a released file; label names come out in the data set's order.

    Raises:
        WeightsError: the file is damaged, unsafe, of another method, for another number of labels,
            incomplete, or lacks what has to be given beside it.
        DataError: the given names do not fit.
        PluginError: an option that the head does not have or take.
    """
    content = read(request.file)
    state = state_dict(request.file, content)
    released = recognise(request.method, state, request.file)
    converted = convert(released, state, request.file)
    _refuse_leftovers(converted, request, released)
    _check_count(released, converted, request)
    theirs = known.released_order(released, request.names, content, request.order)
    labels, matrix = known.context(released, theirs, converted.head, request.graph, request.words)
    settings = released_settings(
        request.method,
        request.dataset,
        released,
        {"head_options": {**converted.options, **(request.options or {})}},
        {"backbone": request.backbone} if request.backbone else {},
    )
    model = assemble(settings, labels, released, converted, source=request.file, matrix=matrix)
    order = [theirs.index(name) for name in request.names]
    weights = model.state_dict()
    own = {name.removeprefix(HEAD): v for name, v in weights.items() if name.startswith(HEAD)}
    weights |= {HEAD + name: value for name, value in reorder(released, own, order).items()}
    checkpoint = Checkpoint(
        weights,
        _spec(request, settings),
        request.names,
        model.preprocessing(settings.preprocessing),
        word_width=labels.embeddings.shape[1],
    )
    return checkpoint, converted, released


def released_settings(
    method: str, dataset: str, released: Released, *overrides: Mapping[str, Any]
) -> Settings:
    """The authors' settings for a data set and a release, with overrides laid on top in order."""
    recipe: Recipe = registry.find("recipe", method).load()
    fields = recipe.settings.model_dump()
    per_dataset = of_dataset(recipe.per_dataset, dataset)
    for over in (per_dataset, released.settings, *overrides, {"weights": "none"}):
        fields = merge(fields, over)
    return Settings.model_validate(fields)


def assemble(
    settings: Settings,
    labels: LabelContext,
    released: Released,
    converted: Converted,
    *,
    source: object,
    matrix: Any = None,
) -> MultiLabelModel:
    """Backbone and head with the converted weights, in torch's default precision.

    Args:
        settings: of which backbone and head count.
        labels: graph and word vectors, in the order of the file.
        released: which says what becomes of a given matrix.
        converted: the weights.
        source: what to call the file.
        matrix: P(j | i) [C, C] as it was given, if it was.
    """
    places = Places(results=Path(), cache=Path())
    model, _ = build(settings, labels, places)
    model = model.to(torch.get_default_dtype())
    fill(model.backbone, converted.backbone, source)  # type: ignore[arg-type]
    known_options = registry.options(registry.find("head", settings.head).load(), CORE_PARAMETERS)
    graph = graph_state(released, matrix, known_options | settings.head_options)
    state = {**graph, **converted.head}
    fill(model.head, state, source, from_labels(released))  # type: ignore[arg-type]
    return model.eval()


def graph_state(
    released: Released, matrix: Any, options: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The head's buffers that are made of P(j | i) [C, C]; none without one."""
    if matrix is None or released.graph is None:
        return {}
    return released.graph(torch.as_tensor(matrix), options)


def _refuse_leftovers(converted: Converted, request: Request, released: Released) -> None:
    if converted.left_over:
        raise WeightsError(
            f"{request.file}: {len(converted.left_over)} names have no place in {request.method} "
            f"as {released.title} published it: {few(converted.left_over)}. It is of another "
            "version or method; give the file that the authors published"
        )


def _check_count(released: Released, converted: Converted, request: Request) -> None:
    count, where = count_labels(released, converted.head, request.file)
    if count != len(request.names):
        raise WeightsError(
            f"{request.file}: is for {count} labels ({where}), but {request.dataset} has "
            f"{len(request.names)}; name the data set that it was trained on with --dataset"
        )


def _spec(request: Request, settings: Settings) -> RunSpec:
    recipe: Recipe = registry.find("recipe", request.method).load()
    return RunSpec(
        method=request.method,
        dataset=request.dataset,
        dataset_options=of_dataset(recipe.dataset_options, request.dataset),
        data=f"imported:{_sha256(request.file)}",
        track="published",
        words=f"sha256:{_sha256(request.words)}" if request.words else "cooccurrence",
        settings=settings,
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
