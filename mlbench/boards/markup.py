"""Escape text for tables, Markdown, spreadsheets and terminals.

The page applies the same rules when it copies: ``page/assets/copy.js`` repeats these patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
"""Invisible characters that control a terminal or change the text direction."""
MARKUP = re.compile(
    r"[\\|`*~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])|&(?=#?[A-Za-z0-9]+;)"
)
"""Characters that Markdown may read as markup. ``_`` within a word and brackets that no address
follows are not markup; they stay as they are, so that the file is easy to read."""
FORMULA = re.compile(r"[=+\-@\t\r]")
"""The start of a cell that a spreadsheet would evaluate."""
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{EN DASH}": "--",
}
"""Characters that LaTeX needs a command for, since a backslash does not escape them."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """Replace control characters by replacement characters; keep white space."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """Replace every run of white space by one space, and make control characters visible."""
    return " ".join(visible(text).split())


def span(first: int, last: int) -> str:
    """Format a range: ``3`` for 3 and 3, ``1\N{EN DASH}25`` for 1 and 25."""
    return str(first) if last <= first else f"{first}\N{EN DASH}{last}"


def spreadsheet(text: str) -> str:
    """Escape a cell of a CSV file: put an apostrophe before a formula.

    See OWASP, *CSV Injection*: others open files made of submitted results. Numbers with a sign
    stay numbers.
    """
    cell = visible(text)
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def escaped(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return MARKUP.sub(r"\\\g<0>", one_line(text)).replace("<", "&lt;")


def latex_escaped(text: str) -> str:
    """Escape text for a cell of a LaTeX table, as ``asLatex`` in ``page/assets/copy.js``."""
    cell = re.sub(r"[&%$#_{}\\~^<>\u2013|]", lambda m: LATEX.get(m[0], rf"\{m[0]}"), one_line(text))
    return f"{{}}{cell}" if cell.startswith(("[", "*")) else cell


def fenced(command: str) -> list[str]:
    """Put a command into a code block, with a fence longer than any run of backticks in it."""
    fence = max(["```", *(f"{run}`" for run in re.findall("`+", command))], key=len)
    return [f"{fence}sh", command, fence]


def grid(header: Sequence[str], right: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, whose columns of these names are aligned ``right``."""
    numbers = set(right)
    rule = ["---:" if name in numbers else "---" for name in header]
    return ["| " + " | ".join(map(escaped, row)) + " |" for row in (header, rule, *rows)]
