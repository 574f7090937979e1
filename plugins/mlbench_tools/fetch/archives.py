"""A data set's archives: from the official place, a mirror or files named outright, to a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from mlbench.types import Archive, DataError, DatasetCard
from mlbench_tools.fetch.download import download
from mlbench_tools.fetch.unpack import Count, remove_empty, unpack

Watch = Callable[[str], AbstractContextManager[Count]]
"""Opens a progress display under a title."""

RECEIPTS = ".mlbench"
"""Folder in the root that says what was unpacked, so that it is not fetched again."""
DEFAULT_LIMIT = 32 << 30
"""Bytes that may come out of an archive of a data set whose card lists none."""


class Source(NamedTuple):
    """An archive and where it is taken from: an http(s) address, or a path."""

    archive: Archive
    place: str

    @property
    def remote(self) -> bool:
        """Whether it comes over the network."""
        return _remote(self.place)


def sources(card: DatasetCard, mirror: str | None, named: Sequence[str]) -> list[Source]:
    """Where each archive of a data set is taken from.

    Args:
        card: the data set's.
        mirror: a folder or address that holds the archives under their official names.
        named: files or addresses to take instead, whatever their names; ``#sha256=HEX`` at the
            end of one is checked. One with an official name must be the official file.

    Returns:
        Nothing where no place is known: then ``card.steps`` says what a person must do.

    Raises:
        DataError: an address or a checksum is malformed.
    """
    if named:
        return [_named(card, text) for text in named]
    if mirror is not None:
        if _remote(mirror):
            base = mirror.rstrip("/")
            return [Source(archive, f"{base}/{archive.name}") for archive in card.archives]
        return [Source(archive, str(Path(mirror) / archive.name)) for archive in card.archives]
    if any(archive.url is None for archive in card.archives):
        return []
    return [Source(archive, str(archive.url)) for archive in card.archives]


def fetch(source: Source, root: Path, watch: Watch) -> dict[str, Any]:
    """Bring one archive, check it, unpack it in ``root``; once, however often it is asked for.

    A downloaded archive is removed when it is unpacked, and when it is not what it should be; a
    file of the user's stays.

    Returns:
        The receipt: name, place, sha256, bytes, the folder it went to, its topmost names, and
        ``"again": True`` where it was there already.

    Raises:
        DataError: it cannot be had, is not the file that the card describes, or is unsafe.
    """
    try:
        made = [path for path in (root / RECEIPTS, root, *root.parents) if not path.exists()]
        try:
            return _fetch(source, root, watch)
        finally:
            remove_empty(made)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror}; give this user the right to read and "
            "write there, or name another folder with --root"
        ) from error


def _fetch(source: Source, root: Path, watch: Watch) -> dict[str, Any]:
    kept = root / RECEIPTS / f"{source.archive.name}.json"
    earlier = _recall(kept)
    if source.remote and earlier and _serves(earlier, source, source.archive.sha256, root):
        return earlier | {"again": True}
    file = _brought(source, kept.parent, watch)
    try:
        sha256 = _checked(source, file, watch)
        if earlier and _serves(earlier, source, sha256, root):
            return earlier | {"again": True}
        into = root / source.archive.into
        with watch(f"unpacking {file.name}") as progress:
            top = unpack(file, into, source.archive.unpacked_bytes, progress)
        receipt = {
            "archive": source.archive.name,
            "place": source.place,
            "sha256": sha256,
            "bytes": file.stat().st_size,
            "into": source.archive.into,
            "top": top,
        }
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(receipt, indent=1))
    except DataError as error:
        # A full disk is no fault of a file that took hours to come.
        if source.remote and getattr(error.__cause__, "errno", None) is None:
            file.unlink(missing_ok=True)
        raise
    if source.remote:
        file.unlink()
    return receipt


# ------------------------------------------------------------------------------------------ places
def _remote(place: str) -> bool:
    scheme = urlsplit(place).scheme.lower()
    if "://" in place and scheme not in ("http", "https"):
        raise DataError(f"{place!r}: only http:// and https:// can be fetched, or a path")
    return "://" in place


def _named(card: DatasetCard, text: str) -> Source:
    place, _, given = text.partition("#sha256=")
    path = unquote(urlsplit(place).path) if _remote(place) else Path(place).as_posix()
    name = PurePosixPath(path).name
    if not name or name == "..":
        raise DataError(f"--archive {text!r} names no file; write a path or an address of one")
    fields: dict[str, Any] = {
        "name": name,
        "url": None,
        "unpacked_bytes": sum(a.unpacked_bytes for a in card.archives) or DEFAULT_LIMIT,
        "into": card.archives[0].into if card.archives else ".",
    }
    for archive in card.archives:
        if archive.name == name:
            fields = archive.model_dump()
    fields["sha256"] = fields.get("sha256") or given.lower() or None
    try:
        return Source(Archive(**fields), place)
    except ValueError as error:
        raise DataError(f"#sha256={given} is no SHA-256; it has 64 hexadecimal digits") from error


# ----------------------------------------------------------------------------------------- receipts
def _recall(kept: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _serves(earlier: dict[str, Any], source: Source, sha256: str | None, root: Path) -> bool:
    """Whether what was unpacked is this archive, and is still there."""
    if sha256 is None:
        same = earlier.get("place") == source.place
    else:
        same = earlier.get("sha256") == sha256
    top = earlier.get("top", [])
    return same and all((root / source.archive.into / name).exists() for name in top)


# --------------------------------------------------------------------------------- bring and check
def _brought(source: Source, folder: Path, watch: Watch) -> Path:
    """The archive as a file of this machine."""
    archive = source.archive
    if not source.remote:
        file = Path(source.place)
        if file.is_dir():
            raise DataError(
                f"{file} is a folder; --archive names an archive in it, --mirror a folder that "
                f"holds {archive.name}"
            )
        if not file.is_file():
            raise DataError(
                f"{file} is missing; --mirror names a folder that holds {archive.name}, --archive "
                "a file of any name"
            )
        return file
    file = folder / archive.name
    if archive.sha256 is not None and file.is_file():  # left by a call that was interrupted
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be made ({error.strerror}); name another folder with --root"
        ) from error
    with watch(f"fetching {archive.name}") as progress:
        download(source.place, file, archive.bytes, archive.unpacked_bytes * 2, progress)
    return file


def _checked(source: Source, file: Path, watch: Watch) -> str:
    """The SHA-256 of the file, which is the card's where that has one."""
    archive, size = source.archive, file.stat().st_size
    remedy = "fetch it again, or name a file of another edition, under its own name, by --archive"
    if archive.bytes is not None and size != archive.bytes:
        raise DataError(
            f"{source.place} has {size:,} bytes, {archive.name} has {archive.bytes:,}; {remedy}"
        )
    state, done = hashlib.sha256(), 0
    with watch(f"checking {file.name}") as progress, file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            state.update(chunk)
            done += len(chunk)
            progress(done, size)
    if archive.sha256 not in (None, state.hexdigest()):
        raise DataError(
            f"{source.place} is damaged or another file: its SHA-256 is {state.hexdigest()}, that "
            f"of {archive.name} is {archive.sha256}; {remedy}"
        )
    return state.hexdigest()
