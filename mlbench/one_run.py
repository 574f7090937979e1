"""``run(spec) -> record``: the only place where all parts meet.

A run takes plain data and returns plain data: the record and the predictions. It writes only into
its own run folder and the cache.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mlbench.build import make_models
from mlbench.data.loader import typed_memory_errors
from mlbench.data.mixing import make_mixing
from mlbench.data.open import open_few
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.cost import measure_if_it_fits
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator
from mlbench.engine.memory import memory_error, out_of_memory
from mlbench.engine.model import MultiLabelModel, deterministic
from mlbench.engine.resume import Keeper, TrainingState
from mlbench.engine.step import Clock
from mlbench.engine.train import Steps, Training, check_processes, most_parts, train
from mlbench.metrics.bootstrap import remarks, score
from mlbench.preflight import RunInputs, check_labels, make_label_context
from mlbench.provenance import Phases, environment, origin, remarks_on_epoch
from mlbench.text import count
from mlbench.types import (
    NO_CHECKPOINT,
    BatchMemoryError,
    DivergedError,
    LabelContext,
    Loss,
    ModelInfo,
    Places,
    Predictions,
    Progress,
    RunRecord,
    RunSpec,
    Scores,
    Splits,
    stream,
)

log = logging.getLogger(__name__)


@dataclass
class _Run(RunInputs):
    """A run in progress.

    Attributes:
        images: number of unchecked images per split, to measure a run; None for all, checked.
        neighbours: number of other runs in this process.
        notes: notes for the record.
        record: other fields of the record, as far as they are known.
        splits, labels: the data and the label context, once ``_open`` has made them.
        phase: announces and measures a phase.
    """

    images: int | None = None
    neighbours: int = 0
    notes: list[str] = field(default_factory=list)
    splits: Splits = field(init=False)
    labels: LabelContext = field(init=False)

    def __post_init__(self) -> None:
        self.record, self.accumulation = origin(self.spec), self.spec.settings.grad_accumulation
        self.phase = Phases(self.device, self.progress, alone=not self.neighbours)

    @property
    def recomputes(self) -> bool:
        """True if activations are recomputed in the backward pass."""
        return self.places.activation_checkpointing and self.spec.track != "probe"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.places.results / "runs" / self.spec.run_id

    def memory_error(self, error: RuntimeError) -> BatchMemoryError:
        """The error for want of memory outside the training."""
        when = "after" if "training" in self.phase.seconds else "before"
        return memory_error(error, f"{self.device} {when} its training")


def run(
    spec: RunSpec,
    places: Places,
    world: World,
    progress: Progress,
    command: str,
    neighbours: int = 0,
    images: int | None = None,
    short: str = "",
) -> Steps[tuple[RunRecord, Predictions | None]]:
    """Carry out one run, as a generator (``finish`` runs it alone).

    Every process of the world calls this; the spec says how many there are. The record names
    ``command``. ``neighbours`` and ``images``: see ``_Run``. ``short`` says that an earlier attempt
    ran out of memory; ``grad_accumulation`` is then doubled, as far as the batch size allows.

    Returns:
        The record, and the predictions on the test split (None if the run diverged).

    Raises:
        MlbenchError: the run could not be carried out; there is nothing to record.
    """
    assert spec.trained_by(world.size) == spec, "the run id has another number of processes"
    current = _Run(spec, places, world, progress, images, neighbours)
    torch.manual_seed(spec.seed)
    with current.phase("data"):
        _open(current, short)
    with deterministic(places.deterministic):
        current.record["environment"] = environment(current.device, world, spec)
        with typed_memory_errors(current.memory_error):
            predictions = yield from _attempt(current)
    splits = current.splits
    record = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        identity=splits.identity,
        label_names=splits.names,
        train_images=len(splits.train),
        train_positives=tuple(current.labels.positives.astype(int).tolist()),
        test_images=len(splits.test),
        validation_images=len(splits.validation or ()),
        coverage=splits.coverage,
        seconds=current.phase.seconds,
        resources=current.phase.resources,
        command=command,
        notes=tuple(dict.fromkeys(current.notes)),
        **current.record,
    )
    return record, predictions


def _open(current: _Run, short: str) -> None:
    """Open the data and make the label context; note what was done otherwise than usual."""
    spec, settings = current.spec, current.spec.settings
    if current.neighbours:
        current.notes.append(
            f"trained in one process with {count(current.neighbours, 'other run')} (share_data), "
            "whose energy its phases include; memory cannot be told apart"
        )
    few = current.images
    current.splits = current.open() if few is None else open_few(spec, current.places, few)
    images = len(current.splits.train)
    check_processes(settings, images, current.world)
    if short:
        most = most_parts(settings, images, current.world.size)
        current.accumulation = min(2 * current.accumulation, most)
        note = f"trained with grad_accumulation {current.accumulation} at the same batch size"
        current.notes.append(f"{short}; {note}")
    current.progress.phase("label context")
    current.labels, notes = make_label_context(spec, current.splits, current.places)
    current.notes += notes
    mixing = settings.mixing
    if mixing and (cost := make_mixing(mixing).cost(settings.batch_size)) > 1:
        current.notes.append(
            f"{mixing.name} adds images to batches: a step costs {cost:.4g} times as much as "
            "without"
        )


def _attempt(current: _Run) -> Steps[Predictions | None]:
    """Train and evaluate; the predictions on the test split, None if the run diverged.

    Raises:
        BatchMemoryError: a batch does not fit into the memory of the device.
    """
    spec, world = current.spec, current.world
    with current.phase("model"):
        models, loss, current.record["pretraining"], notes = make_models(
            spec, current.places, current.labels, recompute=current.recomputes
        )
        current.notes += notes
        # In a few images, some label may well be present in all.
        trained = spec.settings.epochs > 0 and current.images is None
        check_labels(current.splits, loss, trained=trained)
        for model in models:
            model.to(current.device).to(memory_format=torch.channels_last)
    if world.size > 1:  # dropout must differ between the parts of a batch
        torch.manual_seed(int(stream("dropout", spec.seed, world.rank).integers(2**63)))
    training, test = _prepare(current, models[0], loss)
    state = training.start(*models)
    predictions = None
    try:
        predictions = yield from _train_and_evaluate(current, training, state, test)
    except DivergedError as error:
        log.warning("%s", error)
        current.record |= {"status": "diverged", "error": str(error)}
    if world.leads:
        rows = "".join(f"{i},{loss!r}\n" for i, loss in enumerate(state.losses, 1))
        _write(current.folder / "losses.csv", "step,loss\n" + rows, "losses were")
        if training.clock.steps:
            text = json.dumps(training.clock.profile())
            log.info("where the time of the steps went: %s", text)
            _write(current.folder / "profile.json", text, "profile was")
    current.notes += training.keeper.remarks()
    current.record |= {"epochs": tuple(state.log), "resumed": tuple(training.keeper.resumed)}
    return predictions


def _write(file: Path, text: str, what: str) -> None:
    """Write a file that only describes the run; a full disk costs the file only."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        log.warning("the %s not kept: %s", what, error)


