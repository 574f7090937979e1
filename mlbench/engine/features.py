"""Feature maps of a frozen backbone, computed once and shared by every head and loss.

A folder of the cache holds one array float16 [N, D, H, W] per level that a head has read. The
folder's name is a hash of everything that changes the maps: backbone, weights, device, versions,
the code that makes pixels, the image files, and the pixels of three images.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mlbench.data.cache_entries import entry_folder, make_room
from mlbench.data.cached_arrays import CachedArray, pixel_code
from mlbench.data.image_cache import images_digest
from mlbench.data.loader import Inputs, Positions, Source, batches
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import BATCH, to_device
from mlbench.engine.model import MultiLabelModel, matrix_precision
from mlbench.leases import Lease, claim, find_holder
from mlbench.types import Backbone, DataError, Index, MeasureError, Places, Progress

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two checks of feature maps that another run makes."""
ROOM = (
    "make room (`mlbench cache` says what takes it), give another folder with MLBENCH_CACHE, a "
    "smaller --image-size, or use --track controlled"
)


@dataclass(frozen=True)
class FeatureCache:
    """Computes the feature maps that a model's head reads, or finds them in the cache.

    Attributes:
        places: the cache and its limit.
        model: the model, on its device.
        identity: everything besides pixels that changes the maps of an image.
        purpose: what the maps are for (``RunSpec.cached_for``).
    """

    places: Places
    model: MultiLabelModel
    identity: dict[str, Any]
    purpose: str
    world: World
    progress: Progress

    def source(self, name: str, index: Index, images: Source) -> Source:
        """A source of a split's maps, which are computed if they are missing or damaged.

        It gives one float16 tensor [B, D, H, W] per level; levels that the head does not read are
        empty.

        Args:
            name: name of the split, for progress messages.
            index: the split.
            images: the split's images without augmentation.

        Raises:
            DataError: the disk is too small, or the cache cannot be written.
            MeasureError: the maps do not fit into half precision.
        """
        some = images(np.unique(np.linspace(0, len(index) - 1, 3).astype(np.int64)), 0)
        assert isinstance(some, Tensor)
        backbone = self.model.backbone.eval()  # type: ignore[attr-defined]
        with torch.inference_mode():
            maps = self._maps(backbone, some[:1])
        what = f"feature maps of {name}, {self.identity['backbone']}"
        identity = self.world.ask_leader(
            lambda: {
                **self.identity,
                "pixels": pixel_code(),
                "images": images_digest(index),
                "some_pixels": hashlib.sha256(some.cpu().contiguous().numpy().data).hexdigest(),
            }
        )
        place = self.places.cache, "features", what, self.purpose, identity
        try:
            folder = self.world.ask_leader(lambda: entry_folder(*place))
            read = levels_read(self.model.head, maps)

            def open_levels() -> dict[int, CachedArray]:
                shapes = {i: (len(index), *maps[i].shape[1:]) for i in read}
                return {i: self._array(folder, i, name, shapes[i], images) for i in read}

            levels = open_levels()
            if self.world.broadcast(any(not array.finished for array in levels.values())):
                with self._turn(folder, name) as waited:
                    levels = open_levels() if waited else levels
                    self._complete(levels, name, index, images)
        except OSError as error:
            raise DataError(
                f"feature maps cannot be written to {self.places.cache} ({error.strerror}); {ROOM}"
            ) from error

        def read_maps(positions: Positions, epoch: int) -> tuple[Tensor, ...]:
            unread = torch.empty(len(positions), 0, 0, 0, dtype=torch.float16)
            return tuple(
                torch.from_numpy(levels[i].read(positions)) if i in levels else unread
                for i in range(len(maps))
            )

        read_maps.levels = tuple(levels)  # type: ignore[attr-defined]  # see ``train.Wanted``
        return read_maps

    @contextmanager
    def _turn(self, folder: Path, name: str) -> Iterator[bool]:
        """Hold the lease of a folder of maps; yield True if another run had it first."""
        lease: Lease | None = None

        def attempt() -> str | None:
            nonlocal lease
            lease = claim(folder)
            return None if lease else str(find_holder(folder) or "another run")

        said = None
        while (owner := self.world.ask_leader(attempt)) is not None:
            if owner != said:
                said = owner
                self.progress.phase(f"waiting for feature maps of {name}, made by {owner}")
                log.info("waiting for feature maps of %s, made by %s", name, owner)
            self.progress.count(0, 1)
            time.sleep(POLL)
        try:
            yield said is not None
        finally:
            if lease is not None:
                lease.release()

    def _array(
        self, folder: Path, level: int, name: str, shape: tuple[int, ...], images: Source
    ) -> CachedArray:
        def make(positions: Positions) -> NDArray[np.float16]:
            # Training may switch the mode of the model meanwhile.
            backbone: Any = copy.deepcopy(self.model.backbone)
            with torch.inference_mode():
                return _half(self._maps(backbone.eval(), images(positions, 0))[level])

        file = folder / f"level-{level}.rows"
        return CachedArray(file, f"feature maps of {name}", shape, np.float16, make, chunk=BATCH)

    def _maps(self, backbone: Backbone, images: Inputs) -> tuple[Tensor, ...]:
        on_device = to_device(images, self.model.mean.device)
        assert isinstance(on_device, Tensor)
        with matrix_precision("fp32"):
            return backbone(self.model.normalized(on_device))

    def _complete(
        self, levels: Mapping[int, CachedArray], name: str, index: Index, images: Source
    ) -> None:
        """Write the rows that are missing or damaged in arrays that are not finished."""
        world = self.world
        todo = world.broadcast([i for i, array in levels.items() if not array.finished])
        if not todo:
            return
        self.progress.phase(f"feature maps of {name}")
        need = sum(levels[i].bytes_missing for i in todo)
        world.ask_leader(lambda: make_room(self.places, need, "feature maps", ROOM))
        starts = range(world.rank * BATCH, len(index), world.size * BATCH)
        mine = [np.arange(i, min(i + BATCH, len(index))) for i in starts]

        def missing() -> Iterator[Positions]:
            for chunk in mine:
                self.progress.count(int(chunk[0]), len(index))
                if not all(levels[i].valid(chunk) for i in todo):
                    yield chunk

        def write(positions: Positions, rows: Mapping[int, NDArray[np.float16]]) -> None:
            for i in todo:
                levels[i].write(positions, rows[i])

        made, started = 0, time.perf_counter()
        # Checksums and the disk take as long as a GPU takes for the next maps.
        with torch.inference_mode(), ThreadPoolExecutor(1) as writer:
            written: Future[Any] = writer.submit(int)  # the batch before the first
            for batch in batches(images, index, missing(), device=self.model.mean.device):
                maps = self._maps(self.model.backbone, batch.inputs)
                rows = {i: _half(maps[i]) for i in todo}
                written.result()
                written = writer.submit(write, batch.positions, rows)
                made += len(batch.positions)
            written.result()
        speed = made / (time.perf_counter() - started)
        log.info("made feature maps of %s: %d images, %.1f images/s", name, made, speed)
        world.wait()
        for i in todo:
            levels[i].finish()


