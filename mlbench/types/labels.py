"""What is known about the labels of a data set before any image is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from mlbench.types.errors import PluginError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ObjectCounts: TypeAlias = "NDArray[np.int64]"
"""How many annotated objects of each label there are: [C]."""


def unknown_objects(*_: object) -> ObjectCounts:
    """The counts of labels that nobody has counted the objects of.

    Raises:
        PluginError: always.
    """
    raise PluginError(
        "how many objects of each label the training images hold is not known here; count images"
    )


@dataclass(frozen=True)
class LabelContext:
    """What is known about the labels before any image is seen; made by the core from TRAIN labels.

    Attributes:
        names: C label names.
        cooccurrence: float32 [C, C]; entry (i, j) counts the training images with both labels,
            the diagonal counts the positives of each label.
        embeddings: float32 [C, E] word vectors.
        images: number of training images that the counts were made from.
        count_objects: gives ``objects``. It may have to read files, so it is called by need.

    A head or loss that reads ``cooccurrence`` or ``embeddings`` when it is made is taken to use the
    label graph or the words; priors need ``positives`` alone, which no ablation changes.
    """

    names: tuple[str, ...]
    cooccurrence: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    images: int
    count_objects: Callable[[], ObjectCounts] = unknown_objects

    def __len__(self) -> int:
        return len(self.names)

    @property
    def positives(self) -> NDArray[np.float32]:
        """float32 [C]: the training images that have each label."""
        return self.cooccurrence.diagonal()

    @cached_property
    def objects(self) -> ObjectCounts:
        """int64 [C]: the annotated objects of each label in the training images.

        Never fewer than ``positives``: a label that an image has counts there at least once.

        Raises:
            PluginError: the data set does not tell, or label noise has hidden it.
            DataError: its annotation files are missing or malformed.
        """
        return self.count_objects()
