"""No text of a record steers the terminal that it is shown on."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.text import Text

from mlbench.cli.console import _Plain, plain
from tests.store.made import made_efficiency, made_predictions, made_record

EVIL = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202e"
STEERING = set("\x1b\x07\x9b\u202e\x7f\b")


def test_styles_still_reach_a_terminal():
    file = io.StringIO()
    _Plain(file=file, width=200, force_terminal=True).print(Text("ok" + EVIL, style="red"))
    shown = file.getvalue()
    assert shown.startswith("\x1b[31mok\\x1b[2J") and shown.count("\x1b") == 2


def test_a_bar_still_moves():
    file = io.StringIO()
    with Progress(console=_Plain(file=file, width=80, force_terminal=True)) as progress:
        progress.advance(progress.add_task(EVIL, total=2))
    assert "\x1b[?25l" in file.getvalue() and "\x1b]0;" not in file.getvalue()


@given(st.text())
def test_escaping_is_idempotent_and_keeps_what_is_printable(text):
    assert plain(plain(text)) == plain(text)
    assert not any(c in plain(text) for c in "\x1b\r\x9b")
    printable = "".join(c for c in text if c.isprintable())
    assert plain(printable) == printable


def test_a_record_cannot_steer_a_board(cli, store):
    odd = made_record(
        f"gap{EVIL}", identity=f"coco{EVIL}", efficiency=made_efficiency(device=f"AMD{EVIL}")
    )
    store.write(odd, made_predictions())
    store.write(made_record("gmp", identity="coco", status="diverged", scores=None, error=EVIL))
    told = cli("leaderboard")
    assert told.code == 0 and not STEERING & set(told.out + told.err), told
