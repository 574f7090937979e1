"""Where the command line prints, and the folders that it takes by default."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

# A pipe has no width of its own; boards need more than the 80 columns that rich would assume.
_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140

# A label's name is text: rich would print `logit:dog:` with a picture of a dog.
console = Console(width=_width, emoji=False)
errors = Console(stderr=True, soft_wrap=True, emoji=False)


def refuse(error: Exception) -> None:
    """Say what a user can mend."""
    errors.print(f"error: {error}", style="red", markup=False, highlight=False)


def cache_folder() -> Path:
    """``MLBENCH_CACHE``, or ``mlbench`` in the user's cache folder."""
    if named := os.environ.get("MLBENCH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbench"


def data_folder() -> Path | None:
    """``MLBENCH_DATA``, if it is set."""
    named = os.environ.get("MLBENCH_DATA")
    return Path(named) if named else None
