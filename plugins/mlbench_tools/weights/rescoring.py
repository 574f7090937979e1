"""The record of a checkpoint that its authors trained and we scored; such records form a tier."""

from __future__ import annotations

import torch

from mlbench.engine.checkpoint import Checkpoint, weights_digest
from mlbench.engine.cost import measure_if_it_fits
from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel
from mlbench.metrics.bootstrap import score
from mlbench.numbers import numbers_of, sources_of
from mlbench.provenance import commit, environment
from mlbench.types import IMPORTED, Places, Predictions, RunRecord, SuiteError
from mlbench_tools.scoring.evaluate import Evaluation


def assert_imported(checkpoint: Checkpoint) -> None:
    """Raise ``SuiteError`` unless ``mlbench import`` made the checkpoint, with all labels."""
    spec = checkpoint.info.spec
    if not spec.data.startswith(IMPORTED):
        raise SuiteError(
            f"this checkpoint is of run {spec.run_id}, which has a record; only checkpoints that "
            "`mlbench import` made are re-scored; score it with `mlbench evaluate`"
        )
    if spec.labels is not None:
        raise SuiteError(
            f"this checkpoint knows only {len(spec.labels)} of the labels, and no published score "
            "is of those; score it with `mlbench evaluate`"
        )


def make_record(
    found: Evaluation, checkpoint: Checkpoint, model: MultiLabelModel, places: Places, command: str
) -> tuple[RunRecord, Predictions]:
    """The record of a re-scored checkpoint, and its predictions in the data set's order of labels.

    Raises:
        MeasureError: its operations cannot be counted.
    """
    spec = checkpoint.info.spec.model_copy(
        update={
            "dataset": found.dataset,
            "dataset_options": dict(found.options),
            "data": found.splits.digest,
            "track": "published",
            "checkpoint": f"sha256:{weights_digest(checkpoint.weights)[:16]}",
        }
    )
    device = torch.device(places.device)
    order = [found.names.index(name) for name in found.splits.names]
    keys = found.predictions.keys
    logits, targets = found.predictions.logits[:, order], found.predictions.targets[:, order]
    # Scored again in this order, as sums in another order differ in their last digits.
    scores, precisions = score(logits, targets)
    efficiency, lacking = measure_if_it_fits(model, spec.settings.image_size, "fp32", device)
    record = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        identity=found.splits.identity,
        status="ok",
        scores=scores,
        label_names=found.splits.names,
        average_precision=precisions,
        train_images=len(found.splits.train),
        test_images=len(keys),
        efficiency=efficiency,
        environment=environment(device, World(), spec),
        started=found.started,
        seconds={},
        command=command,
        commit=commit(),
        numbers=numbers_of(spec),
        sources=sources_of(spec),
        notes=(
            f"trained by its authors, not by us ({checkpoint.info.spec.data}); scored here",
            *found.remarks,
            *lacking,
        ),
    )
    return record, Predictions(logits, targets, keys)
