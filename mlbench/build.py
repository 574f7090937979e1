"""Names and options, or files, -> a model and its loss."""

from __future__ import annotations

import functools
import re
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mlbench import registry
from mlbench.engine.checkpoint import Checkpoint, backbone_weights, head_weights, load
from mlbench.engine.memory import recompute_activations
from mlbench.engine.model import MultiLabelModel, unregistered, untrained
from mlbench.files import sha256, source_digest
from mlbench.numbers import NUMBERS, changed_packages
from mlbench.text import count
from mlbench.types import (
    Backbone,
    LabelContext,
    Loss,
    ModelFile,
    Places,
    PluginError,
    Pretraining,
    RunSpec,
    Settings,
    WeightsError,
)


# ------------------------------------------------------------------------------------------- models
def build(
    settings: Settings, labels: LabelContext, places: Places, init: Checkpoint | None = None
) -> tuple[MultiLabelModel, Loss]:
    """Make backbone, head and loss on the CPU.

    The backbone has the architecture and the normalisation of the checkpoint ``init``, if there is
    one (``start_from`` takes its weights).

    Raises:
        PluginError: a plugin is unknown or broken, lacks an option, or cannot serve the case.
        WeightsError: the backbone's weights are missing, are others, or do not fit.
    """
    weights = settings.weights
    if weights.startswith("sha256:"):
        weights = str(named_file("weights", weights, places.weights))
    backbone = make_backbone(settings, weights, init)
    if init is not None:  # its mean and std, unless the settings name others
        given, theirs = settings.preprocessing, init.info.preprocessing
        filled = {"mean": given.mean or theirs.mean, "std": given.std or theirs.std}
        settings = settings.model_copy(update={"preprocessing": given.model_copy(update=filled)})
    return _assemble(backbone, settings, labels)


def make_models(
    spec: RunSpec, places: Places, labels: LabelContext, *, recompute: bool
) -> tuple[list[MultiLabelModel], Loss, Pretraining | None, list[str]]:
    """Make the models and loss; raises as ``build``, ``named_file``, ``load``, ``start_from``.

    ``recompute`` recomputes the backbone's activations in the backward pass.

    Returns:
        The model, and its peer under mutual learning; the loss; the origin of the weights; and
        notes for the record.
    """
    settings = spec.settings
    init = load(named_file("init", spec.init, places.init)) if spec.init else None
    model, loss = build(settings, labels, places, init)
    # Made second, so that the peer starts from other random numbers.
    peers = [build(settings, labels, places, init)[0]] if settings.mutual_weight > 0 else []
    notes = []
    for one in (model, *peers):
        if init:
            notes.append(start_from(init, one, settings, labels))
        if recompute and not recompute_activations(one.get_submodule("backbone")):
            notes.append(f"activation_checkpointing: {settings.backbone} cannot, and did not")
    pretraining = init.info.as_pretraining() if init else Pretraining.of(model.backbone)
    return [model, *peers], loss, pretraining, list(dict.fromkeys(notes))


def make_backbone(settings: Settings, weights: str, init: Checkpoint | None) -> Backbone:
    """Make the backbone, with the architecture of a checkpoint's backbone of the same name."""
    same = init is not None and init.info.spec.settings.backbone == settings.backbone
    options = init.info.backbone_options if init and same else {}
    factory = registry.find("backbone", settings.backbone).load()
    made: Backbone = factory(weights=weights, image_size=settings.image_size, **options)
    return made


