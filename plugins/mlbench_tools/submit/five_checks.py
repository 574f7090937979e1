"""The five checks of ``mlbench verify``: run id, data, scores, settings and costs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mlbench import registry, run_file
from mlbench.data.open import open_run
from mlbench.evidence import DIRECTORY
from mlbench.metrics.bootstrap import score
from mlbench.numbers import changed_packages, outdated
from mlbench.text import flatten, shorten
from mlbench.tracks import name_defaults, settle
from mlbench.types import (
    NO_COSTS,
    WORD_WIDTH,
    DatasetCard,
    Efficiency,
    MeasureError,
    Places,
    PluginError,
    RunRecord,
    RunSpec,
    Scores,
    Settings,
    SuiteError,
    keys_digest,
    split_digest,
)
from mlbench_tools.costs.counting import Counts, count_backbone, count_head
from mlbench_tools.submit.pack_file import RECIPE, Pack
from mlbench_tools.submit.remarks import Remark, VerifyReport, as_warning, finding

GMACS = 1e-3
"""Relative tolerance of GMACs: versions of torch may or may not count a minor operation."""
NOT_SHARED = (DIRECTORY, "influence", "run_id")
"""Beginnings of the names of arrays that only a store or only a pack has."""
AXES = ("backbone", "weights", "loss", "image_size", "epochs", "selection")
"""Settings that a matrix varies, or that a flag sets for all methods alike."""
POINTS = 1e-4
"""Tolerance of scores in percentage points: a hundredth of what a board shows."""


def verify(pack: Pack, places: Places | None = None) -> VerifyReport:
    """Run the five checks.

    Findings on settings and costs become warnings if a plugin of the run is not installed here in
    the run's version.

    Raises:
        DataError: the data set is not in the folder.
    """
    record = pack.record
    report = VerifyReport(pack.file, run_id=record.run_id, identity=record.identity)
    report.extend("run id", run_id(pack))
    report.extend("data", data(pack, places))
    report.extend("scores", scores(pack))
    used = changed_packages(record.environment.get("plugins"))
    texts = (f"the run used {one}: findings on it are warnings" for one in used)
    changed = [Remark("warning", text, check="plugins") for text in texts]
    for name, check in (("settings", settings), ("costs", costs)):
        remarks = check(record)
        report.extend(name, map(as_warning, remarks) if changed else remarks)
    report.remarks += changed
    return report


# ------------------------------------------------------------------------------------------ run id
def run_id(pack: Pack) -> Iterator[Remark]:
    """Compare the run id of every part with the hash of the settings."""
    expected = pack.record.spec.run_id
    found = {"record": pack.record.run_id, "manifest": pack.manifest.run_id}
    if pack.predictions_run_id is not None:
        found["predictions"] = pack.predictions_run_id
    try:
        found["recipe"] = run_file.from_yaml(pack.recipe).spec.run_id
    except SuiteError as error:
        yield finding(f"{RECIPE} cannot be read", "the settings of the run", error)
    for part, value in found.items():
        if value != expected:
            yield finding(f"run id of the {part} is not that of the settings", expected, value)


# -------------------------------------------------------------------------------------------- data
def data(pack: Pack, places: Places | None) -> Iterator[Remark]:
    """Compare members with the hashes of the manifest, and predictions with the data set."""
    recorded, computed = pack.manifest.sha256, pack.sha256
    for name in sorted({*recorded, *computed}):
        if recorded.get(name) != computed.get(name):
            text = f"SHA-256 of {name} is not that of the manifest"
            yield finding(text, recorded.get(name), computed.get(name))
    yield from _digests(pack)
    if places is None:
        yield from _against_card(pack, _card(pack.record.spec.dataset))
    else:
        splits = open_run(pack.record.spec, places)
        found = (pack.record.spec.data, pack.record.identity)
        old = "-" not in pack.record.spec.data  # digest of labels alone
        here = splits.digest.partition("-")[0] if old else splits.digest
        if found != (here, splits.identity):
            text = "the data set under --data is not the run's"
            yield finding(text, f"{splits.identity} (digest {splits.digest})", " ".join(found))
        keys, targets = splits.test.keys, splits.test.targets
        split = split_digest(keys, targets, splits.names)
        yield from _compare_split(pack, keys_digest(keys), split)


def _digests(pack: Pack) -> Iterator[Remark]:
    """Compare record and predictions with the digests that the record holds."""
    record = pack.record
    if record.digest != pack.record_digest:
        text = "the record was changed since it was written: its digest is not that of its content"
        yield finding(text, pack.record_digest, record.digest or "none")
    recorded = record.predictions_sha256
    packed = {name for name in {*recorded, *pack.arrays_sha256} if not name.startswith(NOT_SHARED)}
    for name in sorted(packed):
        expected, found = recorded.get(name), pack.arrays_sha256.get(name)
        if expected != found:
            yield finding(f"{name} is not what the record was made with", expected, found)


def _against_card(pack: Pack, card: DatasetCard | None) -> Iterator[Remark]:
    record = pack.record
    digest, _, images = record.spec.data.partition("-")
    name = card.identities.get(digest) if card else None
    if card and name is None and record.identity in card.editions:
        text = f"digest of the data is not that of {record.identity}"
        known = [one for one, edition in card.identities.items() if edition == record.identity]
        yield finding(text, shorten(known), digest)
    elif card is None or name is None:
        yield Remark(
            "not checked",
            f"images and targets: no card of {record.spec.dataset} has the digest "
            f"{digest}; --data DIR compares them with the data set",
        )
    else:
        edition = card.editions.get(name)
        others = edition and images and edition.images not in ("", images)
        expected = f"{name}-images-{images}" if others else name
        if record.identity != expected:
            yield finding("edition is not that of the digest", expected, record.identity)
        if edition:
            yield from _compare_split(pack, edition.test_keys, edition.test)


def _compare_split(pack: Pack, keys: str, split: str) -> Iterator[Remark]:
    """Compare the predictions' images, targets and label order with digests of the test split."""
    if (test := pack.predictions) is None:
        return
    edition = pack.record.identity
    found = split_digest(test.keys, test.targets, pack.record.label_names)
    if (images := keys_digest(test.keys)) != keys:
        yield finding(f"images are not the test split of {edition}", keys, images)
    elif found != split:
        text = f"labels, their order or targets are not those of {edition}"
        yield finding(text, split, found)


