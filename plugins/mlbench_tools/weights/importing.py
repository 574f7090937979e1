"""Turn a released file into one of our checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mlbench import registry
from mlbench.build import build
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.model import MultiLabelModel
from mlbench.files import sha256
from mlbench.tracks import for_dataset, merge, name_defaults
from mlbench.types import (
    IMPORTED,
    LabelContext,
    ModelInfo,
    Places,
    Recipe,
    Released,
    RunSpec,
    Settings,
    WeightsError,
)
from mlbench_tools.weights.conversion import (
    Converted,
    convert,
    count_labels,
    fill,
    recognise,
    refuse_unfinite,
    releases,
    reorder,
)
from mlbench_tools.weights.reading import read, state_dict
from mlbench_tools.weights.released_labels import file_context, released_order

HEAD = "head."
"""Prefix of a head's tensors in a checkpoint."""


def import_checkpoint(
    method: str,
    file: Path,
    dataset: str,
    names: tuple[str, ...],
    *,
    order: str | None = None,
    graph: Path | None = None,
    words: Path | None = None,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> tuple[Checkpoint, Converted, Released]:
    """Read and convert a released file, and reorder its labels as in the data set.

    Raises:
        WeightsError: the file is damaged, unsafe, of another method, for another number of labels,
            incomplete, or needs a graph or words.
        DataError: the given names do not fit.
        PluginError: the head does not have or take an option.
    """
    content = read(file)
    averaged = any(released.averaged for released in releases(method))
    found, tensors = state_dict(file, content, key, averaged)
    released, dropped, state = recognise(method, tensors, file)
    converted = replace(convert(released, state, file), key=found, dropped=dropped)
    refuse_unfinite(converted, file)
    count, where = count_labels(released, converted.head, file)
    if count != len(names):
        raise WeightsError(
            f"{file}: is for {count} labels ({where}), but {dataset} has {len(names)}; name the "
            "data set that it was trained on with --dataset"
        )
    file_names = released_order(released, dataset, names, content, order)
    labels, matrix_CC = file_context(released, file_names, converted.head, graph, words)
    chosen: dict[str, Any] = {"head_options": {**converted.options, **(options or {})}}
    chosen |= {"backbone": backbone} if backbone else {}
    settings = released_settings(method, dataset, released, chosen)
    model = assemble(settings, labels, released, converted, source=file, matrix_CC=matrix_CC)
    weights = model.state_dict()
    head = {name.removeprefix(HEAD): v for name, v in weights.items() if name.startswith(HEAD)}
    positions = [file_names.index(name) for name in names]
    weights |= {HEAD + name: value for name, value in reorder(released, head, positions).items()}
    recipe: Recipe = registry.find("recipe", method).load()
    spec = RunSpec(
        method=method,
        dataset=dataset,
        dataset_options=for_dataset(recipe.dataset_options, dataset),
        data=f"{IMPORTED}{sha256(file)[:16]}",
        track="published",
        words=f"sha256:{sha256(words)[:16]}" if words else "cooccurrence",
        settings=name_defaults(settings),
    )
    info = ModelInfo(
        spec=spec,
        label_names=names,
        preprocessing=model.preprocessing(settings.preprocessing),
        word_width=labels.word_width,
        backbone_options=dict(getattr(model.backbone, "options", {})),
        notes=(f"trained by its authors ({spec.data}), converted by mlbench import",),
    )
    return Checkpoint(weights, info), converted, released


def released_settings(
    method: str, dataset: str, released: Released, *overrides: Mapping[str, Any]
) -> Settings:
    """The authors' settings for a data set and a release; later overrides win."""
    recipe: Recipe = registry.find("recipe", method).load()
    fields = recipe.settings.model_dump()
    per_dataset = for_dataset(recipe.per_dataset, dataset)
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
    matrix_CC: Any = None,
) -> MultiLabelModel:
    """Build backbone and head with the converted weights, in torch's default precision."""
    model, _ = build(settings, labels, Places(results=Path(), cache=Path()))
    model = model.to(torch.get_default_dtype())
    fill(model.backbone, converted.backbone, source)  # type: ignore[arg-type]
    known = registry.options(registry.find("head", settings.head).load())
    graph = graph_state(released, matrix_CC, known | settings.head_options)
    fill(model.head, {**graph, **converted.head}, source, released)  # type: ignore[arg-type]
    return model.eval()


def graph_state(
    released: Released, matrix_CC: Any, options: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The head's buffers that are computed from P(j | i) [C, C]; empty without a matrix."""
    if matrix_CC is None or released.graph is None:
        return {}
    return released.graph(torch.as_tensor(matrix_CC), options)