def start_from(
    init: Checkpoint, model: MultiLabelModel, settings: Settings, labels: LabelContext
) -> str:
    """Load the weights of a checkpoint into a model that ``build`` made for it.

    The backbone is loaded whole, the head as ``head_weights`` says. Returns a note for the record.

    Raises:
        WeightsError: the checkpoint has a different backbone.
    """
    head = model.get_submodule("head")
    taken = backbone_weights(init, model.get_submodule("backbone"), settings)
    whole: dict[str, torch.Tensor] = {}
    rows: dict[str, torch.Tensor] = {}
    if init.info.spec.settings.head == settings.head:
        whole, rows = head_weights(init, head, _label_axes(settings, labels), labels.names)
    model.load_state_dict(taken | whole | rows, strict=False)
    spec, known = init.info.spec, set(labels.names) & set(init.info.label_names)
    tensors = count(len(head.state_dict()), "tensor")
    return (
        f"started from {spec.method} on {init.info.identity or spec.dataset} (run {spec.run_id}): "
        f"its backbone; of {tensors} of the {settings.head} head, {len(whole)} whole and "
        f"{len(rows)} in the rows of {len(known)} of {count(len(labels), 'label')}"
    )


def _label_axes(settings: Settings, labels: LabelContext) -> dict[str, list[int]]:
    """Name of each tensor of a head -> its axes over labels, which grow with their number."""

    def shapes(names: tuple[str, ...]) -> dict[str, torch.Size]:
        model, _ = meta_model(settings, _blank_context(names, labels.word_width))
        return {name: t.shape for name, t in model.get_submodule("head").state_dict().items()}

    one, more = shapes(labels.names), shapes((*labels.names, ""))
    return {
        name: [i for i, size in enumerate(shape) if size != more[name][i]]
        for name, shape in one.items()
    }


def _blank_context(names: tuple[str, ...], width: int) -> LabelContext:
    """A label context with nothing but names."""
    many = len(names)
    counts_CC, words_CE = np.eye(many, dtype=np.float32), np.zeros((many, width), np.float32)
    return LabelContext(names, counts_CC, words_CE, 1, lambda: np.ones(many, np.int64))


def identity_of(file: Path) -> str:
    """The name of a file in a spec: ``sha256:`` and 16 hex digits. An unchanged file is read once.

    Raises:
        OSError: it cannot be read.
    """
    state = file.stat()
    return _identity_of(file.resolve(), state.st_size, state.st_mtime_ns)


@functools.cache
def _identity_of(file: Path, size: int, changed: int) -> str:
    return "sha256:" + sha256(file)[:16]


def named_file(flag: str, identity: str, file: Path | None) -> Path:
    """The file that a flag gives; its digest must be the one that a spec names.

    Raises:
        WeightsError: there is no file, it cannot be read, or it has another digest.
    """
    remedy = f"give the file with this digest by --{flag} FILE"
    if file is None:
        what = f"{flag} {identity} is the digest of a file, which is not given"
        raise WeightsError(f"{what}; {remedy}")
    try:
        found = f"is {identity_of(file)}"
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
    if found != f"is {identity}":
        raise WeightsError(f"--{flag} {file} {found}, but the run names {identity}; {remedy}")
    return file


@functools.lru_cache(maxsize=64)
def meta_backbone(name: str, image_size: int) -> Backbone:
    """A backbone on the ``meta`` device, in evaluation mode. It is shared: do not change it.

    Raises:
        PluginError: the plugin is unknown or broken, or cannot serve the size.
    """
    factory = registry.find("backbone", name).load()
    with torch.device("meta"):
        backbone: Backbone = factory(weights="none", image_size=image_size).eval()
    return backbone


def model_file(source: Path) -> Path:
    """The model file at a path: the path, or the checkpoint in a run's folder (id may be short)."""
    if not source.exists():
        short = source if source.parent.exists() else source.parent
        found = list(short.parent.glob(f"{escape(short.name)}*"))
        source = found[0] / source.relative_to(short) if len(found) == 1 else source
    return source / "checkpoint.safetensors" if source.is_dir() else source


def open_model(source: Path) -> ModelFile:
    """Read a model that ``model_file`` finds: ours, or of a format that a plugin reads.

    Raises:
        WeightsError: the file cannot be read, or the weights do not fit.
        PluginError: the plugin that reads this format is broken.
    """
    file = model_file(source)
    ending = file.suffix.removeprefix(".")
    if any(plugin.name == ending for plugin in registry.plugins("format")):
        opened: ModelFile = registry.find("format", ending).load()(file)
        return opened
    checkpoint = load(file)
    return ModelFile(restore(checkpoint), checkpoint.info)