# ------------------------------------------------------------------------------------------ scores
def scores(pack: Pack) -> Iterator[Remark]:
    """Recompute scores, interval and the AP of each label from the predictions."""
    record, test = pack.record, pack.predictions
    if record.status != "ok" or test is None:
        yield Remark("warning", "the run diverged: there are no scores to recompute")
        if test is not None:
            yield finding("a diverged run has predictions", "none", f"{len(test.keys)} images")
        return
    text = (
        "whether the predictions are this model's, and whether it was trained on the test split; "
        "digests show damage and edits, but not a forger who recomputes them"
    )
    yield Remark("not checked", text)
    try:
        recomputed, precisions = score(test.logits, test.targets)
    except MeasureError as error:
        yield finding("the predictions cannot be scored", "finite logits and known targets", error)
        return
    # Other code may draw other images for the interval.
    drawn = {"mAP_low", "mAP_high"} if outdated(record.numbers) else set()
    for name in [name for name in Scores.model_fields if name not in drawn]:
        expected, found = getattr(recomputed, name), getattr(record.scores, name, None)
        if not _close(expected, found):
            yield finding(f"{name} is not what the predictions give", expected, found)
    if len(precisions) != len(record.average_precision):
        text = "the record does not have one average precision a label"
        yield finding(text, len(precisions), len(record.average_precision))
        return
    rows = zip(record.label_names, precisions, record.average_precision, strict=True)
    wrong = [row for row in rows if not _close(*row[1:])]
    if wrong:
        text = f"average precision of {len(wrong)} labels is not what the predictions give"
        yield finding(
            text,
            shorten([f"{name} {expected}" for name, expected, _ in wrong]),
            shorten([f"{name} {found}" for name, _, found in wrong]),
        )


def _close(expected: float | None, found: float | None) -> bool:
    if expected is None or found is None:
        return expected is found
    return abs(expected - found) <= POINTS


