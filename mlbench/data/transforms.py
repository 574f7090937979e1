"""From a decoded picture to the uint8 pixels [3, S, S] that a model sees.

Geometry is Pillow's (antialiased when it shrinks). Every random choice comes from the generator
that is passed in, so a picture's augmentation depends on nothing but its seed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from torch import Tensor

from mlbench.types import Augmentation, Settings, SuiteError, Value

_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""
Fraction = Annotated[float, Field(gt=0, le=1)]


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

    A step that crops gives the S x S picture itself; without such a step the picture is squashed
    (and cut) as at test time. Without any step the two transforms are the same.

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


@dataclass(frozen=True)
class View:
    """The square that a model looks at: ``size`` pixels, cut from ``resize`` pixels."""

    size: int
    resize: int
    resample: Image.Resampling

    def __call__(self, image: Image.Image) -> Image.Image:
        """The view at test time."""
        square = self.squash(image, self.resize)
        edge = (self.resize - self.size) // 2
        if self.resize == self.size:
            return square
        return square.crop((edge, edge, edge + self.size, edge + self.size))

    def squash(self, image: Image.Image, size: int, box: Box | None = None) -> Image.Image:
        """The picture, or a box of it, as a square; its aspect is not kept."""
        return image.resize((size, size), self.resample, box=box)


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


# ------------------------------------------------------------------------------------------ steps
class Step(Protocol):
    """One step on a training picture; ``crops`` says that it ends in the view's square."""

    crops: ClassVar[bool]

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The changed picture."""
        ...


class Flip(Value):
    """Mirror left and right with probability ``p``."""

    crops: ClassVar[bool] = False
    p: float = Field(0.5, ge=0, le=1)

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The picture or its mirror image."""
        if rng.random() < self.p:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


class RandomResizedCrop(Value):
    """A box of random area and aspect, squashed to the view (Szegedy et al., CVPR 2015, section 6).

    Attributes:
        scale: smallest and largest share of the picture's area.
        ratio: smallest and largest width / height, drawn evenly on a log scale.
    """

    crops: ClassVar[bool] = True
    tries: ClassVar[int] = 10
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("the first number of scale and of ratio must not be above the second")
        return self

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A box inside the picture; the largest centred one of a legal aspect if none is found."""
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(self.tries):
            area = width * height * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left = int(rng.integers(width - w + 1))
                top = int(rng.integers(height - h + 1))
                return (left, top, left + w, top + h)
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        x, y = min(width, height * aspect) / 2, min(height, width / aspect) / 2
        return (width / 2 - x, height / 2 - y, width / 2 + x, height / 2 + y)

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The box as the view's square."""
        return view.squash(image, view.size, self.box(*image.size, rng))


_GRID = [(x, y) for x in (0, 2, 4) for y in (0, 2, 4)] + [(x, y) for x in (1, 3) for y in (1, 3)]
"""Thirteen places, in quarters of the room that a box has: the 3 x 3 grid and what is between."""


class MultiScaleCrop(Value):
    """A box of one of a few sizes at one of thirteen places (Wang et al., TSN, ECCV 2016).

    Width and height are shares of the shorter side; ML-GCN and MSRN train with it. Unlike theirs,
    a size within three pixels of the view is not snapped to it.

    Attributes:
        scales: shares, large to small.
        max_distort: how many places in ``scales`` width and height may lie apart.
    """

    crops: ClassVar[bool] = True
    scales: tuple[Fraction, ...] = Field((1.0, 0.875, 0.75, 0.66, 0.5), min_length=1)
    max_distort: int = Field(2, ge=0)

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A box inside the picture."""
        sizes = [max(1, int(min(width, height) * scale)) for scale in self.scales]
        pairs = [
            (w, h)
            for i, w in enumerate(sizes)
            for j, h in enumerate(sizes)
            if abs(i - j) <= self.max_distort
        ]
        w, h = pairs[rng.integers(len(pairs))]
        x, y = _GRID[rng.integers(len(_GRID))]
        left, top = x * ((width - w) // 4), y * ((height - h) // 4)
        return (left, top, left + w, top + h)

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The box as the view's square."""
        return view.squash(image, view.size, self.box(*image.size, rng))


class RandomChoiceCrop(Value):
    """Squash, cut a square of one of a few sizes anywhere, squash to the view (SSGRL, section 4.1).

    Attributes:
        resize: side of the square that is cut from, in pixels.
        sizes: sides of the squares that are cut, in pixels.
    """

    crops: ClassVar[bool] = True
    resize: PositiveInt = 640
    sizes: tuple[PositiveInt, ...] = Field((640, 576, 512, 384, 320), min_length=1)

    @model_validator(mode="after")
    def _inside(self) -> RandomChoiceCrop:
        if max(self.sizes) > self.resize:
            raise ValueError(f"a crop of {max(self.sizes)} does not fit into resize {self.resize}")
        return self

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The cut square as the view's square."""
        square = view.squash(image, self.resize)
        size = self.sizes[rng.integers(len(self.sizes))]
        left, top = rng.integers(0, self.resize - size, size=2, endpoint=True).tolist()
        return view.squash(square.crop((left, top, left + size, top + size)), view.size)


STEPS: dict[str, type[Flip | RandomResizedCrop | MultiScaleCrop | RandomChoiceCrop]] = {
    "flip": Flip,
    "random_resized_crop": RandomResizedCrop,
    "multi_scale_crop": MultiScaleCrop,
    "random_choice_crop": RandomChoiceCrop,
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
