"""Pictures for a person to look at: samples with their labels, and which labels go together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mlbench.data.decode import decode
from mlbench.types import DataError, Index, Sample
from mlbench_tools.fetch.lettering import Font, Lettering

SIDE = 224
"""Side of a sample's square, in pixels; the labels stand below it."""
LINES = 5
"""Lines of text below a sample."""

_LINE = 15
_MARGIN = 6
_INK, _PRESENT, _UNKNOWN, _FAULT = "#202020", "#0a6b2d", "#b45f06", "#b00020"
_PAPER, _FRAME = "white", "#e6e6e6"
_DEEPEST = np.array([8, 48, 107])
"""The colour of a certain pair."""
_TITLE = "How often the label of the column is present where that of the row is, in training"
_TITLE_WIDTH, _TITLE_LINE, _SCALE = 380, 18, 160


# ----------------------------------------------------------------------------------------- samples
def drawn(index: Index, number: int, seed: int) -> Index:
    """So many samples at random, in the order of the index; all of them where there are fewer."""
    return index.take(np.sort(np.random.default_rng(seed).permutation(len(index))[:number]))


def contact_sheet(samples: Index, names: Sequence[str], rows: int, columns: int) -> Image.Image:
    """Samples, each with its key, its labels, and what is unknown of it.

    Present labels are green; unknown ones stand after a question mark, in orange. An image that
    cannot be decoded is a square that says why.

    Args:
        samples: at most ``rows * columns`` of them.
        names: the C labels.
        rows: of the sheet; cells stay empty where there are too few images.
        columns: of the sheet.
    """
    lettering = Lettering([*names, *samples.keys, *map(str, samples.files)])
    width, height = SIDE + 2 * _MARGIN, SIDE + LINES * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (columns * width, rows * height), _PAPER)
    for cell, sample in enumerate(samples):
        row, column = divmod(cell, columns)
        corner = (column * width + _MARGIN, row * height + _MARGIN)
        _draw(sheet, corner, sample, names, lettering)
    return sheet


def _draw(
    sheet: Image.Image,
    corner: tuple[int, int],
    sample: Sample,
    names: Sequence[str],
    lettering: Lettering,
) -> None:
    left, top = corner
    pen, font = ImageDraw.Draw(sheet), lettering.font(12)
    pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), fill=_FRAME)
    try:
        picture = decode(sample.file)
    except DataError as error:
        words = lettering.written(str(error)).split()
        for line, text in enumerate(_wrapped(words, font, SIDE - 2 * _MARGIN)[:14]):
            place = (left + _MARGIN, top + _MARGIN + line * _LINE)
            pen.text(place, text, fill=_FAULT, font=font)
    else:
        picture.thumbnail((SIDE, SIDE))
        offset = (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2)
        sheet.paste(picture, offset)
    for line, (text, colour) in enumerate(_caption(sample, names, lettering, font)):
        pen.text((left, top + SIDE + 2 + line * _LINE), text, fill=colour, font=font)


def _caption(
    sample: Sample, names: Sequence[str], lettering: Lettering, font: Font
) -> list[tuple[str, str]]:
    """Lines and their colours; the last one ends in dots where there are more."""
    present = [lettering.written(names[c]) for c in np.flatnonzero(sample.target == 1).tolist()]
    unknown = [lettering.written(names[c]) for c in np.flatnonzero(sample.target < 0).tolist()]
    lines = [(_wrapped([lettering.written(sample.key)], font, SIDE)[0], _INK)]
    texts = _listed(present) if present else ["(no label)"]
    lines += [(line, _PRESENT) for line in _wrapped(texts, font, SIDE)]
    if unknown:
        lines += [(line, _UNKNOWN) for line in _wrapped(["?", *_listed(unknown)], font, SIDE)]
    if len(lines) > LINES:
        text, colour = lines[LINES - 1]
        lines[LINES - 1] = (f"{text[:-3]}...", colour)
    return lines[:LINES]


