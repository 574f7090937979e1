"""What plugins declare: cards of data sets and their contract, recipes of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, PositiveInt
from pydantic_core import CoreSchema, core_schema

from mlbench.types.literals import Split, Track
from mlbench.types.samples import Index
from mlbench.types.settings import Settings, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class SplitCard(Value):
    """The official size of a split: images, and positives over all labels."""

    images: PositiveInt
    positives: PositiveInt | None = None


class Edition(Value):
    """A known edition, so that predictions can be checked without its files.

    Attributes:
        train_images, test_images: sizes of its splits.
        test_keys: digest of the keys of the test split (see ``keys_digest``).
        test: digest of keys and targets of the test split (see ``split_digest``).
        images: digest of a sample of its image files (see ``files_digest``); empty if it is not
            published. Files with another digest make another edition.
    """

    train_images: PositiveInt
    test_images: PositiveInt
    test_keys: str
    test: str
    images: str = ""


class Archive(Value):
    """A published file of a data set: a zip, or a tar with or without compression.

    Attributes:
        name: the official file name, which mirrors keep.
        also: other names under which its content is published.
        url: where to download it; None if its terms forbid that or the link is dead.
        sha256: digest of the whole file; None if unknown.
        bytes: its exact size; None if unknown.
        unpacked_bytes: an upper bound of its unpacked size; no more than this is unpacked.
        into: the folder to unpack it in, relative to the root.
    """

    name: str
    also: tuple[str, ...] = ()
    url: str | None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    bytes: PositiveInt | None = None
    unpacked_bytes: PositiveInt
    into: str = "."


class DatasetCard(Value):
    """What is known about a data set. A factory has it as the attribute ``card``.

    Attributes:
        title: its name in prose.
        bibtex: how to cite it.
        licence: its terms of use.
        home: its home page.
        family: the name that recipes use for data sets that differ only in their images (``coco``
            for all its years); the data set's own name takes precedence.
        labels: the number of its labels.
        orders: name of an order of the labels -> all labels in this order; ``official`` is the
            order of the columns.
        splits: the official sizes of ``train``, ``test`` and other splits.
        identities: digest (see ``digest``) -> name of a known edition, e.g. ``coco-mini``.
        editions: name of a known edition -> its contents.
        budget: settings that all methods share in the controlled and probe tracks.
        notes: what a reader of its numbers must know.
        validation: known edition -> SHA-256 of the list of keys of its validation split, as
            ``mlbench data split`` writes it.
        shared_images: why train and test share images; empty if they must not.
        archives: its published files.
        steps: in plain words, what to do by hand where the archives cannot be downloaded.
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


class Interpretation(NamedTuple):
    """How a user's own files were understood, for ``mlbench data look`` and the start of a run.

    Attributes:
        facts: what was read -> how, in words.
        warnings: what is valid but may be meant otherwise; the data set has logged them.
    """

    facts: Mapping[str, str]
    warnings: tuple[str, ...]


class Dataset(ABC):
    """Turns official files into samples, without decoding an image.

    A factory is called as ``factory(root, cache, **options)``: ``root`` is the folder given by
    ``--data`` (None if not given), ``cache`` a folder to write to. It raises ``DataError`` if
    files are missing or malformed; the core reports an ``OSError``, too. Its options have defaults;
    records hold the values in use.
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
        """The key in ``card.splits`` of a split under the options in use; None if it has none."""
        return split

    def validation_keys(self) -> Sequence[str] | None:
        """Keys of the samples of ``train`` in the official validation split; None without one."""
        return None

    def train_groups(self) -> Sequence[str] | None:
        """A group for each sample of ``train``, in order; near-duplicates share a group.

        Parts that are held out keep groups together; ``holdout`` draws by a hash of groups' names.
        None means that every sample is its own group, named by its key.
        """
        return None

    def objects(self, keys: Sequence[str]) -> NDArray[np.integer[Any]] | None:
        """Annotated objects of each label in these images of ``train``: [N, C], in order.

        A count is at least 1 for a present label, 0 for an absent one, any number for an unknown
        one. Only label graphs of instance counts need it, so it may read files. None means that
        whole images are annotated. Raises ``DataError`` if files are missing or malformed.
        """
        return None

    def missing(self) -> str | None:
        """Which images are missing and what to do, if the data set knows more than their paths.

        Opening the data set then fails, unless missing images are allowed. None means that nothing
        is known to be missing; the files are checked before a run in any case.
        """
        return None

    def interpretation(self) -> Interpretation | None:
        """How the user's own files were understood; None for official files."""
        return None


