"""Training steps that end in the square that a model looks at."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mlbench.data.view import Box, Step, View

Fraction = Annotated[float, Field(gt=0, le=1)]


class Resize(Step):
    """The view of test time, without chance: what follows sees the size that the model does."""

    crops: ClassVar[bool] = True

    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The whole picture as the view's square."""
        return view(image)


_TRIES = 10
"""Boxes that are drawn before the largest centred one is taken."""


class RandomResizedCrop(Step):
    """A box of random area and aspect, squashed to the view (Szegedy et al., CVPR 2015, section 6).

    Attributes:
        scale: smallest and largest share of the picture's area.
        ratio: smallest and largest width / height, drawn evenly on a log scale.
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
        """A box inside the picture; the largest centred one of a legal aspect if none is found."""
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
"""Thirteen places, in quarters of the room that a box has: the 3 x 3 grid and what is between."""


class MultiScaleCrop(Step):
    """A box of one of a few sizes at one of thirteen places (Wang et al., TSN, ECCV 2016).

    Width and height are shares of the shorter side; ML-GCN and MSRN train with it. Unlike theirs,
    a size within three pixels of the view is not snapped to it.

    Attributes:
        scales: shares, large to small.
        max_distort: how many places in ``scales`` width and height may lie apart.
        resize: squash to a square of this side first, in pixels (ADD-GCN); None does not.
    """

    crops: ClassVar[bool] = True
    scales: tuple[Fraction, ...] = Field((1.0, 0.875, 0.75, 0.66, 0.5), min_length=1)
    max_distort: int = Field(2, ge=0)
    resize: PositiveInt | None = None

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
        if self.resize is not None:
            image = view.squash(image, self.resize)
        return view.squash(image, view.size, self.box(*image.size, rng))


class RandomChoiceCrop(Step):
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
