"""Turn templates, style and scripts into the text of a page.

The template engine escapes everything that a page shows. The page's content security policy allows
the one style and the one script of this package, pictures within the page, and no request.
"""

from __future__ import annotations

import functools
import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mlbench import __version__
from mlbench.boards.rows import Row
from mlbench.files import safe_name
from mlbench.text import count, flatten, plural

MARK = '<meta name="generator" content="mlbench leaderboard">'
"""Tag in the head of every page; a rebuild removes stale pages that have it."""
INDEX_SCRIPTS = ("theme.js", "copy.js", "plot.js", "table.js", "boards.js")
SUBPAGE_SCRIPTS = ("theme.js", "copy.js")
NONE = "\N{EN DASH}"
"""Stands for a missing value."""


# ------------------------------------------------------------------------------------------ pages
def page_name(kind: str, name: str) -> str:
    """The file of a run's or a method's page in the folder of the site."""
    return f"{kind}/{safe_name(name)}.html"


def address(kind: str, name: str) -> str:
    """A link from the index to the page of a run or a method."""
    return quote(page_name(kind, name))


def board_address(name: str, track: str) -> str:
    """The fragment of the index page that shows a board."""
    return urlencode({"set": name, "track": track})


def render(template: str, **values: Any) -> str:
    """The text of a page."""
    index = template == "index.html"
    scripts = INDEX_SCRIPTS if index else SUBPAGE_SCRIPTS
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in scripts)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(
        # Trusted: all three are part of this package.
        mark=Markup(MARK),
        style=Markup(style),
        script=Markup(script),
        policy=policy,
        root="" if index else "../",
        version=__version__,
        **values,
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
        "log10": math.log10,
        "log1p": math.log1p,
        "run_page": functools.partial(address, "run"),
        "method_page": functools.partial(address, "method"),
    }
    return made


@functools.cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


# ----------------------------------------------------------------------------------------- values
def facts(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted name and text of every value of nested fields; empty values are left out."""
    found = flatten(fields).items()
    return [(name, text(value)) for name, value in found if value not in (None, (), [])]


def text(value: Any) -> str:
    """A value as a reader would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(text(each) for each in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def number(value: float | None, places: int = 2) -> str:
    """A number with its decimals, or a dash."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.{places}f}"


def interval(row: Row) -> str:
    """The 95 % interval of a row's mAP, and the deviation between its seeds."""
    spread = "" if row.deviation is None else f" ±{row.deviation:.2f} (n={row.seeds})"
    return f"[{row.low:.1f}, {row.high:.1f}]{spread}"
