"""The vocabulary: the values that every part of mlbench exchanges, and the contracts of plugins.

Shape letters, in docstrings and as name suffixes in model code (``x_BDHW``): B images, C labels,
D channels, H and W a map's rows and columns, N = H*W positions, E the width of a word vector,
L levels of a backbone.

This module imports no torch: tensors appear in annotations only.
"""

from __future__ import annotations

from mlbench.types.data import (
    Archive,
    Coverage,
    Dataset,
    DatasetCard,
    Edition,
    Index,
    Sample,
    SplitCard,
    SplitCoverage,
    Splits,
    digest,
    keys_digest,
    split_digest,
)
from mlbench.types.errors import (
    DataError,
    DivergedError,
    MeasureError,
    MlbenchError,
    PackError,
    PluginError,
    StoreError,
    SuiteError,
    WeightsError,
)
from mlbench.types.labels import LabelContext, ObjectCounts, unknown_objects
from mlbench.types.models import (
    Angles,
    Backbone,
    FeatureSpec,
    Head,
    HeadOutput,
    Level,
    Loss,
)
from mlbench.types.recipes import Proof, Recipe, Released, Reported
from mlbench.types.records import (
    Efficiency,
    EpochLog,
    Latency,
    Predictions,
    Progress,
    RunRecord,
    Scores,
)
from mlbench.types.runs import LabelNoise, Places, RunSpec
from mlbench.types.settings import Augmentation, Optimizer, Preprocessing, Schedule, Settings
from mlbench.types.values import Graph, Precision, Selection, Split, Targets, Tier, Track, Value

__all__ = [
    "Angles",
    "Archive",
    "Augmentation",
    "Backbone",
    "Coverage",
    "DataError",
    "Dataset",
    "DatasetCard",
    "DivergedError",
    "Edition",
    "Efficiency",
    "EpochLog",
    "FeatureSpec",
    "Graph",
    "Head",
    "HeadOutput",
    "Index",
    "LabelContext",
    "LabelNoise",
    "Latency",
    "Level",
    "Loss",
    "MeasureError",
    "MlbenchError",
    "ObjectCounts",
    "Optimizer",
    "PackError",
    "Places",
    "PluginError",
    "Precision",
    "Predictions",
    "Preprocessing",
    "Progress",
    "Proof",
    "Recipe",
    "Released",
    "Reported",
    "RunRecord",
    "RunSpec",
    "Sample",
    "Schedule",
    "Scores",
    "Selection",
    "Settings",
    "Split",
    "SplitCard",
    "SplitCoverage",
    "Splits",
    "StoreError",
    "SuiteError",
    "Targets",
    "Tier",
    "Track",
    "Value",
    "WeightsError",
    "digest",
    "keys_digest",
    "split_digest",
    "unknown_objects",
]
