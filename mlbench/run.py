"""``run(spec) -> record``: the only place where all parts meet.

A run takes plain data and gives plain data back. It writes nothing but into its own run folder
and the cache; the record and the predictions are its return value.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlbench.build import build
from mlbench.data.decode import verify
from mlbench.data.labels import label_context
from mlbench.data.loader import Source
from mlbench.data.splits import open_splits
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.distributed import World
from mlbench.engine.efficiency import measure
from mlbench.engine.evaluate import predict
from mlbench.engine.features import FeatureCache
from mlbench.engine.model import MultiLabelModel
from mlbench.engine.train import ProbeNetwork, Training, TrainingState, check_processes, train
from mlbench.environment import commit, environment
from mlbench.metrics.protocol import score
from mlbench.sources import feature_sources, image_sources
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

EVALUATION_BATCH = 64
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
        yield
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
        splits = _open(spec, places)
        smallest = min(len(splits.train), len(splits.test))
        check_processes(spec.settings, smallest, world, current.device)
        _check_images(splits, places, world, progress)
        labels, notes = label_context(splits.train, splits.names, places.words)
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
        training, test_source = _prepare(current, splits, model, loss)
        state = training.start(model, *peers)
    try:
        with current.stage("training"), _alone_in_trouble(world):
            train(state, training)
    except DivergedError as error:
        log.warning("%s", error)
        outcome = {"status": "diverged", "error": str(error)}
    else:
        with _alone_in_trouble(world):
            predictions = _predict(current, splits, state, test_source)
        found = predictions
        outcome |= world.ask_leader(lambda: _judge(current, state, splits, found))
    _write_losses(current, state)
    record = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        identity=splits.identity,
        label_names=splits.names,
        train_images=len(splits.train),
        test_images=len(splits.test),
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


def _open(spec: RunSpec, places: Places) -> Splits:
    splits = open_splits(
        spec.dataset,
        spec.dataset_options,
        places.data,
        places.cache,
        labels=spec.labels,
        holdout=spec.holdout,
    )
    assert splits.digest == spec.data, f"{spec.dataset} changed while the matrix ran"
    return splits


def _check_images(splits: Splits, places: Places, world: World, progress: Progress) -> None:
    """Decode every image once, before hours are spent on the good ones."""
    files = [*splits.train.files, *splits.test.files]
    world.ask_leader(lambda: verify(files, places.cache, places.workers, progress.count))


def _prepare(
    current: _Run, splits: Splits, model: MultiLabelModel, loss: Loss
) -> tuple[Training, Source]:
    """What training is given, and the source of the test split."""
    spec, probe = current.spec, current.spec.track == "probe"
    with current.stage("features" if probe else "images"):
        if probe:
            cache = FeatureCache(current.places.cache, current.world, current.progress)
            sources = feature_sources(spec, splits, model, cache, current.places.workers)
        else:
            sources = image_sources(spec, splits, current.places.workers)
        train_source, test_source = sources
    training = Training(
        settings=spec.settings,
        index=splits.train,
        source=train_source,
        loss=loss.to(current.device) if isinstance(loss, nn.Module) else loss,
        seed=spec.seed,
        precision=spec.precision,
        device=current.device,
        world=current.world,
        progress=current.progress,
        probe=probe,
    )
    return training, test_source


def _predict(current: _Run, splits: Splits, state: TrainingState, source: Source) -> Predictions:
    """Logits in full precision: in bfloat16 many images would tie.

    Batch norm statistics are a process's own between two steps; the leader's are what is kept.
    """
    model = state.evaluated()
    current.world.agree(b for b in model.buffers() if b.is_floating_point())
    with current.stage("evaluation"):
        return predict(
            ProbeNetwork(model) if current.spec.track == "probe" else model,
            source,
            splits.test,
            current.world,
            device=current.device,
            precision="fp32",
            batch_size=EVALUATION_BATCH,
        )


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
