"""Which entries the cache has, and which of them go to make room."""

import json
import os

import pytest

from mlbench.data.cache_entries import IDENTITY, entries, entry_folder, make_room
from mlbench.types import Places

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
