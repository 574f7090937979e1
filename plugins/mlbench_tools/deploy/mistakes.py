"""Which predictions are confidently wrong, which labels are probably wrong, and pages of both."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from scipy.special import expit

from mlbench.data.decode import decode
from mlbench.engine.checkpoint import load
from mlbench.files import atomic_write
from mlbench.types import DataError, Index, Predictions, RunRecord, Splits, WeightsError
from mlbench_tools.deploy.outputs import listed

SIDE = 160
"""Longer side of a thumbnail, in pixels."""
MINIMUM = 3
"""Least number of images with a label, and without it, for an estimate of its errors."""


@dataclass(frozen=True)
class Suspect:
    """An image and a label that do not go together.

    Attributes:
        image: position in the split.
        label: column.
        kind: what the data say: the label is ``present`` or ``absent``.
        score: the label's score, in [0, 1].
        label_error: True if the label, rather than the prediction, is probably wrong.
    """

    image: int
    label: int
    kind: Literal["present", "absent"]
    score: float
    label_error: bool

    @property
    def wrongness(self) -> float:
        """1 - the confidence in the given label; suspects are sorted by it."""
        return 1 - self.score if self.kind == "present" else self.score


def suspects(
    predictions: Predictions, calibration: NDArray[np.float64] | None = None, most: int = 12
) -> list[list[Suspect]]:
    """For each label, the images whose given label the model believes least, worst first.

    A label is probably wrong if the model's confidence in the other state reaches its mean over
    the images that are in that state: C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident
    Learning", JAIR 2021, for one label at a time. The mean makes up for scores that are shifted.
    """
    slope_C, offset_C = np.ones(1), np.zeros(1)
    if calibration is not None:
        slope_C, offset_C = calibration.T
    scores_NC = expit(slope_C * predictions.logits + offset_C)
    found = []
    for c in range(scores_NC.shape[1]):
        mine: list[Suspect] = []
        target_N, score_N = predictions.targets[:, c], scores_NC[:, c]
        present, absent = np.flatnonzero(target_N == 1), np.flatnonzero(target_N == 0)
        if min(len(present), len(absent)) >= MINIMUM:
            as_present, as_absent = score_N[present].mean(), score_N[absent].mean()
            for i in present[np.argsort(score_N[present], kind="stable")][:most].tolist():
                score = float(score_N[i])
                mine.append(Suspect(i, c, "present", score, bool(score <= as_absent)))
            for i in absent[np.argsort(-score_N[absent], kind="stable")][:most].tolist():
                score = float(score_N[i])
                mine.append(Suspect(i, c, "absent", score, bool(score >= as_present)))
        found.append(sorted(mine, key=lambda one: -one.wrongness))
    return found


def confusions(
    predictions: Predictions, names: tuple[str, ...], most: int = 3
) -> list[list[tuple[str, float]]]:
    """For each label, the present labels that its false positives have more often than others do.

    The highest-scored images without the label, as many as have it, are its false positives.

    Returns:
        For each label, (other label, share of the false positives that have it), of those that
        have it at least twice as often as all images do.
    """
    true_NC = predictions.targets == 1
    usual_C = true_NC.mean(axis=0)
    found = []
    for c in range(len(names)):
        absent = np.flatnonzero(predictions.targets[:, c] == 0)
        number = max(5, int(true_NC[:, c].sum()))
        wrong = absent[np.argsort(-predictions.logits[absent, c], kind="stable")][:number]
        share_C = true_NC[wrong].sum(axis=0) / max(len(wrong), 1)
        often = np.flatnonzero((share_C > 0) & (share_C >= 2 * usual_C))
        order = often[np.argsort(-share_C[often], kind="stable")][:most].tolist()
        found.append([(names[o], float(share_C[o])) for o in order])
    return found


def curve(scores_N: NDArray[np.floating], targets_N: NDArray[np.int8], points: int = 60) -> str:
    """The precision-recall curve as points of an SVG of 100 x 100; empty without both states."""
    known = targets_N >= 0
    hits = np.cumsum(targets_N[known][np.argsort(-scores_N[known], kind="stable")] == 1)
    if not len(hits) or hits[-1] in (0, len(hits)):
        return ""
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
    shown = np.unique(np.linspace(0, len(hits) - 1, points).astype(int))
    return " ".join(f"{100 * recall[i]:.1f},{100 - 100 * precision[i]:.1f}" for i in shown)


# ------------------------------------------------------------------------------------------- pages
def in_order(splits: Splits, predictions: Predictions, record: RunRecord) -> Index:
    """The images that the run was scored on, in the order of the predictions."""
    index = splits.whole_train if record.spec.holdout else splits.test
    places = {key: i for i, key in enumerate(index.keys)}
    if missing := set(predictions.keys) - set(places):
        raise DataError(
            f"{record.spec.dataset} lacks {len(missing):,} of the {len(predictions.keys):,} images "
            f"that run {record.run_id} was scored on; give the data that it was scored on"
        )
    return index.take(np.array([places[key] for key in predictions.keys]))


def calibration_of(folder: Path) -> NDArray[np.float64] | None:
    """The calibration of the run's model [C, 2], if the model was kept and calibrated."""
    try:
        found = load(folder / "checkpoint.safetensors").info.calibration
    except WeightsError:
        return None
    return None if found is None else np.array(found)


