"""Archives from a server, a mirror and a path: cut, changed, damaged, and there already."""

import hashlib
import random
import shutil
from contextlib import contextmanager

import pytest

from mlbench.types import Archive, DataError, DatasetCard
from mlbench_tools.fetch import download as downloading
from mlbench_tools.fetch.archives import Source, fetch, sources
from mlbench_tools.fetch.download import download
from tests.permissions import locked
from tests.tools.fetch.served import served
from tests.tools.fetch.test_unpack import tar_with

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE_S", 0.0)
    with served() as site:
        yield site


@pytest.fixture
def content(tmp_path):
    """The bytes of an archive."""
    file = tar_with(tmp_path / "made.tar", ("set/noise.bin", CONTENT), ("set/b", b"b"))
    content = file.read_bytes()
    file.unlink()
    return content


def archive(content, **fields):
    known = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    plain = {"name": "set.tar", "url": None, "unpacked_bytes": 1 << 20, "into": "in", **known}
    return Archive(**{**plain, **fields})


def card(*archives, steps=""):
    return DatasetCard(title="T", bibtex="", licence="L", home="H", archives=archives, steps=steps)


@contextmanager
def quiet(_):
    yield lambda done, total: None


def brought(site, tmp_path, size=None):
    download(f"{site.address}/set.tar", tmp_path / "set.tar", size, 1 << 20)
    return (tmp_path / "set.tar").read_bytes()


# ---------------------------------------------------------------------------------------- download
def test_a_cut_download_goes_on_where_it_stopped(site, tmp_path, content):
    site.files["set.tar"] = content
    site.cuts = [100_000, 50_000]
    assert brought(site, tmp_path) == content
    assert [given for _, given in site.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar"]


def test_a_later_command_goes_on_where_an_earlier_one_gave_up(site, tmp_path, content):
    site.files["set.tar"] = content
    site.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"100,000 bytes are here; the same command goes on"):
        brought(site, tmp_path)
    site.asked.clear()
    assert brought(site, tmp_path) == content
    assert site.asked == [("set.tar", "bytes=100000-")]


def test_a_server_without_ranges_is_asked_for_all_of_it_again(site, tmp_path, content):
    site.files["set.tar"] = content
    site.cuts, site.ranges = [100_000], False
    assert brought(site, tmp_path) == content


def test_a_server_that_starts_anew_and_never_gets_further_is_given_up(site, tmp_path, content):
    site.files["set.tar"] = content
    site.cuts, site.ranges = [100_000, 50_000] * 20, False
    with pytest.raises(DataError, match="cut off after"):
        brought(site, tmp_path)
    assert len(site.asked) == 1 + downloading.TRIES


def test_an_answer_without_a_body_costs_nothing_that_is_here(site, tmp_path, content):
    site.files["set.tar"] = content
    site.cuts, site.hollow = [100_000], True
    with pytest.raises(DataError, match=r"sent nothing, 100,000 bytes are here"):
        brought(site, tmp_path)
    assert len(site.asked) == 1 + downloading.TRIES
    site.hollow = False
    site.asked.clear()
    assert brought(site, tmp_path) == content
    assert site.asked == [("set.tar", "bytes=100000-")]


@pytest.mark.parametrize("longer", [0, 5000, -250_000])
def test_a_file_that_changed_in_between_is_not_glued_to_the_old_one(
    site, tmp_path, content, longer
):
    site.files["set.tar"] = bytes(len(content) + longer)
    site.cuts = [100_000, 0, 0, 0] if longer >= 0 else [40_000, 0, 0, 0]
    with pytest.raises(DataError):
        brought(site, tmp_path)
    site.files["set.tar"] = content
    assert brought(site, tmp_path) == content


def test_another_address_does_not_go_on_with_the_file_of_the_first(site, tmp_path, content):
    site.files |= {"set.tar": content, "other.tar": bytes(len(content))}
    site.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DataError):
        download(f"{site.address}/other.tar", tmp_path / "set.tar", None, 1 << 20)
    assert brought(site, tmp_path) == content


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_told_at_once(site, tmp_path, status):
    site.files["set.tar"], site.status = b"x", status
    with pytest.raises(DataError, match=rf"answers {status} .*--mirror"):
        brought(site, tmp_path)
    assert len(site.asked) == 1 and list(tmp_path.iterdir()) == []


def test_a_server_that_is_overloaded_is_asked_again(site, tmp_path):
    site.files["set.tar"], site.status = b"x", 503
    with pytest.raises(DataError, match="answers 503"):
        brought(site, tmp_path)
    assert len(site.asked) == downloading.TRIES


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE_S", 0.0)
    with pytest.raises(DataError, match="connection failed"):
        download("http://127.0.0.1:9/set.tar", tmp_path / "set.tar", None, 100)


@pytest.mark.parametrize(("size", "limit"), [(10, 1 << 20), (None, 1000)])
def test_a_file_of_another_size_is_not_even_begun(site, tmp_path, content, size, limit):
    site.files["set.tar"] = content
    with pytest.raises(DataError, match="another file"):
        download(f"{site.address}/set.tar", tmp_path / "set.tar", size, limit)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- fetch
