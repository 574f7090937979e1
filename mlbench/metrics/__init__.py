"""Metrics: pure functions of scores and targets."""

from mlbench.metrics.average_precision import average_precision, interpolated_average_precision
from mlbench.metrics.bootstrap import bootstrap_map
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.metrics.protocol import score

__all__ = [
    "average_precision",
    "bootstrap_map",
    "interpolated_average_precision",
    "precision_recall_f1",
    "score",
]
