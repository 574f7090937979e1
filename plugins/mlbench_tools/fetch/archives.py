"""Archives of a data set: find them, check them, and unpack each of them once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from mlbench.files import sha256
from mlbench.types import Archive, DataError, DatasetCard
from mlbench_tools.fetch.download import download
from mlbench_tools.fetch.terminal import progress_bar
from mlbench_tools.fetch.unpack import unpack

RECEIPTS = ".mlbench"
"""The root's folder of receipts of what was unpacked, so that it is not fetched again."""
DEFAULT_LIMIT = 32 << 30
"""Bytes that may come out of an archive of a data set whose card lists no archive."""


class ArchiveSource(NamedTuple):
    """An archive and where to take it from: an http(s) address or a path."""

    archive: Archive
    place: str

    @property
    def remote(self) -> bool:
        """True if it comes over the network."""
        return _is_address(self.place)


def sources(card: DatasetCard, mirror: str | None, named: Sequence[str]) -> list[ArchiveSource]:
    """Where to take each archive of a data set from.

    Args:
        card: the data set's.
        mirror: a folder or address that holds the archives under their official names; in a folder,
            other known names count, too. Archives that are missing there come last.
        named: files or addresses to take instead, under any name; ``#sha256=HEX`` at the end of one
            is checked. One with an official name must be the official file.

    Returns:
        An empty list if no place is known: ``card.steps`` then says what a person must do.

    Raises:
        DataError: an address or a checksum is malformed.
    """
    if named:
        return [_named(card, text) for text in named]
    if mirror is not None and Path(mirror).is_dir():
        found = [_in_folder(archive, Path(mirror)) for archive in card.archives]
        return sorted(found, key=lambda source: not Path(source.place).exists())
    if mirror is not None:
        places = [f"{mirror.rstrip('/')}/{archive.name}" for archive in card.archives]
    elif all(archive.url for archive in card.archives):
        places = [str(archive.url) for archive in card.archives]
    else:
        return []
    return [ArchiveSource(*pair) for pair in zip(card.archives, places, strict=True)]


def fetch_archive(source: ArchiveSource, root: Path) -> dict[str, Any]:
    """Get one archive, check it and unpack it below ``root``, unless that has been done.

    A downloaded archive is removed once it is unpacked or found to be damaged; a local file stays.

    Returns:
        The receipt: ``archive`` (its name), ``place``, ``sha256``, ``bytes``, ``into`` (the folder,
        relative to ``root``), ``top`` (its topmost names), and ``"again": True`` if it had been
        unpacked before.

    Raises:
        DataError: the archive is not available, is not the file that the card describes, or is
            unsafe; or another process is fetching it.
    """
    receipt_file = root / RECEIPTS / f"{source.archive.name}.json"
    if source.remote and (earlier := _earlier(receipt_file, source, source.archive.sha256, root)):
        return earlier
    try:
        receipt_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(receipt_file.with_suffix(".lock"), timeout=0):
            return _fetch(source, root, receipt_file)
    except Timeout as error:
        raise DataError(
            f"another `mlbench data fetch` is writing {source.archive.name} to {root}; wait until "
            "it has ended and repeat the command, or name another folder with --root"
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror}; free space, give this user the right to "
            "read and write there, or name another folder with --root"
        ) from error


def _fetch(source: ArchiveSource, root: Path, receipt_file: Path) -> dict[str, Any]:
    archive = source.archive
    file = _download(source, receipt_file.parent) if source.remote else _local(source)
    try:
        digest = _check(source, file)
        receipt = _earlier(receipt_file, source, digest, root)
        if receipt is None:
            with progress_bar(f"unpacking {file.name}") as progress:
                top = unpack(file, root / archive.into, archive.unpacked_bytes, progress)
            receipt = {
                "archive": archive.name,
                "place": source.place,
                "sha256": digest,
                "bytes": file.stat().st_size,
                "into": archive.into,
                "top": top,
            }
            receipt_file.write_text(json.dumps(receipt, indent=1))
    except DataError:
        if source.remote:
            file.unlink(missing_ok=True)
        raise
    if source.remote:
        file.unlink()
    return receipt


