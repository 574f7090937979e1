"""Unpack archives of unknown origin: all of an archive or nothing.

An archive is extracted to a temporary folder inside the target folder. Its files are moved to their
places once the whole archive has been read without an error.
"""

from __future__ import annotations

import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from mlbench.files import sweep
from mlbench.types import DataError

OnProgress = Callable[[int, int | None], None]
"""Receives the number of bytes that are done, and of all bytes (None if not known)."""

_BLOCK = 512
"""A member counts as at least this many bytes, so that a million empty files are refused too."""
_REMEDY = "nothing was unpacked; fetch the archive again, from the official place"
_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError),
)
"""What the standard library raises on damaged bytes. The system's own ``OSError`` has an errno."""


def unpack(
    archive: Path, folder: Path, limit: int, progress: OnProgress | None = None
) -> list[str]:
    """Unpack a tar (compressed or not) or a zip; existing files of the same names are replaced.

    Nothing lands outside ``folder``: ``tarfile.data_filter`` and ``zipfile`` see to that.

    Args:
        archive: the file; its content decides what it is, not its name.
        folder: where to unpack; created if missing.
        limit: the largest number of bytes that may come out of the archive.
        progress: receives the bytes that have been unpacked.

    Returns:
        The topmost names in the archive, sorted.

    Raises:
        DataError: the archive is damaged or truncated, is larger than ``limit``, or holds a link, a
            device or no file at all. No file in ``folder`` has changed.
        OSError: the archive cannot be read or ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder.glob(".*.tmp"))
    with tempfile.TemporaryDirectory(prefix=".unpacking-", suffix=".tmp", dir=folder) as name:
        staging = Path(name)
        try:
            extract = _extract_tar if tarfile.is_tarfile(archive) else _extract_zip
            extract(archive, staging, limit, progress)
        except _DAMAGES as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{archive} is damaged or truncated ({error}); {_REMEDY}") from error
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
        if not files:
            raise DataError(f"{archive} holds no file; {_REMEDY}")
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (staging / file).replace(folder / file)
    return sorted({file.parts[0] for file in files})


def _extract_tar(archive: Path, staging: Path, limit: int, progress: OnProgress | None) -> None:
    size = 0

    def check(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        nonlocal size
        size = _add(archive, size, member.size, limit, progress)
        if not (member.isreg() or member.isdir()):
            raise DataError(f"{archive}: {member.name!r} is a link or a device; {_REMEDY}")
        return tarfile.data_filter(member, path)

    with tarfile.open(archive) as tar:
        tar.extractall(staging, filter=check)
        # A tar ends in a block of zeros, but tarfile takes any end or damaged header for one.
        assert tar.fileobj is not None, "the tar is open"
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{archive} is damaged or truncated: it lacks its end; {_REMEDY}")


def _extract_zip(archive: Path, staging: Path, limit: int, progress: OnProgress | None) -> None:
    size = 0
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            size = _add(archive, size, member.file_size, limit, progress)
            file.extract(member, staging)


def _add(archive: Path, size: int, more: int, limit: int, progress: OnProgress | None) -> int:
    """The size of everything up to and with this member, which must not exceed the limit."""
    size += max(more, _BLOCK)
    if size > limit:
        raise DataError(
            f"{archive} holds more than the {limit:,} bytes that belong in it: it is another file, "
            f"or was made to fill the disk; {_REMEDY}"
        )
    if progress is not None:
        progress(size, None)
    return size
