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
from mlbench.data.loader import is_out_of_memory
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
from mlbench.engine.train import Steps, Training, check_processes, finish, most_parts, train
from mlbench.metrics.bootstrap import remarks, score
from mlbench.preflight import RunInputs, check_labels, make_label_context
from mlbench.provenance import Phases, environment, origin, remarks_on_epoch
from mlbench.text import count
from mlbench.types import (
    NO_CHECKPOINT,
    DivergedError,
    LabelContext,
    Loss,
    ModelInfo,
    Places,
    Predictions,
    Pretraining,
    Progress,
    RunRecord,
    RunSpec,
    Scores,
    Splits,
    stream,
)

log = logging.getLogger(__name__)


@dataclass
class _Run:
    """A run in progress, with the contents of its record so far.

    Attributes:
        whole: True if all images take part.
        neighbours: number of other runs in this process.
        phase: announces and measures a phase.
    """

    spec: RunSpec
    places: Places
    world: World
    progress: Progress
    whole: bool
    neighbours: int = 0
    word_width: int = 0
    surroundings: dict[str, Any] = field(default_factory=dict)
    pretraining: Pretraining | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.origin, self.accumulation = origin(self.spec), self.spec.settings.grad_accumulation
        self.phase = Phases(self.device, self.progress, alone=not self.neighbours)
        self.inputs = RunInputs(self.spec, self.places, self.world, self.device, self.progress)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        name = self.places.device
        return torch.device(f"cuda:{self.world.local_rank}" if name == "cuda" else name)

    @property
    def recomputes(self) -> bool:
        """True if activations are recomputed in the backward pass."""
        return self.places.activation_checkpointing and self.spec.track != "probe"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.places.results / "runs" / self.spec.run_id


Result = tuple[RunRecord, Predictions | None]
"""The record, and the predictions on the test split (None if the run diverged)."""
Trained = tuple[dict[str, Any], Predictions | None]
"""The record fields that training fills in, and the test predictions (None if it diverged)."""


def run(
    spec: RunSpec,
    places: Places,
    world: World,
    progress: Progress,
    command: str,
    images: int | None = None,
) -> Result:
    """Carry out one run.

    Every process of the world calls this; the spec says how many there are. The record names
    ``command``. ``images``: number of unchecked images per split, to measure a run; None for all.

    Raises:
        MlbenchError: the run could not be carried out; there is nothing to record.
    """
    return finish(run_in_steps(spec, places, world, progress, command, images=images))


def run_in_steps(
    spec: RunSpec,
    places: Places,
    world: World,
    progress: Progress,
    command: str,
    neighbours: int = 0,
    images: int | None = None,
    short: str = "",
) -> Steps[Result]:
    """Generator form of ``run``, with ``neighbours`` other runs in this process.

    ``short`` says that an earlier attempt ran out of memory; ``grad_accumulation`` is then doubled,
    as far as the batch size allows.
    """
    assert spec.trained_by(world.size) == spec, "the run id has another number of processes"
    current = _Run(spec, places, world, progress, images is None, neighbours)
    if neighbours:
        current.notes.append(
            f"trained in one process with {count(neighbours, 'other run')} (share_data), whose "
            "energy its phases include; memory cannot be told apart"
        )
    torch.manual_seed(spec.seed)
    with current.phase("data"):
        splits = current.inputs.open() if images is None else open_few(spec, places, images)
        check_processes(spec.settings, len(splits.train), world)
        if short:
            most = most_parts(spec.settings, len(splits.train), world.size)
            current.accumulation = min(2 * current.accumulation, most)
            note = f"trained with grad_accumulation {current.accumulation} at the same batch size"
            current.notes.append(f"{short}; {note}")
        progress.phase("label context")
        labels, notes = make_label_context(spec, splits, places)
        current.notes += notes
        mixing = spec.settings.mixing
        if mixing and (cost := make_mixing(mixing).cost(spec.settings.batch_size)) > 1:
            current.notes.append(
                f"{mixing.name} adds images to batches: a step costs {cost:.4g} times as much as "
                "without"
            )
        current.word_width = labels.word_width
    with deterministic(places.deterministic):
        current.surroundings = environment(current.device, world, spec)
        try:
            outcome, predictions = yield from _attempt(current, splits, labels)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            when = "after" if "training" in current.phase.seconds else "before"
            raise memory_error(error, f"{current.device} {when} its training") from error
    record = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        identity=splits.identity,
        label_names=splits.names,
        train_images=len(splits.train),
        train_positives=tuple(labels.positives.astype(int).tolist()),
        test_images=len(splits.test),
        validation_images=len(splits.validation or ()),
        coverage=splits.coverage,
        environment=current.surroundings,
        seconds=current.phase.seconds,
        resources=current.phase.resources,
        command=command,
        pretraining=current.pretraining,
        notes=tuple(dict.fromkeys(current.notes)),
        **current.origin,
        **outcome,
    )
    return record, predictions