def _prepare(current: _Run, model: MultiLabelModel, loss: Loss) -> tuple[Training, Evaluator]:
    """The training, and the evaluator of the test split."""
    spec, splits, source = current.spec, current.splits, current.source
    probe = spec.track == "probe"
    with current.phase("features" if probe else "images"):
        train_source = source(model, "train", splits.train)
        test_source = source(model, "test", splits.test)
        told = current.progress.count, current.notes.append
        test = Evaluator(splits.test, test_source, current.world, current.device, probe, *told)
        evaluator = test if spec.settings.selection == "test" else None
        if (held_out := splits.validation) is not None:
            of_part = source(model, "validation", held_out)
            evaluator = replace(test, index=held_out, source=of_part)
    training = Training(
        settings=spec.settings.model_copy(update={"grad_accumulation": current.accumulation}),
        index=splits.train,
        source=train_source,
        loss=loss.to(current.device) if isinstance(loss, nn.Module) else loss,
        seed=spec.seed,
        precision=spec.precision,
        device=current.device,
        world=current.world,
        progress=current.progress,
        probe=probe,
        evaluator=evaluator,
        keeper=_keeper(current),
        recompute=current.recomputes,
        clock=Clock(current.device, current.places.profile),
    )
    return training, test


def _keeper(current: _Run) -> Keeper:
    """The keeper of the run's state, with the identity of run and code."""
    spec = current.spec
    identity = {
        "run": spec.run_id,
        "numbers": current.record["numbers"],
        "sources": current.record["sources"],
        "torch": version("torch"),
        "device": current.device.type,
        "grad_accumulation": current.accumulation,
    }
    every = 60 * current.places.checkpoint_every
    return Keeper(current.folder, identity, current.world, current.device, every)


