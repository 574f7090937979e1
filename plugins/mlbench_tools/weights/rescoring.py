"""Weights that a method's authors published, scored by us: a record of a tier of its own."""

from __future__ import annotations

import hashlib

import torch

from mlbench.build import restore
from mlbench.cli.evaluate import Evaluation
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.cost import measure
from mlbench.engine.distributed import World
from mlbench.metrics import score
from mlbench.one_run import commit, environment
from mlbench.types import Places, Predictions, RunRecord, SuiteError

IMPORTED = "imported:"
"""What ``mlbench import`` puts before the digest of the authors' file, in the spec's ``data``."""


def refuse_own(checkpoint: Checkpoint) -> None:
    """Only published weights are a tier of their own.

    Raises:
        SuiteError: a run of ours made this checkpoint, or it has some of the labels only.
    """
    spec = checkpoint.spec
    if not spec.data.startswith(IMPORTED):
        raise SuiteError(
            f"this checkpoint is of run {spec.run_id}, which left a record of its own; only "
            "checkpoints that `mlbench import` made are recorded as re-scored: leave out --results"
        )
    if spec.labels is not None:
        raise SuiteError(
            f"this checkpoint knows only {len(spec.labels)} of the labels, and no published score "
            "is of those; leave out --results"
        )


def record(
    found: Evaluation, checkpoint: Checkpoint, places: Places, command: str
) -> tuple[RunRecord, Predictions]:
    """What a re-scored checkpoint leaves in a store.

    Args:
        found: its scores.
        checkpoint: as ``mlbench import`` made it.
        places: the device, and the file that the backbone started from (see ``restore``).
        command: the command line.

    Returns:
        The record, and the predictions with the labels in the data set's order.

    Raises:
        SuiteError: see ``refuse_own``.
        MeasureError: its work cannot be counted.
    """
    refuse_own(checkpoint)
    spec = checkpoint.spec.model_copy(
        update={
            "dataset": found.dataset,
            "dataset_options": dict(found.options),
            "data": found.splits.digest,
            "track": "published",
            "checkpoint": f"sha256:{_digest(checkpoint)}",
        }
    )
    device = torch.device(places.device)
    order = [found.names.index(name) for name in found.splits.names]
    seen = found.predictions
    logits, targets = seen.logits[:, order], seen.targets[:, order]
    # Once more, as sums in another order differ in their last digits.
    scores, precisions = score(logits, targets)
    efficiency = measure(
        restore(checkpoint, places.weights).to(device),
        image_size=spec.settings.image_size,
        precision="fp32",
        device=device,
    )
    made = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        identity=found.identity,
        status="ok",
        scores=scores,
        label_names=found.splits.names,
        average_precision=precisions,
        train_images=len(found.splits.train),
        test_images=len(seen.keys),
        efficiency=efficiency,
        environment=environment(device, World(), spec),
        started=found.started,
        seconds={},
        command=command,
        commit=commit(),
        notes=(f"trained by its authors, not by us ({checkpoint.spec.data}); scored here",),
    )
    return made, Predictions(logits, targets, seen.keys)


def _digest(checkpoint: Checkpoint) -> str:
    """Of names and values of the weights: what was scored, whatever file it came in."""
    state = hashlib.sha256()
    for name, tensor in sorted(checkpoint.weights.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]