def _attempt(current: _Run, splits: Splits, labels: LabelContext) -> Steps[Trained]:
    """Train and evaluate.

    Raises:
        BatchMemoryError: a batch does not fit into the memory of the device.
    """
    spec, world = current.spec, current.world
    with current.phase("model"):
        made = make_models(spec, current.places, labels, recompute=current.recomputes)
        models, loss, current.pretraining, notes = made
        current.notes += notes
        # In a few images, some label may well be present in all.
        check_labels(splits, loss, trained=spec.settings.epochs > 0 and current.whole)
        for model in models:
            model.to(current.device).to(memory_format=torch.channels_last)
    if world.size > 1:  # dropout must differ between the parts of a batch
        torch.manual_seed(int(stream("dropout", spec.seed, world.rank).integers(2**63)))
    training, test = _prepare(current, splits, models[0], loss)
    state = training.start(*models)
    steps = _train_and_evaluate(current, splits, training, state, test)
    try:
        outcome, predictions = yield from steps
    except DivergedError as error:
        log.warning("%s", error)
        outcome, predictions = {"status": "diverged", "error": str(error)}, None
    if world.leads:
        rows = "".join(f"{i},{loss!r}\n" for i, loss in enumerate(state.losses, 1))
        _write(current.folder / "losses.csv", "step,loss\n" + rows, "losses were")
        if training.clock.steps:
            text = json.dumps(training.clock.profile())
            log.info("where the time of the steps went: %s", text)
            _write(current.folder / "profile.json", text, "profile was")
    current.notes += training.keeper.remarks()
    resumed = tuple(training.keeper.resumed)
    return {**outcome, "epochs": tuple(state.log), "resumed": resumed}, predictions


def _write(file: Path, text: str, what: str) -> None:
    """Write a file that only describes the run; a full disk costs the file only."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        log.warning("the %s not kept: %s", what, error)


# --------------------------------------------------------------------------------------------- data
def _prepare(
    current: _Run, splits: Splits, model: MultiLabelModel, loss: Loss
) -> tuple[Training, Evaluator]:
    """The training, and the evaluator of the test split."""
    spec, probe, source = current.spec, current.spec.track == "probe", current.inputs.source
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
        "numbers": current.origin["numbers"],
        "sources": current.origin["sources"],
        "torch": version("torch"),
        "device": current.device.type,
        "grad_accumulation": current.accumulation,
    }
    every = 60 * current.places.checkpoint_every
    return Keeper(current.folder, identity, current.world, current.device, every)


# ------------------------------------------------------------------------------------------ outcome
def _train_and_evaluate(
    current: _Run, splits: Splits, training: Training, state: TrainingState, test: Evaluator
) -> Steps[Trained]:
    world = current.world
    try:
        with current.phase("training", training.keeper.spent, lambda: state.away):
            yield from train(state, training)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, state, training) from None
    with current.phase("evaluation"):
        predictions = test(state.evaluated())
    broken = predictions.logits[~np.isfinite(predictions.logits)]
    selection = current.spec.settings.selection
    # An epoch that was selected on this split had finite scores.
    if len(broken) and state.step and (state.best is None or selection == "validation"):
        raise DivergedError(state.step, float(broken[0]), "scores")
    if state.best is not None and selection == "validation":
        predictions = replace(predictions, validation=state.best.predictions)
    outcome = world.ask_leader(lambda: _score_and_measure(current, state, splits, predictions))
    selected = None if state.best is None else state.best.epoch
    images = len(splits.train)
    current.notes += remarks_on_epoch(current.spec.settings, selected, state.epoch, images)
    return {"status": "ok", "selected_epoch": selected, **outcome}, predictions


def _score_and_measure(
    current: _Run, state: TrainingState, splits: Splits, predictions: Predictions
) -> dict[str, Any]:
    """Score, measure costs and save the checkpoint; for the leader alone."""
    spec = current.spec
    with current.phase("metrics"):
        given = predictions.logits, predictions.targets
        scores, precisions = score(*given, count=current.progress.count)
        for remark in remarks(*given, splits.names):
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
        "checkpoint": _save_checkpoint(current, model, splits, scores),
    }


def _save_checkpoint(
    current: _Run, model: MultiLabelModel, splits: Splits, scores: Scores
) -> str | None:
    """Save the trained model; if the disk is full, only the checkpoint is lost."""
    if current.places.keep == "none":
        return None
    info = ModelInfo(
        spec=current.spec,
        label_names=splits.names,
        preprocessing=model.preprocessing(current.spec.settings.preprocessing),
        word_width=current.word_width,
        plugins=current.surroundings["plugins"],
        backbone_options=dict(getattr(model.backbone, "options", {})),
        identity=splits.identity,
        pretraining=current.pretraining,
        scores=scores,
        commit=current.origin["commit"],
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