def restore(checkpoint: Checkpoint) -> MultiLabelModel:
    """Make the model of a checkpoint, in evaluation mode on the CPU.

    Raises:
        PluginError: a plugin is not installed, or no longer has an option.
        WeightsError: the weights do not fit the model.
    """
    info, settings = checkpoint.info, checkpoint.info.settings
    # Label graph and word vectors are buffers of the head, which the weights fill.
    labels = _blank_context(info.label_names, info.word_width)
    try:
        model, _ = _assemble(make_backbone(settings, "none", checkpoint), settings, labels)
    except PluginError as error:
        what = "".join(f"; the model has {one}" for one in changed_packages(info.plugins))
        raise PluginError(f"{error}{what}") from error
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights do not fit {settings.backbone} with {settings.head} as this version "
            f"builds them: {error}"
        ) from error
    return model.eval()


def _assemble(
    backbone: Backbone, settings: Settings, labels: LabelContext
) -> tuple[MultiLabelModel, Loss]:
    head = registry.make("head", settings.head, (backbone.spec, labels), settings.head_options)
    loss = registry.make("loss", settings.loss, (labels,), settings.loss_options)
    _share_angles(head, loss, settings)
    given = settings.preprocessing
    mean, std = given.mean or backbone.mean, given.std or backbone.std
    return MultiLabelModel(backbone, head, mean, std), loss


def feature_identity(spec: RunSpec, model: MultiLabelModel) -> dict[str, object]:
    """Everything that changes the feature maps of an image."""
    settings = spec.settings
    plugin = registry.find("backbone", settings.backbone)
    package = re.split("[.:]", plugin.value)[0]
    return {
        "numbers": NUMBERS,
        "source": source_digest(package, MultiLabelModel.__module__),
        "backbone": plugin.label,
        "plugin": plugin.package,
        "weights": spec.init or settings.weights,
        "seed": spec.seed if settings.weights == "none" and not spec.init else None,
        "image_size": settings.image_size,
        "decoder": settings.decoder,
        "preprocessing": settings.preprocessing.model_dump(),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "device": model.mean.device.type,
        # Damaged maps are recomputed during training, which may have enabled TF32.
        "precision": "tf32" if str(spec.precision) == "tf32" else "fp32",
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "pillow")},
    }


def _share_angles(head: nn.Module, loss: Loss, settings: Settings) -> None:
    """Pass the scale and exponent of an angular loss to the cosine classifiers of a head."""
    angles = getattr(loss, "angles", None)
    if angles is None:
        return
    classifiers: list[Any] = [m for m in head.modules() if hasattr(m, "angles")]
    if not classifiers:
        broken = registry.problems(plugins := registry.plugins("head"))
        offered = {p.name: registry.options(p.load()) for p in plugins if p not in broken}
        heads = [n for n, o in offered.items() if o.get("classifier") in ("linear", "cosine")]
        first = "give" if settings.head in heads else f"take a head of {', '.join(heads)}, with"
        raise PluginError(
            f"loss {settings.loss} works on angles, and head {settings.head} with "
            f"{settings.head_options or 'its default options'} gives plain logits; "
            f"{first} `--set head_options.classifier=cosine`, or another loss"
        )
    for classifier in classifiers:
        classifier.angles = angles


def meta_model(settings: Settings, labels: LabelContext) -> tuple[MultiLabelModel, Loss]:
    """``build`` without weights or memory; the backbone is shared and must not change.

    Raises:
        PluginError: as ``build``, or parts of the head or the loss would not be trained or saved.
    """
    with torch.device("meta"):
        backbone = meta_backbone(settings.backbone, settings.image_size)
        model, loss = _assemble(backbone, settings, labels)
    if stray := unregistered(model.get_submodule("head"))[1]:
        raise PluginError(f"head {settings.head}: {stray}")
    if stray := untrained(loss):
        raise PluginError(f"loss {settings.loss}: {stray}")
    return model, loss
