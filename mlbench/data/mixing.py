"""Batch mixing: training images that are made of several images of their batch.

The mix is drawn for the global batch. Each process then makes its rows of the mixed batch and loads
the images that these need. Pixels are mixed on the device.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.functional import interpolate

from mlbench.data.loader import Mixed, Positions
from mlbench.data.transforms import make_named
from mlbench.types import Augmentation, Probability, Value, stream


# -------------------------------------------------------------------------------- pairs of images
@dataclass(frozen=True)
class Pairs:
    """Mixes every image with a partner: blends them, or pastes a box of the partner.

    Attributes:
        partners: partner of each image.
        weight: weight of the image; with a box, the area outside the box before clipping.
        centre: centre of the box relative to width and height; None blends.
        union: True joins the labels of both images; False weights the losses on both.
    """

    partners: Positions
    weight: float
    centre: tuple[float, float] | None
    union: bool

    @property
    def rows(self) -> int:
        """Number of rows of the mixed batch: one per image."""
        return len(self.partners)

    def needs(self, rows: Positions) -> Positions:
        """The images of these rows, and their partners."""
        return np.unique(np.concatenate((rows, self.partners[rows])))

    def apply(self, images: Tensor, targets: Tensor, rows: Positions, empty: Tensor) -> Mixed:
        """Make rows of the mixed batch.

        Args:
            images: the images of ``needs(rows)``, [n, 3, H, W].
            targets: the targets of these images, [n, C].
            rows: positions in the mixed batch.
            empty: the colour that is 0 after normalization, [1, 3, 1, 1].
        """
        there = self.needs(rows)
        mine, theirs = (_at(there, one, images) for one in (rows, self.partners[rows]))
        pixels = images.to(empty.dtype)
        if self.centre is None:
            weight = self.weight
            mixed = weight * pixels[mine] + (1 - weight) * pixels[theirs]
        else:
            mixed = pixels[mine]
            spans = zip(mixed.shape[2:], self.centre[::-1], strict=True)
            down, across = (_span(side, place, 1 - self.weight) for side, place in spans)
            mixed[..., down, across] = pixels[theirs][..., down, across]
            boxed = (down.stop - down.start) * (across.stop - across.start)
            weight = 1 - boxed / (mixed.shape[2] * mixed.shape[3])
        if self.union:
            return Mixed(mixed, union(torch.stack((targets[mine], targets[theirs]), 1)))
        return Mixed(mixed, targets[mine], targets[theirs], weight)


def _span(side: int, centre: float, area: float) -> slice:
    """One side of a box of this share of the area, clipped at the border."""
    length, middle = int(side * math.sqrt(area)), int(side * centre)
    return slice(max(middle - length // 2, 0), min(middle + length // 2, side))


def _at(there: Positions, places: Positions, like: Tensor) -> Tensor:
    """Positions of images among the loaded ones."""
    return torch.from_numpy(np.searchsorted(there, places)).to(like.device, non_blocking=True)


def union(targets_BGC: Tensor) -> Tensor:
    """Join labels over images: present in any, else unknown in any, else absent."""
    present_BC = (targets_BGC == 1).any(1)
    unknown_BC = (targets_BGC < 0).any(1) & ~present_BC
    return present_BC.to(targets_BGC.dtype) - unknown_BC.to(targets_BGC.dtype)


# ------------------------------------------------------------------------------- grids of images
@dataclass(frozen=True)
class Spliced:
    """Appends grids of downsized images to a batch.

    Attributes:
        images: number of images of the batch.
        grid: rows and columns.
        sources: the image in each cell of each grid, row by row: [M, cells].
        dropped: cells that stay empty, bool [M, cells].
    """

    images: int
    grid: tuple[int, int]
    sources: Positions
    dropped: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """Number of rows of the mixed batch: images and grids."""
        return self.images + len(self.sources)

    def needs(self, rows: Positions) -> Positions:
        """The plain images of these rows, and the images in the cells of their grids."""
        plain, grids = self._parts(rows)
        return np.unique(np.concatenate((plain, self.sources[grids].ravel())))

    def apply(self, images: Tensor, targets: Tensor, rows: Positions, empty: Tensor) -> Mixed:
        """As ``Pairs.apply``; plain images come before grids."""
        there, (plain, grids) = self.needs(rows), self._parts(rows)
        pixels, alone = images.to(empty.dtype), _at(there, plain, images)
        cells = _at(there, self.sources[grids], images)
        dropped = torch.from_numpy(self.dropped[grids]).to(images.device, non_blocking=True)
        made = self._made(pixels, cells, dropped, empty)
        labels = union(targets[cells].masked_fill(dropped[..., None], 0))
        return Mixed(torch.cat((pixels[alone], made)), torch.cat((targets[alone], labels)))

    def _parts(self, rows: Positions) -> tuple[Positions, Positions]:
        """Divide rows, in order, into plain images and grids."""
        return rows[rows < self.images], rows[rows >= self.images] - self.images

    def _made(self, images: Tensor, cells: Tensor, dropped: Tensor, empty: Tensor) -> Tensor:
        """Grids [M, 3, H, W] of images [n, 3, H, W], which cells and dropped [M, cells] place."""
        (down, across), (height, width) = self.grid, images.shape[2:]
        size = height // down, width // across
        small = interpolate(images, size, mode="bilinear", align_corners=True)[cells]
        small = small.where(~dropped[..., None, None, None], empty).unflatten(1, self.grid)
        made: Tensor = small.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        if made.shape[2:] != (height, width):
            made = interpolate(made, (height, width), mode="bilinear", align_corners=True)
        return made


# ------------------------------------------------------------------------------------ of a recipe
Mix = Pairs | Spliced
"""How one batch is mixed."""


class Mixing(Value):
    """A way of mixing batches; its fields are its options.

    Attributes:
        p: probability that a batch is mixed.
    """

    p: Probability = 1.0

    def cost(self, images: int) -> float:
        """Mean number of images that the model processes, per image of a batch of this size."""
        return 1.0

    @abstractmethod
    def draw(self, images: int, rng: np.random.Generator) -> Mix | None:
        """Draw how a batch of this many images is mixed; None leaves it unmixed."""


class _Paired(Mixing):
    """Mixing of pairs.

    Attributes:
        boxed: paste a box instead of blending.
        alpha: parameter of the Beta distribution of the weight.
        labels: ``linear`` weights the losses on both images' labels; ``union`` joins the labels.
    """

    boxed: ClassVar[bool] = False
    alpha: PositiveFloat = 1.0
    labels: Literal["linear", "union"] = "linear"

    def draw(self, images: int, rng: np.random.Generator) -> Mix | None:
        """Draw partners, a weight and, for boxes, a centre."""
        if rng.random() >= self.p:
            return None
        weight = float(rng.beta(self.alpha, self.alpha))
        partners = rng.permutation(images)
        centre = (rng.random(), rng.random()) if self.boxed else None
        return Pairs(partners, weight, centre, self.labels == "union")


class Mixup(_Paired):
    """Blend pairs of images: lam x + (1 - lam) x', one lam a batch (Zhang et al., ICLR 2018)."""