# ------------------------------------------------------------------------------------------ outcome
def _train_and_evaluate(
    current: _Run, training: Training, state: TrainingState, test: Evaluator
) -> Steps[Predictions]:
    with (
        current.phase("training", training.keeper.spent, lambda: state.away),
        typed_memory_errors(lambda error: out_of_memory(error, state, training)),
    ):
        yield from train(state, training)
    with current.phase("evaluation"):
        predictions = test(state.evaluated())
    broken = predictions.logits[~np.isfinite(predictions.logits)]
    if len(broken) and state.step:
        raise DivergedError(state.step, float(broken[0]), "scores")
    if state.best is not None and current.spec.settings.selection == "validation":
        predictions = replace(predictions, validation=state.best.predictions)
    found = current.world.ask_leader(lambda: _score_and_measure(current, state, predictions))
    selected = None if state.best is None else state.best.epoch
    images = len(current.splits.train)
    current.notes += remarks_on_epoch(current.spec.settings, selected, state.epoch, images)
    current.record |= {"status": "ok", "selected_epoch": selected, **found}
    return predictions


def _score_and_measure(
    current: _Run, state: TrainingState, predictions: Predictions
) -> dict[str, Any]:
    """Score, measure costs and save the checkpoint; for the leader alone."""
    spec = current.spec
    with current.phase("metrics"):
        given = predictions.logits, predictions.targets
        scores, precisions = score(*given, count=current.progress.count)
        for remark in remarks(*given, current.splits.names):
            current.notes.append(remark)
            log.warning("%s", remark)
    model, size = state.evaluated(), spec.settings.image_size
    with current.phase("efficiency"):
        efficiency, lacking = measure_if_it_fits(model, size, spec.precision, current.device)
    current.notes += lacking
    return {
        "scores": scores,
        "average_precision": precisions,
        "efficiency": efficiency,
        "checkpoint": _save_checkpoint(current, model, scores),
    }


def _save_checkpoint(current: _Run, model: MultiLabelModel, scores: Scores) -> str | None:
    """Save the trained model; if the disk is full, only the checkpoint is lost."""
    if current.places.keep == "none":
        return None
    info = ModelInfo(
        spec=current.spec,
        label_names=current.splits.names,
        preprocessing=model.preprocessing(current.spec.settings.preprocessing),
        word_width=current.labels.word_width,
        plugins=current.record["environment"]["plugins"],
        backbone_options=dict(getattr(model.backbone, "options", {})),
        identity=current.splits.identity,
        pretraining=current.record["pretraining"],
        scores=scores,
        commit=current.record["commit"],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    file = current.folder / "checkpoint.safetensors"
    try:
        with current.phase("checkpoint"):
            Checkpoint(model.state_dict(), info).save(file)
    except OSError as error:
        current.notes.append(f"{NO_CHECKPOINT}: {error}")
        log.warning("%s: %s", NO_CHECKPOINT, error)
        return None
    return file.relative_to(current.places.results).as_posix()
