"""``run(spec) -> record``: the only place where all parts meet.

A run takes plain data and gives plain data back. It writes nothing but into its own run folder
and the cache; the record and the predictions are its return value.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlbench.build import build, labels_of
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.distributed import World
from mlbench.engine.efficiency import measure
from mlbench.engine.features import FeatureCache
from mlbench.engine.model import MultiLabelModel
from mlbench.engine.selection import Evaluator
from mlbench.engine.train import Training, TrainingState, check_processes, train
from mlbench.environment import commit, environment
from mlbench.metrics import score
from mlbench.sources import feature_sources, image_sources, open_data
from mlbench.types import (
    DivergedError,
    Efficiency,
    Loss,
    MlbenchError,
    Places,
    Predictions,
    Progress,
    RunRecord,
    RunSpec,
    Splits,
)

log = logging.getLogger(__name__)

LATENCY_BATCHES = (1, 16)


@dataclass
class _Run:
    """What a run gathers on its way."""

    spec: RunSpec
    places: Places
    world: World
    progress: Progress
    word_width: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        name = self.places.device
        return torch.device(f"cuda:{self.world.local_rank}" if name == "cuda" else name)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell what is going on, and note how long it took."""
        self.progress.stage(name)
        log.info("%s", name)
        started = time.perf_counter()
        try:
            yield
        finally:  # a run that diverged took its time, too
            self.seconds[name] = round(time.perf_counter() - started, 3)


def run(
    spec: RunSpec, places: Places, world: World, progress: Progress, command: str
) -> tuple[RunRecord, Predictions | None]:
    """Carry out one run.

    Args:
        spec: what to run.
        places: where to find and leave files.
        world: the processes that carry it out; all of them call this.
        progress: who wants to know how it gets on.
        command: the command line, for the record.

    Returns:
        The record, and the predictions on the test split (None if the run diverged).

    Raises:
        MlbenchError: the run could not be carried out; nothing is to be recorded.
    """
    current = _Run(spec, places, world, progress)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    torch.manual_seed(spec.seed)
    with current.stage("data"):
        splits = open_data(spec, places, world, progress)
        smallest = min(map(len, (splits.train, splits.test, splits.validation or splits.test)))
        check_processes(spec.settings, smallest, world, current.device)
        labels, notes = labels_of(spec, splits, places)
        current.notes += notes
        current.word_width = labels.embeddings.shape[1]
    with current.stage("model"):
        model, loss = build(spec.settings, labels, places)
        # Built after it, a peer of mutual learning starts from other random numbers.
        peers = [build(spec.settings, labels, places)[0]] if spec.settings.mutual_weight else []
        for one in (model, *peers):
            one.to(current.device).to(memory_format=torch.channels_last)
    if world.size > 1:  # dropout must not be the same on every part of a batch
        torch.manual_seed(spec.seed * 10_000 + world.rank)
    outcome: dict[str, Any] = {"status": "ok"}
    predictions = None
    with _alone_in_trouble(world):
        training, test = _prepare(current, splits, model, loss)
        state = training.start(model, *peers)
    try:
        with current.stage("training"), _alone_in_trouble(world):
            train(state, training)
    except DivergedError as error:
        log.warning("%s", error)
        outcome = {"status": "diverged", "error": str(error)}
    else:
        with _alone_in_trouble(world):
            predictions = _predict(current, state, test)
        found = predictions
        outcome |= world.ask_leader(lambda: _judge(current, state, splits, found))
        outcome["selected_epoch"] = _selected(current, state)
    _write_losses(current, state)
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
        environment=environment(current.device, world, spec),
        started=started,
        seconds=current.seconds,
        command=command,
        commit=commit(),
        notes=tuple(current.notes),
        epochs=tuple(state.log),
        **outcome,
    )
    return record, predictions


@contextmanager
def _alone_in_trouble(world: World) -> Iterator[None]:
    """An error here may be one process's alone, while the others wait for it: it must not pass for
    one that all meet, after which the matrix goes on.
    """  # noqa: D205
    try:
        yield
    except DivergedError:
        raise
    except MlbenchError as error:
        if world.size == 1:
            raise
        raise RuntimeError(str(error)) from error


