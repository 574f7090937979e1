"""Download one large file over HTTP; an interrupted download resumes."""

from __future__ import annotations

import json
import re
import time
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mlbench.types import DataError
from mlbench_tools.fetch.unpack import OnProgress

TRIES = 3
"""Give up after this many attempts in a row that brought nothing new."""
PAUSE_S = 1.0
"""The pause between such attempts; it grows with each one."""
TIMEOUT_S = 30.0
_CHUNK = 1 << 18


def download(
    url: str, target: Path, size: int | None, limit: int, progress: OnProgress | None = None
) -> None:
    """Download ``url`` to ``target``, by way of ``<target>.part``, which a later call continues.

    Args:
        url: http or https.
        target: the file to make; its folder must exist.
        size: the exact size in bytes, None if it is not known.
        limit: the largest acceptable size in bytes.
        progress: receives the bytes that have arrived.

    Raises:
        DataError: the server refuses, sends a file of another size, or does not answer. What has
            arrived is kept.
        OSError: the file cannot be written.
    """
    part = _PartialFile(url, target)
    stalled, most = 0, part.size()
    while problem := _attempt(part, size, limit, progress):
        # Compare with the most so far: some servers start from the beginning every time.
        stalled = 0 if part.size() > most else stalled + 1
        most = max(most, part.size())
        if stalled == TRIES:
            raise DataError(
                f"{url}: {problem}, {part.size():,} bytes are here; the same command "
                "resumes from there, or name another place with --mirror"
            )
        time.sleep(PAUSE_S * stalled)
    part.content.replace(target)
    part.discard()


class _PartialFile:
    """The first bytes of a file; a second file says which file of the server they belong to."""

    def __init__(self, url: str, target: Path) -> None:
        self.url = url
        self.content = target.with_name(target.name + ".part")
        self._origin = target.with_name(target.name + ".part.json")

    def size(self) -> int:
        return self.content.stat().st_size if self.content.exists() else 0

    def origin(self) -> dict[str, Any] | None:
        """Total size and validator of the file, if these bytes came from this address."""
        try:
            found = json.loads(self._origin.read_bytes())
        except (OSError, ValueError):
            return None
        whole = isinstance(found, dict) and found.keys() >= {"url", "total", "validator"}
        return found if whole and found["url"] == self.url and self.size() else None

    def start(self, total: int | None, headers: Message) -> None:
        """Drop what is here and note where the new bytes come from."""
        self.discard()
        tag = headers.get("ETag", "")
        validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        origin = {"url": self.url, "total": total, "validator": validator}
        self._origin.write_text(json.dumps(origin))

    def discard(self) -> None:
        self.content.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)


def _attempt(
    part: _PartialFile, size: int | None, limit: int, progress: OnProgress | None
) -> str | None:
    """Continue the download; return why the file is incomplete, or None if it is complete."""
    origin = part.origin()
    try:
        answer = urlopen(_request(part, origin), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416:  # nothing follows what is here, so it belongs to another file
            part.discard()
        elif error.code < 500 and error.code not in (408, 429):
            raise DataError(
                f"{part.url}: the server answers {error.code} {error.reason}; name another place "
                "with --mirror, or files with --archive"
            ) from error
        return f"the server answers {error.code} {error.reason}"
    except ValueError as error:
        raise DataError(
            f"{part.url!r} is not an address ({error}); write https://HOST/FILE"
        ) from error
    except (OSError, HTTPException) as error:
        return f"the connection failed ({error})"
    with answer:
        start, total = _extent(answer)
        if start and (origin is None or (start, total) != (part.size(), origin["total"])):
            part.discard()
            return "the file has changed on the server"
        _check_size(part.url, total, size, limit)
        if not start:
            part.start(total, answer.headers)
        return _append(answer, part, total, limit, progress)


def _request(part: _PartialFile, origin: dict[str, Any] | None) -> Request:
    headers = {"User-Agent": "mlbench", "Accept-Encoding": "identity"}
    if origin is not None:
        headers["Range"] = f"bytes={part.size()}-"
        if origin["validator"]:
            headers["If-Range"] = origin["validator"]
    return Request(part.url, headers=headers)


def _extent(answer: HTTPResponse) -> tuple[int, int | None]:
    """The position of an answer's first byte, and the size of the whole file."""
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if answer.status == 206 and given:
        return int(given[1]), int(given[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _check_size(url: str, total: int | None, size: int | None, limit: int) -> None:
    if total is not None and (total > limit or (size is not None and total != size)):
        wanted = f"{size:,}" if size is not None else f"at most {limit:,}"
        raise DataError(
            f"{url} has {total:,} bytes instead of {wanted}: it is another file; name another "
            "place with --mirror, or another edition's file with --archive"
        )


def _append(
    answer: HTTPResponse,
    part: _PartialFile,
    total: int | None,
    limit: int,
    progress: OnProgress | None,
) -> str | None:
    """Append what the server sends; return why the file is incomplete, or None if complete."""
    received = part.size()
    with part.content.open("ab") as file:
        while True:
            try:
                chunk = answer.read(_CHUNK)
            except (OSError, HTTPException) as error:
                return f"the connection failed ({error})"
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            if received > limit:
                raise DataError(f"{part.url}: more than {limit:,} bytes; stopped")
            if progress is not None:
                progress(received, total)
    if total is None or received == total:
        return None
    return f"cut off after {received:,} of {total:,} bytes"
