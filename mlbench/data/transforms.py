"""From a decoded picture to the uint8 pixels [3, S, S] that a model sees.

Geometry is Pillow's (antialiased when it shrinks). Every random choice comes from the generator
that is passed in, so a picture's augmentation depends on nothing but its seed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from mlbench.data.crops import MultiScaleCrop, RandomChoiceCrop, RandomResizedCrop, Resize
from mlbench.data.distortions import Cutout, Flip, RandAugment
from mlbench.data.view import Step, View
from mlbench.types import Augmentation, Settings, SuiteError

_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def test_transform(settings: Settings) -> Callable[[Image.Image], Tensor]:
    """The picture of any size -> uint8 [3, S, S], S = ``settings.image_size``.

    Squashed to S, or squashed to ``preprocessing.resize`` and cut from the centre.

    Raises:
        SuiteError: ``preprocessing.resize`` is smaller than the image size.
    """
    view = _view(settings)
    return lambda image: _pixels(view(image))


def train_transform(
    settings: Settings,
) -> Callable[[Image.Image, np.random.Generator], Tensor]:
    """As ``test_transform``, with the steps of ``settings.augmentation`` in their order.

    A step that crops gives the S x S picture itself, and steps after it see that; without such a
    step the picture is squashed (and cut) last, as at test time. Without any step the two
    transforms are the same.

    Raises:
        SuiteError: a step or an option that is not known or cannot be, or two steps that crop.
    """
    view = _view(settings)
    steps = build_steps(settings.augmentation)
    croppers = [type(step).__name__ for step in steps if step.crops]
    if len(croppers) > 1:
        raise SuiteError(f"the augmentation crops twice ({', '.join(croppers)}); keep one of them")

    def transform(image: Image.Image, rng: np.random.Generator) -> Tensor:
        for step in steps:
            image = step(image, rng, view)
        return _pixels(image if croppers else view(image))

    return transform


def _view(settings: Settings) -> View:
    size = settings.image_size
    resize = settings.preprocessing.resize or size
    if resize < size:
        raise SuiteError(
            f"preprocessing.resize {resize} is smaller than image_size {size}, which is cut from "
            f"it; choose a resize of at least {size}, or none"
        )
    return View(size, resize, _RESAMPLE[settings.preprocessing.interpolation])


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


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
    """The steps that a recipe names.

    Raises:
        SuiteError: a name, an option or a value that cannot be; the nearest names are suggested.
    """
    return [_build(step.name, step.options) for step in augmentation]


def _build(name: str, options: dict[str, Any]) -> Step:
    if name not in STEPS:
        raise SuiteError(f"unknown augmentation step {name!r}; {_nearest(name, list(STEPS))}")
    fields = list(STEPS[name].model_fields)
    for option in options:
        if option not in fields:
            raise SuiteError(
                f"augmentation step {name!r} has no option {option!r}; {_nearest(option, fields)}"
            )
    try:
        return STEPS[name](**options)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"]) or "options"
        raise SuiteError(
            f"augmentation step {name!r}: {where}: {wrong['msg']} (given: {wrong['input']!r})"
        ) from error


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
