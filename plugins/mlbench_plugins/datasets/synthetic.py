"""The built-in data set: pictures drawn by the project, without a download."""

from __future__ import annotations

import functools
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlbench.files import read_yaml, sha256
from mlbench.types import DataError, Dataset, DatasetCard, Index, Split, Targets, stream
from mlbench_plugins.datasets import drawing

Matrix = NDArray[np.float64]

NAMES = (
    *("apple", "ball", "boat", "car", "cloud", "fish"),
    *("house", "lamp", "leaf", "moon", "sun", "tree"),
)
TWINS = (("apple", "ball"), ("leaf", "fish"), ("moon", "sun"))
"""Pairs that can look the same and hardly ever share a place."""
MOST = 5
"""Largest number of objects in a picture."""
PLACES: Mapping[str, tuple[float, Mapping[str, float]]] = {
    "sea": (0.28, {"boat": 0.7, "fish": 0.6, "sun": 0.5, "cloud": 0.35, "ball": 0.15}),
    "orchard": (0.28, {"tree": 0.75, "apple": 0.6, "leaf": 0.55, "cloud": 0.3, "sun": 0.2}),
    "street by night": (0.24, {"lamp": 0.65, "car": 0.6, "moon": 0.6, "house": 0.45}),
    "street by day": (0.2, {"ball": 0.6, "house": 0.55, "car": 0.4, "sun": 0.45, "cloud": 0.2}),
}
"""Place -> its probability, and the probability of each of its objects."""
STRAY = 0.02
"""Probability of every other object."""

NUMBERS = 2
"""Raised with any change of a pixel or label, so that no cache or record mixes two editions."""
LIMITS = {
    "train_images": (1, 1_000_000),
    "test_images": (1, 1_000_000),
    "size": (32, 1024),
    "seed": (0, 2**32 - 1),
}
"""Option -> its smallest and largest value."""

_LOG = logging.getLogger(__name__)
_SPLITS: dict[Split, int] = {"train": 1, "test": 2}
_MANIFEST = "manifest.json"


