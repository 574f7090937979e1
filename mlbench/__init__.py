"""mlbench: one honest benchmark for multi-label image classification.

Importing this package imports neither torch nor timm nor any plugin, so that
``mlbench --help`` and ``mlbench list`` answer at once.
"""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "mlbench-mlic"

try:
    __version__ = version(DISTRIBUTION)
except PackageNotFoundError as error:  # a source tree that was never installed
    raise ImportError(
        "mlbench is not installed: its plugins are found through the metadata of the distribution "
        f"{DISTRIBUTION!r}. Run `pip install -e .` in the project's folder."
    ) from error
