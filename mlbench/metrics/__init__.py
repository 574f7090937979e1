"""Metrics: pure functions of scores and targets."""

from mlbench.metrics.average_precision import (
    average_precision,
    eleven_point_average_precision,
    interpolated_average_precision,
)
from mlbench.metrics.bootstrap import bootstrap_map, score
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.metrics.protocols import PROTOCOLS, TREATMENTS, evaluate, score_all

__all__ = [
    "PROTOCOLS",
    "TREATMENTS",
    "average_precision",
    "bootstrap_map",
    "eleven_point_average_precision",
    "evaluate",
    "interpolated_average_precision",
    "precision_recall_f1",
    "score",
    "score_all",
]
