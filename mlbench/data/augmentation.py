"""Steps on a training image: crops, flips, RandAugment, Cutout.

Images are uint8 [3, H, W]. Every random choice comes from the generator that a step receives, and
none depends on the decoder. Steps before a crop see the image as it was stored; steps after it (or
after ``resize``) see the square that the model sees.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from mlbench.data.operations import OPERATIONS
from mlbench.types import Decoder, Probability, Value

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the image."""
Fraction = Annotated[float, Field(gt=0, le=1)]
Intensity = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Intensity, Intensity, Intensity]


@dataclass(frozen=True)
class View:
    """The square that a model sees: ``size`` pixels, cropped from ``resize`` pixels."""

    size: int
    resize: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    decoder: Decoder = "turbo"

    def __call__(self, image: Tensor) -> Tensor:
        """The view at test time: squash, then crop the centre."""
        near = (self.resize - self.size) // 2
        far = near + self.size
        return cut(self.squash(image, self.resize), (near, near, far, far))

    def squash(self, image: Tensor, size: int) -> Tensor:
        """Resize an image to a square with antialiasing; the aspect ratio is not kept.

        A square of this size is returned unchanged. Pillow resizes if it is the decoder; torch
        differs from it by at most one grey level, or two when it enlarges bicubically.
        """
        if image.shape[1:] == (size, size):
            return image
        if self.decoder == "pillow":
            square = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
                (size, size), Image.Resampling[self.interpolation.upper()]
            )
            return torch.from_numpy(np.array(square)).permute(2, 0, 1)
        if image.device.type == "cpu":
            # [1, H, W, 3] has strides that torch knows as channels last, and then keeps.
            batch = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        else:  # only the CPU's kernel takes integers and this layout
            batch = image[None].float()
        shrunk = interpolate(batch, (size, size), mode=self.interpolation, antialias=True)[0]
        return shrunk if shrunk.dtype == torch.uint8 else shrunk.round_().clamp_(0, 255).byte()

    def squash_together(self, images: Sequence[Tensor]) -> Tensor:
        """``squash`` images of any sizes to the view by matrix products: uint8 [B, 3, S, S]."""
        sizes = [image.shape[1:] for image in images]
        heights, widths = zip(*sizes, strict=True)
        shape = len(images), 3, max(heights), max(widths)
        padded = images[0].new_zeros(shape, dtype=torch.float32)
        for place, image, (height, width) in zip(padded, images, sizes, strict=True):
            place[:, :height, :width] = image
        rows_BSH, columns_BSW = (self._weights(one, padded) for one in (heights, widths))
        found = rows_BSH[:, None] @ padded @ columns_BSW[:, None].mT
        pixels = found.round_().clamp_(0, 255).byte()
        return pixels.contiguous(memory_format=torch.channels_last)

    def _weights(self, lengths: Sequence[int], like: Tensor) -> Tensor:
        """Weight of each pixel of a line in each pixel of the view: [B, S, longest line]."""
        length_B11 = torch.tensor(lengths).to(like)[:, None, None]
        scale = length_B11 / self.size
        at, target = (torch.arange(n).to(like) + 0.5 for n in (max(lengths), self.size))
        x = ((at - target[:, None] * scale) / scale.clamp(min=1)).abs()
        if self.interpolation == "bilinear":
            weights = (1 - x).clamp(min=0)
        else:  # Keys' kernel with a = -1/2
            near, far = (1.5 * x - 2.5) * x**2 + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
            weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
        weights = weights * (at < length_B11)
        return weights / weights.sum(dim=-1, keepdim=True)


def cut(image: Tensor, box: Box) -> Tensor:
    """Crop a box of an image, without a copy."""
    left, top, right, bottom = box
    return image[:, top:bottom, left:right]


class Step(Value):
    """One step on a training image; its fields are its options.

    ``Resize`` and ``Crop`` return the view's square; other steps keep the size of the image.
    """

    def side(self, view: View) -> int | None:
        """Side to which every image is squashed before the step draws random numbers, or None.

        The result of the step depends on that square alone.
        """
        return None

    @abstractmethod
    def __call__(self, image: Tensor, rng: np.random.Generator, view: View) -> Tensor:
        """The changed image; the input is not modified."""


# -------------------------------------------------------------------------------------------- crops
class Resize(Step):
    """The view at test time, so that the steps after it see the size that the model sees."""

    def side(self, view: View) -> int | None:
        """The view's side before the centre crop."""
        return view.resize

    def __call__(self, image: Tensor, rng: np.random.Generator, view: View) -> Tensor:
        """The whole image as the view's square."""
        return view(image)


class Crop(Step):
    """A random box of the image, or of its square of this ``side``, as the view's square."""

    @abstractmethod
    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """Draw a box inside an image of this size."""

    def __call__(self, image: Tensor, rng: np.random.Generator, view: View) -> Tensor:
        """The box as the view's square."""
        if (side := self.side(view)) is not None:
            image = view.squash(image, side)
        return view.squash(cut(image, self.box(image.shape[2], image.shape[1], rng)), view.size)


_TRIES = 10
"""Number of boxes to draw before falling back to the largest centred box."""


