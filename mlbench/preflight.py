"""What a run starts with: its data, label context and inputs, or the reason why it cannot."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbench.build import feature_identity, make_backbone, meta_model, named_file
from mlbench.data import transforms
from mlbench.data.decode import IGNORE, problems, unusable
from mlbench.data.labels import label_context
from mlbench.data.loader import ImageSource, Source
from mlbench.data.mixing import make_mixing
from mlbench.data.open import open_run
from mlbench.engine import optim
from mlbench.engine.batch_parts import BATCH_NORM
from mlbench.engine.checkpoint import backbone_weights, load
from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel, unsupported
from mlbench.metrics.average_precision import count_states, unscorable, write_zeros
from mlbench.text import count
from mlbench.types import (
    DataError,
    Index,
    LabelContext,
    LabelNoise,
    Loss,
    Places,
    PluginError,
    Progress,
    RunSpec,
    Settings,
    Splits,
    SuiteError,
    WeightsError,
)


def refusal(spec: RunSpec, splits_of: Callable[[RunSpec], Splits], places: Places) -> str | None:
    """The reason why a run cannot be made, found before an image is decoded; None if it can.

    Head and loss are made on the ``meta`` device, which takes no memory, only the time of making a
    head and counting labels. Does not check that weights can be downloaded.
    """
    try:
        _assert_possible(spec, splits_of(spec), places)
    except (PluginError, DataError, SuiteError, WeightsError) as error:
        return str(error)
    return None


def _assert_possible(spec: RunSpec, splits: Splits, places: Places) -> None:
    settings, device = spec.settings, places.device
    if (reason := unsupported(spec.precision, torch.device(device))) is not None:
        raise SuiteError(reason)
    if settings.decoder == "nvjpeg" and not device.startswith("cuda"):
        what = f"decoder nvjpeg needs a CUDA device, not {device}"
        raise SuiteError(f"{what}; give --set decoder=turbo")
    if settings.compile == "graphs" and not device.startswith("cuda"):
        raise SuiteError(f"CUDA graphs need a CUDA device, not {device}; give --set compile=true")
    if settings.compile == "graphs" and settings.mutual_weight:
        raise SuiteError("CUDA graphs serve one model, not mutual_weight; give --set compile=true")
    if settings.decoder == "nvjpeg" and places.image_cache:
        what = "the image cache holds no pixels of nvjpeg"
        raise SuiteError(f"{what}; leave out image_cache or decoder")
    labels, _ = make_label_context(spec, splits, places, _latest_context)
    transforms.train_transform(settings)
    if settings.mixing:
        make_mixing(settings.mixing)
    model, loss = meta_model(settings, labels)
    _check_loss(settings, model, loss)
    optim.frozen_stages(model, settings)
    _check_track(spec, model)
    check_labels(splits, loss, trained=settings.epochs > 0)
    if spec.track not in ("probe", "zero_shot"):
        _check_batches(settings, len(splits.train), model, spec.processes)
    flag, named = ("init", spec.init) if spec.init else ("weights", settings.weights)
    if named.startswith("sha256:"):
        file = named_file(flag, named, getattr(places, flag))
        if reason := _misfit(flag, file, settings.backbone, settings.image_size):
            raise WeightsError(reason)


@functools.cache
def _misfit(flag: str, file: Path, backbone: str, image_size: int) -> str | None:
    """Why a file of weights does not fit a backbone, if so; it is read once for all runs."""
    settings = Settings(head="", backbone=backbone, image_size=image_size)
    try:
        init = load(file) if flag == "init" else None
        with torch.device("meta"):
            made: Any = make_backbone(settings, "none" if init else str(file), init)
            if init:
                backbone_weights(init, made, settings)
    except (PluginError, WeightsError) as error:
        return str(error)
    return None


def _check_loss(settings: Settings, model: MultiLabelModel, loss: Loss) -> None:
    """Refuse a loss that does not go with parts of a batch, or with labels that a head is told."""
    if settings.grad_accumulation > 1 and not getattr(loss, "separable", True):
        raise SuiteError(
            f"loss {settings.loss} is neither a mean nor a sum over images, so that batches "
            "cannot be accumulated from parts; use --set grad_accumulation=1"
        )
    learns = settings.epochs > 0 and getattr(loss, "uses_unknown", False)
    if learns and getattr(model.head, "most_known", 0):
        raise SuiteError(
            f"loss {settings.loss} learns from unknown labels, and those that head "
            f"{settings.head} is told in training are hidden from the loss as unknown; use "
            "another loss, such as --losses bce"
        )


def _check_track(spec: RunSpec, model: MultiLabelModel) -> None:
    """Refuse a head with weights where nothing is trained, and one without where it alone is."""
    head, trained = spec.settings.head, next(model.get_submodule("head").parameters(), None)
    if trained is not None and spec.track == "zero_shot":
        raise SuiteError(
            f"head {head} has weights to train, and --track zero_shot trains nothing; give "
            "--plugins zero_shot, or another track"
        )
    if trained is None and spec.track == "probe":
        raise SuiteError(f"head {head} has nothing to train; give --track zero_shot")


def _check_batches(settings: Settings, images: int, model: MultiLabelModel, processes: int) -> None:
    """Refuse parts of one image whose last map has one place: batch norm sees one value."""
    place = settings.image_size <= model.backbone.spec[-1].stride
    optim.set_training_mode(model, settings)
    norms = any(isinstance(module, BATCH_NORM) and module.training for module in model.modules())
    model.eval()  # runs share the backbone of the meta device
    parts = settings.grad_accumulation * (1 if settings.sync_bn else processes)
    batch = min(settings.batch_size, images)
    if place and norms and batch < 2 * parts and not settings.freeze_bn:
        which = f"a batch has {batch} images in {parts} parts"
        if batch == 1:
            which = "there is one training image" if images == 1 else "batch_size is 1"
        larger = f" or --set batch_size={max(16, 2 * parts)}" if images >= 2 * parts else ""
        raise SuiteError(
            f"{which} and the backbone's last map has one place, so that batch norm has a single "
            f"value of each channel; give --image-size {2 * settings.image_size}{larger}"
        )


def check_labels(splits: Splits, loss: Loss, *, trained: bool = True) -> None:
    """Refuse splits that cannot be scored, and labels that would be trained on positives alone.

    Raises:
        DataError: the test split or the validation part has no label with an AP; or no training
            image is known to lack some label, though label noise did not hide it and the loss does
            not use unknown labels.
    """
    other = "score other images: change the split, or score part of train with --set holdout=0.2"
    last = "select no epoch: --set selection=last"
    scored = (("test split", splits.test, other), ("validation part", splits.validation, last))
    for name, index, remedy in scored:
        if index is not None and (reason := unscorable(index.targets, splits.names)):
            raise DataError(f"the {name} of {splits.identity}: {reason}; or {remedy}")
    targets = splits.train.targets if splits.before_noise is None else splits.before_noise
    never_absent = np.flatnonzero(~(targets == 0).any(axis=0)).tolist()
    if not trained or not never_absent or getattr(loss, "uses_unknown", False):
        return
    rest = [name for c, name in enumerate(splits.names) if c not in never_absent]
    leave_out = f"; or leave them out: --set {shlex.quote('labels=' + json.dumps(rest))}"
    raise DataError(
        f"the training split of {splits.identity}: no image is known to lack {len(never_absent)} "
        f"of {count(len(splits.names), 'label')}, which would be predicted everywhere: "
        f"{count_states(targets, never_absent, splits.names)}. "
        f"{write_zeros(targets[:, never_absent])}{leave_out if rest else ''}"
    )


_latest_context = functools.lru_cache(maxsize=1)(label_context)
"""For plans, whose runs follow each other by data set; every run makes one of its own."""


def make_label_context(
    spec: RunSpec, splits: Splits, places: Places, make: Callable[..., Any] = label_context
) -> tuple[LabelContext, tuple[str, ...]]:
    """The label context of a run that ``make`` makes, and notes for its record.

    Raises:
        DataError: the file of word vectors is malformed, or knows none of the labels.
        WeightsError: it is missing, or is another.
    """
    words: Path | str = spec.words
    if spec.words.startswith("sha256:"):
        words = named_file("words", spec.words, places.words)
    how = splits.train, splits.names, words, spec.graph, spec.seed, splits.objects
    labels, notes = make(*how)
    if spec.label_noise != LabelNoise():
        known, present = (int((splits.train.targets >= n).sum()) for n in (0, 1))
        notes += (f"label noise in train: {known:,} labels are known, {present:,} of them present",)
    if spec.known_labels.share:
        told = "told to heads that take known labels, and not scored"
        notes += (f"about {spec.known_labels.share:.0%} of the labels of test images are {told}",)
    return labels, notes


def drop_unused_inputs(
    spec: RunSpec, splits_of: Callable[[RunSpec], Splits], places: Places, words: str
) -> RunSpec:
    """Replace a label graph or random word vectors that head and loss do not read by the default.

    Runs with equal results are then one run with one id. What counts is which matrices of the
    label context are read when head and loss are made. Random words are replaced by ``words``.
    """
    try:
        labels, _ = make_label_context(spec, splits_of(spec), places, _latest_context)
        recorded: Any = _RecordingContext(labels)
        meta_model(spec.settings, recorded)
    except (PluginError, DataError, WeightsError):
        return spec  # refused later, under the requested name
    default = {} if "cooccurrence" in recorded.read else {"graph": "cooccurrence"}
    if spec.words == "random" and "embeddings" not in recorded.read:
        default["words"] = words
    return spec.model_copy(update=default)


class _RecordingContext:
    """Passes on a label context, and records what of it is read."""

    def __init__(self, labels: LabelContext) -> None:
        self.labels, self.read = labels, set[str]()

    def __len__(self) -> int:
        return len(self.labels)

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.labels, name)


@dataclass
class RunInputs:
    """The inputs of a run; all its processes call the same methods."""

    spec: RunSpec
    places: Places
    world: World
    progress: Progress

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        name = self.places.device
        return torch.device(f"cuda:{self.world.local_rank}" if name == "cuda" else name)

    def open(self) -> Splits:
        """Open the data and decode every image once, so that a bad one stops the run at its start.

        Raises:
            DataError: files are missing or damaged and ``spec.incomplete`` is not set, or the data
                changed since the run was planned.
        """
        spec, places = self.spec, self.places

        def check(files: Sequence[Path]) -> dict[Path, str]:
            how = places.cache, places.workers, self.progress.count
            bad = self.world.ask_leader(lambda: problems(files, *how))
            if bad and not spec.incomplete:
                raise unusable(bad, files, IGNORE)
            return bad

        splits = open_run(spec, places, check)
        if splits.digest != spec.data:
            raise DataError(
                f"the data of {spec.dataset} changed since the run was planned; start again"
            )
        return splits

    def source(self, model: MultiLabelModel, name: str, index: Index) -> Source:
        """The images of a split, augmented in train, or feature maps in the probe track."""
        spec, places, probe = self.spec, self.places, self.spec.track == "probe"
        if name == "train" and not probe:
            exact = spec.precision != "tf32"  # which other threads switch on and off
            transform = transforms.train_transform(spec.settings, together=exact)
        else:
            transform = transforms.Transform(transforms.make_view(spec.settings))
        read = None  # or a reader of images that keeps them decoded in the cache
        if places.image_cache and not probe:
            from mlbench.data.image_cache import cached_images, images_digest

            digest = self.world.ask_leader(lambda: images_digest(index))
            read = cached_images(places, spec.cached_for, index, transform, digest)
        images = ImageSource(index, transform, spec.seed, places.workers, self.device, read)
        if not probe:
            return images
        from mlbench.engine.features import FeatureCache

        identity = feature_identity(spec, model)
        cache = FeatureCache(places, model, identity, spec.cached_for, self.world, self.progress)
        return cache.source(name, index, images)
