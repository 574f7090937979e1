"""From a decoded image to the uint8 pixels [3, S, S] that a model sees.

Resizing antialiases when it shrinks. Every random choice comes from the generator that
is passed in, so the augmentation of an image depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from pydantic import ValidationError
from torch import Tensor

from mlbench.data.augmentation import (
    Cutout,
    Flip,
    MultiScaleCrop,
    RandAugment,
    RandomChoiceCrop,
    RandomResizedCrop,
    Resize,
    Step,
    View,
)
from mlbench.text import first_error, unknown
from mlbench.types import Augmentation, Settings, SuiteError, Value


def make_view(settings: Settings) -> View:
    """The view at test time: an image uint8 [3, H, W] of any size -> uint8 [3, S, S].

    S is ``settings.image_size``: resized to S, or resized to ``preprocessing.resize`` and cropped
    from the centre.

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


def train_transform(
    settings: Settings,
) -> Callable[[Tensor, np.random.Generator], Tensor]:
    """As ``make_view``, after the steps of ``settings.augmentation`` in order.

    A step that crops returns the S x S image itself, which the steps after it see; without such a
    step the image is resized (and cropped) last, as at test time.

    Raises:
        SuiteError: an unknown step or option, an invalid value, or two steps that crop.
    """
    view = make_view(settings)
    steps = build_steps(settings.augmentation)
    croppers = [type(step).__name__ for step in steps if step.crops]
    if len(croppers) > 1:
        raise SuiteError(f"the augmentation crops twice ({', '.join(croppers)}); keep one of them")

    def transform(image: Tensor, rng: np.random.Generator) -> Tensor:
        for step in steps:
            image = step(image, rng, view)
        return image if croppers else view(image)

    return transform


def square_side(settings: Settings, *, training: bool) -> int | None:
    """The side of the square that any image is first squashed to; None if there is none.

    The transform of that square is the transform of the image.
    """
    view, steps = make_view(settings), build_steps(settings.augmentation)
    return steps[0].side(view) if training and steps else view.resize


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
    """What a name and its options stand for.

    Raises:
        SuiteError: an unknown name or option, or an invalid value.
    """
    name, options = chosen.name, chosen.options
    if name not in known:
        raise SuiteError(unknown(f"{what} {name!r}", name, known))
    fields = known[name].model_fields
    for option in options:
        if option not in fields:
            raise SuiteError(unknown(f"option {option!r} of {what} {name!r}", option, fields))
    try:
        return known[name](**options)
    except ValidationError as error:
        text = first_error(error, of="its options")
        raise SuiteError(f"{what} {name!r}: {text}") from error
