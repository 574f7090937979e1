"""Transform a decoded image into the uint8 pixels [3, S, S] that a model sees.

Shrinking antialiases. Every random choice comes from the generator that is passed in, so the
augmentation of an image depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from mlbench.data.augmentation import (
    Crop,
    Cutout,
    Flip,
    MultiScaleCrop,
    RandAugment,
    RandomChoiceCrop,
    RandomResizedCrop,
    Resize,
    Step,
    View,
    cut,
)
from mlbench.text import describe_errors, unknown
from mlbench.types import Augmentation, Settings, SuiteError, Value

LARGEST_TOGETHER = 1024
"""Largest side in pixels for resizing together, since a batch is padded to its largest image."""


def make_view(settings: Settings) -> View:
    """Make the view at test time: uint8 [3, H, W] -> uint8 [3, S, S]; S is the image size.

    Raises:
        SuiteError: ``preprocessing.resize`` is smaller than the image size.
    """
    size = settings.image_size
    resize = settings.preprocessing.resize or size
    if resize < size:
        raise SuiteError(
            f"preprocessing.resize {resize} is smaller than image_size {size}, which is cropped "
            f"from it; choose a resize of at least {size}, or none"
        )
    return View(size, resize, settings.preprocessing.interpolation, settings.decoder)


@dataclass(frozen=True)
class Transform:
    """Turns a decoded image into the view by random steps, at most one of which crops.

    ``together`` lets ``batch`` resize by matrix products, which must not be in TF32.
    """

    view: View
    steps: Sequence[Step] = ()
    together: bool = True

    @property
    def side(self) -> int | None:
        """Side of the square to which every image is resized first (``Step.side``), or None."""
        return self.steps[0].side(self.view) if self.steps else self.view.resize

    @cached_property  # pydantic's isinstance takes long
    def croppers(self) -> list[str]:
        """Names of the steps that crop."""
        return [type(step).__name__ for step in self.steps if isinstance(step, Resize | Crop)]

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """The view of one image: uint8 [3, S, S]."""
        for step in self.steps:
            image = step(image, rng, self.view)
        return image if self.croppers else self.view(image)

    def batch(self, images: Sequence[Tensor], rngs: Sequence[np.random.Generator]) -> Tensor:
        """The views of a batch on a GPU: uint8 [B, 3, S, S]; crops are resized together."""
        pairs = list(zip(images, rngs, strict=True))
        largest = max(side for image in images for side in image.shape)
        possible = self.together and self.steps and largest <= LARGEST_TOGETHER
        first = self.steps[0] if possible else None
        if not isinstance(first, Crop) or self.side is not None:
            return torch.stack([self(image, rng) for image, rng in pairs])
        boxes = [first.box(image.shape[2], image.shape[1], rng) for image, rng in pairs]
        parts = [cut(image, box) for image, box in zip(images, boxes, strict=True)]
        squares = list(self.view.squash_together(parts))
        for step in self.steps[1:]:
            squares = [step(x, rng, self.view) for x, rng in zip(squares, rngs, strict=True)]
        return torch.stack(squares)


def train_transform(settings: Settings, *, together: bool = True) -> Transform:
    """Make the training transform: ``settings.augmentation``, then the view if no step crops.

    Raises:
        SuiteError: an unknown step or option, an invalid value, or two steps that crop.
    """
    made = Transform(make_view(settings), build_steps(settings.augmentation), together)
    if len(names := made.croppers) > 1:
        raise SuiteError(f"the augmentation crops twice ({', '.join(names)}); keep one of them")
    return made


STEPS: dict[str, type[Step]] = {
    "flip": Flip,
    "resize": Resize,
    "random_resized_crop": RandomResizedCrop,
    "multi_scale_crop": MultiScaleCrop,
    "random_choice_crop": RandomChoiceCrop,
    "rand_augment": RandAugment,
    "cutout": Cutout,
}


def build_steps(augmentation: Sequence[Augmentation]) -> list[Step]:
    """The steps of a recipe.

    Raises:
        SuiteError: an unknown step or option, or an invalid value.
    """
    return [make_named("augmentation step", STEPS, step) for step in augmentation]


Named = TypeVar("Named", bound=Value)


def make_named(what: str, known: Mapping[str, type[Named]], chosen: Augmentation) -> Named:
    """Make the value that a name and its options stand for.

    Raises:
        SuiteError: an unknown name or option, or an invalid value.
    """
    name, options = chosen.name, chosen.options
    if name not in known:
        raise SuiteError(unknown(f"{what} {name!r}", name, known))
    try:
        return known[name](**options)
    except ValidationError as error:
        found = describe_errors(error, known[name], of="its options")
        raise SuiteError(f"{what} {name!r}: {found}") from error