class RandomResizedCrop(Crop):
    """Squash a box of random area and aspect to the view (Szegedy et al., CVPR 2015, section 6).

    Attributes:
        scale: smallest and largest fraction of the image's area.
        ratio: smallest and largest width / height, drawn uniformly on a log scale.
    """

    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("the first number of scale and of ratio must not be above the second")
        return self

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A box inside the image; if none fits, the largest centred box of an allowed aspect."""
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
        w = max(round(min(width, height * aspect)), 1)
        h = max(round(min(height, width / aspect)), 1)
        left, top = (width - w) // 2, (height - h) // 2
        return (left, top, left + w, top + h)


_GRID = [(x, y) for x in (0, 2, 4) for y in (0, 2, 4)] + [(x, y) for x in (1, 3) for y in (1, 3)]
"""Thirteen positions in quarters of the free space: a 3 x 3 grid and the points between."""


class MultiScaleCrop(Crop):
    """Crop a box of one of a few sizes at one of thirteen positions (Wang et al., TSN, ECCV 2016).

    Width and height are fractions of the shorter side. ML-GCN and MSRN use this crop; unlike in
    their code, a size within three pixels of the view's size is not rounded to it.

    Attributes:
        scales: these fractions, in descending order.
        max_distort: largest distance in ``scales`` between width and height.
        resize: side in pixels of a square to squash to first (ADD-GCN); None for no square.
    """

    scales: tuple[Fraction, ...] = Field((1.0, 0.875, 0.75, 0.66, 0.5), min_length=1)
    max_distort: int = Field(2, ge=0)
    resize: PositiveInt | None = None

    def side(self, view: View) -> int | None:
        """``resize``."""
        return self.resize

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A box inside the image."""
        sizes = [max(1, int(min(width, height) * scale)) for scale in self.scales]
        far = self.max_distort
        pairs = [(w, h) for i, w in enumerate(sizes) for h in sizes[max(i - far, 0) : i + far + 1]]
        w, h = pairs[rng.integers(len(pairs))]
        x, y = _GRID[rng.integers(len(_GRID))]
        left, top = x * ((width - w) // 4), y * ((height - h) // 4)
        return (left, top, left + w, top + h)


class RandomChoiceCrop(Crop):
    """Squash, crop a square of one of a few sizes anywhere, squash to the view (SSGRL, sec. 4.1).

    Attributes:
        resize: side of the square to crop from, in pixels.
        sizes: sides of the crops, in pixels.
    """

    resize: PositiveInt = 640
    sizes: tuple[PositiveInt, ...] = Field((640, 576, 512, 384, 320), min_length=1)

    @model_validator(mode="after")
    def _inside(self) -> RandomChoiceCrop:
        if max(self.sizes) > self.resize:
            raise ValueError(f"a crop of {max(self.sizes)} does not fit into resize {self.resize}")
        return self

    def side(self, view: View) -> int | None:
        """``resize``."""
        return self.resize

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """A square inside the squashed image."""
        size = self.sizes[rng.integers(len(self.sizes))]
        left, top = rng.integers(0, self.resize - size, size=2, endpoint=True).tolist()
        return (left, top, left + size, top + size)


# ------------------------------------------------------------------- distortions that keep the size
class Flip(Step):
    """Flip left and right with probability ``p``."""

    p: Probability = 0.5

    def __call__(self, image: Tensor, rng: np.random.Generator, view: View) -> Tensor:
        """The image or its mirror image."""
        return image.flip(2) if rng.random() < self.p else image


class Cutout(Step):
    """Paint a box at a random place (DeVries and Taylor, arXiv:1708.04552).

    The centre of the box is any pixel, so part of the box may lie outside.

    Attributes:
        p: probability that a box is painted.
        factor: sides of the box relative to the sides of the image.
        fill: colour of the box; None draws a colour.
    """

    p: Probability = 1.0
    factor: float = Field(0.5, gt=0, le=1)
    fill: Colour | None = None

    def __call__(self, image: Tensor, rng: np.random.Generator, view: View) -> Tensor:
        """The image, or a copy with a box in it."""
        if rng.random() >= self.p:
            return image
        (left, right), (top, bottom) = (self._span(image.shape[axis], rng) for axis in (2, 1))
        fill = self.fill or rng.integers(256, size=3).tolist()
        painted = image.clone()
        colour = torch.tensor(fill, dtype=torch.uint8, device=image.device)
        cut(painted, (left, top, right, bottom))[:] = colour[:, None, None]
        return painted

    def _span(self, side: int, rng: np.random.Generator) -> tuple[int, int]:
        length = max(round(self.factor * side), 1)
        start = int(rng.integers(side)) - length // 2
        return max(start, 0), min(start + length, side)


STRONGEST = 30
"""The largest magnitude of RandAugment."""


class RandAugment(Step):
    """Apply a few of fourteen operations at one strength (Cubuk et al., arXiv:1909.13719).

    Operations and strengths are as in torchvision, whose own transform draws from a global state
    that all threads share (``mlbench.data.operations``).

    Attributes:
        num_ops: number of operations, drawn with replacement (N).
        magnitude: their strength, 0 to 30 (M).
        fill: colour of pixels from outside the image.
    """

    num_ops: NonNegativeInt = 2
    magnitude: float = Field(9, ge=0, le=STRONGEST)
    fill: Colour = (128, 128, 128)

    def __call__(self, image: Tensor, rng: np.random.Generator, view: View) -> Tensor:
        """The distorted image."""
        strength = self.magnitude / STRONGEST
        for choice in rng.integers(len(OPERATIONS), size=self.num_ops):
            direction = 1 if rng.random() < 0.5 else -1
            image = list(OPERATIONS.values())[choice](image, direction * strength, self.fill)
        return image
