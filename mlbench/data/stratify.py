"""Hold parts out of a training split; the images of a group stay together.

The validation part is fixed, published, and has every label in proportion. It depends on keys and
labels alone, and not on seeds, the order of files, or floating-point arithmetic.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Dataset, Index, SuiteError, Targets

ONE_IN = 5
"""The validation part is one in this many images ..."""
MOST = 5000
"""... but at most this many, as in COCO's validation split. More would cost training images and
hours of evaluation without comparing epochs better."""


def held_out(images: int) -> int:
    """The size of the validation part of a training split."""
    return min(images // ONE_IN, MOST)


def validation_keys(dataset: Dataset, train: Index, identity: str) -> list[str]:
    """Keys of the training images that are split off for validation, sorted.

    If the data set names keys (``Dataset.validation_keys``), these are used; else ``stratify``
    chooses from the whole training split, with all labels.

    Raises:
        DataError: the list has none or all of train, or differs from the published list.
    """
    named = dataset.validation_keys()
    if named is None:
        size, groups = held_out(len(train)), dataset.train_groups()
        chosen = stratify(train.keys, train.targets, size, groups)
        named = [train.keys[i] for i in np.flatnonzero(chosen).tolist()]
    keys = sorted(set(named).intersection(train.keys))
    if not 0 < len(keys) < len(train):
        raise DataError(
            f"{identity}: the validation split would take {len(keys)} of {len(train)} training "
            "images, which leaves nothing to validate or to train on; use --set selection=last"
        )
    published, found = dataset.card.validation.get(identity), list_digest(keys)
    if published not in (None, found):
        raise DataError(
            f"the validation split of {identity} has the digest {found}, but the published list "
            f"has {published}, so scores would not compare. Use the data set and the mlbench that "
            "belong together, or --set selection=last"
        )
    return keys


def hold_out(
    dataset: Dataset, index: Index, share: float, fold: int, validation: bool
) -> tuple[Index, Index]:
    """Split by a hash of the group, whatever the order and number of images.

    The validation part is chosen by the same hash; with ``validation``, a salted hash decides, so
    that every fold leaves most of that part.

    Raises:
        SuiteError: there is no such fold, or a side is empty.
    """
    if not 0 < (fold + 1) * share <= 1:
        raise SuiteError(
            f"holdout {share:g} has no fold {fold} (the first is 0); for N folds, give holdout 1/N"
        )
    names = index.keys if (groups := dataset.train_groups()) is None else groups
    salt = "holdout " if validation else ""
    digests = (hashlib.sha256(f"{salt}{name}".encode()).digest() for name in names)
    draws = [int.from_bytes(digest[:4]) / 2**32 for digest in digests]
    rest, held = index.partition([fold * share <= draw < (fold + 1) * share for draw in draws])
    if not len(rest) or not len(held):
        raise SuiteError(
            f"holdout {share:g} (fold {fold}) of {len(index)} images leaves nothing on one side"
        )
    return rest, held


def groups_of(dataset: Dataset, keys: Sequence[str]) -> dict[str, str]:
    """Key -> group, for the images of train that share their group with others."""
    names = dataset.train_groups() or ()
    sizes = Counter(names)
    return {key: name for key, name in zip(keys, names, strict=False) if sizes[name] > 1}


def stratify(
    keys: Sequence[str], targets: Targets, held: int, groups: Sequence[str] | None = None
) -> NDArray[np.bool_]:
    """Choose about ``held`` images so that every label has its share of positives among them.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, algorithm 1) into
    two parts: the label with the fewest unplaced positives comes first, and each of its images goes
    to the part where that label lacks most. Images are not taken at random but in the order of a
    hash of their keys, and a tie that the number of images does not settle goes to train. Beyond
    the paper, the images of a group stay together, and a label with two or more groups gets at
    least one on either side: if earlier labels used up its images, one group is moved, unless
    another label would lose its last.

    Args:
        keys: N unique keys.
        targets: int8 [N, C]; only 1 is a positive.
        held: number of images to choose, below N.
        groups: N names; images with one name stay together. None: each image is its own group.

    Returns:
        bool [N], True for the images of the validation part.
    """
    members = _members(keys, groups)
    present_NC = np.asarray(targets) == 1
    owner_N = np.empty(len(keys), np.int64)
    for group, images in enumerate(members):
        owner_N[images] = group
    counts_GC = np.zeros((len(members), present_NC.shape[1]), np.int32)
    np.add.at(counts_GC, owner_N, present_NC)
    sizes = [len(images) for images in members]
    side_G = _spread(counts_GC > 0, _distribute(counts_GC, sizes, held))
    chosen_N: NDArray[np.bool_] = (side_G == 1)[owner_N]
    return chosen_N


def _members(keys: Sequence[str], groups: Sequence[str] | None) -> list[list[int]]:
    """Positions of the images of each group; groups are ordered by a hash of their smallest key."""
    together: dict[str, list[int]] = {}
    for i, group in enumerate(keys if groups is None else groups):
        together.setdefault(group, []).append(i)
    first = {min(keys[i] for i in images): images for images in together.values()}
    return [first[key] for key in sorted(first, key=lambda k: hashlib.sha256(k.encode()).digest())]


def _distribute(counts_GC: NDArray[np.int32], sizes: Sequence[int], held: int) -> NDArray[np.int8]:
    """The side of every group, 0 train or 1 validation, before ``_spread``."""
    n, left_C = sum(sizes), counts_GC.sum(axis=0)
    mine = [[(c, int(row[c])) for c in np.flatnonzero(row).tolist()] for row in counts_GC]
    # What a side still needs of a label, in n-ths of an image so that all are integers.
    held_C, several_C = left_C * held, (counts_GC > 0).sum(axis=0) >= 2
    held_C = np.where(several_C, held_C.clip(n, (left_C - 1) * n), held_C)
    wants = np.stack([left_C * n - held_C, held_C], axis=1).tolist()
    total = [n * (n - held), n * held]
    side = np.full(len(sizes), -1, np.int8)

    def place(group: int, lacking: Sequence[int]) -> None:
        to = int((lacking[1], total[1]) > (lacking[0], total[0]))
        side[group] = to
        total[to] -= n * sizes[group]
        for label, positives in mine[group]:
            wants[label][to] -= n * positives

    while left_C.any():
        label = int(np.argmin(np.where(left_C > 0, left_C, n + 1)))
        groups = np.flatnonzero((counts_GC[:, label] > 0) & (side < 0))
        for group in groups.tolist():
            place(group, wants[label])
        left_C = left_C - counts_GC[groups].sum(axis=0)
    for group in np.flatnonzero(side < 0).tolist():
        place(group, total)
    return side


def _spread(present_GC: NDArray[np.bool_], side_G: NDArray[np.int8]) -> NDArray[np.int8]:
    """Move single groups to the side where one of their labels has no positive."""
    counts = np.stack([present_GC[side_G == side].sum(axis=0) for side in (0, 1)])
    several_C = counts.sum(axis=0) >= 2
    for lacking, other in ((0, 1), (1, 0)):
        for label in np.flatnonzero((counts[lacking] == 0) & several_C).tolist():
            if counts[lacking, label]:  # a group that was moved for another label brought it
                continue
            for group in np.flatnonzero(present_GC[:, label] & (side_G == other)).tolist():
                mine = present_GC[group]
                if (counts[other, mine & several_C] > 1).all():
                    side_G[group] = lacking
                    counts[lacking, mine] += 1
                    counts[other, mine] -= 1
                    break
    return side_G


def list_text(keys: Sequence[str]) -> str:
    """The published form of a list of keys: sorted by code point, one per line."""
    return "".join(f"{key}\n" for key in sorted(keys))


def list_digest(keys: Sequence[str]) -> str:
    """SHA-256 of the published list in UTF-8, as ``sha256sum`` prints it."""
    return hashlib.sha256(list_text(keys).encode()).hexdigest()
