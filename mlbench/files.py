"""Atomic writes, digests, names that every file system takes, endings of pictures, and YAML."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

_LOG = logging.getLogger(__name__)

ABANDONED = 86_400
"""Age in seconds at which a temporary file belongs to no process."""

HEIF = frozenset({".heic", ".heif", ".hif"})
_NO_PHOTOGRAPHS = ".mpg .mpeg .h5 .hdf .bufr .grib .eps .ps .wmf .emf .fit .fits .iim .im .ico .cur"
"""Endings that Pillow knows, of films, vector graphics, measurements and icons."""


def safe_name(name: str) -> str:
    """A file name for any text: ``timm:resnet26`` -> ``timm%3Aresnet26``. No two share one."""
    quoted = quote(name, safe=" +,=@")
    quoted = quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted or "%"
    return cut_name(quoted, 255)


def cut_name(name: str, longest: int = 200) -> str:
    """A name with at most this many bytes; if it has more, a digest replaces its end.

    File systems take 255, and encrypted ones less.
    """
    whole = name.encode()
    if len(whole) <= longest:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:12]
    return f"{whole[: longest - 13].decode(errors='ignore')}~{digest}"


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_digest(*modules: str) -> str:
    """The SHA-256 of the source files of modules and whole packages, with their places in them."""
    state = hashlib.sha256()
    for name in sorted(modules):
        for place, file in sorted(source_files(name)):
            state.update(f"{name} {place}\0".encode() + file.read_bytes() + b"\0")
    return state.hexdigest()


def source_files(module: str) -> Iterator[tuple[str, Path]]:
    """The source files of a module or package, each with its place in the package."""
    found = importlib.util.find_spec(module)
    if found is None:
        return
    if found.submodule_search_locations is None:
        yield "", Path(str(found.origin))
        return
    for folder in map(Path, found.submodule_search_locations):
        for file in folder.rglob("*.py"):
            yield file.relative_to(folder).as_posix(), file


@functools.cache
def picture_endings() -> frozenset[str]:
    """Endings of the image files that are decoded here, in lower case."""
    with suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found]

        pillow_heif.register_heif_opener()
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(e for e, form in known.items() if form in Image.OPEN).difference(
        _NO_PHOTOGRAPHS.split()
    )


def is_picture(file: Path) -> bool:
    """True for the name of an image file; a file without a usual ending is opened to find out."""
    from PIL import Image

    ending = file.suffix.lower()
    if ending in picture_endings() or re.fullmatch(r"\.[a-z][a-z\d]{0,4}", ending):
        return ending in picture_endings()
    try:
        with Image.open(file):
            return True
    except (OSError, ValueError, SyntaxError):
        return False


def read_yaml(file: Path) -> Any:
    """The content of a YAML file in UTF-8, read by libyaml where it is available.

    Raises:
        OSError: the file cannot be read.
        YAMLError: the file is not YAML.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(file.read_text(encoding="utf-8"), loader)


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to ``file`` when the block ends without error.

    A reader sees the old file or the new one, never a part, even if several processes write it.
    The folder is created. If the block fails, nothing is left behind.

    Raises:
        OSError: the folder cannot be created, or the file cannot be renamed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{uuid4().hex[:12]}.tmp")
    try:
        yield part
        part.replace(file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def sweep(leftovers: Iterable[Path]) -> None:
    """Delete files and folders unchanged for a day, which interrupted processes left."""
    for path in leftovers:
        with suppress(OSError):
            newest = max(file.stat().st_mtime for file in (path, *path.rglob("*")))
            if time.time() - newest < ABANDONED:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_checked(file: Path, content: bytes) -> None:
    """Write a small file of the cache, atomically and with its SHA-256 in front.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(file) as part:
        part.write_bytes(hashlib.sha256(content).digest() + content)


def read_checked(file: Path) -> bytes | None:
    """Read a file of ``write_checked``; None if it cannot be read or is damaged (then logged)."""
    try:
        stored = file.read_bytes()
    except OSError:
        return None
    content = stored[32:]
    if stored[:32] != hashlib.sha256(content).digest():
        _LOG.warning("%s is damaged; making it again", file)
        return None
    return content


def write_together(contents: Sequence[tuple[Path, bytes]]) -> None:
    """Flush all files to disk, then rename them in this order.

    Raises:
        OSError: a file cannot be written; none got its name.
    """
    with ExitStack() as stack:  # exits its files in reverse order
        parts = [
            (stack.enter_context(atomic_write(file)), data) for file, data in reversed(contents)
        ]
        for part, data in parts:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())


def rescue(contents: Sequence[tuple[Path, bytes]], root: Path, run_id: str, error: OSError) -> str:
    """Save elsewhere a result that could not be written below ``root``; return the message."""
    folder = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    place = Path(tempfile.gettempdir()) / f"mlbench-rescue-{folder}-{run_id}"
    what = (
        f"{error.filename or contents[-1][0]}: the result of run {run_id} could not be written "
        f"({error.strerror or error})"
    )
    try:
        write_together([(place / file.relative_to(root), data) for file, data in contents])
    except OSError as second:
        return f"{what}, nor could it be saved in {place} ({second.strerror}); it is lost"
    return (
        f"{what}. It was saved in {place} instead. Make room in {root} or give write "
        f"permission, then put it back with: cp -r {shlex.quote(f'{place}/records')} "
        f"{shlex.quote(str(root))}/"
    )
