"""Draws the objects of the synthetic data set.

Only additions, products, quotients, square roots and comparisons make a pixel, which IEEE 754
rounds alike everywhere, and only ``Generator.random`` makes a random number: every machine draws
the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Point = tuple[float, float]
Coverage = NDArray[np.float64]

UNCLEAR = 0.6
"""Probability that an object with a twin is drawn without the feature that tells them apart."""
RADIUS = (0.1, 0.19)
"""Smallest and largest half-width of an object, in widths of the picture."""
CLUTTER = 4
"""Shapes that mean nothing and may cover an object, in each picture."""
NOISE = 40.0
"""Largest change of a pixel by noise, of 255."""


class Canvas:
    """A square picture; lengths are in its widths, x to the right, y down, colours in [0, 1].

    Args:
        size: pixels a side.
        rng: source of all random numbers.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        centres = (np.arange(size) + 0.5) / size
        self.x, self.y = centres[None, :], centres[:, None]
        top, bottom = self.dull(), self.dull()
        ramp = self.y[..., None]
        self.pixels = (np.array(top) * (1 - ramp) + np.array(bottom) * ramp).repeat(size, axis=1)

    def between(self, low: float, high: float) -> float:
        """A number evenly drawn from an interval."""
        return low + (high - low) * float(self.rng.random())

    def dull(self) -> Colour:
        """A greyish colour."""
        grey = self.between(0.25, 0.75)
        r, g, b = (grey + self.between(-0.12, 0.12) for _ in range(3))
        return r, g, b

    def near(self, colour: Colour) -> Colour:
        """A colour like this one."""
        r, g, b = (channel + self.between(-0.1, 0.1) for channel in colour)
        return r, g, b

    def paint(self, covered: Coverage, colour: Colour) -> None:
        """Lay a colour over what is there."""
        rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
        if rows.size:  # most of a picture is not covered, and need not be computed
            part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            self.pixels[part] += (np.array(colour) - self.pixels[part]) * covered[part][..., None]

    def soft(self, inside: Coverage) -> Coverage:
        """Turn the distance to an edge (positive inside) into coverage, one pixel soft."""
        return np.clip(inside * self.size + 0.5, 0.0, 1.0)

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> Coverage:
        """Coverage of an upright ellipse."""
        u, v = (self.x - x) / rx, (self.y - y) / ry
        return self.soft((1 - np.sqrt(u * u + v * v)) * min(rx, ry))

    def polygon(self, *corners: Point) -> Coverage:
        """Coverage of a convex polygon; its corners go round clockwise as seen."""
        inside = np.full((self.size, self.size), np.inf)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            dx, dy = bx - ax, by - ay
            side = dx * (self.y - ay) - dy * (self.x - ax)
            np.minimum(inside, side / np.sqrt(dx * dx + dy * dy), out=inside)
        return self.soft(inside)

    def box(self, left: float, top: float, right: float, bottom: float) -> Coverage:
        """Coverage of an upright rectangle."""
        return self.polygon((left, top), (right, top), (right, bottom), (left, bottom))

    def finish(self) -> NDArray[np.uint8]:
        """The picture uint8 [S, S, 3], with noise."""
        noise = (self.rng.random(self.pixels.shape) * 2 - 1) * NOISE
        return np.floor(np.clip(self.pixels * 255 + noise, 0, 255) + 0.5).astype(np.uint8)


# ---------------------------------------------------------------------------------------- objects
# Each is drawn around (x, y), about 2 r wide. ``clear`` adds the feature that its twin lacks.
Artist = Callable[[Canvas, float, float, float, bool], None]

_RED, _GREEN, _YELLOW = (0.85, 0.15, 0.15), (0.2, 0.65, 0.35), (0.95, 0.9, 0.5)
_DARK, _WHITE, _BROWN = (0.1, 0.1, 0.1), (0.95, 0.95, 0.95), (0.45, 0.28, 0.12)


