"""Pictures to look at: samples with their labels, and which labels occur together.

All text is in Pillow's built-in font: accents are dropped, and other scripts show as boxes.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlbench.data.decode import decode
from mlbench.types import DataError, Index, Sample, stream

SIDE = 224
"""Side of a sample's square, in pixels; its labels are below it."""
LINES = 5
"""Lines of text below a sample."""
CHARACTERS = 36
"""Characters in a line below a sample; wider text is cut off at the edge."""

_LINE = 15
_MARGIN = 6
_INK, _PRESENT, _UNKNOWN, _FAULT = "#202020", "#0a6b2d", "#b45f06", "#b00020"
_PAPER, _FRAME = "white", "#e6e6e6"
_DEEPEST = np.array([8, 48, 107])
"""The colour of a conditional frequency of 1."""
_TITLE = "How often the label of the column is present where that of the row is, in training"
_TITLE_WIDTH, _TITLE_HEIGHT, _SCALE = 530, 48, 160

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


# ----------------------------------------------------------------------------------------- samples
def draw_samples(index: Index, number: int, seed: int) -> Index:
    """Draw samples at random, in the order of the index; all of them if there are fewer."""
    return index.take(np.sort(stream("samples", seed).permutation(len(index))[:number]))


def contact_sheet(samples: Index, names: Sequence[str], rows: int, columns: int) -> Image.Image:
    """Draw samples, each with its key, its labels and its unknown labels.

    Present labels are green; unknown ones follow a question mark, in orange. An image that cannot
    be decoded is replaced by a square with the reason.
    """
    width, height = SIDE + 2 * _MARGIN, SIDE + LINES * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (columns * width, rows * height), _PAPER)
    for place, sample in enumerate(samples):
        row, column = divmod(place, columns)
        cell = Image.new("RGB", (width - _MARGIN, height), _PAPER)
        _draw(cell, sample, names)
        sheet.paste(cell, (column * width, row * height))
    return sheet


def _draw(cell: Image.Image, sample: Sample, names: Sequence[str]) -> None:
    """Draw a sample's image, and its caption below."""
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(12)
    pen.rectangle((_MARGIN, _MARGIN, _MARGIN + SIDE - 1, _MARGIN + SIDE - 1), fill=_FRAME)
    try:
        picture = decode(sample.file)
    except DataError as error:
        reason = "\n".join(_wrap(str(error))[:14])
        pen.multiline_text((2 * _MARGIN, 2 * _MARGIN), reason, fill=_FAULT, font=font)
    else:
        picture.thumbnail((SIDE, SIDE))
        offset = ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2)
        cell.paste(picture, (_MARGIN + offset[0], _MARGIN + offset[1]))
    for line, (text, colour) in enumerate(_caption(sample, names)):
        top = _MARGIN + SIDE + 2 + line * _LINE
        pen.text((_MARGIN, top), text, fill=colour, font=font)


def _caption(sample: Sample, names: Sequence[str]) -> list[tuple[str, str]]:
    """Lines and their colours; the last line ends in dots if there are more."""
    present = [names[c] for c in np.flatnonzero(sample.target == 1).tolist()]
    unknown = [names[c] for c in np.flatnonzero(sample.target < 0).tolist()]
    lines = [(line, _INK) for line in _wrap(sample.key)]
    lines += [(line, _PRESENT) for line in _wrap(", ".join(present) or "(no label)")]
    if unknown:
        lines += [(line, _UNKNOWN) for line in _wrap(f"? {', '.join(unknown)}")]
    if len(lines) > LINES:
        text, colour = lines[LINES - 1]
        lines[LINES - 1] = (f"{text[:-3]}...", colour)
    return lines[:LINES]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(_one_line(text), CHARACTERS)


def _one_line(text: str) -> str:
    """The text without accents, line breaks and bytes that are not UTF-8."""
    plain = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode())
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).split())


# ----------------------------------------------------------------------------------- co-occurrence
def cooccurrence_plot(counts_CC: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Plot how often a column's label is present where the row's is: white never, blue always.

    Args:
        counts_CC: images with both labels; the diagonal counts the positives of each.
        names: the C labels; they are written where the cells are large enough to read them.
    """
    share_CC = counts_CC / np.maximum(counts_CC.diagonal(), 1)[:, None]
    cell = min(28, max(1, 1400 // max(1, len(names))))
    side = len(names) * cell
    matrix = _shade(share_CC).resize((side, side), Image.Resampling.NEAREST)
    if cell >= 10:
        font = ImageFont.load_default(min(14, cell - 1))
        matrix = _with_names(matrix, [*map(_one_line, names)], cell, font)
    return _with_title(matrix, ImageFont.load_default(13))


def _shade(shares: np.ndarray) -> Image.Image:
    """Shares from 0 to 1 [H, W] as pixels."""
    return Image.fromarray((255 - shares[..., None] * (255 - _DEEPEST)).astype(np.uint8))


def _with_title(matrix: Image.Image, font: Font) -> Image.Image:
    """The matrix below its title and colour scale, flush right."""
    width = max(matrix.width, _TITLE_WIDTH)
    page = Image.new("RGB", (width, _TITLE_HEIGHT + matrix.height), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), _TITLE, fill=_INK, font=font)
    left, top = 2 * _MARGIN + int(font.getlength("never")), 2 * _MARGIN + _LINE
    pen.text((_MARGIN, top), "never", fill=_INK, font=font)
    page.paste(_shade(np.tile(np.linspace(0, 1, _SCALE), (_LINE, 1))), (left, top))
    pen.rectangle((left - 1, top - 1, left + _SCALE, top + _LINE), outline=_INK)
    pen.text((left + _SCALE + _MARGIN, top), "always", fill=_INK, font=font)
    page.paste(matrix, (width - matrix.width, _TITLE_HEIGHT))
    return page


def _with_names(matrix: Image.Image, names: Sequence[str], cell: int, font: Font) -> Image.Image:
    """The matrix with the names of its rows on the left and of its columns on top."""
    text = 2 * _MARGIN + int(max(font.getlength(name) for name in names))
    plot = Image.new("RGB", (text + matrix.width, text + matrix.height), _PAPER)
    plot.paste(matrix, (text, text))
    plot.paste(_name_strip(names, cell, text, font, "rm"), (0, text))
    columns = _name_strip(names, cell, text, font, "lm")
    plot.paste(columns.transpose(Image.Transpose.ROTATE_90), (text, 0))
    return plot


def _name_strip(
    names: Sequence[str], cell: int, width: int, font: Font, anchor: str
) -> Image.Image:
    """The names below each other, a cell's height each, flush right (``rm``) or left (``lm``)."""
    strip = Image.new("RGB", (width, len(names) * cell), _PAPER)
    pen = ImageDraw.Draw(strip)
    x = width - _MARGIN if anchor == "rm" else _MARGIN
    for row, name in enumerate(names):
        pen.text((x, row * cell + cell // 2), name, fill=_INK, font=font, anchor=anchor)
    return strip
