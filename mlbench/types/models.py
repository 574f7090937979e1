"""The contracts of backbones, heads and losses, and what they know about the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mlbench.types.errors import PluginError
from mlbench.types.literals import ObjectCounts
from mlbench.types.settings import Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

WORD_WIDTH = 300
"""Width of derived and random word vectors, as of GloVe's usual ones."""


def unknown_objects(*_: object) -> ObjectCounts:
    """Stands for counts of objects that are not annotated.

    Raises:
        PluginError: always.
    """
    raise PluginError(
        "how many objects of each label the training images hold is not annotated, or labels are "
        "missing or wrong on purpose; count images"
    )


@dataclass(frozen=True)
class LabelContext:
    """What is known about the labels before any image is seen; made by the core from TRAIN labels.

    A head or loss that reads ``cooccurrence`` or ``embeddings`` in its constructor counts as using
    the label graph or the word vectors. For priors, read ``positives``, which no ablation changes.

    Attributes:
        names: C label names.
        cooccurrence: float32 [C, C]; entry (i, j) counts the training images with both labels,
            the diagonal counts the positives of each label.
        embeddings: float32 [C, E] word vectors; or a function that makes those of ``WORD_WIDTH``
            when they are first read.
        images: number of training images behind the counts.
        count_objects: computes ``objects``; called only when needed, as it may read files.
    """

    names: tuple[str, ...]
    cooccurrence: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    images: int
    count_objects: Callable[[], ObjectCounts] = unknown_objects

    def __post_init__(self) -> None:
        if callable(self.embeddings):
            vars(self)["make_embeddings"] = vars(self).pop("embeddings")

    def __len__(self) -> int:
        return len(self.names)

    def __getattr__(self, name: str) -> NDArray[np.float32]:
        if name != "embeddings" or "make_embeddings" not in vars(self):
            raise AttributeError(name)
        made: NDArray[np.float32] = vars(self).setdefault(name, vars(self)["make_embeddings"]())
        return made

    @property
    def positives(self) -> NDArray[np.float32]:
        """float32 [C]: the number of training images with each label."""
        return self.cooccurrence.diagonal()

    @property
    def word_width(self) -> int:
        """E, found without making the vectors."""
        return WORD_WIDTH if "make_embeddings" in vars(self) else self.embeddings.shape[1]

    @cached_property
    def objects(self) -> ObjectCounts:
        """int64 [C]: the annotated objects of each label in the training images.

        Never below ``positives``: an image counts at least once for each of its labels.

        Raises:
            PluginError: the data set does not annotate objects, or label noise hides them.
            DataError: annotation files are missing or malformed.
        """
        return self.count_objects()


class Level(NamedTuple):
    """One feature map of a backbone: channels D and stride in input pixels.

    A stride of 0 stands for one vector of the whole image: the map has one position.
    """

    channels: int
    stride: int


FeatureSpec = tuple[Level, ...]
"""The levels of a backbone, shallow to deep; a plain classifier would pool the last."""


class HeadOutput(NamedTuple):
    """The output of a head: logits [B, C] and named, weighted scalars to add to the loss."""

    logits: Tensor
    aux: Mapping[str, Tensor] = {}


class Angles(NamedTuple):
    """Scale and exponent from cosines to logits: ``scale * (2 ((cos + 1) / 2)^exponent - 1)``.

    A cosine classifier has an attribute ``angles`` of this type, and so does a loss that needs
    one. The core copies the loss's value to the classifier, and refuses the loss for other heads.
    """

    scale: float = 23.0
    exponent: float = 1.0


class Pretraining(Value):
    """What the initial weights of a backbone were trained on.

    Attributes:
        data: data sets in order, such as ``ImageNet-22k, then ImageNet-1k``; begins with
            ``unknown`` if they are not stated.
        labels: the labels that the training saw: ``one class an image``, ``captions``.
        licence: licence of the weights; empty if not known.
        saw: data sets of this benchmark whose labels the training saw (``coco``); scores of such
            weights have separate boards.
    """

    data: str
    labels: str = ""
    licence: str = ""
    saw: tuple[str, ...] = ()

    @classmethod
    def of(cls, backbone: object) -> Pretraining:
        """The pretraining that a backbone declares; unknown if it declares none."""
        unknown = cls(data="unknown: the backbone says nothing")
        return getattr(backbone, "pretraining", None) or unknown


class Backbone(Protocol):
    """An ``nn.Module``: normalised images [B, 3, H, W] to one map [B, D, H, W] per level.

    A factory is called as ``factory(weights=..., image_size=...)`` with ``"default"``, ``"none"``
    or the path of a file, and the side of the square input images.

    Attributes:
        spec: its levels.
        mean, std: the normalisation that its weights were trained with.
        options: keyword arguments with which the factory builds the same architecture without the
            file of weights; a backbone without this attribute needs none.
        pretraining: a ``Pretraining``; optional.
    """

    spec: FeatureSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def stages(self) -> Sequence[Sequence[Any]]:
        """Groups of modules or parameters, shallow to deep, for freezing.

        Every parameter and buffer of the backbone belongs to exactly one group.
        """

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W] -> one map per level of ``spec``."""


class Head(Protocol):
    """An ``nn.Module`` made by ``factory(spec, labels, **options)``: a function of features alone.

    Knowledge of the labels enters in the constructor and lives in buffers. The constructor raises
    ``PluginError`` for what the head cannot serve, and says what to use instead.

    Attributes:
        needs: ``{"known"}`` takes known labels of the images as a second argument, int8 [B, C] in
            {1, 0, -1 unknown}; without it, no label is known. Optional, like the next.
        most_known: training reveals 0 to floor(``most_known`` C) labels, drawn for each image and
            epoch, and hides them from the loss. Without it, training reveals none.
    """

    def __call__(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """One map per level -> logits [B, C]."""


class LossContext(NamedTuple):
    """The time in training when a loss is computed: the epoch, from 1, and the number of epochs."""

    epoch: int
    epochs: int


class Loss(Protocol):
    """Made by ``factory(labels, **options)``: (logits [B, C], targets int8 [B, C]) -> scalar.

    Unknown labels (-1) contribute nothing to value and gradient, and the value is a mean over
    images. A loss that differs from this declares it in attributes of the class or, if they depend
    on options, of the object. A loss for cosine classifiers has an attribute ``angles`` (see
    ``Angles``).

    Attributes:
        reduction: ``"sum"`` adds up over images.
        uses_unknown: True if it learns from unknown labels, too; only such a loss is trained on
            labels that are nowhere known to be absent.
        needs: ``{"epoch"}`` takes a ``LossContext`` as a third argument.
        separable: False if it is neither a mean nor a sum over images. Processes then compute it on
            the gathered batch, as one process does.
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The scalar loss."""


def evaluate_loss(loss: Any, logits_BC: Tensor, targets_BC: Tensor, context: LossContext) -> Tensor:
    """Compute a loss, passing the context if the loss needs one."""
    more = (context,) if "epoch" in getattr(loss, "needs", ()) else ()
    value: Tensor = loss(logits_BC, targets_BC, *more)
    return value
