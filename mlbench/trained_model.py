"""A trained model that labels pictures, from files or from memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mlbench.data.decode import REMEDY, as_tensor, load, to_rgb
from mlbench.data.transforms import make_view
from mlbench.engine.evaluation import BATCH, to_device
from mlbench.engine.model import autocast
from mlbench.files import HEIF, is_picture
from mlbench.text import count, shorten
from mlbench.types import DEFAULT_THRESHOLD, DataError, ModelFile, ModelInfo

Picture = str | PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
"""A file, an image of Pillow, an array uint8 [H, W, 3] or [H, W], or a tensor uint8 [3, H, W]."""


@dataclass(frozen=True)
class Labelled:
    """A model's result for one picture.

    Attributes:
        image: the file; None for a picture from memory.
        scores: label -> score in [0, 1], in descending order.
        above: the labels whose scores reach their thresholds, in the same order.
        logits: float32 [C], in the order of the model's labels.
        error: why the picture could not be read; there are no scores then.
    """

    image: Path | None = None
    scores: dict[str, float] = field(default_factory=dict)
    above: tuple[str, ...] = ()
    logits: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    error: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the model, the most likely first."""
        return tuple(self.scores)


class TrainedModel:
    """A trained model that labels pictures; made by ``mlbench.load``.

    Attributes:
        info: labels, preprocessing, thresholds and origin (see ``ModelInfo``).
        network: uint8 images [B, 3, S, S] -> ``HeadOutput``.
        device: where it computes.
        workers: decoding threads.
    """

    def __init__(self, file: ModelFile, device: str, workers: int) -> None:
        self.info: ModelInfo = file.info
        self.workers = workers
        self.device = torch.device(device)
        self.network = file.network
        if isinstance(file.network, nn.Module):
            network = file.network.eval().to(self.device)
            self.network = network.to(memory_format=torch.channels_last)
        self._view = make_view(self.info.settings)

    def __repr__(self) -> str:
        spec, labels = self.info.spec, count(len(self.labels), "label")
        return f"TrainedModel({spec.method} on {spec.settings.backbone}, {labels})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The C label names, in the order of the logits."""
        return self.info.label_names

    @property
    def thresholds(self) -> dict[str, float]:
        """Label -> the score from which it counts as present."""
        found = self.info.thresholds or (DEFAULT_THRESHOLD,) * len(self.labels)
        return dict(zip(self.labels, found, strict=True))

    def __call__(self, images: Sequence[Picture], batch_size: int = BATCH) -> list[Labelled]:
        """Label pictures in any mix of the forms of ``Picture``; one result each, in their order.

        Raises:
            DataError: a picture cannot be read, or has an unsupported form.
        """
        found = [result for batch in self._batches(images, batch_size) for result in batch]
        if bad := [result.error for result in found if result.error]:
            raise DataError(shorten(bad, 5, "\n"))
        return found

    def batches(
        self, source: str | PathLike[str] | Iterable[Picture], batch_size: int = BATCH
    ) -> Iterator[list[Labelled]]:
        """Label many pictures in constant memory; one that cannot be read has an ``error``.

        The source is pictures, a file, or a folder, searched recursively.

        Raises:
            DataError: the folder does not exist or holds no picture.
        """
        if isinstance(source, str | PathLike):
            file = Path(source)
            source = [file] if file.is_file() else find_pictures(file)
        yield from self._batches(source, batch_size)

    def _batches(self, images: Iterable[Picture], batch_size: int) -> Iterator[list[Labelled]]:
        """Decode ahead in threads; batches are full, as in evaluation, for the same logits."""
        array = isinstance(images, np.ndarray | Tensor) and images.ndim < 4
        if array or isinstance(images, str | PathLike | Image.Image):
            raise DataError("give a list of pictures, as in model([picture])")
        if batch_size < 1:
            raise DataError(f"batch_size {batch_size} is below 1; give the pictures of a batch")
        waiting: deque[tuple[Picture, Future[Tensor | str]]] = deque()
        batch: list[tuple[Picture, Tensor | str]] = []
        remaining, readable = iter(images), 0
        with ThreadPoolExecutor(self.workers, thread_name_prefix="decode") as pool:
            while True:
                for image in islice(remaining, 3 * batch_size - len(waiting)):
                    waiting.append((image, pool.submit(self.pixels, image)))
                if not waiting:
                    break
                image, future = waiting.popleft()
                batch.append((image, future.result()))
                readable += isinstance(batch[-1][1], Tensor)
                if readable == batch_size:
                    yield self._label(batch)
                    batch, readable = [], 0
            if batch:
                yield self._label(batch)

    def pixels(self, image: Picture) -> Tensor | str:
        """The picture as uint8 [3, S, S], or the reason why it cannot be read."""
        try:
            if isinstance(image, str | PathLike):
                return self._view(load(Path(image), self.info.spec.settings.decoder))
            return self._view(as_tensor(_as_pillow(image)))
        except DataError as error:
            return str(error).removesuffix(f"; {REMEDY}")

    def _label(self, batch: Sequence[tuple[Picture, Tensor | str]]) -> list[Labelled]:
        pixels = [found for _, found in batch if isinstance(found, Tensor)]
        results: Iterator[Labelled] = iter(())
        if pixels:
            with torch.inference_mode(), autocast(self.device, "fp32"):
                inputs = to_device(torch.stack(pixels), self.device)
                results = self._results(self.network(inputs).logits.float().cpu().numpy())
        return [
            replace(
                Labelled(error=found) if isinstance(found, str) else next(results),
                image=Path(image) if isinstance(image, str | PathLike) else None,
            )
            for image, found in batch
        ]

    def _results(self, logits_BC: NDArray[np.float32]) -> Iterator[Labelled]:
        names_C, threshold_C = np.array(self.labels, object), np.array([*self.thresholds.values()])
        for logits_C, scores_C in zip(logits_BC, self.scores(logits_BC), strict=True):
            order = np.argsort(-scores_C, kind="stable")
            scores = dict(zip(names_C[order], scores_C[order].tolist(), strict=True))
            above = names_C[order[scores_C[order] >= threshold_C[order]]]
            yield Labelled(None, scores, tuple(above), logits_C)

    def scores(self, logits_BC: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrated scores [..., C] in [0, 1] of logits [..., C]."""
        slope_C, offset_C = np.array(self.info.calibration or [(1.0, 0.0)] * len(self.labels)).T
        with np.errstate(over="ignore"):
            scores_BC: NDArray[np.float64] = 1 / (1 + np.exp(-slope_C * logits_BC - offset_C))
        return scores_BC


def _as_pillow(image: object) -> Image.Image:
    """Convert an image in memory to RGB; raise ``DataError`` if it is unsupported or damaged."""
    if isinstance(image, Image.Image):
        try:
            if not image.width * image.height:
                raise ValueError("it has no pixels")
            return to_rgb(image.copy())
        except Exception as error:  # as in ``decode``
            raise DataError(f"{image} cannot be used: {error}") from error
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image.cpu().permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise DataError(
            f"a picture of {kind} cannot be labelled; give a file, an image of Pillow, an array "
            "uint8 [H, W, 3] or a tensor uint8 [3, H, W] with values from 0 to 255"
        )
    channels = image.shape[2:] or (1,)
    if image.ndim not in (2, 3) or channels[0] not in (1, 3, 4) or not image.size:
        raise DataError(f"an array of shape {image.shape} is no picture; give [H, W, 3]")
    return to_rgb(Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image))


def find_pictures(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted, without hidden files; HEIC files always count.

    Raises:
        DataError: the folder does not exist or has no picture.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of pictures, or files")
    files = (p for p in folder.rglob("*") if "/." not in f"/{p.relative_to(folder).as_posix()}")
    found = sorted(p for p in files if p.is_file() and (p.suffix.lower() in HEIF or is_picture(p)))
    if not found:
        raise DataError(f"{folder}: no picture is in it or below it; give another folder, or files")
    return found