def _judge(
    current: _Run, state: TrainingState, splits: Splits, predictions: Predictions
) -> dict[str, Any]:
    """Scores and costs, and the model kept: the leader's work."""
    with current.stage("metrics"):
        scores, precisions = score(predictions.logits, predictions.targets)
    return {
        "scores": scores,
        "average_precision": precisions,
        "efficiency": _measure(current, state.evaluated()),
        "checkpoint": _keep(current, state, splits),
    }


def _prepare(
    current: _Run, splits: Splits, model: MultiLabelModel, loss: Loss
) -> tuple[Training, Evaluator]:
    """What training is given, and the evaluation of the test split."""
    spec, probe = current.spec, current.spec.track == "probe"
    with current.stage("features" if probe else "images"):
        if probe:
            cache = FeatureCache(current.places.cache, current.world, current.progress)
            sources = feature_sources(spec, splits, model, cache, current.places.workers)
        else:
            sources = image_sources(spec, splits, current.places.workers)
    test = Evaluator(splits.test, sources.test, current.world, current.device, probe)
    evaluator = test if spec.settings.selection == "test" else None
    if splits.validation is not None and sources.validation is not None:
        evaluator = replace(test, index=splits.validation, source=sources.validation)
    training = Training(
        settings=spec.settings,
        index=splits.train,
        source=sources.train,
        loss=loss.to(current.device) if isinstance(loss, nn.Module) else loss,
        seed=spec.seed,
        precision=spec.precision,
        device=current.device,
        world=current.world,
        progress=current.progress,
        probe=probe,
        evaluator=evaluator,
    )
    return training, test


def _predict(current: _Run, state: TrainingState, test: Evaluator) -> Predictions:
    """Of the test split, and of the validation split as the epoch that was chosen saw it."""
    with current.stage("evaluation"):
        predictions = test(state.evaluated())
    if state.best is None or current.spec.settings.selection != "validation":
        return predictions
    return replace(predictions, validation=state.best.predictions)


def _selected(current: _Run, state: TrainingState) -> int | None:
    """The epoch that was chosen; a choice on the test split is noted."""
    if state.best is None:
        return None
    if current.spec.settings.selection == "test":
        current.notes.append(
            f"epoch {state.best.epoch} of {state.epoch} was selected on the test split, as the "
            "best of them there: its score is higher than on images that nothing was chosen by"
        )
    return state.best.epoch


def _write_losses(current: _Run, state: TrainingState) -> None:
    """The loss of every step, for whoever wants to see how the run went."""
    if not current.world.leads:
        return
    file = current.places.results / "runs" / current.spec.run_id / "losses.csv"
    rows = "".join(f"{i + 1},{loss!r}\n" for i, loss in enumerate(state.losses))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("step,loss\n" + rows)
    except OSError as error:
        log.warning("the losses were not kept: %s", error)


def _measure(current: _Run, model: MultiLabelModel) -> Efficiency:
    with current.stage("efficiency"):
        return measure(
            model,
            image_size=current.spec.settings.image_size,
            precision=current.spec.precision,
            device=current.device,
            batch_sizes=LATENCY_BATCHES,
        )


def _keep(current: _Run, state: TrainingState, splits: Splits) -> str | None:
    """Save the trained model; a full disk costs the model, not the result."""
    if not current.places.checkpoints:
        return None
    model = state.evaluated()
    checkpoint = Checkpoint(
        model.state_dict(),
        current.spec,
        splits.names,
        model.pixels(current.spec.settings.preprocessing),
        current.word_width,
    )
    file = Path("runs") / current.spec.run_id / "checkpoint.safetensors"
    try:
        with current.stage("checkpoint"):
            checkpoint.save(current.places.results / file)
    except OSError as error:
        current.notes.append(f"no checkpoint was kept: {error}")
        log.warning("no checkpoint was kept: %s", error)
        return None
    return file.as_posix()
