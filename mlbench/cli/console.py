"""Where the command line prints, and what it takes by default: folders, device, threads."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mlbench.types import SuiteError

# A pipe has no width of its own; boards need more than the 80 columns that rich would assume.
_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140

# All but line feed and tab, and what turns the direction of the text around it.
_STEERING = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """A text with what would steer a terminal spelt out, as Python's ``ascii`` does."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


class _Plain(Console):
    """A console on which texts of records, which are anybody's, are nothing but text."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for one in super().render(renderable, options):
            yield one if one.control else one._replace(text=plain(one.text))


# A label's name is text: rich would print `logit:dog:` with a picture of a dog.
console = _Plain(width=_width, emoji=False)
errors = _Plain(stderr=True, soft_wrap=True, emoji=False)


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


def device_name(name: str) -> str:
    """The device that a flag names; ``auto`` takes CUDA where there is any.

    Raises:
        SuiteError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise SuiteError(
            f"--device {name!r} is not a device; use auto, cpu, cuda, cuda:1"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SuiteError(f"--device {name} but torch finds no CUDA device; use --device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SuiteError("--device mps but torch finds no Metal device; use --device cpu")
    return name


def thread_count() -> int:
    """Decoding threads, unless a flag says how many."""
    return min(os.cpu_count() or 1, 16)
