"""The square that a model looks at, and what a step on the way there is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from mlbench.types import Value

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""


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


class Step(Value):
    """One step on a training picture; its fields are its options.

    Every random choice comes from the generator that it is given. ``crops`` says that it ends in
    the view's square; other steps keep the size of what they are given.
    """

    crops: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, image: Image.Image, rng: np.random.Generator, view: View) -> Image.Image:
        """The changed picture; the one given stays as it is."""
