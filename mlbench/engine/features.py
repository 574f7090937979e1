"""Feature maps of a frozen backbone, computed once and shared by every head and loss.

A folder of the cache holds one array a level, float16 [N, D, H, W]. Its name is a hash of all that
changes the maps: backbone, weights, pixels, versions, and the image files themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.data.loader import Positions, Source, batches, shard
from mlbench.engine.distributed import World
from mlbench.engine.evaluate import to_device
from mlbench.engine.model import MultiLabelModel
from mlbench.types import DataError, Index, MeasureError, Progress


class FeatureSource:
    """Feature maps read from the cache: one float16 tensor [B, D, H, W] a level."""

    def __init__(self, folder: Path, levels: int) -> None:
        self.maps = [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(levels)]

    def __call__(self, positions: Positions, epoch: int) -> tuple[Tensor, ...]:
        """The maps at these positions; the epoch changes nothing."""
        return tuple(torch.from_numpy(np.asarray(maps[positions])) for maps in self.maps)


def cache_key(index: Index, identity: dict[str, Any]) -> str:
    """Hash of ``identity`` (backbone, weights, preprocessing, versions) and of the image files.

    A file counts by key, size and modification time: reading all bytes would take as long as
    computing the maps.
    """
    state = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for file, key in zip(index.files, index.keys, strict=True):
        stat = file.stat()
        state.update(f"{key}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()[:24]


class Maker(NamedTuple):
    """What feature maps are made of: a model on its device, images, and how many at a time."""

    model: MultiLabelModel
    images: Source
    batch_size: int


class FeatureCache:
    """Makes feature maps, or finds them made."""

    def __init__(self, folder: Path, world: World, progress: Progress) -> None:
        self.folder = folder
        self.world = world
        self.progress = progress

    def source(
        self,
        name: str,
        index: Index,
        identity: dict[str, Any],
        maker: Maker,
    ) -> FeatureSource:
        """The maps of an index, made if they are not there."""
        key = self.world.broadcast(cache_key(index, identity) if self.world.leads else None)
        folder = self.folder / "features" / key
        if not self.world.broadcast((folder / "identity.json").exists()):
            self.progress.stage(f"feature maps of {name}")
            self._compute(folder, index, identity, maker)
        levels = len(list(folder.glob("*.npy")))
        return FeatureSource(folder, levels)

    def _compute(
        self,
        folder: Path,
        index: Index,
        identity: dict[str, Any],
        maker: Maker,
    ) -> None:
        model, images, size = maker.model.eval(), maker.images, maker.batch_size
        partial = self.world.broadcast(folder.with_name(f"{folder.name}.{os.getpid()}.part"))
        mine = shard(np.arange(len(index)), self.world.rank, self.world.size)
        order = [mine[i : i + size] for i in range(0, len(mine), size)]
        arrays: list[NDArray[np.float16]] = []
        done = 0
        try:
            with torch.inference_mode():
                for batch in batches(images, index, order):
                    maps = model.features(to_device(batch.inputs, model.mean.device))  # type: ignore[arg-type]
                    if not arrays:
                        arrays = self._allocate(
                            partial, len(index), [tuple(m.shape[1:]) for m in maps]
                        )
                    for array, values in zip(arrays, maps, strict=True):
                        array[batch.positions] = _half(values)
                    done += len(batch.positions)
                    self.progress.count(done * self.world.size, len(index))
            for array in arrays:
                array.flush()  # type: ignore[attr-defined]
            self.world.wait()
            if self.world.leads:
                (partial / "identity.json").write_text(json.dumps(identity, indent=1))
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    partial.replace(folder)
                except OSError:  # another run was faster
                    if not (folder / "identity.json").exists():
                        raise
            self.world.wait()
        finally:
            if self.world.leads:
                shutil.rmtree(partial, ignore_errors=True)

    def _allocate(
        self, folder: Path, images: int, shapes: list[tuple[int, ...]]
    ) -> list[NDArray[np.float16]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        need = sum(2 * images * int(np.prod(shape)) for shape in shapes)
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise DataError(
                f"the feature maps need {need / 2**30:.1f} GiB and {self.folder} has "
                f"{free / 2**30:.1f} GiB free; make room, give another folder with MLBENCH_CACHE, "
                "a smaller --image-size, or use --track controlled"
            )
        if self.world.leads:
            self._sweep()
            folder.mkdir(parents=True, exist_ok=True)
            for i, shape in enumerate(shapes):
                np.lib.format.open_memmap(
                    folder / f"{i}.npy", mode="w+", dtype=np.float16, shape=(images, *shape)
                )
        self.world.wait()
        return [
            np.lib.format.open_memmap(folder / f"{i}.npy", mode="r+") for i in range(len(shapes))
        ]

    def _sweep(self) -> None:
        """Remove what killed runs left behind more than a day ago."""
        for left in (self.folder / "features").glob("*.part"):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)


def _half(values: Tensor) -> NDArray[np.float16]:
    half = values.half()
    if not half.isfinite().all():
        raise MeasureError(
            "the backbone's feature maps do not fit into half precision; "
            "check its weights, or use --track controlled"
        )
    return half.cpu().numpy()
