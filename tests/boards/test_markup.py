"""Text of others in Markdown, in spreadsheets and in a terminal."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlbench.boards.markup import escaped, fenced, one_line, spreadsheet

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TRICKS = st.text("\\`*_[](){}<>&#~|!:;-+=.\"' \t\n\x1bab1/", max_size=25)


def read(text):
    """What a reader of the only cell of a Markdown table sees: kinds of its parts, and the text."""
    parts = MARKDOWN.parse(f"| head |\n| --- |\n| {text} |\n")
    cells = [part for part in parts if part.type == "inline"][1:]
    assert len(cells) <= 1, "it broke the table"
    inside = [part for cell in cells for part in cell.children or ()]
    return {part.type for part in inside}, "".join(part.content for part in inside)


@given(TRICKS)
@example("[x](http://evil)")
@example("![x][y]")
@example("*a* **b** _c_ __d__ ~~e~~ `f`")
@example("&lt;b&gt; &#60; <img src=x>")
@example("a\\|b \\` \\*")
@example("]: [a]: http://evil")
def test_escaped_text_is_read_as_it_is_and_holds_no_markup(text):
    kinds, seen = read(escaped(text))
    assert kinds <= {"text"} and seen == one_line(text)


def test_names_and_intervals_stay_legible_in_the_file():
    for text in ("ml_decoder", "51.00 [50.0,52.0] (n=3)", "timm:mobilenetv2_100", "lr=0.1, 1-3"):
        assert escaped(text) == text


@pytest.mark.parametrize("text", ["-1.5", "+0.35", "-1e-05", "gap", "a=b", "", "-.5"])
def test_what_is_no_formula_stays(text):
    assert spreadsheet(text) == text


@given(TRICKS)
def test_no_cell_begins_like_a_formula_unless_it_is_a_number(text):
    kept = spreadsheet(text)
    if kept[:1] in set("=+-@\t\r"):
        float(kept)


@given(st.text(max_size=20))
def test_no_control_character_is_left(text):
    for shown in (one_line(text), escaped(text), spreadsheet(text)):
        assert not set(shown) & set(map(chr, [*range(9), *range(14, 28), *range(127, 133), 0x202E]))


@pytest.mark.parametrize("line", ["```", "a ```` b", "plain"])
def test_a_block_of_code_is_one_whatever_it_holds(line):
    (block,) = MARKDOWN.parse("\n".join(fenced(line)))
    assert (block.type, block.content) == ("fence", f"{line}\n")
