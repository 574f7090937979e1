"""Data sets: from official files to samples, and what is known of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from pydantic import (
    Field,
    PositiveInt,
)

from mlbench.types.errors import DataError
from mlbench.types.labels import ObjectCounts, unknown_objects
from mlbench.types.values import Split, Targets, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sample(NamedTuple):
    """One image: its file, its label vector int8 [C] and a key that is unique in the data set."""

    file: Path
    target: NDArray[np.int8]
    key: str


@dataclass(frozen=True)
class Index(Sequence[Sample]):
    """The samples of one split, held as one label matrix so that workers can share it.

    Attributes:
        files: N image files.
        keys: N keys, unique.
        targets: int8 [N, C] in {1, 0, -1 unknown}.
    """

    files: Sequence[Path]
    keys: Sequence[str]
    targets: Targets

    def __post_init__(self) -> None:
        if not (len(self.files) == len(self.keys) == len(self.targets)):
            raise DataError(
                f"an index of {len(self.files)} files has {len(self.keys)} keys and "
                f"{len(self.targets)} label vectors; the three must be as many"
            )

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, i: int) -> Sample: ...
    @overload
    def __getitem__(self, i: slice) -> Index: ...
    def __getitem__(self, i: int | slice) -> Sample | Index:
        if isinstance(i, slice):
            return Index(self.files[i], self.keys[i], self.targets[i])
        return Sample(self.files[i], self.targets[i], self.keys[i])

    def select(self, columns: Sequence[int]) -> Index:
        """The same images with only these labels, in this order."""
        return Index(self.files, self.keys, self.targets[:, list(columns)].copy(order="C"))

    def take(self, rows: NDArray[np.int64]) -> Index:
        """The images at these positions, in this order."""
        places = rows.tolist()
        files, keys = [self.files[i] for i in places], [self.keys[i] for i in places]
        return Index(files, keys, self.targets[rows])


class SplitCard(Value):
    """What a split must hold: how many images, and how many positives over all of its labels."""

    images: PositiveInt
    positives: PositiveInt | None = None


class Edition(Value):
    """What a known edition holds, so that predictions can be held against it without its files.

    Attributes:
        train_images, test_images: sizes of its splits.
        test_keys: of the test split's images alone (see ``keys_digest``).
        test: of the test split's images and labels (see ``split_digest``).
    """

    train_images: PositiveInt
    test_images: PositiveInt
    test_keys: str
    test: str


class Archive(Value):
    """A file that a data set is published as: a tar, compressed or not, or a zip.

    Attributes:
        name: the official file name; a mirror holds it under this name.
        url: where it is to be had, None where terms or a dead link forbid to fetch it.
        sha256: of the whole file, None where nobody has published or checked it.
        bytes: its exact size, None where it is not known for certain.
        unpacked_bytes: more than this is never unpacked of it; a round number above the true size.
        into: the folder that it is unpacked in, relative to the root.
    """

    name: str
    url: str | None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    bytes: PositiveInt | None = None
    unpacked_bytes: PositiveInt
    into: str = "."


class DatasetCard(Value):
    """What a data set is.

    Attributes:
        title: its name in prose.
        bibtex: how to cite it.
        licence: under which terms it may be used.
        home: its home page.
        family: what recipes call this data set together with others that differ in their images
            only (``coco`` for every year of it); its own name counts first. It is read before the
            data set is opened, from the attribute ``card`` of the factory.
        labels: how many labels it must have.
        orders: an order of the labels in circulation -> all of them in it; ``official`` is the
            order of the columns.
        splits: the official sizes of ``train`` and ``test`` (and of others that it has).
        identities: digest (see ``digest``) -> name of a known edition, e.g. ``coco-mini``.
        editions: name of a known edition -> what it holds.
        budget: settings that are the same for every method in the controlled and probe tracks.
        notes: what a reader of its numbers must know.
        validation: known edition -> SHA-256 of the list of keys of its validation split, as
            ``mlbench data split`` writes it.
        shared_images: why train and test have images in common; empty where they must not.
        archives: the files that it is published as.
        steps: what a person must do where they cannot be fetched, in plain words.
    """

    title: str
    bibtex: str
    licence: str
    home: str
    family: str = ""
    labels: PositiveInt | None = None
    orders: dict[str, tuple[str, ...]] = {}
    splits: dict[str, SplitCard] = {}
    identities: dict[str, str] = {}
    editions: dict[str, Edition] = {}
    budget: dict[str, Any] = {}
    notes: str = ""
    validation: dict[str, str] = {}
    shared_images: str = ""
    archives: tuple[Archive, ...] = ()
    steps: str = ""


class Dataset(ABC):
    """From official files to samples. Decodes no image.

    A factory of data sets is called as ``factory(root, cache, **options)``: ``root`` is the folder
    that ``--data`` names (None if it was not given), ``cache`` a folder it may write to. It raises
    ``DataError`` where files are missing or malformed. Its options have defaults; the values in
    force stand in the record.
    """

    card: DatasetCard
    names: tuple[str, ...]
    """The C label names in the order of the columns of ``targets``."""

    @staticmethod
    def recorded_as(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The plugin name and options under which these data are planned, recorded and ranked.

        Where several names or options stand for the same images and labels, a data set maps all
        of them to one, so that they share runs, identity and boards.
        """
        return name, dict(options)

    @abstractmethod
    def index(self, split: Split) -> Index:
        """The samples of a split, in an order that does not depend on the file system."""

    def official_split(self, split: Split) -> str | None:
        """Which of ``card.splits`` a split is, by the options in force; None for none of them."""
        return split

    def validation_keys(self) -> Sequence[str] | None:
        """Keys of those samples of ``train`` that its makers meant for validation, if they did."""
        return None

    def train_groups(self) -> Sequence[str] | None:
        """A group for every sample of ``train``, in its order: what is as good as one picture.

        No validation split parts them. None: every sample stands for itself.
        """
        return None

    def objects(self, keys: Sequence[str]) -> NDArray[np.integer[Any]] | None:
        """Annotated objects of each label in these images of ``train``: [N, C], in their order.

        Of a label that is present 1 or more, of an absent one 0, of an unknown one any number. Only
        label graphs of instance counts ask for them, so files may be read as late as here. None:
        the annotations are of whole images. Raises ``DataError`` where annotation files are missing
        or malformed.
        """
        return None

    def missing(self) -> str | None:
        """Which pictures are not there and what to do, where more is known than their paths.

        It ends a run when the data set is opened, unless the run may go on without them. None:
        nothing is known to be missing; every file is looked at before a run anyway.
        """
        return None


