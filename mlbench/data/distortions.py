"""Training steps that change a picture and keep its size: Flip, RandAugment, Cutout.

A crop changes what they see: before it they work on the picture as it was stored, after it (or
after the step ``resize``) on the square that the model looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field, NonNegativeInt

from mlbench.data.view import Step, View

Probability = Annotated[float, Field(ge=0, le=1)]
Intensity = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Intensity, Intensity, Intensity]


class Flip(Step):
    """Mirror left and right with probability ``p``."""

    p: Probability = 0.5

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The picture or its mirror image."""
        if rng.random() < self.p:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


class Cutout(Step):
    """Paint over a box at a random place (DeVries and Taylor, arXiv:1708.04552).

    The centre of the box is any pixel, so that a part of the box may lie outside.

    Attributes:
        p: probability.
        factor: sides of the box as a share of the picture's sides.
        fill: colour of the box; None draws one.
    """

    p: Probability = 1.0
    factor: float = Field(0.5, gt=0, le=1)
    fill: Colour | None = None

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The picture, or a copy with a box in it."""
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
"""The magnitude at which every operation of RandAugment does its utmost."""


class RandAugment(Step):
    """A few operations drawn from fourteen, all equally strong (Cubuk et al., arXiv:1909.13719).

    Operations and their strength are those of the paper, as torchvision has them, whose own takes
    its random numbers from a state that all threads share.

    Attributes:
        num_ops: how many operations, drawn with replacement (N).
        magnitude: their strength, 0 to 30 (M).
        fill: colour of what is moved in from outside.
    """

    num_ops: NonNegativeInt = 2
    magnitude: float = Field(9, ge=0, le=STRONGEST)
    fill: Colour = (128, 128, 128)

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The distorted picture."""
        strength = self.magnitude / STRONGEST
        for choice in rng.integers(len(OPERATIONS), size=self.num_ops):
            direction = 1 if rng.random() < 0.5 else -1
            image = list(OPERATIONS.values())[choice](image, direction * strength, self.fill)
        return image


Operation = Callable[[Image.Image, float, Colour], Image.Image]
"""(picture, strength s from -1 to 1, colour from outside) -> picture. Where there is no direction,
the sign says nothing."""


def _enhanced(make: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Between a tenth and 1.9 times of a picture's colour, contrast, brightness, sharpness."""
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
"""The paper's fourteen."""