class Reported(Value):
    """A score of the literature, its source, and how well it is verified."""

    dataset: str
    metric: str
    value: float
    source: str
    status: Literal["verified", "secondary"]
    note: str = ""

    @classmethod
    def table(cls, fields: str, *rows: tuple[Any, ...], **same: Any) -> tuple[Reported, ...]:
        """Make several scores from names of the fields in each row, rows, and shared fields."""
        names = fields.split()
        return tuple(cls(**dict(zip(names, row, strict=True)), **same) for row in rows)


class Proof(NamedTuple):
    """The inputs from which an array of a parity fixture is recomputed, in float64.

    Attributes:
        head: the head, with the fixture's weights.
        features: the maps that the head is given.
        graph: P(j | i) [C, C]; empty if the fixture has none.
        fixture: all fields of the fixture.
        known: labels that the head is given, int8 [B, C]; None if the fixture has none.
    """

    head: Any
    features: tuple[Tensor, ...]
    graph: Tensor
    fixture: Mapping[str, Any]
    known: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Released:
    """How to convert the files that the authors of a method released.

    A state is a mapping of the authors' names, without the prefix ``module.``, to tensors.

    Attributes:
        title: who released what.
        marks: regular expressions; each matches some name in these files and in no others.
        trunk: state -> the state dict of the backbone.
        head: state -> those parameters and buffers of the head that the file holds.
        options: state -> options of the head, read off shapes (number of heads, of groups).
        settings: what differs from the recipe's settings.
        unused: regular expressions of names that the authors' code never uses.
        averaged: True if the authors score a moving average of the weights.
        label_axes: name of a tensor of the head -> its axes that run over labels. The size of the
            first tensor along its axis is the number of labels.
        rearrange: (state of the head, new order of its labels) -> state, for tensors that
            ``label_axes`` cannot describe.
        order: the order of the labels: ``official`` is the data set's own (COCO's ids),
            ``alphabetical`` sorts the names; or a data set or family -> its order, where the order
            for others is unknown.
        needs: ``graph`` and ``words`` -> the buffers of the head computed from them; required
            from the user if the file lacks these buffers.
        graph: (P(j | i) [C, C] as the authors have it, options of the head) -> the buffers
            computed from it.
        handed_over: options with which the head accepts the maps in parity fixtures of heads.
        variants: name of an array in a fixture -> options with which the head outputs it.
        outputs: name of an array in a fixture -> how to compute it; ``logits`` is implied.
    """

    title: str
    marks: tuple[str, ...]
    trunk: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    head: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]] = lambda _: {}
    settings: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    averaged: bool = False
    label_axes: Mapping[str, tuple[int, ...]]
    rearrange: Callable[[dict[str, Tensor], Sequence[int]], dict[str, Tensor]] | None = None
    order: str | Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[Literal["graph", "words"], tuple[str, ...]] = field(default_factory=dict)
    graph: Callable[[Tensor, Mapping[str, Any]], dict[str, Tensor]] | None = None
    handed_over: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Callable[[Proof], Tensor]] = field(default_factory=dict)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


class Recipe(Value):
    """How the authors of a method train it, and what a reader should know.

    Attributes:
        title, bibtex: the paper's title and citation.
        summary: what is new, in a sentence or two.
        settings: the paper's own training, which the published track runs.
        per_dataset: data set or family (see ``DatasetCard``) -> settings that differ.
        dataset_options: data set or family -> its options in the paper (which images count, how
            difficult labels are treated), for the published track.
        tuned: track -> settings found for this method under an equal budget: the learning rate,
            the weight decay and options of the head (see benchmarks/README.md).
        reported: scores of the literature.
        deviations: in plain words, where this implementation differs from the authors' code.
        released: how to convert the files that the authors released; excluded from dumps.
    """

    title: str
    bibtex: str
    summary: str
    settings: Settings
    per_dataset: dict[str, dict[str, Any]] = {}
    dataset_options: dict[str, dict[str, Any]] = {}
    tuned: dict[Track, dict[str, Any]] = {}
    reported: tuple[Reported, ...] = ()
    deviations: tuple[str, ...] = ()
    released: tuple[Released, ...] = Field((), exclude=True, repr=False)
