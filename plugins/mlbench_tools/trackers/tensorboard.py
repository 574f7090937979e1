"""``mlbench run --tracker tensorboard``: losses, speeds and scores for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlbench.files import safe_name
from mlbench.types import EpochLog, Plan, PluginError, RunRecord, RunSpec


class TensorBoard:
    """Writes every run to its own folder in ``results/tensorboard``.

    Look at them with ``tensorboard --logdir results/tensorboard``.

    Raises:
        PluginError: the package is not installed.
    """

    def __init__(self, results: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise PluginError(
                f"--tracker tensorboard: {error}; pip install 'mlbench-mlic[tensorboard]'"
            ) from error
        self._make: Any = SummaryWriter
        self._folder = results / "tensorboard"
        self._writers: dict[str, Any] = {}

    def plan(self, plan: Plan) -> None:
        """Nothing is drawn of a plan."""

    def step(self, spec: RunSpec, step: int, loss: float, images_per_second: float) -> None:
        """Draw loss and speed over steps."""
        self._draw(spec, step, {"step/loss": loss, "step/images_per_second": images_per_second})

    def epoch(self, spec: RunSpec, log: EpochLog) -> None:
        """Draw the numbers of an epoch."""
        values = {"loss": log.loss, "lr": log.lr, "grad_norm": log.grad_norm, "mAP": log.mAP}
        known = {f"epoch/{name}": value for name, value in values.items() if value is not None}
        self._draw(spec, log.epoch, known | {f"epoch/{n}": v for n, v in log.aux.items()})

    def record(self, record: RunRecord) -> None:
        """Draw the scores, and close the run's writer."""
        scores = record.scores.model_dump() if record.scores else {}
        self._draw(record.spec, 0, {f"score/{name}": value for name, value in scores.items()})
        self._writers.pop(record.run_id).close()

    def close(self) -> None:
        """Close the writers of the other runs."""
        for writer in self._writers.values():
            writer.close()

    def _draw(self, spec: RunSpec, step: int, values: dict[str, float]) -> None:
        if spec.run_id not in self._writers:
            settings = spec.settings
            parts = spec.method, settings.backbone, settings.loss, str(spec.seed), spec.run_id[:8]
            folder = self._folder / safe_name("-".join(parts))
            self._writers[spec.run_id] = self._make(str(folder))
        for name, value in values.items():
            self._writers[spec.run_id].add_scalar(name, value, step)
