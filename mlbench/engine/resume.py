"""The whole state of a run in training: saved at intervals, and read when the run resumes.

The order of images and their augmentation depend on seed, epoch and position alone, so a run
resumes within an epoch without repeating its beginning. On the CPU it ends with the weights of a
run that was never interrupted, to the bit.

A state is one file: a digest, followed by what ``torch.load(weights_only=True)`` reads. The state
before it is also kept, in case the newest is damaged.
"""

from __future__ import annotations

import io
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlbench.engine.distributed import World
from mlbench.engine.evaluation import BestEpoch
from mlbench.engine.model import MultiLabelModel
from mlbench.engine.optim import Learner
from mlbench.engine.signals import STOP
from mlbench.files import read_checked, write_checked
from mlbench.types import EpochLog, Index, Interrupted, Loss, Predictions

log = logging.getLogger(__name__)

FILES = ("state.pt", "state.before.pt")
"""In a run's folder: the newest state, and the one before it."""
EPOCHS_APART = 30.0
"""Least seconds between two states that are saved at epoch ends, as epochs may be short."""
SHARE = 0.02
"""Largest fraction of a run's time spent saving at epoch ends."""


# -------------------------------------------------------------------------------------------- state
@dataclass
class TrainingState:
    """All that changes while a run trains.

    Attributes:
        learners: the models in training: the run's model, and its peer if any.
        loss: the loss, whose buffers are saved.
        best: the best epoch so far, if one is selected.
        extra: the named losses of each step of the epoch in progress, this process's part.
        largest_norm: largest gradient norm in the epoch in progress.
        seconds: time that the epoch in progress had taken when it was saved.
        away: seconds in which other runs of this process trained.
    """

    learners: tuple[Learner, ...]
    loss: Loss
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    log: list[EpochLog] = field(default_factory=list)
    best: BestEpoch | None = None
    extra: dict[str, list[Tensor]] = field(default_factory=dict)
    largest_norm: float = 0.0
    seconds: float = 0.0
    away: float = 0.0

    def evaluated(self) -> MultiLabelModel:
        """The model to score, in evaluation mode: the first model, or its moving average if any."""
        first = self.learners[0]
        model = first.model if first.average is None else first.average.module
        assert isinstance(model, MultiLabelModel)
        return model.eval()


def _pack(state: TrainingState) -> dict[str, Any]:
    """A state as plain data and tensors, without what differs between processes."""
    best = None
    if (one := state.best) is not None:
        logits = torch.from_numpy(one.predictions.logits)
        best = {"epoch": one.epoch, "mAP": one.mAP, "weights": one.weights, "logits": logits}
    return {
        "learners": [
            {
                "model": _changing(learner.model),
                "average": None if learner.average is None else _changing(learner.average),
                "optimizer": learner.optimizer.state_dict(),
                "scaler": learner.scaler.state_dict(),
            }
            for learner in state.learners
        ],
        "loss": state.loss.state_dict() if isinstance(state.loss, nn.Module) else None,
        "progress": {name: getattr(state, name) for name in PROGRESS},
        "log": [entry.model_dump_json() for entry in state.log],
        "best": best,
    }


PROGRESS = ("epoch", "step", "losses", "largest_norm", "seconds")
"""Plain fields of a ``TrainingState``."""


def _changing(module: nn.Module) -> dict[str, Any]:
    """The tensors of a module, without the parameters that are not trained."""
    fixed = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in fixed}


def _unpack(saved: Mapping[str, Any], state: TrainingState, scored: Index | None) -> None:
    """Load the result of ``_pack`` into a state of the same models that has not begun."""
    for one, content in zip(state.learners, saved["learners"], strict=True):
        one.model.load_state_dict(content["model"], strict=False)
        one.optimizer.load_state_dict(content["optimizer"])
        one.scaler.load_state_dict(content["scaler"])
        if one.average is not None:
            one.average.load_state_dict(content["average"], strict=False)
    if isinstance(state.loss, nn.Module):
        state.loss.load_state_dict(saved["loss"])
    for name, value in saved["progress"].items():
        setattr(state, name, value)
    state.log = [EpochLog.model_validate_json(entry) for entry in saved["log"]]
    if (best := saved["best"]) is not None and scored is not None:
        predictions = Predictions(best["logits"].numpy(), scored.targets, tuple(scored.keys))
        state.best = BestEpoch(best["epoch"], best["mAP"], best["weights"], predictions)