def _earlier(
    receipt_file: Path, source: ArchiveSource, digest: str | None, root: Path
) -> dict[str, Any] | None:
    """The receipt of an earlier fetch of this archive, if what was unpacked is still there."""
    try:
        found: dict[str, Any] = json.loads(receipt_file.read_bytes())
    except (OSError, ValueError):
        return None
    wanted = ("place", source.place) if digest is None else ("sha256", digest)
    folder = root / source.archive.into
    if wanted in found.items() and all((folder / name).exists() for name in found["top"]):
        return found | {"again": True}
    return None


# ------------------------------------------------------------------------------------------ places
def _is_address(place: str) -> bool:
    scheme = urlsplit(place).scheme.lower()
    if "://" in place and scheme not in ("http", "https"):
        raise DataError(f"{place!r}: give a path, or an address that begins with http(s)://")
    return "://" in place


def _in_folder(archive: Archive, folder: Path) -> ArchiveSource:
    """The archive under the first of its names that exists; else under the official one."""
    there = (name for name in (archive.name, *archive.also) if (folder / name).exists())
    name = next(there, archive.name)
    return ArchiveSource(archive.model_copy(update={"name": name}), str(folder / name))


def _named(card: DatasetCard, text: str) -> ArchiveSource:
    place, _, given = text.partition("#sha256=")
    path = unquote(urlsplit(place).path) if _is_address(place) else Path(place).as_posix()
    name = PurePosixPath(path).name
    if not name or name == "..":
        raise DataError(f"--archive {text!r} names no file; write the path or address of one")
    fields: dict[str, Any] = {
        "name": name,
        "url": None,
        "unpacked_bytes": sum(a.unpacked_bytes for a in card.archives) or DEFAULT_LIMIT,
        "into": card.archives[0].into if card.archives else ".",
    }
    for archive in card.archives:
        if name in (archive.name, *archive.also):
            fields = archive.model_dump() | {"name": name}
    fields["sha256"] = fields.get("sha256") or given.lower() or None
    try:
        return ArchiveSource(Archive(**fields), place)
    except ValueError as error:
        raise DataError(f"#sha256={given} is no SHA-256; it has 64 hexadecimal digits") from error


# ------------------------------------------------------------------------------------ get and check
def _local(source: ArchiveSource) -> Path:
    file = Path(source.place)
    if not file.is_file():
        raise DataError(
            f"{file} is {'a folder' if file.is_dir() else 'missing'}; --archive names an archive, "
            f"whatever its name, --mirror a folder that holds {source.archive.name}"
        )
    return file


def _download(source: ArchiveSource, folder: Path) -> Path:
    archive, file = source.archive, folder / source.archive.name
    if archive.sha256 is None or not file.is_file():  # else an interrupted call has left it
        with progress_bar(f"fetching {archive.name}") as progress:
            download(source.place, file, archive.bytes, archive.unpacked_bytes * 2, progress)
    return file


def _check(source: ArchiveSource, file: Path) -> str:
    """Check a file's size and checksum, as far as the card has them; return its SHA-256."""
    archive, size = source.archive, file.stat().st_size
    remedy = "fetch it again, or name a file of another edition, under its own name, by --archive"
    if archive.bytes is not None and size != archive.bytes:
        raise DataError(
            f"{source.place} has {size:,} bytes, {archive.name} has {archive.bytes:,}; {remedy}"
        )
    with progress_bar(f"checking {file.name}"):
        digest = sha256(file)
    if archive.sha256 not in (None, digest):
        raise DataError(
            f"{source.place} is damaged or another file: its SHA-256 is {digest}, that of "
            f"{archive.name} is {archive.sha256}; {remedy}"
        )
    return digest
