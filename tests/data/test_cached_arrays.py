"""Arrays in the cache are right or made again, and the least recently used make room."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlbench.data.cache_entries import IDENTITY, entries, entry_folder, make_room
from mlbench.data.cached_arrays import CachedArray, pixel_code
from mlbench.files import source_digest, source_files
from mlbench.types import Places

N, ROW = 10, (3, 4)


def right(positions):
    """Row i is i, i + 1, ...; none is zero, and none equals another."""
    return (positions[:, None, None] * 12 + np.arange(1, 13).reshape(ROW)).astype(np.float16)


def opened(file, make=right, chunk=None):
    return CachedArray(file, "maps", (N, *ROW), np.float16, make, chunk)


@pytest.fixture
def file(tmp_path):
    """An array that was made and finished."""
    return finished(tmp_path / "a.rows")


def finished(file):
    array = opened(file)
    array.write(everything, right(everything))
    array.finish()
    return file


def never(positions):
    raise AssertionError(f"{positions} were made again")


everything = np.arange(N)


def test_rows_that_were_made_are_read(file):
    array = opened(file, make=never)
    assert array.finished
    np.testing.assert_array_equal(array.read(np.array([7, 0, 7])), right(np.array([7, 0, 7])))


def test_rows_that_were_never_made_are_made_when_they_are_read(tmp_path, caplog):
    asked = []

    def make(positions):
        asked.append(positions.tolist())
        return right(positions)

    array = opened(tmp_path / "b.rows", make)
    assert not array.finished and array.bytes_missing
    np.testing.assert_array_equal(array.read(np.array([5, 2, 5])), right(np.array([5, 2, 5])))
    array.read(np.array([5, 2]))
    assert asked == [[2, 5]]
    chunked = opened(tmp_path / "c.rows", make, chunk=4)
    np.testing.assert_array_equal(chunked.read(np.array([9, 0])), right(np.array([9, 0])))
    assert asked[1:] == [[0, 1, 2, 3], [8, 9]]
    assert not caplog.records


RECORD = 2 * 12 + 4


def reverse_rows(content, moved=RECORD):
    """Reverses the first bytes of the rows, and leaves the others, as checksums, where they are."""
    rows = [content[i * RECORD : (i + 1) * RECORD] for i in range(N)]
    mixed = [rows[-1 - i][:moved] + row[moved:] for i, row in enumerate(rows)]
    return b"".join(mixed) + content[N * RECORD :]


DAMAGES = {
    "a flipped bit": lambda c: c[:100] + bytes([c[100] ^ 4]) + c[101:],
    "a zeroed half": lambda c: c[: len(c) // 2] + bytes(len(c) - len(c) // 2),
    "all zero": lambda c: bytes(len(c)),
    "a zeroed half in front": lambda c: bytes(len(c) // 2) + c[len(c) // 2 :],
    "reversed rows": reverse_rows,
    "reversed rows under their checksums": lambda c: reverse_rows(c, moved=RECORD - 4),
    "cut in the middle": lambda c: c[: len(c) // 2],
    "cut at a row": lambda c: c[: 3 * RECORD],
    "longer": lambda c: c + b"more",
    "something else": lambda c: b"PK\3\4" * 20,
}


UNFINISHED = {"without its end": lambda c: c[:-4], "empty": lambda c: b""}
"""As an interrupted process leaves a file."""


@pytest.mark.parametrize("damage", [*DAMAGES, *UNFINISHED])
def test_damage_is_made_again_with_one_line(file, damage, caplog):
    file.write_bytes((DAMAGES | UNFINISHED)[damage](file.read_bytes()))
    np.testing.assert_array_equal(opened(file).read(everything), right(everything))
    assert len(caplog.records) == (damage in DAMAGES)
    assert all("maps are damaged (" in line for line in caplog.messages)
    np.testing.assert_array_equal(opened(file, never).read(everything), right(everything))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), chunk=st.sampled_from([None, 1, 4]))
def test_no_damage_ends_in_an_error_or_in_other_numbers(tmp_path, data, chunk):
    file = tmp_path / "fuzzed.rows"
    file.unlink(missing_ok=True)
    content = bytearray(finished(file).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 90))] = data.draw(st.binary(max_size=90))
    file.write_bytes(content)
    positions = np.array(data.draw(st.lists(st.integers(0, N - 1), min_size=1)))
    array = opened(file, chunk=chunk)
    np.testing.assert_array_equal(array.read(positions), right(positions))


def test_a_file_may_be_damaged_cut_or_deleted_while_it_is_open(file):
    array, other = opened(file, never), opened(file)
    assert array.valid(everything)
    file.write_bytes(DAMAGES["a flipped bit"](file.read_bytes()))
    np.testing.assert_array_equal(other.read(everything), right(everything))
    os.truncate(file, 3 * RECORD)
    np.testing.assert_array_equal(other.read(everything), right(everything))
    file.unlink()
    np.testing.assert_array_equal(array.read(everything), right(everything))


def test_a_file_that_cannot_be_written_is_still_read(file, monkeypatch):
    file.write_bytes(content := DAMAGES["a flipped bit"](file.read_bytes()))
    real = os.open

    def refuse(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError
        return real(path, flags, *mode)

    monkeypatch.setattr("os.open", refuse)
    np.testing.assert_array_equal(opened(file).read(everything), right(everything))
    assert file.read_bytes() == content


def test_another_array_under_the_same_name_is_not_believed(file):
    other = CachedArray(file, "maps", (N, 4, 3), np.float16, lambda p: np.zeros((len(p), 4, 3)))
    assert not other.read(everything).any()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from mlbench.data.cached_arrays import CachedArray, pixel_code
def right(positions):
    return positions[:, None] * 100_000 + np.arange(1, 100_001)
array = CachedArray(Path(sys.argv[1]), "maps", (6, 100_000), np.int64, right)
for _ in range(int(sys.argv[2])):
    for positions in np.array_split(np.random.permutation(6), 2):
        if not (array.read(positions) == right(positions)).all():
            sys.exit("wrong rows")
        array.write(positions, right(positions))
array.finish()
"""