def _listed(names: list[str]) -> list[str]:
    return [f"{name}," for name in names[:-1]] + names[-1:]


def _wrapped(words: list[str], font: Font, width: int) -> list[str]:
    """Words in lines of at most this many pixels; one that is longer loses its front."""
    lines: list[str] = []
    for word in words:
        while font.getlength(word) > width:
            word = f"..{word[3:].removeprefix('.')}"
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


# ----------------------------------------------------------------------------------- co-occurrence
def cooccurrence_plot(counts_CC: np.ndarray, names: Sequence[str]) -> Image.Image:
    """How often the column's label is present where the row's is: white never, dark blue always.

    A title and a scale say so, above the matrix.

    Args:
        counts_CC: images with both labels, the diagonal counts the positives of each.
        names: the C labels; they are written where the cells are large enough to read them.
    """
    lettering = Lettering(names)
    part_CC = counts_CC / np.maximum(counts_CC.diagonal(), 1)[:, None]
    cell = min(28, max(1, 1400 // max(1, len(names))))
    small = _shaded(part_CC)
    matrix = small.resize((len(names) * cell, len(names) * cell), Image.Resampling.NEAREST)
    if cell >= 10:
        font = lettering.font(min(14, cell - 1))
        matrix = _named(matrix, [lettering.written(name) for name in names], cell, font)
    return _titled(matrix, lettering.font(14))


def _shaded(part: np.ndarray) -> Image.Image:
    """Parts from 0 to 1 [H, W] as pixels."""
    return Image.fromarray((255 - part[..., None] * (255 - _DEEPEST)).astype(np.uint8))


def _titled(matrix: Image.Image, font: Font) -> Image.Image:
    """With what it shows, and the scale, above it; flush right, where its rows and columns end."""
    width = max(matrix.width, _TITLE_WIDTH)
    lines = _wrapped(_TITLE.split(), font, width - 2 * _MARGIN)
    height = (len(lines) + 2) * _TITLE_LINE
    page = Image.new("RGB", (width, height + matrix.height), _PAPER)
    pen = ImageDraw.Draw(page)
    for line, text in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + line * _TITLE_LINE), text, fill=_INK, font=font)
    top = 2 * _MARGIN + len(lines) * _TITLE_LINE
    scale = _shaded(np.tile(np.linspace(0, 1, _SCALE), (_LINE, 1)))
    left = 2 * _MARGIN + int(font.getlength("never"))
    pen.text((_MARGIN, top), "never", fill=_INK, font=font)
    page.paste(scale, (left, top))
    pen.rectangle((left - 1, top - 1, left + _SCALE, top + _LINE), outline=_INK)
    pen.text((left + _SCALE + _MARGIN, top), "always", fill=_INK, font=font)
    page.paste(matrix, (width - matrix.width, height))
    return page


def _named(matrix: Image.Image, names: Sequence[str], cell: int, font: Font) -> Image.Image:
    """With the names of its rows on the left, and of its columns on top."""
    text = 2 * _MARGIN + int(max(font.getlength(name) for name in names))
    plot = Image.new("RGB", (text + matrix.width, text + matrix.height), _PAPER)
    plot.paste(matrix, (text, text))
    beside, above = (_written(names, cell, text, font, end) for end in ("right", "left"))
    plot.paste(beside, (0, text))
    plot.paste(above.transpose(Image.Transpose.ROTATE_90), (text, 0))
    return plot


def _written(names: Sequence[str], cell: int, width: int, font: Font, end: str) -> Image.Image:
    """The names below each other, a cell's height each, flush with one end."""
    strip = Image.new("RGB", (width, len(names) * cell), _PAPER)
    pen = ImageDraw.Draw(strip)
    x, anchor = (width - _MARGIN, "rm") if end == "right" else (_MARGIN, "lm")
    for row, name in enumerate(names):
        pen.text((x, row * cell + cell // 2), name, fill=_INK, font=font, anchor=anchor)
    return strip
