"""What is wrong with a pack is found, and nothing is found where nothing is wrong."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mlbench.store import INFLUENCE_VERSION, Store, derive_influence
from mlbench.tracks import PROBE
from mlbench.types import Augmentation, Coverage, LabelNoise, Predictions, SplitCoverage
from mlbench_tools.submit import archive
from mlbench_tools.submit import checks as verifier
from mlbench_tools.submit.archive import make, read
from mlbench_tools.submit.checks import verify
from tests.tools.submit.parts import (
    RESULTS,
    committed,
    made,
    named,
    put_together,
    scored,
    taken_apart,
)

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
    packed = make(record, predictions, STORE.influence(record))
    assert found(judged(tmp_path, packed)) == []


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


def other_spec(**fields):
    """Another spec, and its run id."""
    return lambda record, seen: (named(record, **fields), seen)


def edited_epoch(**fields):
    def tamper(record, seen):
        first, *rest = record.epochs
        return edited(epochs=(first.model_copy(update=fields), *rest))(record, seen)

    return tamper


def on_device(name):
    def tamper(record, seen):
        return edited(environment={**record.environment, "device": name})(record, seen)

    return tamper


def whose(plugin, distribution):
    """A plugin of another distribution, or of none."""

    def tamper(record, seen):
        told = {**record.environment["plugins"], plugin: distribution}
        return with_plugins(**told)(record, seen)

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


def influenced(**fields):
    """An influence that does not follow from the predictions, which are honest."""

    def tamper(record, seen):
        honest = derive_influence(seen, record.label_names)
        changed = {name: change(getattr(honest, name)) for name, change in fields.items()}
        return record, seen, replace(honest, **changed)

    return tamper


def quieter(values):
    """As of rows that are easier told apart."""
    return values * np.float32(0.9)


def of_the_others(record, seen):
    return record, seen, derive_influence(other_logits(record, seen)[1], record.label_names)


def with_noise(record, seen):
    return named(record, label_noise=LabelNoise(keep=0.4).model_dump()), seen


TAMPERED = {
    "score": (edited_scores(mAP=60.0), {"scores"}, "mAP is not what the predictions give"),
    "interval": (edited_scores(mAP_low=49.0), {"scores"}, "mAP_low is not what"),
    "classes": (edited_scores(classes_left_out=1), {"scores"}, "classes_left_out is not what"),
    "one AP": (one_ap_more, {"scores"}, "average precision of 1 of the labels .*aeroplane"),
    "APs lack one": (one_ap_less, {"scores"}, "one average precision a label.*20.*19"),
    "predictions of another run": (other_logits, {"scores"}, "mAP is not what"),
    "NaN": (logit(np.nan), {"predictions"}, "NaN or infinite.*1, the first nan in row 3, column 4"),
    "infinite": (logit(np.inf), {"predictions"}, "NaN or infinite.*inf in row 3"),
    "strange target": (strange_target, {"predictions", "card"}, "mean nothing.*5"),
    "duplicated key": (duplicated_key, {"predictions", "card"}, "keys .* more than once: 1"),
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
    "training images": (
        edited(train_images=5011),
        {"card", "schedule"},
        "training images 944 5011",
    ),
    "edition": (edited(identity="voc2007"), {"edition", "card"}, "voc2007-mini voc2007$"),
    "coverage": (incomplete, {"edition"}, "could not be used, and the run says nothing"),
    "noise": (with_noise, {"edition"}, "goes by the name of the whole .*-labels-40"),
    "settings edited": (edited_settings(epochs=3), {"run id", "epochs"}, "not the hash of the"),
    "diverged": (
        edited(status="diverged", error="at step 3"),
        {"status", "epochs"},
        "diverged has scores",
    ),
    "ok without costs": (edited(efficiency=None), {"status"}, "ok has no efficiency"),
    "future": (edited(started="2999-01-01T00:00:00+00:00"), {"started"}, "in the future .*2999"),
    "no zone": (edited(started="2026-01-01T00:00:00"), {"started"}, "began has no zone"),
    "trained backbone": (
        other_settings(frozen_stages=0),
        {"track"},
        "refuses .* frozen_stages and augmentation cannot be set there",
    ),
    "augmented": (
        other_settings(augmentation=(Augmentation(name="flip").model_dump(),)),
        {"track"},
        "refuses .* frozen_stages and augmentation cannot be set there",
    ),
    "selected on test": (
        other_settings(selection="test"),
        {"track", "epochs"},
        "chooses the epoch on the split that is scored, which the probe track does not",
    ),
    "another momentum": (
        other_settings(optimizer={**PROBE["optimizer"], "momentum": 0.5}),
        {"track", "schedule"},
        r"optimizer\.momentum is not that of the probe track, .* 0\.9 0\.5",
    ),
    "another batch": (
        other_settings(batch_size=16),
        {"track", "schedule"},
        "batch_size is not that of the probe track, .* 32 16",
    ),
    "another track": (other_spec(track="controlled"), {"track"}, "frozen_stages is not .* 0 -1"),
    "another track's stages": (
        other_spec(track="published"),
        {"track"},
        "of the published track has a stage 'features'",
    ),
    "another method": (
        other_spec(method="msrn"),
        {"method"},
        "the head is not that of msrn msrn gap",
    ),
    "another method's command": (
        edited(command="mlbench run --plugins msrn,asl --seeds=1"),
        {"command"},
        "of other methods one that names gap",
    ),
    "no command": (edited(command=""), {"command"}, "none that makes a record .* nothing"),
    "two commands": (
        edited(command="mlbench run --plugins gap; rm -rf /"),
        {"command"},
        "none that makes a record",
    ),
    "a command within": (
        edited(command="mlbench run --plugins gap $(id)"),
        {"command"},
        "none that makes a record",
    ),
    "another program": (edited(command="sh mlbench run"), {"command"}, "none that makes a record"),
    "half a quote": (edited(command="mlbench run 'a"), {"command"}, "No closing quotation"),
    "epochs": (edited(epochs=()), {"epochs"}, "not that of the budget"),
    "learning rate": (
        edited_epoch(lr=1.0),
        {"schedule"},
        r"learning rate of epoch 1 is not that of the schedule 0\.00012\d* 1\.0",
    ),
    "scored epoch": (edited_epoch(mAP=99.9), {"epochs"}, "scored, though none was selected"),
    "input of the costs": (edited_cost(image_size=96), {"efficiency"}, "costs of another input"),
    "tiny head": (
        edited_cost(parameters_head=5),
        {"efficiency", "counts"},
        "at least 20 parameters 5",
    ),
    "costs of a faster device": (
        edited_cost(device="NVIDIA H100"),
        {"efficiency"},
        "another device than the run's .*'cpu' NVIDIA H100",
    ),
    "memory of another device": (
        edited_cost(versions={"peak_memory": "cuda allocator"}),
        {"efficiency"},
        "another device",
    ),
    "run on a faster device": (
        on_device("NVIDIA H100"),
        {"efficiency"},
        "another device than the run's NVIDIA H100 AMD EPYC",
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
    "another's head": (
        whose("head gap", "evil 9.9"),
        {"plugins"},
        r"head 'gap' is said to be of another distribution mlbench-mlic \S+ evil 9\.9",
    ),
    "a head of no version": (
        whose("head gap", "mlbench-mlic <b>"),
        {"plugins"},
        "head 'gap' is said to be",
    ),
    "influence": (
        influenced(values=quieter),
        {"influence"},
        r"influence of images that .*: 979 000001 -0\.0808.* 000001 -0\.0727",
    ),
    "influence of fewer": (
        influenced(values=lambda values: values[1:]),
        {"influence"},
        "not one number an image",
    ),
    "influence NaN": (influenced(values=lambda v: v * np.float32("nan")), {"influence"}, "980"),
    "influence of other images": (
        influenced(images=lambda _: "0" * 16),
        {"influence"},
        "other images, targets or labels",
    ),
    "stale influence": (of_the_others, {"influence"}, "influence is of another mAP"),
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


def forged(record, predictions, influence=None):
    """A pack of parts that do not belong together, with a manifest that fits."""
    if record.status == "ok":
        return make(record, predictions, influence)
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
    assert {one.check for one in opened.of("not checked")} == {"efficiency", "epochs", "scores"}


DATA = {
    "lacking": (some(np.arange(28)), "images of the test split are missing", "2 are not there"),
    "added": (more_images, "images were added to the test split", "3 more: a, b, c"),
    "targets": (better_targets, r"targets of the test split that are not the data set's: \d+", "1"),
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


class Counted(tuple):
    """Keys that count how often they were all gone through."""

    times = 0

    def __iter__(self):
        Counted.times += 1
        return super().__iter__()


def test_the_effort_grows_with_the_images_and_not_with_their_square(synthetic, tmp_path, cache):
    file = tmp_path / "pack.zip"
    file.write_bytes(make(*synthetic))
    pack = read(file)
    seen = pack.predicted.predictions
    keys = Counted(seen.keys)
    predicted = replace(pack.predicted, predictions=replace(seen, keys=keys))
    report = verify(replace(pack, predicted=predicted), data=tmp_path, cache=cache)
    assert found(report) == []
    assert 0 < Counted.times < len(keys)


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
    foreign = foreign.model_copy(update={"command": "mlbench run --plugins theirs"})
    plugins = {**record.environment["plugins"], "head theirs": "their-package 2.0"}
    del plugins["head gap"]
    foreign = foreign.model_copy(update={"environment": {**record.environment, "plugins": plugins}})
    report = judged(tmp_path, make(foreign, predictions))
    assert found(report) == []
    assert report.verdict == "warnings"
    warned = {one.check: one.text for one in report.of("warning")}
    assert set(warned) == {"method", "plugins"}
    assert "no method 'theirs' is installed here" in warned["method"]
    assert "head 'theirs' of 'their-package 2.0' is not installed here" in warned["plugins"]


def test_an_invented_method_is_never_clean(voc, tmp_path):
    record, predictions = voc
    command = "mlbench run --plugins better_than_gap"
    invented = named(record, method="better_than_gap").model_copy(update={"command": command})
    report = judged(tmp_path, make(invented, predictions))
    assert (found(report), report.verdict) == ([], "warnings")
    [warned] = report.of("warning")
    assert warned.check == "method" and "the name may be invented" in warned.text


def test_settings_of_another_version_of_a_recipe_are_a_warning(voc, tmp_path):
    older, seen = whose("head gap", "mlbench-mlic 0.0.1")(*other_settings(freeze_bn=True)(*voc))
    report = judged(tmp_path, make(older, seen))
    assert found(report) == [] and "freeze_bn" in report.of("warning")[0].text


def test_a_recipe_says_nothing_that_the_record_does_not_give(voc, tmp_path):
    members = taken_apart(make(*voc))
    described = members[archive.RECIPE]
    score = f"mAP {voc[0].scores.mAP:.2f}".encode()
    for forged, line in (
        (described.replace(score, b"mAP 99.00"), "line 1"),
        (described + b"# 99.00\n", "line"),
        (described.replace(b"seed: 0\n", b"seed: 0  # of 3\n"), "line"),
    ):
        assert forged != described
        packed = put_together({**members, archive.RECIPE: forged})
        [(check, text, *_)] = found(judged(tmp_path, packed))
        assert check == "settings" and text.startswith(line)


def test_a_foreign_data_set_is_told(synthetic, tmp_path, cache):
    record, predictions = synthetic
    plugins = {**record.environment["plugins"], "dataset theirs": "their-package 2.0"}
    del plugins["dataset synthetic"]
    foreign = named(record, dataset="theirs").model_copy(
        update={
            "environment": {**record.environment, "plugins": plugins},
            "identity": "theirs-1",
        }
    )
    report = judged(tmp_path, make(foreign, predictions), data=tmp_path, cache=cache)
    assert found(report) == []
    assert {one.check for one in report.of("not checked")} >= {"labels", "edition", "card", "track"}
    assert {one.check for one in report.of("warning")} == {"plugins"}


def test_a_run_from_before_mlbench_is_a_warning(voc, tmp_path):
    record, predictions = voc
    old = record.model_copy(update={"started": "2020-01-01T00:00:00+00:00"})
    report = judged(tmp_path, make(old, predictions))
    [warned] = report.of("warning")
    assert found(report) == [] and warned.check == "started" and "2020" in warned.text


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
    assert report.verdict == "warnings"
    [warned] = report.of("warning")
    assert warned.check == "commit" and said in warned.text


def test_an_influence_of_another_version_is_told(voc, tmp_path):
    packed = forged(*influenced(version=lambda _: INFLUENCE_VERSION + 1)(*voc))
    report = judged(tmp_path, packed)
    assert found(report) == []
    assert any("of version 2 where" in one.text for one in report.of("not checked"))


def test_a_run_that_diverged_needs_no_scores_but_a_persons_judgement(synthetic, tmp_path):
    record, _ = synthetic
    nothing = {"scores": None, "average_precision": (), "efficiency": None, "epochs": ()}
    record = record.model_copy(update={"status": "diverged", "error": "at step 3", **nothing})
    report = judged(tmp_path, make(record, None))
    assert found(report) == [] and report.verdict == "warnings"
    whole = record.model_copy(update={"epochs": synthetic[0].epochs})
    [(check, text, *_)] = found(judged(tmp_path, make(whole, None)))
    assert (check, text) == ("epochs", "a run that diverged was trained to its end")