def test_an_archive_is_fetched_unpacked_and_not_fetched_again(site, tmp_path, content):
    site.files["set.tar"] = content
    (source,) = sources(card(archive(content)), site.address, ())
    receipt = fetch(source, tmp_path, quiet)
    assert receipt["top"] == ["set"] and "again" not in receipt
    assert (tmp_path / "in" / "set" / "noise.bin").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / ".mlbench").iterdir()] == ["set.tar.json"]
    asked = len(site.asked)
    assert fetch(source, tmp_path, quiet)["again"] and len(site.asked) == asked
    (tmp_path / "in" / "set").rename(tmp_path / "away")
    assert "again" not in fetch(source, tmp_path, quiet)
    assert (tmp_path / "in" / "set" / "b").read_bytes() == b"b"


def test_a_damaged_download_is_refused_and_removed(site, tmp_path, content):
    damaged = bytearray(content)
    damaged[5000] ^= 1
    site.files["set.tar"] = bytes(damaged)
    (source,) = sources(card(archive(content)), site.address, ())
    with pytest.raises(DataError, match="SHA-256"):
        fetch(source, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []
    site.files["set.tar"] = content
    fetch(source, tmp_path, quiet)
    assert (tmp_path / "in" / "set" / "b").exists()


def test_a_damaged_download_without_a_checksum_leaves_nothing_half_unpacked(
    site, tmp_path, content
):
    site.files["set.tar"] = content[:200_000]
    (source,) = sources(card(archive(content, sha256=None, bytes=None)), site.address, ())
    with pytest.raises(DataError, match="nothing was unpacked"):
        fetch(source, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def test_what_was_fetched_outlasts_a_disk_that_is_full(site, tmp_path, content, monkeypatch):
    site.files["set.tar"] = content
    (source,) = sources(card(archive(content)), site.address, ())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(DataError, match="No space left"):
            fetch(source, tmp_path, quiet)
    assert not (tmp_path / "in").exists()
    fetch(source, tmp_path, quiet)
    assert (tmp_path / "in" / "set" / "noise.bin").read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_file_of_the_users_stays_and_is_checked(tmp_path, content):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "set.tar").write_bytes(content)
    (source,) = sources(card(archive(content)), str(shelf), ())
    fetch(source, tmp_path, quiet)
    assert fetch(source, tmp_path, quiet)["again"]
    assert (shelf / "set.tar").read_bytes() == content
    (shelf / "set.tar").write_bytes(bytes(len(content)))
    with pytest.raises(DataError, match="SHA-256"):
        fetch(source, tmp_path / "new", quiet)
    (shelf / "set.tar").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"has 307,199 bytes, set.tar has 307,200"):
        fetch(source, tmp_path / "new", quiet)
    (shelf / "set.tar").unlink()
    with pytest.raises(DataError, match="is missing; --mirror names"):
        fetch(source, tmp_path / "new", quiet)
    assert not (tmp_path / "new").exists()


def test_a_folder_is_no_archive(tmp_path, content):
    (source,) = sources(card(archive(content)), None, [str(tmp_path)])
    with pytest.raises(DataError, match="is a folder; --archive names an archive in it, --mirror"):
        fetch(source, tmp_path / "new", quiet)


def test_a_fetch_that_failed_leaves_no_folder(site, tmp_path, content):
    (source,) = sources(card(archive(content)), site.address, ())
    with pytest.raises(DataError, match="answers 404"):
        fetch(source, tmp_path, quiet)
    with pytest.raises(DataError, match="answers 404"):
        fetch(source, tmp_path / "new" / "root", quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_must_not_be_read_is_told(tmp_path, content):
    (tmp_path / "set.tar").write_bytes(content)
    (tmp_path / "root").mkdir()
    (source,) = sources(card(archive(content)), str(tmp_path), ())
    with locked(tmp_path / "root"), pytest.raises(DataError, match=r"Permission denied.*--root"):
        fetch(source, tmp_path / "root", quiet)
    with locked(tmp_path / "set.tar"), pytest.raises(DataError, match="Permission denied; give"):
        fetch(source, tmp_path / "root", quiet)


# ------------------------------------------------------------------------------------------ places
def test_where_archives_are_taken_from(content):
    official = archive(content, url="https://example.org/a/set.tar")
    one = card(official)
    assert sources(one, None, ()) == [Source(official, "https://example.org/a/set.tar")]
    assert sources(one, "http://m.org/x/", ())[0].place == "http://m.org/x/set.tar"
    assert sources(one, "shelf", ())[0].place == "shelf/set.tar"
    assert sources(card(official, archive(content, url=None)), None, ()) == []
    (same,) = sources(one, None, ["/elsewhere/set.tar"])
    assert same.archive == official
    (other,) = sources(one, None, [f"http://m.org/my%20mini.zip?key=1#sha256={'AB' * 32}"])
    assert other.place == "http://m.org/my%20mini.zip?key=1"
    assert other.archive.name == "my mini.zip" and other.archive.sha256 == "ab" * 32
    bare = card(archive(content, sha256=None))
    assert sources(bare, None, [f"set.tar#sha256={'ab' * 32}"])[0].archive.sha256 == "ab" * 32
    assert other.archive.into == "in" and other.archive.unpacked_bytes == 1 << 20


@pytest.mark.parametrize(
    "text", ["http://example.org/", "..", "ftp://example.org/a.tar", "a.tar#sha256=12"]
)
def test_a_place_that_is_none_is_refused(content, text):
    with pytest.raises(DataError):
        sources(card(archive(content)), None, [text])
