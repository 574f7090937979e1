"""Lists of label names, as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlbench_tools.weights.released_labels import listed_names


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_name_a_line_whatever_else_parts_text(tmp_path: Path, end: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(end.join(["traffic\u2028light", " dog ", "", "caf\x85"]).encode())
    assert listed_names(file) == ("traffic\u2028light", "dog", "caf")
