"""Feature maps of a frozen backbone, computed once and shared by every head and loss.

A folder of the cache holds one array per level, float16 [N, D, H, W]. Its name is a hash of
everything that changes the maps: backbone, weights, pixels, versions, and the image files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.data.loader import Source, batches, shard
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import BATCH, to_device
from mlbench.engine.model import MultiLabelModel
from mlbench.types import DataError, Index, MeasureError, Progress


def _source(folder: Path) -> Source:
    """Read feature maps from the cache: one float16 tensor [B, D, H, W] per level."""
    levels = len(list(folder.glob("*.npy")))
    arrays = [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(levels)]
    return lambda positions, epoch: tuple(
        torch.from_numpy(np.asarray(a[positions])) for a in arrays
    )


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


@dataclass(frozen=True)
class FeatureCache:
    """Computes the feature maps of a model, or finds them in a folder.

    Attributes:
        folder: of the cache.
        model: on its device.
        identity: all that changes the maps of an image.
    """

    folder: Path
    model: MultiLabelModel
    identity: dict[str, Any]
    world: World
    progress: Progress

    def source(self, name: str, index: Index, images: Source) -> Source:
        """The maps of a split, computed if they are missing.

        Args:
            name: of the split, for the progress.
            index: the split.
            images: its images without augmentation.

        Raises:
            DataError: the disk is too small.
            MeasureError: the maps do not fit into half precision.
        """
        key = self.world.broadcast(cache_key(index, self.identity) if self.world.leads else None)
        folder = self.folder / "features" / key
        if not self.world.broadcast((folder / "identity.json").exists()):
            self.progress.stage(f"feature maps of {name}")
            self._compute(folder, index, images)
        return _source(folder)

    def _compute(self, folder: Path, index: Index, images: Source) -> None:
        partial = self.world.broadcast(folder.with_name(f"{folder.name}.{uuid4().hex[:12]}.part"))
        try:
            self._write_maps(partial, index, images)
            self.world.wait()
            if self.world.leads:
                (partial / "identity.json").write_text(json.dumps(self.identity, indent=1))
                try:
                    partial.replace(folder)
                except OSError:  # another run was faster
                    if not (folder / "identity.json").exists():
                        raise
            self.world.wait()
        finally:
            if self.world.leads:
                shutil.rmtree(partial, ignore_errors=True)

    def _write_maps(self, folder: Path, index: Index, images: Source) -> None:
        """Write this process's part of the maps."""
        model = self.model.eval()
        mine = shard(np.arange(len(index)), self.world.rank, self.world.size)
        order = [mine[i : i + BATCH] for i in range(0, len(mine), BATCH)]
        arrays: list[np.memmap[Any, np.dtype[np.float16]]] = []
        done = 0
        with torch.inference_mode():
            for batch in batches(images, index, order):
                maps = model.features(to_device(batch.inputs, model.mean.device))  # type: ignore[arg-type]
                if not arrays:
                    shapes = [(len(index), *m.shape[1:]) for m in maps]
                    arrays = self._allocate(folder, shapes)
                for array, values in zip(arrays, maps, strict=True):
                    array[batch.positions] = _half(values)
                done += len(batch.positions)
                self.progress.count(done * self.world.size, len(index))
        for array in arrays:
            array.flush()

    def _allocate(
        self, folder: Path, shapes: list[tuple[int, ...]]
    ) -> list[np.memmap[Any, np.dtype[np.float16]]]:
        """Create arrays on the leader and open them on every process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        need = sum(2 * int(np.prod(shape)) for shape in shapes)
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise DataError(
                f"the feature maps need {need / 2**30:.1f} GiB and {self.folder} has "
                f"{free / 2**30:.1f} GiB free; make room, give another folder with MLBENCH_CACHE, "
                "a smaller --image-size, or use --track controlled"
            )
        files = [folder / f"{i}.npy" for i in range(len(shapes))]
        if self.world.leads:
            for left in folder.parent.glob("*.part"):  # by runs that were killed
                if time.time() - left.stat().st_mtime > 86_400:
                    shutil.rmtree(left, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            for file, shape in zip(files, shapes, strict=True):
                np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        self.world.wait()
        return [np.lib.format.open_memmap(file, mode="r+") for file in files]


def _half(values: Tensor) -> NDArray[np.float16]:
    half = values.half()
    if not half.isfinite().all():
        raise MeasureError(
            "the backbone's feature maps do not fit into half precision; "
            "check its weights, or use --track controlled"
        )
    return half.cpu().numpy()
