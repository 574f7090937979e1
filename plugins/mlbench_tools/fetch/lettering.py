"""Text in pictures: in a font that has its characters, or spelled out where no font has them."""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterable

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf"),
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc"),
    *("YuGothM.ttc", "malgun.ttf", "segoeui.ttf"),
)
"""What Linux, macOS and Windows have; Pillow looks for them in the folders of each system."""

_NOTHING = "\U0010ffff"
"""A code point that is no character, so that every font draws its sign for what it lacks."""
_LOG = logging.getLogger(__name__)


class Lettering:
    """One font for all texts of a picture.

    Pillow's own font is taken where it has every character, then the first of ``FONTS`` that is
    here and has them all, else the one that lacks the fewest: a log line says what it lacks.

    Args:
        texts: all that will be written.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        wanted = {c for text in texts for c in unicodedata.normalize("NFC", text)}
        self._face: str | None = None
        lacking = _lacking(None, wanted)
        for face in FONTS if lacking else ():
            found = _lacking(face, wanted) if _here(face) else lacking
            if len(found) < len(lacking):
                self._face, lacking = face, found
        if lacking:
            shown = sorted(lacking)[:5]
            _LOG.warning(
                "no font here has %s%s: written as %s; install one that has, such as Noto Sans CJK",
                " ".join(map(repr, shown)),
                f" and {len(lacking) - len(shown)} more" if len(lacking) > len(shown) else "",
                " ".join(map(_spelled, shown)),
            )

    def font(self, size: int) -> Font:
        """The font in a size, in pixels."""
        return _font(self._face, size)

    def written(self, text: str) -> str:
        """The text without what the font lacks: accents are dropped, all else is escaped."""
        return "".join(
            c if _has(self._face, c) else _spelled(c) for c in unicodedata.normalize("NFC", text)
        )


def _spelled(character: str) -> str:
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)
    )
    if plain.isascii() and plain.isprintable() and plain:
        return plain
    return character.encode("unicode_escape").decode()


def _lacking(face: str | None, characters: Iterable[str]) -> set[str]:
    return {c for c in characters if not _has(face, c)}


@functools.cache
def _has(face: str | None, character: str) -> bool:
    """Whether a font draws it otherwise than what it lacks; what cannot be seen it never has."""
    if character == " ":
        return True
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return False
    font = _font(face, 12)
    drawn, nothing = (font.getmask(c) for c in (character, _NOTHING))
    return (drawn.size, bytes(drawn)) != (nothing.size, bytes(nothing))


@functools.cache
def _here(face: str) -> bool:
    try:
        _font(face, 12)
    except OSError:
        return False
    return True


@functools.cache
def _font(face: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if face is None else ImageFont.truetype(face, size)
