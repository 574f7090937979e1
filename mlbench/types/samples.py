"""Samples and splits of a data set, their digests, noise in their labels, and predictions."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import Field, NonNegativeInt, model_validator

from mlbench.types.errors import DataError
from mlbench.types.literals import ObjectCounts, Targets
from mlbench.types.models import unknown_objects
from mlbench.types.settings import Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlbench.types.cards import DatasetCard, Interpretation, SplitCard


class Sample(NamedTuple):
    """One image: its file, its label vector int8 [C], and a key that is unique in the data set."""

    file: Path
    target: NDArray[np.int8]
    key: str


@dataclass(frozen=True, eq=False)
class Index:
    """The samples of one split, with one label matrix that workers share.

    Attributes:
        files: N image files.
        keys: N keys, unique.
        targets: int8 [N, C] in {1, 0, -1 unknown}.
        known: labels that heads are given, in the same form; None for none.
    """

    files: Sequence[Path]
    keys: Sequence[str]
    targets: Targets
    known: Targets | None = None

    def __post_init__(self) -> None:
        if not (len(self.files) == len(self.keys) == len(self.targets)):
            raise DataError(
                f"an index of {len(self.files)} files has {len(self.keys)} keys and "
                f"{len(self.targets)} label vectors; the numbers must be equal"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        return map(Sample, self.files, self.targets, self.keys)

    def __getitem__(self, i: int) -> Sample:
        return Sample(self.files[i], self.targets[i], self.keys[i])

    def select(self, columns: Sequence[int]) -> Index:
        """The same images with only these labels, in this order."""
        part = (slice(None), list(columns))
        known = None if self.known is None else self.known[part].copy(order="C")
        return Index(self.files, self.keys, self.targets[part].copy(order="C"), known)

    def take(self, rows: NDArray[np.int64]) -> Index:
        """The images at these positions, in this order."""
        places = rows.tolist()
        files, keys = [self.files[i] for i in places], [self.keys[i] for i in places]
        known = None if self.known is None else self.known[rows]
        return Index(files, keys, self.targets[rows], known)

    def partition(self, inside: Sequence[bool]) -> tuple[Index, Index]:
        """Divide into the images outside and those inside, each in their old order."""
        import numpy as np

        mask = np.array(inside, bool)
        return self.take(np.flatnonzero(~mask)), self.take(np.flatnonzero(mask))


class LabelNoise(Value):
    """Labels of TRAIN that are missing or wrong on purpose (see ``mlbench.data.noise``).

    Attributes:
        keep: share of the labels that stay known, in (0, 1].
        single_positive: keep only one positive label of each image, drawn at random.
        assume_negative: labels that are not kept become absent instead of unknown.
        flip: share of the labels that are inverted, in [0, 1).
        flip_which: the labels that may be inverted: ``any``, ``present`` or ``absent``.
        seed: seed of the draws; not the run's seed, so that runs with different seeds see the same
            labels.
    """

    keep: float = Field(1.0, gt=0, le=1)
    single_positive: bool = False
    assume_negative: bool = False
    flip: float = Field(0.0, ge=0, lt=1)
    flip_which: Literal["any", "present", "absent"] = "any"
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _check(self) -> LabelNoise:
        partial = self.keep < 1 or self.single_positive
        if self.keep < 1 and self.single_positive:
            raise ValueError("keep and single_positive exclude each other; give one of them")
        if self.assume_negative and not partial:
            raise ValueError("assume_negative needs keep or single_positive; all labels are known")
        if self.flip_which != "any" and not self.flip:
            raise ValueError("flip_which needs flip; no label is flipped")
        if self.seed and not (partial or self.flip):
            raise ValueError("seed needs keep, single_positive or flip; nothing is drawn")
        return self


class KnownLabels(Value):
    """Labels of each test image that the head is given, and that are not scored.

    A hash of the seed, the image's key and the label's name chooses them, as for label noise. Heads
    without this input are scored on the same labels. A bare number is a share.

    Attributes:
        share: probability that a label is given, in [0, 1).
        seed: seed of the hash; not the run's seed.
    """

    share: float = Field(0.0, ge=0, lt=1)
    seed: NonNegativeInt = 0

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, given: Any) -> Any:
        return {"share": given} if isinstance(given, int | float) else given


class SplitCoverage(Value):
    """The listed, usable, missing and corrupt images of a split, and its official number."""

    images: int
    usable: int
    missing: int
    corrupt: int
    official: int | None


class Coverage(Value):
    """The part of a data set that a run uses.

    Attributes:
        known: True if its lists are those of a known edition.
        splits: ``train``, the validation part included, and ``test``.
    """

    known: bool
    splits: dict[str, SplitCoverage]

    @property
    def complete(self) -> bool:
        """True if every listed image is usable."""
        return all(split.usable == split.images for split in self.splits.values())


@dataclass(frozen=True)
class Splits:
    """A data set opened for a run.

    Attributes:
        card: the data set's card.
        names: the C labels that take part.
        train, test: the splits.
        digest: digest of both splits' labels (see ``digest``), with the validation part in train, a
            hyphen, and the digest of a sample of the image files (see ``files_digest``).
        identity: name of the edition (``coco-mini``), or ``<dataset>-unknown-<digest>``;
            ``-images-<digest>`` is appended if the image files are not those of the edition, and
            ``-incomplete-<digest>`` if images were left out.
        validation: the part split off train to select an epoch by; None without one.
        official: the official sizes of ``train`` and ``test``, if known.
        before_noise: the targets of train before label noise changed them; None without noise.
        objects: counts the objects of each label in an index of images of train: [C]; raises
            ``PluginError`` if they are not annotated.
        groups: returns key -> group of the images of train that are not their own group.
        coverage: the number of usable images; None if the files were not checked.
        interpretation: how the user's own files were understood; None for official files.
    """

    card: DatasetCard
    names: tuple[str, ...]
    train: Index
    test: Index
    digest: str
    identity: str
    validation: Index | None = None
    official: Mapping[str, SplitCard] = field(default_factory=dict)
    before_noise: Targets | None = None
    objects: Callable[[Index], ObjectCounts] = unknown_objects
    groups: Callable[[], Mapping[str, str]] = dict
    coverage: Coverage | None = None
    interpretation: Interpretation | None = None

    @property
    def whole_train(self) -> Index:
        """``train``, the validation part included."""
        import numpy as np

        train, held = self.train, self.validation
        if held is None:
            return train
        files, keys = [*train.files, *held.files], [*train.keys, *held.keys]
        return Index(files, keys, np.concatenate([train.targets, held.targets]))

    @property
    def incomplete(self) -> bool:
        """True if unusable images were left out."""
        return self.coverage is not None and not self.coverage.complete


@dataclass(frozen=True)
class Predictions:
    """Logits and targets of the test split.

    Attributes:
        logits, targets: float32 and int8 [N, C].
        keys: [N].
        validation: those of the validation split, to choose thresholds on; None without one.
    """

    logits: NDArray[np.float32]
    targets: Targets
    keys: tuple[str, ...]
    validation: Predictions | None = None


def digest(train: Index, test: Index, names: Sequence[str]) -> str:
    """Identity of the data: 16 hex digits over names, keys and targets of both splits.

    It depends on the order of the labels, but not on the order of the images.
    """
    return _digest(names, (train.keys, train.targets), (test.keys, test.targets))


SAMPLED = 32
"""Number of image files whose digest stands for all files of a data set."""


def sampled_files(train: Index, test: Index) -> dict[str, Path]:
    """Key -> file of the images of both splits whose keys have the lowest SHA-256."""
    files = dict(zip([*train.keys, *test.keys], [*train.files, *test.files], strict=True))
    lowest = heapq.nsmallest(SAMPLED, files, key=lambda k: hashlib.sha256(k.encode()).digest())
    return {key: files[key] for key in lowest}


def files_digest(train: Index, test: Index) -> str:
    """Identity of the image files: 16 hex digits over the bytes of a sample of both splits.

    It tells resized or recompressed images from the official ones without reading all of them, and
    depends on no decoder. A file that cannot be read counts as empty.
    """
    state = hashlib.sha256()
    for key, file in sampled_files(train, test).items():
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        state.update(key.encode() + b"\0" + hashlib.sha256(content).digest())
    return state.hexdigest()[:16]


def split_digest(keys: Sequence[str], targets: Targets, names: Sequence[str]) -> str:
    """Identity of one split, as ``digest``: keys [N], targets int8 [N, C], names [C]."""
    return _digest(names, (keys, targets))


def keys_digest(keys: Sequence[str]) -> str:
    """Identity of the images of a split: 16 hex digits over its keys, in any order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def _digest(names: Sequence[str], *splits: tuple[Sequence[str], Targets]) -> str:
    state = hashlib.sha256("\n".join(names).encode())
    for keys, targets in splits:
        order = sorted(range(len(keys)), key=keys.__getitem__)
        state.update(b"\x00" + "\n".join(keys[i] for i in order).encode() + b"\x00")
        state.update(targets[order].tobytes())
    return state.hexdigest()[:16]


# ----------------------------------------------------------------------------------- random numbers
Purpose = Literal[
    "shuffle",
    "augmentation",
    "graph",
    "drawing",
    "bootstrap",
    "folds",
    "samples",
    "dropout",
    "mixing",
    "known labels",
]
"""What random numbers are drawn for. Its position is part of the seed: append, never reorder."""


def stream(purpose: Purpose, *numbers: int) -> np.random.Generator:
    """A generator that depends on the purpose and on up to three whole numbers.

    Seeds have a fixed length, because NumPy fills short ones up with zeros: ``(seed, epoch)`` would
    equal ``(seed, epoch, 0)``.
    """
    import numpy as np

    place = get_args(Purpose).index(purpose)
    return np.random.default_rng((*numbers, *[0] * (3 - len(numbers)), place))
