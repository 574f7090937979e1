"""mlbench: one honest benchmark for multi-label image classification.

From Python, ``mlbench.load`` opens a trained model, ``mlbench.run`` trains a matrix, and
``mlbench.results`` reads a store as a table.

Importing this package imports neither torch nor timm nor any plugin, so that ``mlbench --help``
and ``mlbench list`` answer at once.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

DISTRIBUTION = "mlbench-mlic"

try:
    __version__ = version(DISTRIBUTION)
except PackageNotFoundError as error:  # a source tree that was never installed
    raise ImportError(
        "mlbench is not installed: its plugins are found through the metadata of the distribution "
        f"{DISTRIBUTION!r}. Run `pip install -e .` in the project's folder."
    ) from error

if TYPE_CHECKING:
    from mlbench.api import Labelled, TrainedModel, load, run
    from mlbench.api import results_table as results
else:
    _API = {name: name for name in ("Labelled", "TrainedModel", "load", "run")}
    _API["results"] = "results_table"

    def __getattr__(name):  # so that importing this package stays instant
        if name in _API:
            from mlbench import api

            return getattr(api, _API[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():  # what Tab offers
        return __all__


__all__ = ["DISTRIBUTION", "Labelled", "TrainedModel", "__version__", "load", "results", "run"]
