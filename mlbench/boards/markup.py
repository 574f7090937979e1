"""Text that can break neither a table, nor Markdown, nor a spreadsheet, nor a terminal.

The page copies by the same rules: ``page/assets/copy.js`` repeats the patterns below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
"""Characters that no reader sees: a terminal obeys them, or they turn the text's direction."""
MARKUP = re.compile(
    r"[\\|`*~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])|&(?=#?[A-Za-z0-9]+;)"
)
"""What Markdown may take for markup. ``_`` within a word is none, nor are brackets that no address
follows, so that names and intervals stay legible in the file."""
FORMULA = re.compile(r"[=+\-@\t\r]")
"""How a cell begins that a spreadsheet would work out."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """The text with control characters as replacement characters; white space stays."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The text with every run of white space as one blank, and control characters shown."""
    return " ".join(visible(text).split())


def span(first: int, last: int) -> str:
    """``3`` of 3 and 3, ``1\N{EN DASH}25`` of 1 and 25."""
    return str(first) if last <= first else f"{first}\N{EN DASH}{last}"


def spreadsheet(text: str) -> str:
    """The text for a cell of a CSV file, with an apostrophe before what would be a formula.

    After OWASP, *CSV Injection*: a file made of submitted results is opened by others. Numbers with
    a sign stay numbers.
    """
    shown = visible(text)
    return f"'{shown}" if FORMULA.match(shown) and not NUMBER.fullmatch(shown) else shown


def chance(p: float) -> str:
    """A p value behind the letter: ``= 0.013``; what is smaller than it can be known, ``< 0.001``.

    A normal or F distribution gives 1e-60 as readily, and nobody knows its tails.
    """
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def escaped(text: str) -> str:
    """Safe in a cell of a Markdown table."""
    return MARKUP.sub(r"\\\g<0>", one_line(text)).replace("<", "&lt;")


def fenced(lines: Sequence[str], language: str) -> list[str]:
    """The lines as a block of code, whatever backticks they hold."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *lines, fence]


def grid(header: Sequence[str], right: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table.

    Args:
        header: names of the columns.
        right: those that stand on the right.
        rows: of cells, as many as there are columns.
    """
    numbers = set(right)
    rule = ["---:" if name in numbers else "---" for name in header]
    return ["| " + " | ".join(map(escaped, row)) + " |" for row in (header, rule, *rows)]