# ---------------------------------------------------------------------------------------- settings
def settings(record: RunRecord) -> Iterator[Remark]:
    """Compare the settings with those of the method's recipe in the track."""
    spec = record.spec
    if record.commit is None or record.commit.endswith("-dirty"):
        yield Remark(
            "warning", f"nobody else has the code of the run: its commit is {record.commit}"
        )
    if reason := outdated(record.numbers):
        yield Remark("warning", f"made by other code than is installed: {reason}")
    if spec.checkpoint:
        yield Remark("not checked", "settings: its authors trained it, and not by a track's rules")
        return
    if not {"head", "recipe"} & set(registry.kinds_of(spec.method)):
        yield Remark(
            "warning", f"method {spec.method!r} is not installed here: its settings are not known"
        )
        return
    card = _card(spec.dataset)
    if card is None:
        yield Remark(
            "not checked", f"settings: no card of {spec.dataset} has the {spec.track} track's"
        )
        return
    try:
        ran = name_defaults(spec.settings)
        expected = _expected_settings(spec, card, ran)
    except (SuiteError, PluginError) as error:
        text = f"the {spec.track} track does not allow these settings"
        yield finding(text, f"settings of the {spec.track} track", error)
        return
    here, there = (flatten(one.model_dump(mode="json")) for one in (expected, ran))
    for path in sorted(here | there):
        if here.get(path) != there.get(path):
            text = f"{path} is not that of the {spec.track} track, which fixes it"
            yield finding(text, here.get(path), there.get(path))


def _expected_settings(spec: RunSpec, card: DatasetCard, ran: Settings) -> Settings:
    """The settings that a track prescribes; what an axis, a flag or tuning may change is as run."""
    plain = ran.model_dump()
    overrides = [{name: plain[name] for name in AXES}]
    settled = settle(spec.track, spec.method, spec.dataset, card, overrides)
    rates = {"lr": ran.optimizer.lr, "weight_decay": ran.optimizer.weight_decay}
    return settled.model_copy(
        update={
            "loss": ran.loss,
            "sync_bn": ran.sync_bn,
            "optimizer": settled.optimizer.model_copy(update=rates),
            "head_options": ran.head_options,
            "loss_options": ran.loss_options,
        }
    )


# ------------------------------------------------------------------------------------------- costs
def costs(record: RunRecord) -> Iterator[Remark]:
    """Recount parameters and multiply-accumulates from the settings.

    The width of label vectors from a file is not known: other counts are a warning if the width
    changes them.
    """
    cost, ran = record.efficiency, record.spec.settings
    if cost is None:
        if NO_COSTS in record.notes:
            yield Remark("not checked", f"parameters and GMACs: {NO_COSTS}")
        elif record.status == "ok":
            yield finding("the record has no costs", "parameters and GMACs", "none")
        return
    yield Remark("not checked", "latency and memory: they would have to be measured again")
    labels = len(record.label_names)
    from_file = record.spec.words.startswith("sha256:") or bool(record.spec.checkpoint)
    try:
        backbone = count_backbone(ran.backbone, ran.image_size).counts
        head = count_head(ran, labels)
        widened = count_head(ran, labels, WORD_WIDTH + 1) if from_file else head
    except Exception as error:  # plugins raise any type on settings that they cannot serve
        yield Remark("not checked", f"parameters and GMACs: {type(error).__name__}: {error}")
        return
    yield from _compare_counts("backbone", ran.backbone, backbone, cost)
    remarks = _compare_counts("head", f"{ran.head} with {labels} labels", head, cost)
    yield from map(as_warning, remarks) if widened != head else remarks


def _compare_counts(part: str, name: str, expected: Counts, cost: Efficiency) -> Iterator[Remark]:
    parameters, gmacs = (getattr(cost, f"{what}_{part}") for what in ("parameters", "gmacs"))
    if expected.parameters != parameters:
        text = f"parameters_{part} is not what {name} has"
        yield finding(text, expected.parameters, parameters)
    if not math.isclose(expected.gmacs, gmacs, rel_tol=GMACS):
        yield finding(f"gmacs_{part} is not what {name} takes", expected.gmacs, gmacs)


# ----------------------------------------------------------------------------------------- plugins
def _card(dataset: str) -> DatasetCard | None:
    """Return the card of a data set; None if its plugin is not installed or has none."""
    try:
        return registry.dataset_card(registry.find("dataset", dataset))
    except PluginError:
        return None