def _apple(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    c.paint(c.ellipse(x, y, 0.8 * r, 0.8 * r), c.near(_RED))
    if clear:
        c.paint(c.box(x - 0.1 * r, y - 1.1 * r, x + 0.1 * r, y - 0.5 * r), _BROWN)
        c.paint(c.ellipse(x + 0.4 * r, y - 0.85 * r, 0.4 * r, 0.2 * r), _GREEN)


def _ball(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    covered = c.ellipse(x, y, 0.8 * r, 0.8 * r)
    c.paint(covered, c.near(_RED))
    if clear:
        stripe = c.box(x - r, y - 0.25 * r, x + r, y + 0.25 * r)
        c.paint(np.minimum(covered, stripe), _WHITE)


def _leaf(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    c.paint(c.ellipse(x, y, r, 0.45 * r), c.near(_GREEN))
    if clear:
        c.paint(c.box(x - 1.3 * r, y - 0.06 * r, x + 0.8 * r, y + 0.06 * r), _BROWN)


def _fish(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    colour = c.near(_GREEN)
    c.paint(c.ellipse(x, y, r, 0.45 * r), colour)
    if clear:
        tail = (x - 1.3 * r, y - 0.5 * r), (x - 0.7 * r, y), (x - 1.3 * r, y + 0.5 * r)
        c.paint(c.polygon(*tail), colour)
        c.paint(c.ellipse(x + 0.6 * r, y - 0.1 * r, 0.14 * r, 0.14 * r), _DARK)


def _moon(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    covered = c.ellipse(x, y, 0.75 * r, 0.75 * r)
    if clear:
        covered = np.clip(covered - c.ellipse(x + 0.4 * r, y, 0.6 * r, 0.6 * r), 0, 1)
    c.paint(covered, c.near(_YELLOW))


def _sun(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    colour = c.near(_YELLOW)
    if clear:
        for dx, dy in ((1, 0), (0, 1), (0.7, 0.7), (0.7, -0.7)):
            ends = (x - 1.2 * r * dx, y - 1.2 * r * dy), (x + 1.2 * r * dx, y + 1.2 * r * dy)
            c.paint(_line(c, *ends, 0.1 * r), colour)
    c.paint(c.ellipse(x, y, 0.75 * r, 0.75 * r), colour)


def _line(c: Canvas, start: Point, end: Point, half: float) -> Coverage:
    (ax, ay), (bx, by) = start, end
    length = float(np.sqrt((bx - ax) * (bx - ax) + (by - ay) * (by - ay)))
    nx, ny = (by - ay) / length * half, (ax - bx) / length * half
    return c.polygon((ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny))


def _boat(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    hull = (x - r, y + 0.3 * r), (x + r, y + 0.3 * r), (x + 0.6 * r, y + 0.8 * r)
    c.paint(c.polygon(*hull, (x - 0.6 * r, y + 0.8 * r)), c.near(_BROWN))
    sail = (x, y - r), (x + 0.8 * r, y + 0.15 * r), (x, y + 0.15 * r)
    c.paint(c.polygon(*sail), c.near(_WHITE))


def _car(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    colour = c.near((0.2, 0.3, 0.8))
    c.paint(c.box(x - 0.5 * r, y - 0.5 * r, x + 0.5 * r, y), colour)
    c.paint(c.box(x - r, y - 0.1 * r, x + r, y + 0.4 * r), colour)
    for wheel in (x - 0.55 * r, x + 0.55 * r):
        c.paint(c.ellipse(wheel, y + 0.45 * r, 0.27 * r, 0.27 * r), _DARK)


def _cloud(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    colour = c.near((0.85, 0.87, 0.9))
    for dx, dy, size in ((-0.6, 0.1, 0.45), (0.0, -0.1, 0.6), (0.6, 0.1, 0.45)):
        c.paint(c.ellipse(x + dx * r, y + dy * r, size * r, 0.8 * size * r), colour)


def _house(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    c.paint(c.box(x - 0.7 * r, y - 0.1 * r, x + 0.7 * r, y + 0.9 * r), c.near((0.85, 0.75, 0.5)))
    roof = (x, y - 0.9 * r), (x + 0.95 * r, y - 0.1 * r), (x - 0.95 * r, y - 0.1 * r)
    c.paint(c.polygon(*roof), c.near((0.65, 0.25, 0.2)))
    c.paint(c.box(x - 0.2 * r, y + 0.35 * r, x + 0.2 * r, y + 0.9 * r), _DARK)


def _lamp(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    c.paint(c.box(x - 0.1 * r, y - 0.6 * r, x + 0.1 * r, y + 1.1 * r), _DARK)
    c.paint(c.ellipse(x, y - 0.7 * r, 0.42 * r, 0.42 * r), c.near((1.0, 0.65, 0.15)))


def _tree(c: Canvas, x: float, y: float, r: float, clear: bool) -> None:
    c.paint(c.box(x - 0.15 * r, y + 0.2 * r, x + 0.15 * r, y + r), c.near(_BROWN))
    crown = (x, y - 1.1 * r), (x + 0.85 * r, y + 0.4 * r), (x - 0.85 * r, y + 0.4 * r)
    c.paint(c.polygon(*crown), c.near((0.08, 0.4, 0.12)))


ARTISTS: Mapping[str, Artist] = {
    artist.__name__.removeprefix("_"): artist
    for artist in (
        *(_apple, _ball, _boat, _car, _cloud, _fish),
        *(_house, _lamp, _leaf, _moon, _sun, _tree),
    )
}
"""Object -> the function that draws it."""


def picture(objects: Sequence[str], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture uint8 [S, S, 3] of these objects, in random order, places, sizes and colours."""
    canvas = Canvas(size, rng)
    order = np.argsort(rng.random(len(objects)), kind="stable")
    taken: list[Point] = []
    for i in order:
        r = canvas.between(*RADIUS)
        x, y = _free_place(canvas, taken, r)
        taken.append((x, y))
        ARTISTS[objects[i]](canvas, x, y, r, canvas.between(0, 1) >= UNCLEAR)
    for _ in range(CLUTTER):
        _clutter(canvas)
    return canvas.finish()


def _free_place(canvas: Canvas, taken: Sequence[Point], r: float, tries: int = 6) -> Point:
    """The random place, of a few, that is farthest from the objects drawn before."""
    places = [(canvas.between(r, 1 - r), canvas.between(r, 1 - r)) for _ in range(tries)]

    def room(place: Point) -> float:
        x, y = place
        return min(((x - a) * (x - a) + (y - b) * (y - b) for a, b in taken), default=0.0)

    return max(places, key=room)


def _clutter(canvas: Canvas) -> None:
    x, y = canvas.between(0, 1), canvas.between(0, 1)
    long, thin = canvas.between(0.05, 0.15), canvas.between(0.01, 0.04)
    if canvas.between(0, 1) < 0.5:
        covered = canvas.ellipse(x, y, thin, thin)
    else:
        dx, dy = canvas.between(-1, 1), canvas.between(-1, 1)
        covered = _line(canvas, (x, y), (x + long * dx, y + long * dy), thin / 2)
    colour = canvas.between(0, 1), canvas.between(0, 1), canvas.between(0, 1)
    canvas.paint(covered, colour)