# ---------------------------------------------------------------------------------------- processes
def random_states(device: torch.device) -> dict[str, Any]:
    """The states of the generators that a plugin may draw from."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - plugins may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "python": random.getstate(),
    }


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Restore the result of ``random_states``."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])


@dataclass
class Keeper:
    """Saves the state of a run, at intervals and before it stops, and loads it again.

    Attributes:
        folder: the run's folder; None saves nothing.
        identity: run id, code, and whatever else must agree for a state to be used.
        world: the processes of the run; all call the same methods.
        every: seconds between two states.
        resumed: the steps at which the run resumed.
        spent: seconds of training before this process began.
        notes: notes for the record.
        compiled: a note for each compiled network.
    """

    folder: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant
    every: float = 600.0
    resumed: list[int] = field(default_factory=list)
    spent: float = 0.0
    notes: list[str] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _cost: float = 0.0
    _failed: list[str] = field(default_factory=list)

    def requests(self, epoch_ended: bool = False) -> list[float]:
        """This process's requests [stop, save]; positive means yes."""
        pause = max(EPOCHS_APART, self._cost / SHARE) if epoch_ended else self.every
        due = self.world.leads and time.monotonic() - self._saved >= pause
        return [float(bool(STOP.asked)), float(due)]

    def handle(self, state: TrainingState, requests: list[float]) -> None:
        """Save or stop if any process requested it.

        Raises:
            Interrupted: on every process, once the state is saved.
        """
        stop, due = requests
        if stop or due:
            self.save(state)
        if stop:
            self.world.wait()
            raise Interrupted(STOP.asked or "a signal to another process")

    def save(self, state: TrainingState) -> None:
        """Write the state; if that fails, the run continues, and its record says so."""
        if self.folder is None:
            return
        began = time.monotonic()
        mine = {
            "extra": {name: torch.stack(values).cpu() for name, values in state.extra.items()},
            "random": random_states(self.device),
        }
        content = {
            "identity": dict(self.identity),
            "state": _pack(state),
            "processes": self.world.gather(mine),
            "resumed": self.resumed,
            "spent": self.spent + began - self._began - state.away,
        }
        try:
            if self.world.leads:
                newest, before = (self.folder / name for name in FILES)
                stream = io.BytesIO()
                torch.save(content, stream)
                with suppress(FileNotFoundError):
                    newest.replace(before)
                write_checked(newest, stream.getvalue())
        except OSError as error:
            log.warning("the state could not be saved: %s", error)
            self._failed = [f"the state could not be saved at step {state.step}: {error}"]
        self._saved = time.monotonic()
        self._cost = self._saved - began
        log.info("state saved at step %d in %.2f s", state.step, self._cost)

    def resume(self, state: TrainingState, scored: Index | None) -> None:
        """Load the newest undamaged state with this identity, if any, into one that has not begun.

        ``scored`` is the split that selects the epoch, if any.
        """
        file, notes = self.world.ask_leader(self._choose)  # one choice for all
        self.notes += notes
        for note in notes:
            log.warning("%s", note)
        if file is None or (saved := _read(file)) is None:
            return
        _unpack(saved["state"], state, scored)
        self.spent, self.resumed = saved["spent"], [*saved["resumed"], state.step]
        mine = saved["processes"][self.world.rank]
        set_random_states(mine["random"], self.device)
        extra = mine["extra"].items()
        state.extra = {name: [*values.to(self.device)] for name, values in extra}
        log.info("resumed at step %d", state.step)

    def _choose(self) -> tuple[Path | None, list[str]]:
        """The file to resume from, if any, and notes."""
        notes: list[str] = []
        files = [] if self.folder is None else [self.folder / name for name in FILES]
        for file in filter(Path.exists, files):
            if (saved := _read(file)) is None:
                notes.append(f"{file.name} was damaged and not used")
                continue
            found = saved["identity"]
            other = [what for what, value in self.identity.items() if found.get(what) != value]
            if not other:
                return file, notes
            return None, [*notes, f"a saved state was not used, being of other {', '.join(other)}"]
        return None, notes

    def remarks(self) -> list[str]:
        """Notes for the record."""
        steps = ", ".join(map(str, self.resumed))
        resumed = [f"resumed after step {steps}"] if self.resumed else []
        return [*self.notes, *resumed, *self._failed, *self.compiled]


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a state's file; None if it is damaged."""
    if (content := read_checked(file)) is None:
        return None
    saved: dict[str, Any] = torch.load(io.BytesIO(content), "cpu", weights_only=True)
    return saved


def discard(folder: Path) -> None:
    """Delete the state in the folder of a run, once its record is written."""
    for name in FILES:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
