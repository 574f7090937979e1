"""Doubts about a manifest, as texts without its name: what is allowed but may be a mistake."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlbench.text import shorten
from mlbench.types import Index, Split, Targets
from mlbench_plugins.datasets.manifest_listing import Listing

BLANKS = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "nil", "undefined"})
"""Words that programs write for a blank, in lower case."""


def about_names(names: Sequence[str]) -> Iterator[str]:
    """Labels that look alike, and labels that are words for a blank."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in names:
        spellings[_seen(name)].append(name)
    shown = {name: name if name.isascii() and "  " not in name else ascii(name) for name in names}
    several = (some for some in spellings.values() if len(some) > 1)
    alike = ["/".join(shown[name] for name in some) for some in several]
    if alike:
        yield (
            "labels that differ only in case, blanks, hyphens or signs that are not seen, and "
            f"count as several: {shorten(alike)}; write each in one way"
        )
    if blanks := [name for name in names if name.casefold() in BLANKS]:
        yield (
            f"{shorten([repr(name) for name in blanks])} is taken for the name of a label; if it "
            "stands for no label, leave the cell blank"
        )


def _seen(name: str) -> str:
    """A name as a reader sees it."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return re.sub(r"[\s_-]+", " ", text).strip().casefold()


def about_copies(keys: Sequence[str], copies: Sequence[int], targets_NC: Targets) -> Iterator[str]:
    """Files with equal bytes and contrary labels: a label is both present and absent."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, copy in enumerate(copies):
        rows[copy].append(row)
    odd, sets = [], set()
    for same in rows.values():
        some_NC = targets_NC[same]
        if ((some_NC == 1).any(axis=0) & (some_NC == 0).any(axis=0)).any():
            odd += [keys[row] for row in same]
            sets |= {row.tobytes() for row in some_NC}
    if odd:
        yield (
            f"{len(odd):,} pictures are byte for byte the same as others and have {len(sets):,} "
            f"different label sets: {shorten(odd)}; keep one of each, with the right labels, and "
            "none that stands for a picture that is gone"
        )


def about_leaks(
    listing: Listing,
    keys: Sequence[str],
    copies: Sequence[int],
    parts: Mapping[Split, NDArray[np.bool_]],
) -> Iterator[str]:
    """Pictures on both sides of the user's own split, which is kept."""
    for what, groups in (
        ("pictures of the test split are byte for byte in train, too", copies),
        ("pictures of the test split have others of their group in train", listing.groups),
    ):
        if groups is None:
            continue
        trained = {g for g, here in zip(groups, parts["train"], strict=True) if here}
        shared = [
            key
            for key, group, here in zip(keys, groups, parts["test"], strict=True)
            if here and group is not None and group in trained
        ]
        if shared:
            yield f"{len(shared)} {what}: {shorten(shared)}"


def about_states(indices: Mapping[Split, Index], names: Sequence[str]) -> Iterator[str]:
    """Labels that a split cannot teach or score."""
    effects: tuple[tuple[Split, int, str, str], ...] = (
        ("train", 1, "positive", "they cannot be learnt"),
        ("train", 0, "negative", "they would be predicted everywhere"),
        ("test", 1, "positive", "they are left out of mAP"),
        ("test", 0, "negative", "they are left out of mAP"),
    )
    for split, state, what, effect in effects:
        has_C = (indices[split].targets == state).any(axis=0)
        lacking = [name for name, has in zip(names, has_C, strict=True) if not has]
        if lacking:
            yield f"labels without a {what} in {split}: {shorten(lacking)}: {effect}"