def levels_read(head: Any, maps: Sequence[Tensor]) -> list[int]:
    """Positions of the feature maps that a head reads in training or in evaluation.

    They are found by running a copy of the head on the ``meta`` device, which computes nothing. A
    head that cannot run there counts as reading all.

    Args:
        head: the head, which does not change.
        maps: one batch of maps per level, of any size.
    """
    meta = tuple(torch.empty(2, *m.shape[1:], device="meta") for m in maps)
    watch = _Watch(meta)
    try:
        twin: nn.Module = copy.deepcopy(head).to("meta")
        with watch, torch.no_grad():
            twin.train()(meta)
            twin.eval()(meta)
    except Exception:  # of whatever a head does that needs numbers
        return list(range(len(maps)))
    return sorted(watch.read)


class _Watch(TorchFunctionMode):
    """Records which tensors are passed to functions of torch; reading a shape counts."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.places = {id(tensor): i for i, tensor in enumerate(tensors)}
        self.read: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        self.read.update(self.places[id(leaf)] for leaf in leaves if id(leaf) in self.places)
        return func(*args, **kwargs)


def _half(values: Tensor) -> NDArray[np.float16]:
    half = values.half()
    if not half.isfinite().all():
        raise MeasureError(
            "the backbone's feature maps do not fit into half precision; "
            "check its weights, or use --track controlled"
        )
    return half.cpu().numpy()
