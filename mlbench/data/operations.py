"""The operations of RandAugment on uint8 images [3, H, W], with Pillow's results to the bit.

They use torch, whose operators hold no interpreter lock and also run on a GPU. They are fastest on
images in the memory layout of ``mlbench.data.decode.load``, with a pixel's values side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Colour = tuple[int, int, int]
Operation = Callable[[Tensor, float, Colour], Tensor]
"""(image, strength s from -1 to 1, colour of pixels from outside) -> image. Operations without a
direction ignore the sign."""


def _lines(image_3HW: Tensor) -> Tensor:
    """The values as [H, 3 W], without a copy if a pixel's values lie side by side.

    Torch is slow along a last dimension of 3.
    """
    return image_3HW.permute(1, 2, 0).reshape(image_3HW.shape[1], -1)


def _image(lines: Tensor, like: Tensor) -> Tensor:
    return lines.view(*like.shape[1:], 3).permute(2, 0, 1)


# ------------------------------------------------------------------------------- values by a table
def _look_up(image: Tensor, table: Tensor) -> Tensor:
    """Replace every value v of channel c by table[c, v], or by table[v] if channels share one."""
    index = _lines(image).int()
    if table.ndim == 2:
        channels = torch.arange(3, dtype=torch.int32, device=image.device)
        index += 256 * channels.repeat(image.shape[2])
    table = table.clamp(0, 255).to(torch.uint8).flatten()
    return _image(table.index_select(0, index.flatten()), image)


def _values(image: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.float64, device=image.device)


def auto_contrast(image: Tensor) -> Tensor:
    """Stretch every channel to 0 to 255."""
    lines = _lines(image)
    low = lines.amin(0).view(-1, 3).amin(0).double()[:, None]
    high = lines.amax(0).view(-1, 3).amax(0).double()[:, None]
    scale = torch.full_like(low, 255) / (high - low)  # torch's 255 / x multiplies by 1 / x
    stretched = (_values(image) * scale - low * scale).trunc()
    return _look_up(image, torch.where(high > low, stretched, _values(image)))


def equalize(image: Tensor) -> Tensor:
    """Make the histogram of every channel as flat as a look-up table can."""
    tables = []
    for channel in image:
        counts = torch.bincount(channel.flatten(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        below = counts.cumsum(0) - counts
        levels = (below + step // 2) // step.clamp(min=1)
        tables.append(torch.where(step > 0, levels, _values(image).long()))
    return _look_up(image, torch.stack(tables))


def solarize(image: Tensor, threshold: int) -> Tensor:
    """Invert all values at or above a threshold."""
    values = _values(image)
    return _look_up(image, torch.where(values < threshold, values, 255 - values))


def posterize(image: Tensor, bits: int) -> Tensor:
    """Keep the upper bits of every value."""
    return image.bitwise_and(256 - 2 ** (8 - bits))


def brightness(image: Tensor, factor: float) -> Tensor:
    """Blend with black."""
    return _look_up(image, _blend(torch.zeros(256, device=image.device), _values(image), factor))


def contrast(image: Tensor, factor: float) -> Tensor:
    """Blend with the mean grey."""
    mean = (_grey(image, 1).double().mean() + 0.5).floor()
    return _look_up(image, _blend(mean, _values(image), factor))


# ---------------------------------------------------------------------------------- other blends
def _blend(other: Tensor, values: Tensor, factor: float) -> Tensor:
    """uint8, from ``other`` at factor 0 to ``values`` at 1, and beyond; in float32 as Pillow."""
    other = other.float()
    return (values.float() - other).mul_(factor).add_(other).clamp_(0, 255).to(torch.uint8)


_LUMA = (19595.0, 38470.0, 7471.0)
"""Luma weights of ITU-R BT.601, times 2 ** 16; float32 holds their products with bytes exactly."""


def _grey(image: Tensor, times: int) -> Tensor:
    """The luma of every pixel, repeated: [H * W, times], whole numbers."""
    # A run in TF32 would round float32 products on a GPU, in this thread too.
    exact = torch.float32 if image.device.type == "cpu" else torch.float64
    luma = torch.tensor([_LUMA], dtype=exact, device=image.device).T.expand(3, times)
    return (_lines(image).reshape(-1, 3).to(exact) @ luma).add_(0x8000).mul_(2**-16).floor_()


def color(image: Tensor, factor: float) -> Tensor:
    """Blend with the grey image."""
    return _image(_blend(_grey(image, 3), _lines(image).reshape(-1, 3), factor), image)


def sharpness(image: Tensor, factor: float) -> Tensor:
    """Blend with the image smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the rim stays."""
    lines = _lines(image).clone()
    if min(image.shape[1:]) >= 3:
        short = lines.short()
        three = short[:-2] + short[1:-1] + short[2:]
        inner = short[1:-1, 3:-3]  # a neighbour is three values away
        total = three[:, :-6] + three[:, 3:-3] + three[:, 6:] + 4 * inner
        smooth = total.float().add_(6.5).div_(13).floor_()
        lines[1:-1, 3:-3] = _blend(smooth, inner, factor)
    return _image(lines, image)


# ------------------------------------------------------------------------------------- geometry
def affine(image: Tensor, x: Sequence[float], y: Sequence[float], fill: Colour) -> Tensor:
    """Take pixel (i, j) from the pixel nearest to (x0 i + x1 j + x2, y0 i + y1 j + y2).

    The arithmetic is sixteen-bit fixed point as in Pillow, so that ties are resolved equally.
    """
    _, height, width = image.shape
    framed = image.new_empty(height + 2, width + 2, 3)  # a frame of the colour from outside
    framed[:] = torch.tensor(fill, dtype=torch.uint8, device=image.device)
    framed[1:-1, 1:-1] = image.permute(1, 2, 0)

    def source(terms: Sequence[float], side: int) -> Tensor:
        """Position in the frame: [H, W], or [1, W] or [H, 1] if it depends on one coordinate."""
        a, b, c = terms
        start, right, below = (math.floor(v * 65536 + 0.5) for v in (c + (a + b) / 2, a, b))
        across = torch.arange(width if right else 1, dtype=torch.int32, device=image.device)
        down = torch.arange(height if below else 1, dtype=torch.int32, device=image.device)
        place = (across * right + start) + (down * below)[:, None]
        return place.bitwise_right_shift_(16).clamp_(-1, side).add_(1)

    index = source(y, height) * (width + 2) + source(x, width)
    index = index.expand(height, width).flatten()
    return _image(framed.view(-1, 3).index_select(0, index), image)


def rotate(image: Tensor, degrees: float, fill: Colour) -> Tensor:
    """Rotate counter-clockwise around the centre."""
    x, y = image.shape[2] / 2, image.shape[1] / 2
    sine, cosine = (round(f(math.radians(degrees)), 15) for f in (math.sin, math.cos))
    return affine(
        image,
        (cosine, -sine, -x * cosine + y * sine + x),
        (sine, cosine, -x * sine - y * cosine + y),
        fill,
    )


def _shift(side: int, s: float) -> int:
    return int(150 / 331 * side * s)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, s, _: image,
    "auto_contrast": lambda image, s, _: auto_contrast(image),
    "equalize": lambda image, s, _: equalize(image),
    "rotate": lambda image, s, fill: rotate(image, 30 * s, fill),
    "solarize": lambda image, s, _: solarize(image, math.ceil(255 * (1 - abs(s)))),
    "posterize": lambda image, s, _: posterize(image, 8 - round(4 * abs(s))),
    "color": lambda image, s, _: color(image, 1 + 0.9 * s),
    "contrast": lambda image, s, _: contrast(image, 1 + 0.9 * s),
    "brightness": lambda image, s, _: brightness(image, 1 + 0.9 * s),
    "sharpness": lambda image, s, _: sharpness(image, 1 + 0.9 * s),
    "shear_x": lambda image, s, fill: affine(image, (1, 0.3 * s, 0), (0, 1, 0), fill),
    "shear_y": lambda image, s, fill: affine(image, (1, 0, 0), (0.3 * s, 1, 0), fill),
    "translate_x": lambda image, s, fill: affine(
        image, (1, 0, _shift(image.shape[2], s)), (0, 1, 0), fill
    ),
    "translate_y": lambda image, s, fill: affine(
        image, (1, 0, 0), (0, 1, _shift(image.shape[1], s)), fill
    ),
}
"""The fourteen operations of the paper; the factors of colour, contrast, brightness and sharpness
are 0.1 to 1.9."""
