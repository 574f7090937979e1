"""Hostile and damaged archives are refused, and nothing of them is left."""

import io
import random
import stat
import struct
import tarfile
import zipfile
from contextlib import suppress
from functools import partial

import pytest

from mlbench.types import DataError
from mlbench_tools.fetch.unpack import unpack

MEGABYTE = 1 << 20


def tar_with(file, *members, mode="w"):
    """Members are (name, content) or a TarInfo."""
    with tarfile.open(file, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return file


def zip_with(file, *members, mode=0):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, content)
    return file


def special(kind, target=""):
    info = tarfile.TarInfo("set/strange")
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    return folder


@pytest.fixture
def refused(root, tmp_path):
    """Unpack what must be refused; afterwards everything is as before."""

    def call(archive, limit=MEGABYTE):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError) as caught:
            unpack(archive, root, limit)
        assert sorted(tmp_path.rglob("*")) == before
        assert (root / "mine.txt").read_text() == "mine"
        return str(caught.value)

    return call


FORMS = {"tar": tar_with, "tar.gz": partial(tar_with, mode="w:gz"), "zip": zip_with}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
CONTENT = (("set/a b.txt", b"one"), ("set/deep/\u00fc.txt", b"two" * 1000), ("other", b""))


@each_form
def test_files_arrive_whole_whatever_the_archive_is_called(root, tmp_path, form):
    file = form(tmp_path / "archive.bin", *CONTENT)
    seen = []
    top = unpack(file, root, MEGABYTE, lambda done, total: seen.append(done))
    assert top == ["other", "set"] and seen == sorted(seen) and len(seen) == 3
    for name, content in CONTENT:
        assert (root / name).read_bytes() == content
    assert sorted(path.name for path in root.iterdir()) == ["mine.txt", "other", "set"]


@pytest.mark.parametrize("name", ["../out.txt", "set/../../out.txt", "{tmp}/out.txt"])
@pytest.mark.parametrize("form", [tar_with, zip_with])
def test_no_member_lands_outside(root, tmp_path, form, name):
    file = form(
        tmp_path / "archive", ("set/fine.txt", b"fine"), (name.format(tmp=tmp_path), b"out")
    )
    with suppress(DataError):  # a tar with dots is refused; zipfile drops them
        unpack(file, root, MEGABYTE)
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "../../out"),
        (tarfile.SYMTYPE, "inside.txt"),
        (tarfile.LNKTYPE, "set/fine.txt"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(refused, tmp_path, kind, target):
    file = tar_with(tmp_path / "archive", ("set/fine.txt", b"fine"), special(kind, target))
    assert "set/strange" in refused(file)


def test_a_link_in_a_zip_becomes_a_plain_file(root, tmp_path):
    file = zip_with(tmp_path / "archive", ("set/strange", b"/etc"), mode=stat.S_IFLNK | 0o777)
    unpack(file, root, MEGABYTE)
    assert (root / "set/strange").read_bytes() == b"/etc"
    assert not (root / "set/strange").is_symlink()


@each_form
@pytest.mark.parametrize("sizes", [[3 * MEGABYTE], [0] * 2050], ids=["large", "empty files"])
def test_a_bomb_is_refused(refused, tmp_path, form, sizes):
    members = [(f"set/{i}", bytes(size)) for i, size in enumerate(sizes)]
    file = form(tmp_path / "archive", *members)
    assert "more than the 1,048,576 bytes" in refused(file)


def test_a_zip_that_lies_about_its_sizes_is_refused(refused, tmp_path):
    file = zip_with(tmp_path / "archive", ("set/zeros", bytes(3 * MEGABYTE)))
    content = file.read_bytes()
    file.write_bytes(content.replace(struct.pack("<L", 3 * MEGABYTE), struct.pack("<L", 1000)))
    assert "damaged" in refused(file)


@pytest.mark.parametrize("part", [0.1, 0.9])
@each_form
def test_a_truncated_archive_is_refused(refused, tmp_path, form, part):
    noise = random.Random(0).randbytes(20_000)
    members = [(f"set/{i}", noise) for i in range(5)]
    file = form(tmp_path / "archive", *members)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    refused(file)


@pytest.mark.parametrize("damage", ["between members", "in a header"])
def test_a_tar_without_its_end_is_refused(refused, tmp_path, damage):
    file = tar_with(tmp_path / "archive", ("set/1", b"1"), ("set/2", b"2"), ("set/3", b"3"))
    content = bytearray(file.read_bytes())
    content[1024 + 10] ^= 0xFF
    file.write_bytes(content[:1024] if damage == "between members" else content)
    assert "lacks its end" in refused(file)


@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>" * 100, b"PK\3\4"])
def test_a_file_that_is_no_archive_is_refused(refused, tmp_path, content):
    (tmp_path / "page.zip").write_bytes(content)
    told = refused(tmp_path / "page.zip")
    assert "page.zip" in told and "fetch the archive again" in told and "\n" not in told
