"""Archives that nobody vouches for, unpacked without harm: all of one, or nothing.

What an archive holds is written to a folder of its own beside the place where it belongs, and moved
there once the last byte was good. Folders and plain files are all that a data set needs; anything
else is refused, links that stay inside too, because chains of them have led out before.
"""

from __future__ import annotations

import itertools
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mlbench.types import DataError

Count = Callable[[int, int | None], None]
"""Told how much is done, and of how much in all (None where that is not known)."""

_BLOCK = 512
"""Bytes that a member counts for at least, so that a million empty ones are a bomb too."""
_CHUNK = 1 << 20
_REMEDY = "nothing was unpacked; fetch the archive again, from the official place"
_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),
)
"""What the readers of the standard library raise on bytes that they cannot make sense of."""


class _Member(NamedTuple):
    """A file or folder in an archive."""

    name: str
    size: int
    folder: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, limit: int, progress: Count | None = None) -> list[str]:
    """Unpack a tar (also compressed) or a zip; what is there by the same name is replaced.

    Args:
        archive: the file; its first bytes say what it is, not its name.
        folder: where to; made if it is not there.
        limit: bytes that may come out of it.
        progress: told the bytes unpacked.

    Returns:
        The topmost names that it holds, sorted.

    Raises:
        DataError: the archive is damaged or cut off, holds more than ``limit``, or holds something
            that would land outside of ``folder``, a link or a device. ``folder`` is as before.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    stage: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
        files = _write_all(archive, stage, limit, progress)
        _move(files, stage, folder)
    except OSError as error:
        raise _failed(archive, folder, error) from error
    except _DAMAGES as error:
        raise DataError(f"{archive} is damaged or cut off ({error}); {_REMEDY}") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        remove_empty(made)
    return sorted({file.parts[0] for file in files})


def _failed(archive: Path, folder: Path, error: OSError) -> DataError:
    """What readers of compressed bytes say has no number; what the system says has one."""
    if error.errno is None:
        return DataError(f"{archive} is damaged or cut off ({error}); {_REMEDY}")
    return DataError(
        f"{archive} cannot be unpacked in {folder} ({error.strerror}); nothing was unpacked; give "
        f"this user the right to read the file and to write there, free space, or name another "
        "folder with --root"
    )


def _write_all(
    archive: Path, stage: Path, limit: int, progress: Count | None
) -> list[PurePosixPath]:
    """Write every member; the relative paths of the files."""
    files: list[PurePosixPath] = []
    total = 0
    for member in _members(archive, stage):
        path = _safe(archive, member.name)
        total += max(member.size, _BLOCK)
        if total > limit:
            raise DataError(
                f"{archive} holds more than the {limit:,} bytes that belong in it: it is not what "
                f"its name says, or made to fill the disk; {_REMEDY}"
            )
        if member.folder:
            continue
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, (stage / path).open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
            if target.tell() != member.size:
                raise DataError(
                    f"{archive}: {member.name!r} has {target.tell():,} of {member.size:,} bytes; "
                    f"{_REMEDY}"
                )
        files.append(path)
        if progress is not None:
            progress(total, None)
    if not files:
        raise DataError(f"{archive} holds no file; {_REMEDY}")
    return files


def _members(archive: Path, stage: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        start = file.read(4)
    return _zip(archive) if start.startswith(b"PK") else _tar(archive, stage)


def _safe(archive: Path, name: str) -> PurePosixPath:
    """The member's path, once it is known to stay inside wherever it is put, on any system."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    if outside or "\\" in name or "\0" in name:
        raise DataError(f"{archive}: {name!r} would land outside of the folder; {_REMEDY}")
    return path


# ----------------------------------------------------------------------------------------- formats
def _tar(archive: Path, stage: Path) -> Iterator[_Member]:
    try:
        opened_tar = tarfile.open(archive, "r:*")  # noqa: SIM115
    except tarfile.ReadError as error:  # which lists what each of five readers thought of it
        raise DataError(f"{archive} is damaged, or no tar and no zip at all; {_REMEDY}") from error
    with opened_tar as tar:
        for member in tar:
            _safe(archive, member.name)  # the filter would only take a leading slash away
            try:
                tarfile.data_filter(member, str(stage))
            except tarfile.FilterError as error:
                raise DataError(f"{archive}: {error}; {_REMEDY}") from error
            if not (member.isreg() or member.isdir()):
                raise DataError(_special(archive, member.name))
            opened = _opener(tar, member)
            yield _Member(member.name, 0 if member.isdir() else member.size, member.isdir(), opened)
        _refuse_cut(archive, tar)


def _opener(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = tar.extractfile(member)
        assert file is not None, "only files are opened"
        return file

    return opened


def _refuse_cut(archive: Path, tar: tarfile.TarFile) -> None:
    """A tar ends in a block of zeros; tarfile takes any end, and a damaged header for one."""
    assert tar.fileobj is not None, "the tar is open"
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(_BLOCK) != bytes(_BLOCK):
        raise DataError(f"{archive} is damaged or cut off: it lacks its end; {_REMEDY}")


def _zip(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # Above the lower 16 bits stands the file mode, where a Unix tool made the zip.
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(_special(archive, member.filename))
            if member.orig_filename != member.filename and "\0" in member.orig_filename:
                _safe(archive, member.orig_filename)
            if member.flag_bits & 1:
                raise DataError(f"{archive}: {member.filename!r} is encrypted; {_REMEDY}")

            def opened(member: zipfile.ZipInfo = member) -> IO[bytes]:
                return file.open(member)

            yield _Member(member.filename, member.file_size, member.is_dir(), opened)


def _special(archive: Path, name: str) -> str:
    return f"{archive}: {name!r} is a link or a device, and no data set needs one; {_REMEDY}"


# ------------------------------------------------------------------------------------------- moving
def _move(files: list[PurePosixPath], stage: Path, folder: Path) -> None:
    """Put everything in its place, once it is known that everything can go there."""
    root = folder.resolve()
    for parent in sorted({file.parent for file in files}):
        if not (folder / parent).resolve().is_relative_to(root):
            raise DataError(
                f"{folder / parent} leads out of {folder}; unpack elsewhere, or take the link away"
            )
        for part in (parent, *parent.parents):
            if (folder / part).exists() and not (folder / part).is_dir():
                raise DataError(f"{folder / part} is a file where a folder belongs; move it away")
    for file in files:
        if (folder / file).is_dir():
            raise DataError(f"{folder / file} is a folder where a file belongs; move it away")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (stage / file).replace(folder / file)


def remove_empty(made: list[Path]) -> None:
    """Take folders away that hold nothing, the innermost first, until one does."""
    for folder in itertools.takewhile(lambda path: path.is_dir() and not any(path.iterdir()), made):
        folder.rmdir()
