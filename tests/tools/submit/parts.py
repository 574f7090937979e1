"""Committed and made-up results to pack, and packs taken apart."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlbench.data.open import Subset, open_splits
from mlbench.evidence import pack, seal
from mlbench.metrics.bootstrap import score
from mlbench.numbers import numbers_of
from mlbench.registry import recorded_as
from mlbench.store import Store
from mlbench.tracks import settle
from mlbench.types import Predictions, RunSpec
from mlbench_tools.submit import pack_file
from tests.store.made import made_efficiency, made_epoch, made_record

RESULTS = Path(__file__).parents[3] / "results"


def committed(identity, method):
    """The first record of a method and seed 0 on an edition, and its predictions."""
    store = Store(RESULTS)
    files = sorted((RESULTS / "records" / identity / method).glob("*.json"))
    record = next(one for file in files if (one := store.find(file.stem)).spec.seed == 0)
    return record, store.predictions(record)


def scored(record, predictions, **fields):
    """The record with the scores of these predictions."""
    scores, precisions = score(predictions.logits, predictions.targets)
    return record.model_copy(update={"scores": scores, "average_precision": precisions, **fields})


def named(record, **fields):
    """The record of another spec, with that spec's run id."""
    spec = RunSpec.model_validate({**record.spec.model_dump(), **fields})
    return record.model_copy(update={"spec": spec, "run_id": spec.run_id})


def made(cache, settings=None, **fields):
    """A record and predictions on a small synthetic set; nothing is trained."""
    _, options = recorded_as("synthetic", {"train_images": 40, "test_images": 30, "size": 32})
    settings = {"backbone": "resnet18", "image_size": 448, "epochs": 2, **(settings or {})}
    chosen = settings.get("selection", "last") == "validation"
    plain = {"dataset": "synthetic", "dataset_options": options, "method": "gap"}
    fields = {**plain, "track": "controlled", **fields}
    part = {name: fields[name] for name in ("labels", "holdout") if name in fields}
    splits = open_splits("synthetic", options, None, cache, Subset(validation=chosen, **part))
    settled = settle(fields["track"], fields["method"], "synthetic", splits.card, [settings])
    spec = RunSpec(data=splits.digest, settings=settled, **fields)
    seen = guessed(splits.validation, 1) if chosen else None
    predictions = replace(guessed(splits.test, 0), validation=seen)
    best = None if seen is None else score(seen.logits, seen.targets, resamples=1)[0].mAP
    log = [made_epoch(i, 1, mAP=best) for i in range(1, settled.epochs + 1)]
    plugins = {"backbone resnet18", "head gap", "loss bce", "dataset synthetic"}
    record = made_record(
        spec={"data": spec.data},
        numbers=numbers_of(spec),
        identity=splits.identity,
        label_names=splits.names,
        train_images=len(splits.train),
        test_images=len(splits.test),
        validation_images=len(splits.validation or ()),
        selected_epoch=1 if chosen else None,
        epochs=tuple(log),
        environment={"plugins": dict.fromkeys(plugins, "mlbench-mlic 0.1.0"), "device": "cpu"},
        command="mlbench run --plugins gap --datasets synthetic",
        commit="1" * 40,
        efficiency=made_efficiency(
            image_size=448,
            parameters_backbone=11_176_512,
            gmacs_backbone=7.254245376,
            parameters_head=513 * len(splits.names),
            gmacs_head=512e-9 * len(splits.names),
        ),
    )
    return scored(record, predictions, spec=spec, run_id=spec.run_id), predictions


def make(record, predictions):
    """A pack of a record that is sealed first, as a store does."""
    archive = None if predictions is None else pack(predictions, record)
    return pack_file.make(seal(record, archive), predictions)


def guessed(index, seed):
    logits = np.random.default_rng(seed).standard_normal(index.targets.shape)
    return Predictions(logits.astype(np.float32), index.targets, tuple(index.keys))


def taken_apart(data):
    """Members of a pack by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def put_together(members, *, honest=True):
    """A pack of these members; an honest one has their hashes in its manifest."""
    if honest:
        manifest = json.loads(members[pack_file.MANIFEST])
        rest = {name: data for name, data in members.items() if name != pack_file.MANIFEST}
        manifest["sha256"] = {n: hashlib.sha256(data).hexdigest() for n, data in rest.items()}
        members = {pack_file.MANIFEST: json.dumps(manifest).encode(), **rest}
    return pack_file.zipped(members)
