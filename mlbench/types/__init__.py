"""The vocabulary: the values that all parts of mlbench exchange, and the contracts of plugins.

Import every name from here: ``from mlbench.types import RunSpec``. A name is loaded when it is
first used, as building pydantic's models takes longer than ``mlbench --help`` should.

Shape letters, in docstrings and as name suffixes in model code (``x_BDHW``): B images, C labels,
D channels, H and W rows and columns of a map, N = H*W positions, E the width of a word vector,
L levels of a backbone.

No module here imports torch: tensors appear in annotations only.
"""

from importlib import import_module
from typing import TYPE_CHECKING

NAMES = {
    "cards": "Archive Dataset DatasetCard Edition Interpretation Proof Recipe Released Reported "
    "SplitCard",
    "containers": "bare_names state_dict_in",
    "errors": "BatchMemoryError DataError DivergedError Interrupted MeasureError MlbenchError "
    "PackError PluginError StoreError SuiteError WeightsError",
    "literals": "Decoder Graph Keep ObjectCounts Precision Selection Split Targets Tier Track",
    "models": "Angles Backbone FeatureSpec Head HeadOutput LabelContext Level Loss LossContext "
    "Pretraining WORD_WIDTH evaluate_loss unknown_objects",
    "networks": "DEFAULT_THRESHOLD ModelCost ModelFile ModelInfo Network Speed Speeds Timing "
    "computing_options",
    "planned": "Places Plan Refused",
    "runs": "Efficiency EpochLog IMPORTED NO_CHECKPOINT NO_COSTS PhaseResources Progress RunRecord "
    "RunSpec Scores",
    "samples": "Coverage Index KnownLabels LabelNoise Predictions Sample SplitCoverage Splits "
    "digest files_digest keys_digest sampled_files split_digest stream",
    "settings": "Augmentation OLD_AVERAGE Optimizer Preprocessing Probability Schedule Seed "
    "Settings Value",
}
"""Module -> the names that it defines."""

if TYPE_CHECKING:
    from mlbench.types.cards import *
    from mlbench.types.containers import *
    from mlbench.types.errors import *
    from mlbench.types.literals import *
    from mlbench.types.models import *
    from mlbench.types.networks import *
    from mlbench.types.planned import *
    from mlbench.types.runs import *
    from mlbench.types.samples import *
    from mlbench.types.settings import *
else:

    def __getattr__(name):  # hidden from type checkers, for which every name would exist
        for module, names in NAMES.items():
            if name in names.split():
                found = getattr(import_module(f"{__name__}.{module}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
