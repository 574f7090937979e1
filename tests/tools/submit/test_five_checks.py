"""Every check finds what it looks for, and finds nothing in honest packs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mlbench.evidence import seal, to_json
from mlbench.tracks import PROBE
from mlbench.types import NO_COSTS, Places, Predictions
from mlbench_tools.submit import pack_file
from mlbench_tools.submit.five_checks import verify
from mlbench_tools.submit.pack_file import read
from tests.tools.submit.parts import (
    RESULTS,
    committed,
    made,
    make,
    named,
    put_together,
    scored,
    taken_apart,
)


@pytest.fixture(scope="module")
def voc():
    return committed("voc2007-mini", "gap")


@pytest.fixture
def places(tmp_path, cache):
    return Places(data=tmp_path, results=tmp_path, cache=cache)


def verified(tmp_path, packed, places=None):
    file = tmp_path / "pack.zip"
    file.write_bytes(packed)
    return verify(read(file), places)


def findings(report):
    return [(one.check, f"{one.text} {one.expected} {one.found}") for one in report.of("finding")]


def some_of_each_edition():
    """A method of each edition, and one whose label branch is constant at inference."""
    for edition in sorted((RESULTS / "records").iterdir()):
        last, *others = sorted((folder.name for folder in edition.iterdir()), reverse=True)
        yield from ((edition.name, name) for name in {last, *others} & {last, "ssgrl"})


@pytest.mark.parametrize(("edition", "method"), sorted(some_of_each_edition()))
def test_committed_records_are_clean(edition, method, tmp_path, cli):
    file, (record, _) = tmp_path / "packed.zip", committed(edition, method)
    cli("pack", record.run_id, "--results", RESULTS, "--out", file).ok()
    report = verify(read(file))
    assert findings(report) == [] and report.of("warning") == [], report
    assert report.checks == ["run id", "data", "scores", "settings", "costs"]


# ------------------------------------------------------------------------------------- tampering
def edited(part=None, **fields):
    """Other fields of the record, or of its scores or costs."""

    def change(record, seen):
        made = {part: getattr(record, part).model_copy(update=fields)} if part else fields
        return record.model_copy(update=made), seen

    return change


def respecified(settings=(), **fields):
    """Another spec, with its run id."""

    def change(record, seen):
        made = record.spec.settings.model_dump() | dict(settings)
        return named(record, settings=made, **fields), seen

    return change


def fewer_images(record, seen):
    """Scores of the first 28 images."""
    part = Predictions(seen.logits[:28], seen.targets[:28], seen.keys[:28])
    return scored(record, part, test_images=28), part


def other_images(record, seen):
    return record, replace(seen, keys=tuple(f"{key}x" for key in seen.keys))


def better_targets(record, seen):
    """Scores of targets that agree with the logits."""
    targets = np.where(seen.logits > 0, 1, seen.targets).astype(np.int8)
    return scored(record, replace(seen, targets=targets)), replace(seen, targets=targets)


def reversed_labels(record, seen):
    """Scores of names and columns in another order."""
    moved = replace(seen, logits=seen.logits[:, ::-1].copy(), targets=seen.targets[:, ::-1].copy())
    return scored(record, moved, label_names=record.label_names[::-1]), moved


TAMPERED = {
    "run id": (edited(run_id="0" * 16), {"run id"}, "of the record is not that of the settings"),
    "digest": (respecified(data="0" * 16), {"data"}, "digest .* is not that of voc2007-mini"),
    "edition": (edited(identity="voc2007"), {"data"}, "edition .* voc2007-mini voc2007$"),
    "other images": (other_images, {"data"}, "images are not the test split of voc2007-mini"),
    "targets": (better_targets, {"data"}, "labels, their order or targets are not those"),
    "label order": (reversed_labels, {"data"}, "labels, their order or targets are not those"),
    "score": (edited("scores", mAP=60.0), {"scores"}, "mAP is not what the predictions give"),
    "APs": (
        edited(average_precision=(99.0,) * 20),
        {"scores"},
        "precision of 20 labels .*aeroplane .* and 15 more aeroplane 99.0, ",
    ),
    "selected on test": (
        respecified({"selection": "test"}),
        {"settings"},
        "track does not allow these settings .*chooses the epoch on the test split",
    ),
    "momentum": (
        respecified({"optimizer": PROBE["optimizer"] | {"momentum": 0.5}}),
        {"settings"},
        r"optimizer\.momentum is not that of the probe track, which fixes it 0\.9 0\.5",
    ),
    "method": (respecified(method="msrn"), {"settings"}, "head is not that of .* msrn gap"),
    "parameters": (
        edited("efficiency", parameters_backbone=1_000_000),
        {"costs"},
        "parameters_backbone is not what \\w+ has \\d+ 1000000",
    ),
    "GMACs of the head": (
        edited("efficiency", gmacs_head=1.0),
        {"costs"},
        "gmacs_head is not what gap with 20 labels takes 2.56e-05 1.0",
    ),
    "no costs": (edited(efficiency=None), {"costs"}, "the record has no costs"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(name, voc, tmp_path):
    tamper, checks, message = TAMPERED[name]
    found = findings(verified(tmp_path, make(*tamper(*voc))))
    assert {check for check, _ in found} == checks
    assert any(re.search(message, text) for _, text in found), found


def test_a_run_whose_costs_did_not_fit_into_memory_may_be_submitted(voc, tmp_path):
    report = verified(tmp_path, make(*edited(efficiency=None, notes=(NO_COSTS,))(*voc)))
    assert not findings(report)
    assert any("costs were not measured" in one.text for one in report.of("not checked"))


def test_what_changed_after_the_run_is_found(voc, tmp_path):
    """By the digests of the record, though the manifest has the hashes of what the pack holds."""
    record, seen = voc
    changed = replace(seen, logits=-seen.logits)
    members, theirs = taken_apart(make(record, seen)), taken_apart(make(record, changed))
    forged = members[pack_file.RECORD].replace(b'"started": "20', b'"started": "19')
    for member, data, text in (
        (pack_file.RECORD, forged, "the record was changed since it was written"),
        (pack_file.PREDICTIONS, theirs[pack_file.PREDICTIONS], "logits is not what the record"),
    ):
        found = findings(verified(tmp_path, put_together({**members, member: data})))
        assert any(check == "data" and text in line for check, line in found), found
    unchecked = verified(tmp_path, make(*voc)).of("not checked")
    assert any("not a forger who recomputes them" in one.text for one in unchecked)


def test_predictions_of_a_run_that_diverged_are_found(voc, tmp_path):
    record, _ = edited(status="diverged", scores=None, efficiency=None)(*voc)
    archive = taken_apart(make(*voc))[pack_file.PREDICTIONS]
    members = taken_apart(make(record, None)) | {pack_file.PREDICTIONS: archive}
    members[pack_file.RECORD] = to_json(seal(record, archive))
    [(check, text)] = findings(verified(tmp_path, put_together(members)))
    assert check == "scores" and text == "a diverged run has predictions none 980 images"


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("member", [pack_file.RECORD, pack_file.RECIPE, pack_file.PREDICTIONS])
def test_members_of_another_run_are_found(member, honest, voc, tmp_path):
    members, theirs = (taken_apart(make(*one)) for one in (voc, committed("voc2007-mini", "csra")))
    mixed = put_together({**members, member: theirs[member]}, honest=honest)
    found = findings(verified(tmp_path, mixed))
    assert any(check == "run id" for check, _ in found)
    assert any("SHA-256 of" in text and member in text for _, text in found) == (not honest)


# ----------------------------------------------------------------------------------- the data set
PARTS = {
    "whole": {},
    "labels": {"labels": ("ball", "apple")},
    "holdout": {"holdout": 0.3},
    "validation": {"settings": {"selection": "validation"}},
}


@pytest.mark.parametrize("name", PARTS)
def test_an_unknown_edition_needs_the_data(name, tmp_path, cache, places):
    packed = make(*made(cache, **PARTS[name]))
    alone, opened = verified(tmp_path, packed), verified(tmp_path, packed, places)
    assert findings(alone) == findings(opened) == []
    assert "data" in {one.check for one in alone.of("not checked")}
    assert {one.check for one in opened.of("not checked")} == {"scores", "costs"}


DATA = {
    "missing": (fewer_images, "images are not the test split of"),
    "added": (other_images, "images are not the test split of"),
    "targets": (better_targets, "labels, their order or targets are not"),
    "label order": (reversed_labels, "labels, their order or targets are not"),
    "digest": (respecified(data="0" * 16), "the data set under --data is not the run's"),
}


@pytest.mark.parametrize("name", DATA)
def test_the_data_set_tells_what_differs(name, cache, tmp_path, places):
    tamper, message = DATA[name]
    found = findings(verified(tmp_path, make(*tamper(*made(cache))), places))
    assert [check for check, _ in found] == ["data"] and re.search(message, found[0][1]), found


# --------------------------------------------------------------------------------------- warnings
def with_plugin(record, label, distribution):
    plugins = {**record.environment["plugins"], label: distribution}
    return record.model_copy(update={"environment": {**record.environment, "plugins": plugins}})


def warnings(report):
    assert findings(report) == [] and report.verdict == "warnings"
    return " ".join(one.text for one in report.of("warning"))


def test_foreign_plugins_are_a_warning(voc, tmp_path):
    theirs, predictions = respecified({"head": "theirs", "head_options": {}}, method="theirs")(*voc)
    foreign = with_plugin(theirs, "head theirs", "p 2.0")
    report = verified(tmp_path, make(foreign, predictions))
    text = warnings(report)
    assert "method 'theirs' is not installed here" in text
    assert "head theirs of p 2.0, but none is installed" in text
    assert "unknown head 'theirs'" in " ".join(one.text for one in report.of("not checked"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (respecified({"freeze_bn": True}), "freeze_bn is not that of the probe track"),
        (edited("efficiency", parameters_head=1000), "parameters_head is not .* 25620 here"),
    ],
)
def test_another_version_of_a_plugin_softens_findings(change, message, voc, tmp_path):
    record, predictions = change(*voc)
    older = with_plugin(record, "head gap", "mlbench-mlic 0.0.1")
    assert re.search(message, warnings(verified(tmp_path, make(older, predictions))))


def test_a_head_with_label_vectors_of_a_file_may_have_another_size(tmp_path):
    record, predictions = committed("coco-mini", "ssgrl")
    assert record.spec.words.startswith("sha256:")
    other, _ = edited("efficiency", parameters_head=1000)(record, predictions)
    text = warnings(verified(tmp_path, make(other, predictions)))
    assert "parameters_head is not what ssgrl with 80 labels has" in text
    usual = make(named(other, words="cooccurrence"), predictions)
    assert {check for check, _ in findings(verified(tmp_path, usual))} == {"costs"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"commit": None}, "nobody else has the code"),
        ({"status": "diverged", "scores": None, "efficiency": None}, "the run diverged"),
    ],
)
def test_what_a_person_has_to_judge_is_a_warning(fields, text, voc, tmp_path):
    record, predictions = edited(**fields)(*voc)
    packed = make(record, predictions if record.status == "ok" else None)
    assert text in warnings(verified(tmp_path, packed))