class Synthetic(Dataset):
    """Noisy pictures of one to five everyday objects out of twelve.

    Which objects come together is a model with known probabilities (see ``distribution``). Apple
    and ball, leaf and fish, moon and sun often look the same; the other objects in the picture
    then tell them apart, so that using label relations can pay.

    The pictures are drawn once into ``cache``, the same bytes on every machine, and checked
    against a manifest of hashes whenever they are used; damaged ones are drawn again.

    Args:
        root: not used; the pictures are drawn.
        cache: the folder that the pictures are drawn into.
        train_images, test_images: sizes of the splits. A longer split begins with the same images.
        size: pixels a side.
        seed: another seed draws another set of pictures from the same model.
    """

    names = NAMES
    card = DatasetCard(**read_yaml(Path(__file__).with_suffix(".yaml")))

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        train_images: int = 1200,
        test_images: int = 600,
        size: int = 96,
        seed: int = 0,
    ) -> None:
        for (option, (least, most)), value in zip(
            LIMITS.items(), (train_images, test_images, size, seed), strict=True
        ):
            if type(value) is not int or not least <= value <= most:
                raise DataError(
                    f"synthetic has no {option}={value!r}; give a whole number from {least:,} to "
                    f"{most:,}"
                )
        self.size, self.seed = size, seed
        self.images: dict[Split, int] = {"train": train_images, "test": test_images}
        self.folder = cache / f"synthetic-{NUMBERS}" / f"{train_images}-{test_images}-{size}-{seed}"
        self._checked = False

    def index(self, split: Split) -> Index:
        """The samples of a split; the first call draws or checks the pictures of both.

        Raises:
            DataError: the cache folder cannot be written to.
        """
        if not self._checked:
            self._provide()
        keys = self._keys(split)
        return Index([self.folder / f"{key}.bmp" for key in keys], keys, self._targets(split))

    def official_split(self, split: Split) -> str | None:
        """The split's name on the card, which has the default sizes only; None for other sizes."""
        return split if self.images[split] == self.card.splits[split].images else None

    def _keys(self, split: Split) -> list[str]:
        return [f"{split}-{i:06d}" for i in range(self.images[split])]

    def _targets(self, split: Split) -> Targets:
        return sample(self._rng(split, 0).random(self.images[split]))

    def _rng(self, split: Split, part: int) -> np.random.Generator:
        return stream("drawing", self.seed, _SPLITS[split], part)

    def pictures(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """File name and pixels uint8 [S, S, 3] of every picture of both splits."""
        for split in _SPLITS:
            pairs = zip(self._keys(split), self._targets(split), strict=True)
            for i, (key, target) in enumerate(pairs, start=1):
                objects = [self.names[c] for c in np.flatnonzero(target)]
                yield f"{key}.bmp", drawing.picture(objects, self.size, self._rng(split, i))

    def _provide(self) -> None:
        fault = self._fault()
        if fault is not None:
            level = logging.WARNING if self.folder.exists() else logging.INFO
            _LOG.log(level, "drawing the synthetic data set into %s (%s)", self.folder, fault)
            try:
                self._draw()
            except OSError as error:
                raise DataError(
                    f"cannot draw the synthetic data set into {self.folder}: {error.strerror}; "
                    "free some space there or name another cache folder"
                ) from error
        self._checked = True

    def _fault(self) -> str | None:
        """The first fault of the pictures in the cache; None if they are whole."""
        try:
            hashes: dict[str, str] = json.loads((self.folder / _MANIFEST).read_text())["files"]
            expected = {f"{key}.bmp" for split in _SPLITS for key in self._keys(split)}
            if set(hashes) != expected:
                return f"{_MANIFEST} lists other files"
            for name, digest in hashes.items():
                if sha256(self.folder / name) != digest:
                    return f"{name} is damaged"
        except FileNotFoundError as error:
            return f"{Path(str(error.filename)).name} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"the cache cannot be read: {error}"
        return None

    def _draw(self) -> None:
        """Draw into a temporary folder, then move file by file and the manifest last.

        So a file under its final name is always whole, and two processes may draw at the same
        time. BMP is not compressed: its bytes do not depend on the version of a library.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(".tmp", ".drawing-", self.folder.parent) as temporary:
            aside = Path(temporary)
            hashes: dict[str, str] = {}
            for name, pixels_SS3 in self.pictures():
                Image.fromarray(pixels_SS3).save(aside / name)
                hashes[name] = sha256(aside / name)
            (aside / _MANIFEST).write_text(json.dumps({"version": NUMBERS, "files": hashes}))
            for name in [*hashes, _MANIFEST]:
                (aside / name).replace(self.folder / name)


# ---------------------------------------------------------------------------------- the label model
@functools.cache
def distribution() -> tuple[NDArray[np.int8], Matrix]:
    """All 2**C label sets as int8 [2**C, C], and the probability of each [2**C].

    A picture shows one of four places, which is no label. Given the place, objects are
    independent; pictures with none or more than ``MOST`` of them are not drawn. So objects of one
    place come together far more often than their frequencies say.
    """
    labels = len(NAMES)
    sets = (np.arange(2**labels)[:, None] >> np.arange(labels) & 1).astype(np.int8)
    total = np.zeros(len(sets))
    for share, objects in PLACES.values():
        odds = np.array([objects.get(name, STRAY) for name in NAMES])
        total += share * np.where(sets, odds, 1 - odds).prod(axis=1)
    count = sets.sum(axis=1)
    total[(count == 0) | (count > MOST)] = 0
    return sets, total / total.sum()


def sample(draws: Matrix) -> NDArray[np.int8]:
    """Label sets int8 [N, C] for N numbers evenly drawn from [0, 1)."""
    sets, probability = distribution()
    return sets[np.searchsorted(np.cumsum(probability)[:-1], draws, side="right")]
