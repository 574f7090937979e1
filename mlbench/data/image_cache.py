"""Decoded images in the cache, shared by runs and processes.

An image is stored as it is before the first random choice: as the square that a recipe resizes to,
or as decoded if a recipe crops the original. So a run has the same pixels with and without the
cache, and every image is decoded once, when it is first used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mlbench.data.cache_entries import entry_folder, make_room
from mlbench.data.cached_arrays import CachedArray, pixel_code
from mlbench.data.decode import load
from mlbench.data.transforms import Transform
from mlbench.types import DataError, Index, Places

ELSEWHERE = "give another folder with MLBENCH_CACHE, or go on without --set image_cache=true"
_SHAPE = np.dtype("<u4")
_HEADER = 2 * _SHAPE.itemsize
"""Bytes of height and width, with which a row begins; zeros pad it to the largest image."""


def cached_images(
    places: Places, use: str, index: Index, transform: Transform, digest: str
) -> Callable[[int], Tensor]:
    """Make a reader of images by position, which stores what it reads in the cache.

    Args:
        places: the cache, its limit, and the number of threads.
        use: the purpose of the images (``RunSpec.cached_for``).
        index: the images.
        transform: what comes after; if it has no ``side``, decoded images are stored.
        digest: identity of the image files (``images_digest``).

    Raises:
        DataError: the disk is too small, or the cache cannot be written.
    """
    view, side = transform.view, transform.side
    what = "decoded images" if side is None else f"images at {side} x {side}"
    identity = {
        "images": digest,
        "versions": {name: version(name) for name in ("torch", "torchvision", "pillow", "numpy")},
        "side": side,
        "view": [view.interpolation, view.decoder],
        "pixels": pixel_code(),
    }
    pixels = _most_pixels(index, places.workers) if side is None else side * side

    def make(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = np.zeros((len(positions), _HEADER + 3 * pixels), np.uint8)
        for row, position in zip(rows, positions.tolist(), strict=True):
            image = load(index.files[position], view.decoder)
            _pack(image if side is None else view.squash(image, side), row)
        return rows

    try:
        folder = entry_folder(places.cache, "images", what, use, identity)
        shape = (len(index), _HEADER + 3 * pixels)
        array = CachedArray(folder / "images.rows", what, shape, np.uint8, make)
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {places.cache} ({os.strerror(error.errno or 0)}); "
            f"{ELSEWHERE}"
        ) from error
    make_room(places, array.bytes_missing, what, f"make room, {ELSEWHERE}")
    return lambda position: _unpack(array.read(np.array([position]))[0])


def images_digest(index: Index) -> str:
    """Digest of the keys, sizes and modification times of a split's image files.

    Reading all bytes would take as long as computing feature maps.
    """
    state = hashlib.sha256()
    for file, key in zip(index.files, index.keys, strict=True):
        stat = file.stat()
        state.update(f"{key}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _most_pixels(index: Index, workers: int) -> int:
    """Pixels of the largest image, read from the file headers."""

    def pixels(file: Path) -> int:
        with Image.open(file) as image:
            return image.width * image.height

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return max(pool.map(pixels, index.files))


def _pack(image: Tensor, row: NDArray[np.uint8]) -> None:
    row[:_HEADER] = np.array(image.shape[1:], _SHAPE).view(np.uint8)
    row[_HEADER : _HEADER + image.numel()] = image.permute(1, 2, 0).reshape(-1).numpy()


def _unpack(row: NDArray[np.uint8]) -> Tensor:
    height, width = row[:_HEADER].view(_SHAPE).tolist()
    pixels = torch.from_numpy(row[_HEADER : _HEADER + 3 * height * width])
    return pixels.view(height, width, 3).permute(2, 0, 1)
