"""A planned matrix: its runs by status, and where they find and leave files."""

from __future__ import annotations

from pathlib import Path

from pydantic import NonNegativeFloat, NonNegativeInt

from mlbench.types.literals import Keep
from mlbench.types.runs import RunSpec
from mlbench.types.settings import Value


class Places(Value):
    """Where a run finds and leaves files; nothing here changes a number.

    Attributes:
        data, weights, words, init: given by the flags of these names.
        results: the store.
        cache: synthetic images, the list of checked files, feature maps of the probe track, decoded
            images.
        cache_limit: bytes of the cache above which the least recently used is deleted.
        cache_needs: what is kept: see ``RunSpec.cached_for``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: threads per process that load data.
        image_cache, keep, checkpoint_every, deterministic, activation_checkpointing, profile: as in
            ``mlbench.suite.Suite``.
    """

    data: Path | None = None
    weights: Path | None = None
    words: Path | None = None
    init: Path | None = None
    results: Path
    cache: Path
    cache_limit: NonNegativeInt | None = None
    cache_needs: tuple[str, ...] = ()
    image_cache: bool = False
    device: str = "cpu"
    workers: NonNegativeInt = 2
    keep: Keep = "all"
    checkpoint_every: NonNegativeFloat = 10.0
    deterministic: bool = False
    activation_checkpointing: bool = False
    profile: bool = False


class Refused(Value):
    """A combination that cannot run, and why."""

    label: str
    reason: str


class Plan(Value):
    """The runs of a matrix by status.

    Attributes:
        missing: runs to execute.
        done: runs that have a record in the store.
        diverged: runs that diverged before, each with its error.
        refused: combinations that cannot run.
        why: run id -> why it is missing.
        replaces: run id -> digest of the record that a missing run replaces.
        read: data set of the user's own -> how it was understood, in words.
        edited: packages of others that changed since runs that are done.
    """

    missing: tuple[RunSpec, ...]
    done: tuple[RunSpec, ...]
    diverged: tuple[tuple[RunSpec, str], ...]
    refused: tuple[Refused, ...]
    why: dict[str, str] = {}
    replaces: dict[str, str] = {}
    read: dict[str, str] = {}
    edited: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """All runs except those refused."""
        return (*self.missing, *self.done, *(spec for spec, _ in self.diverged))

    @property
    def all_refused(self) -> bool:
        """True if every combination was refused."""
        return bool(self.refused) and not self.specs
