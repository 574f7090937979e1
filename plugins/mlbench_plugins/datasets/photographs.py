"""What the data sets of photographs share: their tuning, their folders, lists and faults."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlbench.types import DataError

FINE_TUNING: dict[str, Any] = {
    "backbone": "resnet101",
    "image_size": 448,
    "epochs": 20,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 1e-4},
    "schedule": {"name": "one_cycle"},
    "augmentation": [
        {"name": "random_resized_crop", "options": {"scale": [0.7, 1.0]}},
        {"name": "flip"},
    ],
}
"""Settings of the controlled track, the same for every method (see ``DatasetCard.budget``)."""


def locate(root: Path | None, places: Iterable[str], sign: str | Sequence[str], what: str) -> Path:
    """The first of ``places`` under ``root`` that holds ``sign`` (a relative path).

    Args:
        root: the folder that ``--data`` names, None if it was not given.
        places: relative paths of folders, likeliest first.
        sign: a path inside the right folder by which it is known, or several, any of which will do.
        what: what is looked for and where it can be had, for the error.

    Raises:
        DataError: no folder was named, none of the places holds the sign, or one is locked.
    """
    if root is None:
        raise DataError(f"{what}: no folder was given; name the one that holds it with --data DIR")
    folders = [root / place for place in places]
    signs = [sign] if isinstance(sign, str) else sign
    for folder in folders:
        if any(there(folder / one) for one in signs):
            return folder
    others = " or the like" if len(signs) > 1 else ""
    looked = "\n  ".join(f"{folder / signs[0]}{others}" for folder in folders)
    raise DataError(
        f"{what}: not found under {root}; name the folder that holds it with --data DIR. "
        f"Looked for\n  {looked}"
    )


def there(path: Path) -> bool:
    """Whether a file or folder is there.

    Raises:
        DataError: this cannot be told, for want of permission.
    """
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether a file is there; unlike ``Path.is_file`` it never guesses (see ``there``)."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; unlike ``Path.is_dir`` it never guesses (see ``there``)."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: Path) -> int | None:
    """Kind and rights of what is there, None for nothing."""
    try:
        return path.stat().st_mode
    except ValueError:  # a name that no file can have
        return None
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise DataError(
            f"{path} cannot be looked for ({error.strerror}); give this user the right to read "
            "the folders above it"
        ) from error


_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)


def unreadable(path: Path, error: OSError, verb: str = "read") -> DataError:
    """What to say of a file or folder that is there and cannot be read (or listed)."""
    if isinstance(error, PermissionError):
        remedy = "give this user the right to read it"
    else:
        remedy = "copy it here again, or to another disk"
    return DataError(f"{path} cannot be {verb} ({error.strerror or error}); {remedy}")


def choose(dataset: str, option: str, value: object, known: Iterable[object]) -> None:
    """Refuse a value that the option of a data set does not know.

    Raises:
        DataError: naming what there is.
    """
    names = tuple(known)
    if value not in names:
        raise DataError(
            f"{dataset} has no {option}={value!r}; choose from {', '.join(map(str, names))}"
        )


def read_lines(file: Path, remedy: str) -> list[str]:
    """The lines of a list, at least one; line ends of any system and empty last lines go.

    Args:
        file: a text file.
        remedy: what to do where it is missing or damaged.

    Raises:
        DataError: it is missing, cannot be read, is no UTF-8 or holds nothing.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file} is missing; {remedy}") from None
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error}); {remedy}") from error
    if not text.strip():
        raise DataError(f"{file} is empty; {remedy}")
    # Not splitlines(), which would also cut names at Unicode's rarer line separators.
    return text.rstrip("\n").split("\n")


def refuse_shared(train: Sequence[str], test: Sequence[str], remedy: str) -> None:
    """Refuse keys of two splits that have an image in common.

    Raises:
        DataError: naming the first such image.
    """
    held = set(train)
    shared = [key for key in test if key in held]
    if shared:
        raise DataError(
            f"{len(shared)} images stand in both splits, the first is {shared[0]!r}; {remedy}"
        )