@dataclass(frozen=True)
class Splits:
    """A data set opened for a run: what is trained on, and what is scored.

    Attributes:
        digest: of both splits, the validation part counted as train (see ``digest``).
        identity: name of the edition in hand (``coco-mini``), or ``<dataset>-unknown-<digest>``;
            ``-incomplete-<digest>`` is appended where images were left out.
        validation: the part of train that was cut off to choose by, None where none was.
        official: what the card says of ``train`` and ``test``, as far as it knows them.
        coverage: how many images are usable; None if their files were not checked.
        objects: an index of images of train -> how many objects of each label they hold, [C]; it
            raises ``PluginError`` where that is not known.
    """

    card: DatasetCard
    names: tuple[str, ...]
    train: Index
    test: Index
    digest: str
    identity: str
    validation: Index | None = None
    official: Mapping[str, SplitCard] = field(default_factory=dict)
    objects: Callable[[Index], ObjectCounts] = unknown_objects
    coverage: Coverage | None = None

    @property
    def incomplete(self) -> bool:
        """Whether unusable images were left out."""
        return self.coverage is not None and not self.coverage.complete


class SplitCoverage(Value):
    """Of a split: images listed, those that decode, the rest, and what the official one lists."""

    images: int
    usable: int
    missing: int
    corrupt: int
    official: int | None


class Coverage(Value):
    """How much of a data set a run had.

    Attributes:
        known: whether its lists are those of a published edition, or of one of ours.
        splits: ``train`` (the validation part with it) and ``test``.
    """

    known: bool
    splits: dict[str, SplitCoverage]

    @property
    def complete(self) -> bool:
        """Whether every image that is listed can be used."""
        return all(split.usable == split.images for split in self.splits.values())


def digest(train: Index, test: Index, names: Sequence[str]) -> str:
    """Identity of the data: 16 hex digits over names, keys and targets of both splits.

    The order of the images does not matter, the order of the labels does.
    """
    return _digest(names, (train.keys, train.targets), (test.keys, test.targets))


def split_digest(keys: Sequence[str], targets: Targets, names: Sequence[str]) -> str:
    """Identity of one split, as ``digest``: keys [N], targets int8 [N, C], names [C]."""
    return _digest(names, (keys, targets))


def keys_digest(keys: Sequence[str]) -> str:
    """Identity of a split's images alone: 16 hex digits over its keys, in any order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def _digest(names: Sequence[str], *splits: tuple[Sequence[str], Targets]) -> str:
    state = hashlib.sha256("\n".join(names).encode())
    for keys, targets in splits:
        order = sorted(range(len(keys)), key=keys.__getitem__)
        state.update(b"\x00" + "\n".join(keys[i] for i in order).encode() + b"\x00")
        state.update(targets[order].tobytes())
    return state.hexdigest()[:16]
