"""What every data set must do, as far as it can be seen without a download."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mlbench.contracts.outcome import NotChecked, ensure
from mlbench.data.decode import decode
from mlbench.types import DataError, Dataset, DatasetCard, Index, Split

SPLITS: tuple[Split, ...] = ("train", "test")


def _folder() -> Path:
    """A new folder that lives as long as the process."""
    made = tempfile.mkdtemp(prefix="mlbench-check-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


@functools.lru_cache(maxsize=1)
def _opened(factory: Any) -> Dataset:
    try:
        data: Dataset = factory(None, _folder())
    except DataError as refusal:
        raise NotChecked(f"it needs files: {refusal}") from refusal
    return data


def _index(data: Dataset, split: Split) -> Index:
    index = data.index(split)
    what = f"{split}: index returns {type(index).__name__}, not Index"
    ensure(isinstance(index, Index), f"{what}; write return Index(files, keys, targets)")
    return index


def has_a_filled_card(factory: Any) -> None:
    """The card has a title, a citation, a licence and a home page."""
    card = getattr(factory, "card", None) or _opened(factory).card
    ensure(isinstance(card, DatasetCard), f"its card is {type(card)}, not a DatasetCard")
    for field in ("title", "bibtex", "licence", "home"):
        ensure(getattr(card, field).strip(), f"the card's {field} is empty", "card")
    ensure(card.bibtex.lstrip().startswith("@"), "the card's bibtex does not begin with @")


def refuses_a_folder_without_it(factory: Any) -> None:
    """An empty folder raises a ``DataError`` that names the folder."""
    try:
        _opened(factory)
    except NotChecked:
        pass
    else:
        raise NotChecked("it needs no files")
    empty = _folder()
    try:
        factory(empty, empty)
    except DataError as error:
        ensure(str(empty) in str(error), f"its refusal does not name the folder: {error}")
    else:
        ensure(False, "an empty folder is accepted")


def has_unique_names(factory: Any) -> None:
    """The label names are a tuple of distinct, non-empty strings."""
    names = _opened(factory).names
    ensure(isinstance(names, tuple) and names, f"names is {names!r}, not a tuple of names", "names")
    ensure(len(set(names)) == len(names), "a label name stands twice", "names")
    ensure(all(name.strip() for name in names), "a label name is empty", "names")


def indexes_its_splits(factory: Any) -> None:
    """Targets are int8 in {1, 0, -1}, keys unique, images in one split only, and files exist.

    The first file of each split is a picture.

    Splits may share images if the card says why (``shared_images``).
    """
    data = _opened(factory)
    seen: set[str | Path] = set()
    for split in SPLITS:
        index = _index(data, split)
        targets = np.asarray(index.targets)
        wanted = (len(index), len(data.names))
        ensure(targets.shape == wanted, f"{split}: targets {targets.shape} instead of {wanted}")
        ensure(targets.dtype == np.int8, f"{split}: targets are {targets.dtype}, not int8")
        ensure(np.isin(targets, (-1, 0, 1)).all(), f"{split}: targets are not all 1, 0 or -1")
        ensure(len(index) > 0, f"{split}: no images")
        twice = [key for key, times in Counter(index.keys).items() if times > 1]
        ensure(not twice, f"{split}: {len(twice)} keys stand twice, such as {twice[:1]}")
        both = [k for k, f in zip(index.keys, index.files, strict=True) if k in seen or f in seen]
        what = f"{both[:1]} and {len(both) - 1} more keys or their files are in both splits"
        ensure(not both or data.card.shared_images, what)
        seen |= {*index.keys, *index.files}
        missing = [str(file) for file in index.files if not Path(file).is_file()]
        ensure(not missing, f"{split}: {len(missing)} files do not exist: {missing[:1]}")
        try:
            decode(Path(index.files[0]))
        except DataError as error:
            ensure(False, f"{split}: its first image is none: {error}")


def keeps_its_order(factory: Any) -> None:
    """Indexing twice gives the same samples in the same order."""
    data = _opened(factory)
    for split in SPLITS:
        one, two = _index(data, split), _index(data, split)
        same = list(one.keys) == list(two.keys) and np.array_equal(one.targets, two.targets)
        ensure(same, f"{split}: indexing twice gives two orders or other labels")


def counts_its_objects(factory: Any) -> None:
    """Counts of objects, if any, are [N, C] whole numbers in the order of the keys asked for.

    A count is at least 1 where the label is present and 0 where it is absent.
    """
    data = _opened(factory)
    index = _index(data, "train")
    found_NC, backwards_NC = data.objects(index.keys), data.objects(index.keys[::-1])
    if found_NC is None or backwards_NC is None:
        return
    wanted = (len(index), len(data.names))
    ensure(np.shape(found_NC) == wanted, f"objects are {np.shape(found_NC)} instead of {wanted}")
    ensure(np.asarray(found_NC).dtype.kind in "iu", "counts of objects are not whole numbers")
    lacking = np.argwhere((index.targets == 1) & (found_NC < 1)).tolist()
    extra = np.argwhere((index.targets == 0) & (found_NC != 0)).tolist()
    for at, what in ((lacking, "present without an object"), (extra, "absent with an object")):
        first = "".join(f"{data.names[c]} in {index.keys[row]}" for row, c in at[:1])
        ensure(not at, f"{len(at)} labels are {what}, the first is {first}")
    same = np.array_equal(backwards_NC, found_NC[::-1])
    ensure(same, "objects do not follow the order of the keys that are asked for")