class CutMix(_Paired):
    """Paste a box of a partner into every image (Yun et al., ICCV 2019).

    ``linear`` weights labels by area, which does not fit small objects.
    """

    boxed: ClassVar[bool] = True


GRIDS = ((1, 2), (2, 2), (2, 3))
GRID_CHANCES = (0.3, 0.4, 0.3)


class SpliceMix(Mixing):
    """Append grids of downsized images to the batch, one grid per four images.

    SpliceMix, as its code constructs it (zuiran/SpliceMix, commit 3ec25fe). All grids of a batch
    have one form: 1 x 2, 2 x 2 or 2 x 3; in half of the batches a form that is not square is
    transposed. A label is present if it is in a cell. A step with a mixed batch costs 1.25 times as
    much.

    Attributes:
        drop: probability that a batch's grids have empty cells, equally many in each.
    """

    drop: Probability = 0.3

    def cost(self, images: int) -> float:
        """A mixed batch has a quarter more images."""
        return 1 + self.p * (images // 4) / images

    def draw(self, images: int, rng: np.random.Generator) -> Mix | None:
        """Draw the form of the grids, and images for the cells; all are used before one repeats."""
        if rng.random() >= self.p or images < 4:
            return None
        grid = GRIDS[rng.choice(len(GRIDS), p=GRID_CHANCES)]
        if grid[0] != grid[1] and rng.random() < 0.5:
            grid = grid[::-1]
        many, cells = images // 4, grid[0] * grid[1]
        turns = [rng.permutation(images) for _ in range(-(-many * cells // images))]
        sources = np.concatenate(turns)[: many * cells].reshape(many, cells)
        fewer = int(rng.integers(1, cells)) if rng.random() < self.drop else 0
        dropped = rng.random((many, cells)).argsort(axis=1) < fewer
        return Spliced(images, grid, sources, dropped)


MIXINGS: dict[str, type[Mixing]] = {"mixup": Mixup, "cutmix": CutMix, "splicemix": SpliceMix}


def make_mixing(chosen: Augmentation) -> Mixing:
    """The mixing of a recipe.

    Raises:
        SuiteError: an unknown name or option, or an invalid value.
    """
    return make_named("mixing", MIXINGS, chosen)


def draw_mixes(
    chosen: Augmentation, sizes: Sequence[int], seed: int, epoch: int
) -> list[Mix | None]:
    """Draw how batches of these sizes are mixed in an epoch (from 0), alike on every process."""
    draw = make_mixing(chosen).draw
    return [draw(size, stream("mixing", seed, epoch, step)) for step, size in enumerate(sizes)]