def test_processes_that_make_one_array_disturb_neither_each_other_nor_a_reader(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "shared.rows")]
    writers = [subprocess.Popen([*command, "10"]) for _ in range(2)]
    assert subprocess.run([*command, "3"], check=False).returncode == 0
    assert [writer.wait() for writer in writers] == [0, 0]
    assert subprocess.run([*command, "1"], check=False, stderr=-1, text=True).stderr == ""


def test_a_row_that_was_never_made_is_made_if_the_checksum_of_zeros_is_zero(tmp_path):
    """It is that of an array whose name solves as many linear equations as a checksum has bits."""

    def name(choice):
        return "".join("ae"[choice >> i & 1] for i in range(48))  # letters that differ in one bit

    def checksum(choice):
        return opened(tmp_path / name(choice))._checksum(np.zeros(ROW, np.float16), 0)

    left, choice, solved = checksum(0), 0, {}

    def reduced(value, bits):
        while (top := value.bit_length()) in solved:
            value, bits = value ^ solved[top][0], bits ^ solved[top][1]
        return value, bits

    for i in range(48):
        value, bits = reduced(checksum(1 << i) ^ left, 1 << i)
        if value:
            solved[value.bit_length()] = value, bits
    left, choice = reduced(left, choice)
    assert left == 0
    found = opened(tmp_path / name(choice)).read(everything[:1])
    np.testing.assert_array_equal(found, right(everything[:1]))


def test_pixels_have_the_digest_of_all_code_that_may_make_them():
    found = {place for place, _ in source_files("mlbench.data")}
    loaded = [name for name in sys.modules if name.startswith("mlbench.data.")]
    assert {f"{name.rpartition('.')[2]}.py" for name in loaded} <= found
    assert pixel_code() == source_digest("mlbench.data")


KIB = 1024


def test_a_folder_is_named_by_what_its_content_depends_on(tmp_path):
    def folder(what, **identity):
        return entry_folder(tmp_path, "features", what, "coco at 224", identity)

    one = folder("maps", size=1, seed=2)
    assert folder("the same", seed=2, size=1) == one
    assert folder("maps", size=2) != one
    (one / IDENTITY).write_bytes(b"\0")
    folder("maps", size=1, seed=2)
    note = {"what": "maps", "purpose": "coco at 224", "identity": {"size": 1, "seed": 2}}
    assert json.loads((one / IDENTITY).read_text()) == note


@pytest.fixture
def filled(tmp_path):
    """Three entries of 100 KiB, used in the order b, c, a, and files that no limit deletes."""
    for used, (name, use) in enumerate([("b", "coco"), ("c", "voc"), ("a", "coco")]):
        folder = entry_folder(tmp_path, "features", f"maps {name}", use, {"name": name})
        (folder / "level-0.rows").write_bytes(bytes(100 * KIB))
        os.utime(folder / IDENTITY, (used + 1, used + 1))
    (tmp_path / "synthetic-1" / "9-9-32-0").mkdir(parents=True)
    (tmp_path / "synthetic-1" / "9-9-32-0" / "a.bmp").write_bytes(bytes(10 * KIB))
    (tmp_path / "coco-1.checked").write_bytes(bytes(10))
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "1.checked").write_bytes(bytes(10))
    return tmp_path


def what(cache):
    return [entry.what or entry.name for entry in entries(cache)]


def test_entries_come_by_their_last_use(filled):
    found = entries(filled)
    assert what(filled)[:3] == ["maps b", "maps c", "maps a"]
    assert set(what(filled)[3:]) == {"coco-1.checked", "page", "synthetic-1/9-9-32-0"}
    assert 100 * KIB <= found[0].size < 110 * KIB and found[0].purpose == "coco"
    (filled / found[0].name / IDENTITY).write_bytes(b"\xff{")
    assert what(filled)[-1] == found[0].name, "an entry with a damaged note is listed, too"
    assert entries(filled / "nowhere") == []


@pytest.mark.parametrize(
    ("limit", "needs", "left"),
    [
        (None, (), "bca"),
        (500 * KIB, (), "bca"),
        (400 * KIB, (), "ca"),
        (400 * KIB, ("coco",), "ba"),
        (400 * KIB, ("coco", "voc"), "bca"),
        (1, ("voc",), "c"),
        (0, (), ""),
    ],
)
def test_the_least_recently_used_go_and_what_is_needed_stays(filled, limit, needs, left, caplog):
    places = Places(results=filled, cache=filled, cache_limit=limit, cache_needs=needs)
    make_room(places, 80 * KIB, "maps", "make room")
    found = what(filled)
    assert [name for name in found if name.startswith("maps")] == [f"maps {name}" for name in left]
    assert len(found) == len(left) + 3
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (limit in (0, 1) or needs == ("coco", "voc"))
