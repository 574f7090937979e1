"""What is wrong with a pack is found, and nothing is found where nothing is wrong."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mlbench.packs import archive
from mlbench.packs import verify as verifier
from mlbench.packs.archive import make, read
from mlbench.packs.verify import verify
from mlbench.store import Store
from mlbench.types import Augmentation, Coverage, LabelNoise, Predictions, SplitCoverage
from tests.packs.parts import RESULTS, committed, made, named, put_together, scored, taken_apart

STORE = Store(RESULTS)


@pytest.fixture(scope="module")
def voc():
    return committed("voc2007-mini", "gap")


@pytest.fixture(scope="module")
def coco():
    return committed("coco-mini", "gap")


@pytest.fixture(scope="module")
def synthetic(cache):
    return made(cache)


def judged(tmp_path, packed, **given):
    file = tmp_path / "pack.zip"
    file.write_bytes(packed)
    return verify(read(file), **given)


def found(report):
    return [(one.check, one.text, one.expected, one.found) for one in report.of("finding")]


@pytest.mark.parametrize("record", STORE.records(), ids=lambda r: f"{r.identity}-{r.run_id}")
def test_every_committed_record_is_what_its_predictions_give(record, tmp_path):
    predictions = STORE.predictions(record) if record.status == "ok" else None
    assert found(judged(tmp_path, make(record, predictions))) == []


# ---------------------------------------------------------------------------------------- tampering
def edited(**fields):
    """Fields of the record."""
    return lambda record, seen: (record.model_copy(update=fields), seen)


def edited_scores(**fields):
    return lambda record, seen: (
        record.model_copy(update={"scores": record.scores.model_copy(update=fields)}),
        seen,
    )


def edited_cost(**fields):
    return lambda record, seen: (
        record.model_copy(update={"efficiency": record.efficiency.model_copy(update=fields)}),
        seen,
    )


def edited_latency(**fields):
    def tamper(record, seen):
        first, *rest = record.efficiency.latency
        latency = (first.model_copy(update=fields), *rest)
        return edited_cost(latency=latency)(record, seen)

    return tamper


def edited_settings(**fields):
    """Other settings, under the run id of the true ones."""

    def tamper(record, seen):
        settings = {**record.spec.settings.model_dump(), **fields}
        return named(record, settings=settings).model_copy(update={"run_id": record.run_id}), seen

    return tamper


def other_settings(**fields):
    """Other settings, and their run id."""

    def tamper(record, seen):
        return named(record, settings={**record.spec.settings.model_dump(), **fields}), seen

    return tamper


def one_ap_more(record, seen):
    first, *rest = record.average_precision
    return record.model_copy(update={"average_precision": (first + 1, *rest)}), seen


def one_ap_less(record, seen):
    return record.model_copy(update={"average_precision": record.average_precision[1:]}), seen


def logit(value):
    def tamper(record, seen):
        logits = seen.logits.copy()
        logits[3, 4] = value
        return record, replace(seen, logits=logits)

    return tamper


def strange_target(record, seen):
    targets = seen.targets.copy()
    targets[3, 4] = 5
    return record, replace(seen, targets=targets)


def duplicated_key(record, seen):
    return record, replace(seen, keys=(seen.keys[1], *seen.keys[1:]))


def some(rows, **fields):
    """Only these images, with honest scores of them."""

    def tamper(record, seen):
        keys = tuple(np.array(seen.keys)[rows].tolist())
        fewer = Predictions(seen.logits[rows], seen.targets[rows], keys)
        return scored(record, fewer, **{"test_images": len(keys), **fields}), fewer

    return tamper


def more_images(record, seen):
    rows = [0, 0, 1]
    more = Predictions(
        np.concatenate([seen.logits, seen.logits[rows]]),
        np.concatenate([seen.targets, seen.targets[rows]]),
        (*seen.keys, "a", "b", "c"),
    )
    return scored(record, more, test_images=len(more.keys)), more


def other_images(record, seen):
    return record, replace(seen, keys=tuple(f"{key}x" for key in seen.keys))


def swapped_columns(record, seen):
    """Columns of logits and targets exchanged, names as they were; honest scores."""
    order = [1, 0, *range(2, seen.logits.shape[1])]
    swapped = replace(seen, logits=seen.logits[:, order], targets=seen.targets[:, order])
    return scored(record, swapped), swapped


def better_targets(record, seen):
    """Labels made to agree with the logits; honest scores of them."""
    targets = np.where(seen.logits > 0, 1, seen.targets).astype(np.int8)
    return scored(record, replace(seen, targets=targets)), replace(seen, targets=targets)


def alphabetical(record, seen):
    order = sorted(range(len(record.label_names)), key=record.label_names.__getitem__)
    return reordered(record, seen, order)


def reversed_labels(record, seen):
    return reordered(record, seen, list(reversed(range(len(record.label_names)))))


def reordered(record, seen, order):
    """Names and columns moved together; honest scores."""
    moved = replace(seen, logits=seen.logits[:, order], targets=seen.targets[:, order])
    names = tuple(record.label_names[i] for i in order)
    return scored(record, moved, label_names=names), moved


def other_logits(record, seen):
    _, theirs = committed("voc2007-mini", "gmp")
    return record, replace(seen, logits=theirs.logits)


def with_plugins(**names):
    def tamper(record, seen):
        return edited(environment={**record.environment, "plugins": names})(record, seen)

    return tamper


def incomplete(record, seen):
    part = SplitCoverage(images=980, usable=970, missing=10, corrupt=0, official=4952)
    covered = Coverage(known=True, splits={"test": part})
    return record.model_copy(update={"coverage": covered}), seen


def with_noise(record, seen):
    return named(record, label_noise=LabelNoise(keep=0.4).model_dump()), seen


TAMPERED = {
    "score": (edited_scores(mAP=60.0), {"scores"}, "mAP is not what the predictions give"),
    "score NaN": (edited_scores(OF1=float("nan")), {"scores"}, "OF1 is not what"),
    "interval": (edited_scores(mAP_low=49.0), {"scores"}, "mAP_low is not what"),
    "classes": (edited_scores(classes_left_out=1), {"scores"}, "classes_left_out is not what"),
    "one AP": (one_ap_more, {"scores"}, "average precision of 1 labels .*aeroplane"),
    "APs lack one": (one_ap_less, {"scores"}, "one average precision a label.*20.*19"),
    "predictions of another run": (other_logits, {"scores"}, "mAP is not what"),
    "NaN": (logit(np.nan), {"predictions"}, "NaN or infinite.*1, the first nan in row 3, column 4"),
    "infinite": (logit(np.inf), {"predictions"}, "NaN or infinite.*inf in row 3"),
    "strange target": (strange_target, {"predictions", "card"}, "mean nothing.*5"),
    "duplicated key": (duplicated_key, {"predictions", "card"}, "1 keys .* more than once"),
    "another count": (
        edited(test_images=979),
        {"predictions"},
        r"logits .*\[979, 20\].*\[980, 20\]",
    ),
    "images missing": (some(np.arange(900)), {"card"}, "missing from .* 980 images 900 images"),
    "images added": (more_images, {"card"}, "or were added 980 images 983 images"),
    "wrong split": (other_images, {"card"}, "not those of the test split of voc2007-mini"),
    "targets edited": (better_targets, {"card"}, "targets are not: edited, or of other labels"),
    "columns exchanged": (swapped_columns, {"card"}, "targets are not: edited, or of other labels"),
    "training images": (edited(train_images=5011), {"card"}, "training images 944 5011"),
    "edition": (edited(identity="voc2007"), {"edition", "card"}, "voc2007-mini voc2007$"),
    "coverage": (incomplete, {"edition"}, "could not be used, and the run says nothing"),
    "noise": (with_noise, {"edition"}, "goes by the name of the whole .*-labels-40"),
    "settings edited": (edited_settings(epochs=3), {"run id", "epochs"}, "not the hash of the"),
    "diverged": (edited(status="diverged", error="at step 3"), {"status"}, "diverged has scores"),
    "ok without costs": (edited(efficiency=None), {"status"}, "ok has no efficiency"),
    "no time": (edited(started="yesterday"), {"started"}, "began is none"),
    "future": (edited(started="2999-01-01T00:00:00+00:00"), {"started"}, "in the future .*2999"),
    "no zone": (edited(started="2026-01-01T00:00:00"), {"started"}, "began is none"),
    "trained backbone": (other_settings(frozen_stages=0), {"track"}, "trained its backbone"),
    "augmented": (
        other_settings(augmentation=(Augmentation(name="flip").model_dump(),)),
        {"track"},
        "augmented no augmentation flip",
    ),
    "selected on test": (
        other_settings(selection="test"),
        {"track", "epochs"},
        "chosen on the test split, which only the published track may",
    ),
    "epochs": (edited(epochs=()), {"epochs"}, "not that of the budget"),
    "input of the costs": (edited_cost(image_size=96), {"efficiency"}, "costs of another input"),
    "tiny head": (
        edited_cost(parameters_head=5),
        {"efficiency", "counts"},
        "at least 20 parameters 5",
    ),
    "negative": (
        edited_cost(gmacs_head=-1.0),
        {"efficiency", "counts"},
        "gmacs_head is impossible",
    ),
    "parameters": (
        edited_cost(parameters_head=1000),
        {"counts"},
        "parameters_head is not what gap with 20 labels has 25620 1000",
    ),
    "GMACs": (edited_cost(gmacs_head=1.0), {"counts"}, "gmacs_head is not .* takes 2.56e-05 1.0"),
    "backbone": (
        edited_cost(parameters_backbone=1_000_000),
        {"counts"},
        "parameters_backbone is not what mobilenetv2_100 has 2223872 1000000",
    ),
    "GMACs of the backbone": (
        edited_cost(gmacs_backbone=0.1),
        {"counts"},
        "gmacs_backbone is not what mobilenetv2_100 takes 0.299494272 0.1",
    ),
    "option that the head lacks": (
        other_settings(head_options={"depth": 3}),
        {"counts"},
        "gap cannot be made as the settings say .*depth",
    ),
    "memory": (edited_cost(peak_memory_mb=1.0), {"efficiency"}, "less than the parameters take"),
    "latency": (edited_latency(median_ms=1e9), {"efficiency"}, "latency at batch 1 is impossible"),
    "speed": (edited_latency(images_per_second=1e6), {"efficiency"}, "do not follow from"),
    "plugins": (with_plugins(), {"plugins"}, "other plugins took part"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(name, voc, tmp_path, monkeypatch):
    tamper, checks, said = TAMPERED[name]
    report = judged(tmp_path, forged(*tamper(*voc)))
    texts = [" ".join(parts[1:]) for parts in found(report)]
    assert {one.check for one in report.of("finding")} == checks
    assert any(re.search(said, text) for text in texts), texts
    # Without the checks that found it nothing would be said: no other covers for them.
    for check in checks:
        monkeypatch.delitem(verifier.CHECKS, check)
    assert found(judged(tmp_path, forged(*tamper(*voc)))) == []


def forged(record, predictions):
    """A pack of parts that do not belong together, with a manifest that fits."""
    if record.status == "ok":
        return make(record, predictions)
    members = taken_apart(make(record.model_copy(update={"status": "ok"}), predictions))
    members[archive.RECORD] = record.model_dump_json().encode()
    return put_together(members)


def test_labels_in_another_order_are_named(coco, tmp_path):
    report = judged(tmp_path, make(*alphabetical(*coco)))
    labels, card = found(report)
    assert labels == (
        "labels",
        "the labels are not those of coco: the same ones in another order",
        "'person' in column 0",
        "'airplane'",
    )
    assert card[0] == "card" and card[3].endswith("the columns are in the alphabetical order")


def test_names_of_the_predictions_are_held_against_the_records(voc, tmp_path):
    record, predictions = voc
    members = taken_apart(make(record, predictions))
    renamed = record.model_copy(update={"label_names": record.label_names[::-1]})
    theirs = taken_apart(make(renamed, predictions))
    report = judged(
        tmp_path, put_together({**members, archive.PREDICTIONS: theirs[archive.PREDICTIONS]})
    )
    assert [(one[0], one[1]) for one in found(report)] == [
        (
            "labels",
            "the predictions have other labels than the record: the same ones in another order",
        )
    ]


def test_another_known_edition_is_named(voc, tmp_path, monkeypatch):
    record, predictions = voc
    known = verifier.case(read(packed(tmp_path, record, predictions))).card
    other = known.model_copy(
        update={"editions": {**known.editions, "voc2007-mini": known.editions["voc2007"]}}
    )
    other.editions["elsewhere"] = known.editions["voc2007-mini"]
    monkeypatch.setattr("mlbench_plugins.datasets.voc.VOC2007.card", other)
    texts = [one[3] for one in found(judged(tmp_path, make(record, predictions)))]
    assert any("the test split of voc2007-mini-difficult-negative" in text for text in texts)


def packed(tmp_path, record, predictions):
    file = tmp_path / "packed.zip"
    file.write_bytes(make(record, predictions))
    return file


@pytest.mark.parametrize("member", [archive.RECORD, archive.RECIPE, archive.PREDICTIONS])
def test_members_of_another_run_are_found(member, voc, tmp_path):
    members, theirs = (taken_apart(make(*one)) for one in (voc, committed("voc2007-mini", "csra")))
    mixed = {**members, member: theirs[member]}
    honest, dishonest = (judged(tmp_path, put_together(mixed, honest=h)) for h in (False, True))
    assert ("members", f"{member} is not what the manifest says") in {
        one[:2] for one in found(honest)
    }
    texts = {archive.RECIPE: "recipe.yaml and the record differ in method"}
    said = texts.get(member, "the predictions are of another run than the record")
    assert said in {one[1] for one in found(dishonest)}
    assert "members" not in {one[0] for one in found(dishonest)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("settings: {", "is no YAML"),
        ("method: gap", "describes no run"),
        ("a: &a [1]\nb: *a", "an alias"),
        ("[" * 1000, "nested too deeply"),
        ("#" * 2**20 + "#", "longer than"),
        ("", "describes no run"),
    ],
)
def test_settings_that_cannot_be_read_are_found(text, said, voc, tmp_path):
    members = {**taken_apart(make(*voc)), archive.RECIPE: text.encode()}
    [(check, said_of, _, why)] = found(judged(tmp_path, put_together(members)))
    assert (check, said_of) == ("settings", "recipe.yaml cannot be read") and said in why


@pytest.mark.parametrize("member", [archive.RECIPE, archive.PREDICTIONS])
def test_a_missing_member_is_found(member, voc, tmp_path):
    members = taken_apart(make(*voc))
    del members[member]
    checks = {one[:2] for one in found(judged(tmp_path, put_together(members)))}
    assert ("members", f"{member} is missing") in checks


# ------------------------------------------------------------------------------------ parts of data
CASES = {
    "whole": {},
    "some labels": {"labels": ("ball", "apple")},
    "holdout": {"holdout": 0.3},
    "validation": {"settings": {"selection": "validation"}},
}


@pytest.mark.parametrize("name", CASES)
def test_an_unknown_edition_needs_the_data(name, tmp_path, cache):
    data = make(*made(cache, **CASES[name]))
    alone, opened = judged(tmp_path, data), judged(tmp_path, data, data=tmp_path, cache=cache)
    assert found(alone) == [] and "card" in {one.check for one in alone.of("not checked")}
    assert found(opened) == [] and "data" in opened.checks
    assert {one.check for one in opened.of("not checked")} == {"efficiency"}


DATA = {
    "lacking": (some(np.arange(28)), "images of the test split are missing", "2 are not there"),
    "added": (more_images, "images were added to the test split", "3 more: a, b, c"),
    "targets": (better_targets, r"\d+ targets of the test split are not the data set's", "1"),
    "trained on": (edited(train_images=39), "another number of training images", "39"),
    "label order": (reversed_labels, "the labels are not those of synthetic: .* another order", ""),
}


@pytest.mark.parametrize("name", DATA)
def test_the_data_set_itself_says_what_differs(name, synthetic, tmp_path, cache):
    tamper, text, there = DATA[name]
    report = judged(tmp_path, make(*tamper(*synthetic)), data=tmp_path, cache=cache)
    said = {one.text: one.found for one in report.of("finding")}
    hits = [found for said_text, found in said.items() if re.fullmatch(text, said_text)]
    assert hits and there in hits[0], said


def test_a_forged_digest_is_held_against_the_data(synthetic, tmp_path, cache):
    record, predictions = synthetic
    forged_record = named(record, data="0" * 16)
    report = judged(tmp_path, make(forged_record, predictions), data=tmp_path, cache=cache)
    assert ("data", f"the digest is not that of {record.identity}") in {
        one[:2] for one in found(report)
    }


def test_other_data_than_the_runs_prove_nothing(synthetic, tmp_path, cache):
    record, predictions = synthetic
    identity = f"synthetic-unknown-{'0' * 16}"
    elsewhere = named(record, data="0" * 16).model_copy(update={"identity": identity})
    report = judged(tmp_path, make(elsewhere, predictions), data=tmp_path, cache=cache)
    assert found(report) == []
    assert any("--data holds" in one.text for one in report.of("not checked"))


def test_a_part_of_the_data_has_a_name_of_its_own(cache, tmp_path):
    record, predictions = made(cache, holdout=0.3)
    whole = record.model_copy(update={"identity": record.identity.partition("-holdout")[0]})
    [(check, text, *_)] = found(judged(tmp_path, make(whole, predictions)))
    assert (check, text) == ("edition", "a part of the data goes by the name of the whole")


def test_the_epoch_that_was_selected_is_recomputed(cache, tmp_path):
    record, seen = made(cache, settings={"selection": "validation"})
    first, second = record.epochs
    better = (first, second.model_copy(update={"mAP": 99.0}))
    not_best = record.model_copy(update={"epochs": better})
    edited_log = record.model_copy(update={"epochs": better, "selected_epoch": 2})
    for tampered, text in (
        (not_best, "the epoch that was selected is not the best of the log"),
        (edited_log, "the mAP of epoch 2 in the log is not what the predictions give"),
    ):
        [(check, said, *_)] = found(judged(tmp_path, make(tampered, seen)))
        assert (check, said) == ("selection", text)
    lacking = found(judged(tmp_path, make(record, replace(seen, validation=None))))
    assert "the predictions on the validation split are missing" in {one[1] for one in lacking}
    shared = replace(seen.validation, keys=(seen.keys[0], *seen.validation.keys[1:]))
    [(check, said, *_)] = found(judged(tmp_path, make(record, replace(seen, validation=shared))))
    assert (check, said) == ("predictions", "images of the validation split are scored, too")


# -------------------------------------------------------------------------- what speaks not against
def test_foreign_plugins_are_told_and_do_no_harm(voc, tmp_path):
    record, predictions = voc
    settings = {**record.spec.settings.model_dump(), "head": "theirs", "head_options": {}}
    foreign = named(record, method="theirs", settings=settings)
    plugins = {**record.environment["plugins"], "head theirs": "their-package 2.0"}
    del plugins["head gap"]
    foreign = foreign.model_copy(update={"environment": {**record.environment, "plugins": plugins}})
    report = judged(tmp_path, make(foreign, predictions))
    assert found(report) == []
    texts = [one.text for one in report.of("not checked")]
    assert any("'theirs' is not installed here; it is of their-package 2.0" in t for t in texts)


def test_a_foreign_data_set_is_told(synthetic, tmp_path, cache):
    record, predictions = synthetic
    plugins = {**record.environment["plugins"], "dataset theirs": "their-package 2.0"}
    del plugins["dataset synthetic"]
    foreign = named(record, dataset="theirs").model_copy(
        update={"environment": {"plugins": plugins}, "identity": "theirs-1"}
    )
    report = judged(tmp_path, make(foreign, predictions), data=tmp_path, cache=cache)
    assert found(report) == []
    assert {one.check for one in report.of("not checked")} >= {"labels", "edition", "card"}


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        (None, "no commit"),
        ("0" * 40 + "-dirty", "differed from its commit"),
        ("v1", "in full"),
        ("0" * 40, "git's sign for none"),
    ],
)
def test_code_that_nobody_has_is_a_warning(commit, said, voc, tmp_path):
    record, predictions = voc
    report = judged(tmp_path, make(record.model_copy(update={"commit": commit}), predictions))
    assert report.clean
    [warned] = report.of("warning")
    assert warned.check == "commit" and said in warned.text


def test_a_run_that_diverged_is_clean_without_scores(synthetic, tmp_path):
    record, _ = synthetic
    nothing = {"scores": None, "average_precision": (), "efficiency": None, "epochs": ()}
    record = record.model_copy(update={"status": "diverged", "error": "at step 3", **nothing})
    assert found(judged(tmp_path, make(record, None))) == []
