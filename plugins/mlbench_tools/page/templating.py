"""Templates, style and scripts -> the text of a page, safe whatever names and files say.

Everything a page shows is escaped by the template engine, and the page's own policy allows exactly
the one style and the one script that were written here, and no request at all.
"""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mlbench import __version__
from mlbench.boards.rows import Row
from mlbench.boards.text import span
from mlbench.text import count, plural
from mlbench_tools.page.board_pages import address
from mlbench_tools.page.facts import number, text

INDEX = ("theme.js", "copy.js", "plot.js", "table.js", "boards.js")
"""Scripts of the index page, in order."""
MARK = '<meta name="generator" content="mlbench leaderboard">'
"""In the head of every page, so that one is known again as ours."""
OTHERS = ("theme.js", "copy.js")
"""Scripts of every other page."""


def render(template: str, scripts: Sequence[str], root: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: a file of ``templates/``.
        scripts: files of ``assets/``.
        root: the way to the folder of the index page: empty, or ``../``.
        values: what the template shows.
    """
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in scripts)
    policy = (
        f"default-src 'none'; style-src {_allowed(style)}; script-src {_allowed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            # Trusted: all are of this package.
            mark=Markup(MARK),
            style=Markup(style),
            script=Markup(script),
            policy=policy,
            root=root,
            version=__version__,
            **values,
        )
    )


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("mlbench_tools.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": count,
        "plural": plural,
        "number": number,
        "text": text,
        "interval": interval,
        "ranks": ranks,
        "run_page": functools.partial(address, "run"),
        "method_page": functools.partial(address, "method"),
    }
    return made


def interval(row: Row) -> str:
    """How sure a row's mAP is."""
    spread = "" if row.deviation is None else f" ±{row.deviation:.2f} (n={row.seeds})"
    return f"[{row.low:.1f}, {row.high:.1f}]{spread}"


def ranks(row: Row) -> str:
    """The ranks of a row that are not ruled out."""
    return span(row.rank, row.rank_worst)


@functools.cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _allowed(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"