def write_thumbnail(file: Path, out: Path, image: int) -> str:
    """Write a small copy of an image; return its path in the folder, empty if it is unreadable."""
    try:
        small = decode(file)
    except DataError:
        return ""
    small.thumbnail((SIDE, SIDE))
    target = out / "thumbnails" / f"{image}.jpg"
    target.parent.mkdir(exist_ok=True)
    small.save(target, quality=80)
    return f"thumbnails/{image}.jpg"


def label_entries(
    record: RunRecord,
    predictions: Predictions,
    test: Index,
    found: Sequence[Sequence[Suspect]],
    thumbnails: Mapping[int, str],
) -> list[dict[str, Any]]:
    """The page's values of each label, the lowest average precision first."""
    names, targets = record.label_names, predictions.targets
    labels: list[dict[str, Any]] = []
    for c, confused in enumerate(confusions(predictions, names)):
        precision = record.average_precision[c] if record.average_precision else None
        labels.append(
            {
                "name": names[c],
                "ap": precision,
                "positives": int((targets[:, c] == 1).sum()),
                "curve": curve(predictions.logits[:, c], targets[:, c]),
                "confused": confused,
                "groups": _groups(found[c], names, test, thumbnails),
            }
        )
    return sorted(labels, key=lambda one: (one["ap"] is None, one["ap"]))


def write_page(out: Path, record: RunRecord, labels: Sequence[Mapping[str, Any]]) -> None:
    """Write index.html, and errors.json, which `mlbench page` puts into the run's page."""
    environment = Environment(
        loader=PackageLoader("mlbench_tools.deploy"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("errors.html").render(
        title=record.spec.title, run=record.run_id, data=record.identity, labels=labels
    )
    plain = json.dumps({"started": record.started, "labels": labels}, ensure_ascii=False)
    for name, text in (("index.html", page), ("errors.json", plain)):
        with atomic_write(out / name) as part:
            part.write_text(text, encoding="utf-8")


def _groups(
    mine: Sequence[Suspect], names: Sequence[str], test: Index, thumbnails: Mapping[int, str]
) -> dict[str, list[dict[str, Any]]]:
    """Heading -> pictures."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in mine:
        if one.label_error:
            heading = f"Label probably wrong: given as {one.kind}"
        else:
            heading = "Missed" if one.kind == "present" else "Found where it is not"
        given = [names[c] for c in np.flatnonzero(test.targets[one.image] == 1).tolist()]
        groups.setdefault(heading, []).append(
            {
                "file": thumbnails[one.image],
                "key": test.keys[one.image],
                "score": f"{one.score:.2f}",
                "given": ", ".join(given) or "no label",
            }
        )
    return groups


def write_corrections(
    out: Path, splits: Splits, scored: Sequence[str], wrong: Sequence[Suspect]
) -> Path:
    """Write a table that ``manifest:`` reads: every image with its labels, doubtful ones first.

    A table that was edited is kept; the new one is written beside it.

    Two more columns say what to add and what to remove. If labels are unknown, which a list cannot
    say, the table has a column for each label instead of lists, and lacks these two.
    """
    names = splits.names
    add: dict[str, list[str]] = {}
    remove: dict[str, list[str]] = {}
    for one in sorted(wrong, key=lambda one: -one.wrongness):
        place = add if one.kind == "absent" else remove
        place.setdefault(scored[one.image], []).append(names[one.label])
    parts = (("test", splits.test), ("train", splits.whole_train))
    rows = [(split, *sample) for split, index in parts for sample in index]
    rows.sort(key=lambda row: row[3] not in add and row[3] not in remove)
    wide = any(bool((target < 0).any()) for _, _, target, _ in rows)
    groups = splits.groups()
    more = ["group"] if groups else []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "split", *more, *(names if wide else ("labels", "add", "remove"))])
    for split, path, target, key in rows:
        states = ["" if state < 0 else int(state) for state in target.tolist()]
        given = [names[c] for c in np.flatnonzero(target == 1).tolist()]
        lists = [listed(one, names) for one in (given, add.get(key, ()), remove.get(key, ()))]
        group = [groups.get(key, "")] if groups else []
        table.writerow([str(path.resolve()), split, *group, *(states if wide else lists)])
    content = text.getvalue().encode()
    numbers = itertools.chain([""], map("-{}".format, itertools.count(2)))
    files = (out / f"corrections{number}.csv" for number in numbers)
    file = next(one for one in files if not one.exists() or one.read_bytes() == content)
    with atomic_write(file) as part:
        part.write_bytes(content)
    return file
