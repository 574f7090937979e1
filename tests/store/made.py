"""Records and predictions made by hand, and changes of the files that they are kept in."""

import io
import json
import random

import numpy as np

from mlbench.evidence import record_digest
from mlbench.numbers import NUMBERS
from mlbench.types import (
    DatasetCard,
    Efficiency,
    EpochLog,
    ModelCost,
    Network,
    Predictions,
    RunRecord,
    RunSpec,
    Scores,
    Settings,
    Timing,
)

NAMES = ("cat", "dog", "tv | monitor")
CARD = DatasetCard(title="t", bibtex="b", licence="l", home="h")


def made_scores(value=50.0, left_out=0):
    numbers = dict.fromkeys(Scores.model_fields, 40.0)
    numbers |= {"mAP": value, "mAP_low": value - 1, "mAP_high": value + 1}
    return Scores(**{**numbers, "classes_scored": 3 - left_out, "classes_left_out": left_out})


def made_cost(record, ms=12.5, *, bare=10.0, half=0.0, lost=0.0, **fields):
    """The measured speed of a record's model: a batch of 16 takes eight times as long as one image.

    `half` is half the width of the ratio's interval, relative to the ratio.
    """
    timings = tuple(
        Timing(
            batch_size=size,
            rounds=9,
            median_ms=times * ms,
            p05_ms=times * ms,
            p95_ms=times * ms,
            bare_ms=times * bare,
            head_ms=times * (ms - bare),
            ratio=ms / bare,
            ratio_low=ms / bare * (1 - half),
            ratio_high=ms / bare * (1 + half),
            lost=lost,
        )
        for size, times in ((1, 1), (16, 8))
    )
    values = {
        "network": Network.of(record),
        "device": "AMD EPYC",
        "threads": 1,
        "precision": "fp32",
        "runtime": "eager",
        "timings": timings,
        "best_batch": 16,
        "load": 0.5,
        "versions": {},
        "commit": None,
        "command": "mlbench measure",
        "measured": "2026-01-01T00:00:00+00:00",
    }
    return ModelCost(**{**values, **fields})


def made_efficiency(device="AMD EPYC", **fields):
    values = {
        "parameters_backbone": 11_000_000,
        "parameters_head": 500_000,
        "gmacs_backbone": 1.8,
        "gmacs_head": 0.2,
        "peak_memory_mb": 100,
        "image_size": 224,
        "precision": "fp32",
        "device": device,
        "threads": 2,
        "versions": {},
    }
    return Efficiency(**{**values, **fields})


def made_epoch(epoch, loss, **more):
    return EpochLog(epoch=epoch, loss=loss, lr=1e-3, seconds=1, images_per_second=10, **more)


def made_record(method="ssgrl", value=50.0, *, spec=None, settings=None, **fields):
    plain = {"backbone": "resnet18", "head": method, "epochs": 3, "image_size": 224}
    whole = {"method": method, "dataset": "coco", "data": "d" * 16, "track": "probe"}
    made = RunSpec(
        **{**whole, "settings": Settings(**{**plain, **(settings or {})}), **(spec or {})}
    )
    values = {
        "run_id": made.run_id,
        "spec": made,
        "identity": "coco-mini",
        "status": "ok",
        "scores": made_scores(value),
        "label_names": NAMES,
        "average_precision": (50.0, 40.0, None),
        "train_images": 100,
        "test_images": 4,
        "efficiency": made_efficiency(),
        "environment": {"device": "cpu"},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": {"training": 1.5},
        "command": "mlbench run --plugins ssgrl",
        "commit": "0123456789abcdef",
        "numbers": {"core": NUMBERS},
    }
    return RunRecord(**{**values, **fields})


def as_change(function):
    """``as_change(f)(a, b)(subject)`` is ``f(subject, a, b)``: how to change it, then what."""
    return lambda *given, **named: lambda subject: function(subject, *given, **named)


def kept(store, record, predictions=None):
    """Write a run; return its record as it is read."""
    store.write(record, predictions)
    return store.find(record.run_id)


def edit(file, path, value, *, sealed=False):
    """Set one field of a record on disk, and its digest if it is to look untouched."""
    content = part = json.loads(file.read_text())
    *above, last = path
    for name in above:
        part = part[name]
    part[last] = value
    if sealed:
        content["digest"] = record_digest(json.dumps(content))
    file.write_text(json.dumps(content))


def with_arrays(archive, **changed):
    """The bytes of an archive with other arrays; those that are None are left out."""
    with np.load(io.BytesIO(archive)) as found:
        arrays = {name: array for name, array in {**found, **changed}.items() if array is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def damages(content, flips):
    """Every bit of the beginning and of the end, random flips, and truncations."""
    rng = random.Random(0)
    ends = [*range(8 * 60), *range(8 * len(content) - 8 * 22, 8 * len(content))]
    for bit in [*ends, *(rng.randrange(8 * len(content)) for _ in range(flips))]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)
    yield from (content[: rng.randrange(len(content))] for _ in range(60))


def equal(one, other):
    """Whether two predictions, or None, hold the same, and their validation parts do."""
    if one is None or other is None:
        return one is other
    same = np.array_equal(one.logits, other.logits, equal_nan=True)
    same &= np.array_equal(one.targets, other.targets) and one.keys == other.keys
    return same and equal(one.validation, other.validation)


def made_predictions(seed=0, n=4):
    rng = np.random.default_rng(seed)
    return Predictions(
        logits=rng.standard_normal((n, 3)).astype(np.float32),
        targets=rng.integers(-1, 2, (n, 3)).astype(np.int8),
        keys=tuple(f"image {i}/é" for i in range(n)),
    )
