"""One large file over HTTP: cut downloads go on where they stopped."""

from __future__ import annotations

import itertools
import json
import re
import time
from email.message import Message
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mlbench.types import DataError
from mlbench_tools.fetch.unpack import Count

TRIES = 3
"""So many attempts in a row may bring nothing that is not here yet before we give up."""
PAUSE_S = 1.0
"""Between such attempts, a little longer each time."""
TIMEOUT_S = 30.0
_CHUNK = 1 << 18


def download(
    url: str, target: Path, size: int | None, limit: int, progress: Count | None = None
) -> None:
    """Bring ``url`` to ``target``, by way of ``<target>.part``, which a later call goes on with.

    Args:
        url: http or https.
        target: the file to make; its folder must be there.
        size: bytes that it must have, None where that is not known.
        limit: bytes that are too many whatever the server says.
        progress: told the bytes that are there.

    Raises:
        DataError: the server refuses, sends a file of another size, or stays away; the disk is
            full. What came so far is kept.
    """
    part = _Part(target)
    idle, most = 0, part.held()
    while True:
        reason = _attempt(url, part, size, limit, progress)
        if reason is None:
            break
        # Against the most there ever was, or a server that starts anew each time is asked for ever.
        idle = 0 if part.held() > most else idle + 1
        most = max(most, part.held())
        if idle == TRIES:
            raise DataError(
                f"{url}: {reason}, {part.held():,} bytes are here; the same command goes on from "
                "there, or name another place with --mirror"
            )
        time.sleep(PAUSE_S * idle)
    part.finish()


class _Part:
    """What is here of a file, and of which file."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.file = target.with_name(target.name + ".part")
        self.origin = target.with_name(target.name + ".part.json")

    def held(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def known(self, url: str) -> dict[str, Any] | None:
        """Total and validator of what is here, if it came from this place."""
        try:
            found = json.loads(self.origin.read_bytes())
        except (OSError, ValueError):
            return None
        same = isinstance(found, dict) and found.get("url") == url and self.held() > 0
        return found if same else None

    def remember(self, url: str, total: int | None, headers: Message) -> None:
        tag = headers.get("ETag", "")
        validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        plain = {"url": url, "total": total, "validator": validator}
        self.origin.write_text(json.dumps(plain))

    def forget(self) -> None:
        self.file.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    def finish(self) -> None:
        self.file.replace(self.target)
        self.origin.unlink(missing_ok=True)


def _attempt(
    url: str, part: _Part, size: int | None, limit: int, progress: Count | None
) -> str | None:
    """Go on with the file; why it did not come to its end, None if it did."""
    known = part.known(url)
    try:
        with urlopen(_request(url, part.held(), known), timeout=TIMEOUT_S) as answer:
            start, total = _extent(answer.status, answer.headers)
            if start and (known is None or start != part.held() or total != known["total"]):
                part.forget()
                return "the file has changed on the server"
            _refuse_size(url, total, size, limit)
            first = answer.read(_CHUNK)
            if not first:  # what is here is worth more than an answer without a body
                return "the server sent nothing"
            if not start:
                part.remember(url, total, answer.headers)
            held = _copy(_Answer(first, answer, start, total), part, limit, progress)
    except HTTPError as error:
        if error.code == 416:  # nothing follows what is here: that was another file
            part.forget()
        elif error.code < 500 and error.code not in (408, 429):
            raise DataError(
                f"{url}: the server answers {error.code} {error.reason}; name another place with "
                "--mirror, or files with --archive"
            ) from error
        return f"the server answers {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        return f"the connection failed ({error})"
    except ValueError as error:
        raise DataError(f"{url!r} is no address ({error}); write https://HOST/FILE") from error
    return None if total is None or held == total else f"cut off after {held:,} of {total:,} bytes"


def _request(url: str, held: int, known: dict[str, Any] | None) -> Request:
    headers = {"User-Agent": "mlbench", "Accept-Encoding": "identity"}
    if known is not None:
        headers["Range"] = f"bytes={held}-"
        if known.get("validator"):
            headers["If-Range"] = known["validator"]
    return Request(url, headers=headers)


def _extent(status: int, headers: Message) -> tuple[int, int | None]:
    """Where the bytes of an answer start, and how many the whole file has."""
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if status == 206 and given:
        return int(given[1]), int(given[2])
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _refuse_size(url: str, total: int | None, size: int | None, limit: int) -> None:
    if total is not None and (total > limit or (size is not None and total != size)):
        wanted = f"{size:,}" if size is not None else f"at most {limit:,}"
        raise DataError(
            f"{url} has {total:,} bytes instead of {wanted}: it is another file; name another "
            "place with --mirror, or another edition's file with --archive"
        )


class _Answer(NamedTuple):
    """What a server sends: the first bytes and the rest, where they start, and the file's size."""

    first: bytes
    rest: IO[bytes]
    start: int
    total: int | None


def _copy(answer: _Answer, part: _Part, limit: int, progress: Count | None) -> int:
    """Append what a server sends; the bytes that are here then."""
    held = answer.start
    with _written(part, "ab" if answer.start else "wb") as target:
        for chunk in itertools.chain([answer.first], iter(partial(answer.rest.read, _CHUNK), b"")):
            held += len(chunk)
            if held > limit:
                raise DataError(f"{part.target.name}: more than {limit:,} bytes came; stopped")
            try:
                target.write(chunk)
            except OSError as error:
                raise _full(part, error) from error
            if progress is not None:
                progress(held, answer.total)
    return held


def _written(part: _Part, mode: str) -> IO[bytes]:
    try:
        return part.file.open(mode, buffering=0)
    except OSError as error:
        raise _full(part, error) from error


def _full(part: _Part, error: OSError) -> DataError:
    return DataError(
        f"{part.file} cannot be written ({error.strerror}); free space, or name another --root"
    )
