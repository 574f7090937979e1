"""Where the command line prints, and the folders that it takes by default."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

console = Console(soft_wrap=False)
errors = Console(stderr=True, soft_wrap=True)


def cache_folder() -> Path:
    """``MLBENCH_CACHE``, or ``mlbench`` in the user's cache folder."""
    if named := os.environ.get("MLBENCH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbench"


def data_folder() -> Path | None:
    """``MLBENCH_DATA``, if it is set."""
    named = os.environ.get("MLBENCH_DATA")
    return Path(named) if named else None
