"""Files that are whole or not there, and names that every file system takes."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote


def safe_name(name: str) -> str:
    """A file name for any text: ``timm:resnet26`` -> ``timm%3Aresnet26``. No two share one."""
    quoted = quote(name, safe=" +,=@")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted or "%"


def temporary(file: Path) -> Path:
    """The name, beside a file, of what this process has not finished of it."""
    return file.with_name(f".{file.name}.{safe_name(platform.node())}-{os.getpid()}.tmp")


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to, which gets the file's name when the block has ended well.

    Whoever reads the file finds all of it, or what was there before, however many processes write
    it. Its folder is made; a block that fails leaves nothing.

    Raises:
        OSError: the folder cannot be made, or the file cannot get its name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(file)
    try:
        yield part
        part.replace(file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
