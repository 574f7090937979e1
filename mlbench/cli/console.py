"""The consoles of the command line and its defaults: folders, device, threads."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from mlbench.types import SuiteError, Track

for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:  # closed, as some service managers start jobs
        setattr(sys, _name, Path(os.devnull).open("w"))  # noqa: SIM115
    if isinstance(_stream := getattr(sys, _name), TextIOWrapper):
        _stream.reconfigure(errors="backslashreplace")  # for terminals without UTF-8

# A pipe has no width, and boards need more than the 80 columns that rich would assume.
_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140

# Control characters except line feed and tab, and characters that change the text direction.
_CONTROLS = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Escape characters that would control a terminal, as Python's ``ascii`` does."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


class _Plain(Console):
    """A console that escapes control characters: records may come from anybody.

    One for stderr ignores errors of writing: a log on a full disk must not end the runs.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(*([OSError] if self.stderr else [])):
            super().print(*objects, **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for one in super().render(renderable, options):
            yield one if one.control else one._replace(text=plain(one.text))


# Rich would print the label `logit:dog:` with a picture of a dog, and `[red]` as a colour.
console = _Plain(width=_width, emoji=False, markup=False)
errors = _Plain(stderr=True, soft_wrap=True, emoji=False, markup=False, highlight=False)


def plain_table(columns: Iterable[str], right: Container[str] = ()) -> Table:
    """Make a table without lines, with the cells of some columns on the right."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, overflow="fold", justify=justify)
    return table


def print_error(error: Exception) -> None:
    """Print an error that the user can fix."""
    errors.print(f"error: {error}", style="red")


@contextmanager
def writing(place: object, remedy: str = "") -> Iterator[None]:
    """Write what the user asked for.

    Raises:
        SuiteError: the place cannot be written, and what to do.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise SuiteError(f"{place} cannot be written ({why}){remedy}") from error


Data = Annotated[Path | None, typer.Option(help="Folder of the data sets. Default: $MLBENCH_DATA.")]
Results = Annotated[Path, typer.Option(help="Folder of the results.")]
Edition = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Only this edition, e.g. coco-mini, all that begin with this text, or a data set as "
        "in manifest:photos.csv.",
    ),
]
OnlyTrack = Annotated[Track | None, typer.Option("--track", help="Only this track.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Decoding threads.")]
Cache = Annotated[Path | None, typer.Option(help="Default: $MLBENCH_CACHE or ~/.cache/mlbench.")]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of the data set, as in year=2014; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def cache_folder() -> Path:
    """Return ``MLBENCH_CACHE``, or ``mlbench`` in the user's cache folder."""
    if named := os.environ.get("MLBENCH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbench"


def data_folder() -> Path | None:
    """Return ``MLBENCH_DATA``, or None if it is not set."""
    named = os.environ.get("MLBENCH_DATA")
    return Path(named) if named else None


def device_name(name: str, *, here: bool = True) -> str:
    """Return the device that a flag names; ``auto`` is CUDA if available.

    Raises:
        SuiteError: there is no such device, or this machine lacks it and ``here`` asks for it.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SuiteError(
            f"--device {name!r} is not a device; use auto, cpu, cuda, cuda:1 or mps"
        ) from error
    if not here:
        return name
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SuiteError(f"--device {name}: torch finds no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (found := torch.cuda.device_count()):
        raise SuiteError(f"--device {name}: torch finds {found} CUDA devices, cuda:0 the first")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SuiteError("--device mps: torch finds no Metal device; use --device cpu")
    return name


def thread_count() -> int:
    """The default number of decoding threads: one for each processor that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)
