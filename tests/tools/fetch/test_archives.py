"""Archives from a server, a mirror and a path: interrupted, changed, damaged, fetched before."""

import hashlib
import random
import tarfile

import pytest

from mlbench.types import Archive, DataError, DatasetCard
from mlbench_tools.fetch import download as downloading
from mlbench_tools.fetch.archives import ArchiveSource, fetch_archive, sources
from mlbench_tools.fetch.download import download
from tests.tools.fetch.test_unpack import tar_with

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def content(tmp_path, site):
    """The bytes of an archive, which the site serves."""
    file = tar_with(tmp_path / "made.tar", ("set/noise.bin", CONTENT), ("set/b", b"b"))
    site.files["set.tar"] = file.read_bytes()
    file.unlink()
    return site.files["set.tar"]


def archive(content, **fields):
    known = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    plain = {"name": "set.tar", "url": None, "unpacked_bytes": 1 << 20, "into": "in", **known}
    return Archive(**{**plain, **fields})


def card(*archives, steps=""):
    return DatasetCard(title="T", bibtex="", licence="L", home="H", archives=archives, steps=steps)


def files(folder):
    """Every file but the locks."""
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def downloaded(site, tmp_path, size=None):
    download(f"{site.address}/set.tar", tmp_path / "set.tar", size, 1 << 20)
    return (tmp_path / "set.tar").read_bytes()


def test_an_interrupted_download_resumes(site, tmp_path, content):
    site.cuts = [100_000, 50_000]
    assert downloaded(site, tmp_path) == content
    assert [given for _, given in site.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar"]


def test_a_later_command_resumes_the_download(site, tmp_path, content):
    site.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"100,000 bytes are here; the same command resumes"):
        downloaded(site, tmp_path)
    site.asked.clear()
    assert downloaded(site, tmp_path) == content
    assert site.asked == [("set.tar", "bytes=100000-")]


def test_a_server_without_ranges_starts_again_but_not_for_ever(site, tmp_path, content):
    site.cuts, site.ranges = [100_000], False
    assert downloaded(site, tmp_path) == content
    site.asked.clear()
    site.cuts, site.ranges = [100_000, 50_000] * 20, False
    with pytest.raises(DataError, match="cut off after"):
        downloaded(site, tmp_path)
    assert len(site.asked) == 1 + downloading.TRIES


@pytest.mark.parametrize("longer", [0, 5000, -250_000])
def test_a_file_that_changed_is_downloaded_from_its_start(site, tmp_path, content, longer):
    site.files["set.tar"] = bytes(len(content) + longer)
    site.cuts = [100_000, 0, 0, 0] if longer >= 0 else [40_000, 0, 0, 0]
    with pytest.raises(DataError):
        downloaded(site, tmp_path)
    site.files["set.tar"] = content
    assert downloaded(site, tmp_path) == content


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, downloading.TRIES)])
def test_a_refusal_is_reported_at_once_and_an_overloaded_server_asked_again(
    site, tmp_path, status, tries
):
    site.files["set.tar"], site.status = b"x", status
    with pytest.raises(DataError, match=rf"answers {status}"):
        downloaded(site, tmp_path)
    assert len(site.asked) == tries and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "limit"), [(10, 1 << 20), (None, 1000)])
def test_a_file_of_another_size_is_not_downloaded(site, tmp_path, content, size, limit):
    with pytest.raises(DataError, match="another file"):
        download(f"{site.address}/set.tar", tmp_path / "set.tar", size, limit)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_fetched_unpacked_and_not_fetched_again(site, tmp_path, content):
    (source,) = sources(card(archive(content)), site.address, ())
    receipt = fetch_archive(source, tmp_path)
    assert receipt["top"] == ["set"] and "again" not in receipt
    assert (tmp_path / "in" / "set" / "noise.bin").read_bytes() == CONTENT
    assert {p.name for p in (tmp_path / ".mlbench").iterdir()} == {"set.tar.json", "set.tar.lock"}
    asked = len(site.asked)
    assert fetch_archive(source, tmp_path)["again"] and len(site.asked) == asked
    (tmp_path / "in" / "set").rename(tmp_path / "away")
    assert "again" not in fetch_archive(source, tmp_path)
    assert (tmp_path / "in" / "set" / "b").read_bytes() == b"b"


def test_a_damaged_download_is_refused_and_removed(site, tmp_path, content):
    damaged = bytearray(content)
    damaged[5000] ^= 1
    site.files["set.tar"] = bytes(damaged)
    (source,) = sources(card(archive(content)), site.address, ())
    with pytest.raises(DataError, match="SHA-256"):
        fetch_archive(source, tmp_path)
    assert files(tmp_path) == []
    site.files["set.tar"] = content
    fetch_archive(source, tmp_path)
    assert (tmp_path / "in" / "set" / "b").exists()


def test_a_full_disk_keeps_the_download(site, tmp_path, content, monkeypatch):
    (source,) = sources(card(archive(content)), site.address, ())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "makefile", full)
        with pytest.raises(DataError, match=r"No space left.*--root"):
            fetch_archive(source, tmp_path)
    fetch_archive(source, tmp_path)
    assert (tmp_path / "in" / "set" / "noise.bin").read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_local_archive_stays_and_is_checked(tmp_path, content):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "set.tar").write_bytes(content)
    (source,) = sources(card(archive(content)), str(shelf), ())
    fetch_archive(source, tmp_path)
    assert fetch_archive(source, tmp_path)["again"]
    assert (shelf / "set.tar").read_bytes() == content
    (shelf / "set.tar").write_bytes(bytes(len(content)))
    with pytest.raises(DataError, match="SHA-256"):
        fetch_archive(source, tmp_path / "new")
    (shelf / "set.tar").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"has 307,199 bytes, set.tar has 307,200"):
        fetch_archive(source, tmp_path / "new")
    assert files(tmp_path / "new") == []


def test_where_archives_are_taken_from(content):
    official = archive(content, url="https://example.org/a/set.tar")
    one = card(official)
    assert sources(one, None, ()) == [ArchiveSource(official, "https://example.org/a/set.tar")]
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
