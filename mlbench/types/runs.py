"""A run as plain data: what it is asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from mlbench.types.settings import Settings
from mlbench.types.values import Graph, Precision, Track, Value


class LabelNoise(Value):
    """What is missing or wrong in the TRAIN labels on purpose (see ``mlbench.data.noise``).

    Attributes:
        keep: the share of the labels that stay known, in (0, 1].
        single_positive: of each image one positive label, drawn at random, is all that is known.
        assume_negative: labels that are not kept are taken to be absent, instead of unknown.
        flip: the share of the labels that are turned into their opposite, in [0, 1).
        flip_which: which labels that may happen to: ``any``, ``present`` or ``absent`` ones.
        seed: of the draws. It is not the run's seed, so that runs of several see the same labels.
    """

    keep: float = Field(1.0, gt=0, le=1)
    single_positive: bool = False
    assume_negative: bool = False
    flip: float = Field(0.0, ge=0, lt=1)
    flip_which: Literal["any", "present", "absent"] = "any"
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> LabelNoise:
        partial = self.keep < 1 or self.single_positive
        if self.keep < 1 and self.single_positive:
            raise ValueError("keep and single_positive exclude each other; give one of them")
        if self.assume_negative and not partial:
            raise ValueError("assume_negative needs keep or single_positive; all labels are known")
        if self.flip_which != "any" and not self.flip:
            raise ValueError("flip_which needs flip; no label is flipped")
        if self.seed and not (partial or self.flip):
            raise ValueError("seed needs keep, single_positive or flip; nothing is drawn")
        return self


class RunSpec(Value):
    """One run as plain data: everything that changes its numbers, and nothing else.

    Attributes:
        method: name of the recipe, or of a head without one.
        dataset: plugin name; ``dataset_options`` go to its factory.
        data: digest of the keys and targets of both splits (see ``digest``).
        labels: the labels that take part, None for all.
        holdout: this part of the training split is scored instead of the test split, and not
            trained on: for choosing settings. 0 trains on all and scores the test split.
        incomplete: images that cannot be used are left out; ``data`` is of those that remain.
        words: where the label embeddings come from: ``cooccurrence``, ``random`` (drawn with the
            run's seed) or ``sha256:...`` of a file.
        graph: what heads make their label graph of; ``random`` is drawn with the run's seed.
        label_noise: what is missing or wrong in the training labels on purpose.
        checkpoint: ``sha256:...`` of the authors' weights that were scored instead of training;
            empty for a run.
    """

    method: str
    dataset: str
    dataset_options: dict[str, Any] = {}
    data: str
    labels: tuple[str, ...] | None = None
    holdout: float = Field(0.0, ge=0, lt=1)
    incomplete: bool = False
    track: Track
    seed: NonNegativeInt = 0
    precision: Precision = "fp32"
    words: str = "cooccurrence"
    graph: Graph = "cooccurrence"
    label_noise: LabelNoise = LabelNoise()
    checkpoint: str = Field("", pattern=r"^(sha256:[0-9a-f]+)?$")
    settings: Settings

    @property
    def run_id(self) -> str:
        """16 hex digits of the hash of the canonical JSON; fields at their default are left out,
        so that a field added later never renames old evidence.
        """  # noqa: D205
        plain = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Places(Value):
    """Where a run finds and leaves files; none of it changes a number.

    Attributes:
        data: folder given by ``--data``.
        weights: file given by ``--weights``, None for ``default`` and ``none``.
        words: file given by ``--words``.
        results: the store.
        cache: synthetic images, checked files, feature maps of the probe track.
        checkpoints: whether the trained model is kept.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: data loading threads a process.
    """

    data: Path | None = None
    weights: Path | None = None
    words: Path | None = None
    results: Path
    cache: Path
    device: str = "cpu"
    workers: NonNegativeInt = 2
    checkpoints: bool = True
