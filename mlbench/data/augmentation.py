"""Steps on a training image: crops, flips, RandAugment, Cutout.

Every random choice comes from the generator that a step is given. Steps before a crop see the
image as it was stored; steps after it (or after ``resize``) see the square that the model sees.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mlbench.types import Value

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the image."""
Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Intensity = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Intensity, Intensity, Intensity]


@dataclass(frozen=True)
class View:
    """The square that a model looks at: ``size`` pixels, cut from ``resize`` pixels."""

    size: int
    resize: int
    resample: Image.Resampling

    def __call__(self, image: Image.Image) -> Image.Image:
        """The view at test time: squash, then crop the centre."""
        square = self.squash(image, self.resize)
        edge = (self.resize - self.size) // 2
        return square.crop((edge, edge, edge + self.size, edge + self.size))

    def squash(self, image: Image.Image, size: int, box: Box | None = None) -> Image.Image:
        """Resize the image, or a box of it, to a square; the aspect is not kept."""
        return image.resize((size, size), self.resample, box=box)


class Step(Value):
    """One step on a training image; its fields are its options.

    A step with ``crops`` returns the view's square; other steps keep the size of the image.
    """

    crops: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The changed image; the input is not modified."""


# -------------------------------------------------------------------------------------------- crops
class Resize(Step):
    """The view at test time, so that the steps after it see the size that the model sees."""

    crops: ClassVar[bool] = True

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The whole image as the view's square."""
        return view(image)


_TRIES = 10
"""How many boxes are drawn before falling back to the largest centred one."""


class RandomResizedCrop(Step):
    """A box of random area and aspect, squashed to the view (Szegedy et al., CVPR 2015, section 6).

    Attributes:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height, drawn uniformly on a log scale.
    """

    crops: ClassVar[bool] = True
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("the first number of scale and of ratio must not be above the second")
        return self

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A box inside the image; the largest centred one of an allowed aspect if none is found."""
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(_TRIES):
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
"""Thirteen places, in quarters of the free space: the 3 x 3 grid and the places between."""


class MultiScaleCrop(Step):
    """A box of one of a few sizes at one of thirteen places (Wang et al., TSN, ECCV 2016).

    Width and height are shares of the shorter side; ML-GCN and MSRN use it. Unlike in their code,
    a size within three pixels of the view is not snapped to it.

    Attributes:
        scales: shares, large to small.
        max_distort: largest distance in ``scales`` between width and height.
        resize: first squash to a square of this side in pixels (ADD-GCN), unless None.
    """

    crops: ClassVar[bool] = True
    scales: tuple[Fraction, ...] = Field((1.0, 0.875, 0.75, 0.66, 0.5), min_length=1)
    max_distort: int = Field(2, ge=0)
    resize: PositiveInt | None = None

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A box inside the image."""
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
        if self.resize is not None:
            image = view.squash(image, self.resize)
        return view.squash(image, view.size, self.box(*image.size, rng))


class RandomChoiceCrop(Step):
    """Squash, crop a square of one of a few sizes anywhere, squash to the view (SSGRL, sec. 4.1).

    Attributes:
        resize: side of the square to crop from, in pixels.
        sizes: sides of the crops, in pixels.
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
        """The crop as the view's square."""
        square = view.squash(image, self.resize)
        size = self.sizes[rng.integers(len(self.sizes))]
        left, top = rng.integers(0, self.resize - size, size=2, endpoint=True).tolist()
        return view.squash(square.crop((left, top, left + size, top + size)), view.size)


# ------------------------------------------------------------------- distortions that keep the size
class Flip(Step):
    """Flip left and right with probability ``p``."""

    p: Probability = 0.5

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The image or its mirror image."""
        if rng.random() < self.p:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


class Cutout(Step):
    """Paint a box at a random place (DeVries and Taylor, arXiv:1708.04552).

    The centre of the box is any pixel, so part of the box may lie outside.

    Attributes:
        p: probability.
        factor: sides of the box relative to those of the image.
        fill: colour of the box; None draws one.
    """

    p: Probability = 1.0
    factor: float = Field(0.5, gt=0, le=1)
    fill: Colour | None = None

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The image, or a copy with a box in it."""
        if rng.random() >= self.p:
            return image
        (left, right), (top, bottom) = (self._span(side, rng) for side in image.size)
        red, green, blue = self.fill or rng.integers(256, size=3).tolist()
        painted = image.copy()
        painted.paste((red, green, blue), (left, top, right, bottom))
        return painted

    def _span(self, side: int, rng: np.random.Generator) -> tuple[int, int]:
        length = max(round(self.factor * side), 1)
        start = int(rng.integers(side)) - length // 2
        return max(start, 0), min(start + length, side)


STRONGEST = 30
"""The largest magnitude of RandAugment."""


class RandAugment(Step):
    """A few of fourteen operations, at one strength (Cubuk et al., arXiv:1909.13719).

    Operations and strengths are those of torchvision, whose own transform draws from a global
    state that all threads share.

    Attributes:
        num_ops: number of operations, drawn with replacement (N).
        magnitude: their strength, 0 to 30 (M).
        fill: colour of pixels from outside the image.
    """

    num_ops: NonNegativeInt = 2
    magnitude: float = Field(9, ge=0, le=STRONGEST)
    fill: Colour = (128, 128, 128)

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The distorted image."""
        strength = self.magnitude / STRONGEST
        for choice in rng.integers(len(OPERATIONS), size=self.num_ops):
            direction = 1 if rng.random() < 0.5 else -1
            image = list(OPERATIONS.values())[choice](image, direction * strength, self.fill)
        return image


Operation = Callable[[Image.Image, float, Colour], Image.Image]
"""(image, strength s from -1 to 1, colour from outside) -> image. Operations without a direction
ignore the sign."""


def _enhanced(make: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Scale colour, contrast, brightness or sharpness by 0.1 to 1.9."""
    return lambda image, s, _: make(image).enhance(1 + 0.9 * s)


def _affine(
    image: Image.Image, x: Sequence[float], y: Sequence[float], fill: Colour
) -> Image.Image:
    """Pixel (x, y) comes from (x0 x + x1 y + x2, y0 x + y1 y + y2), the nearest one."""
    return image.transform(image.size, Image.Transform.AFFINE, (*x, *y), fillcolor=fill)


def _shift(side: int, s: float) -> int:
    return int(150 / 331 * side * s)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, s, _: image,
    "auto_contrast": lambda image, s, _: ImageOps.autocontrast(image),
    "equalize": lambda image, s, _: ImageOps.equalize(image),
    "rotate": lambda image, s, fill: image.rotate(30 * s, fillcolor=fill),
    "solarize": lambda image, s, _: ImageOps.solarize(image, math.ceil(255 * (1 - abs(s)))),
    "posterize": lambda image, s, _: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, s, fill: _affine(image, (1, 0.3 * s, 0), (0, 1, 0), fill),
    "shear_y": lambda image, s, fill: _affine(image, (1, 0, 0), (0.3 * s, 1, 0), fill),
    "translate_x": lambda image, s, fill: _affine(
        image, (1, 0, _shift(image.width, s)), (0, 1, 0), fill
    ),
    "translate_y": lambda image, s, fill: _affine(
        image, (1, 0, 0), (0, 1, _shift(image.height, s)), fill
    ),
}
"""The fourteen operations of the paper."""
