"""``mlbench errors``: planted label errors are found, and the table comes back as a data set."""

import csv
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mlbench.data.open import open_splits
from mlbench.types import Predictions
from mlbench_tools.deploy import outputs
from mlbench_tools.deploy.mistakes import confusions, curve, suspects, write_corrections
from tests.tools.weights.released import FEW


def scored(seed=0, images=400, shift=0.0):
    """Well separated logits for 3 labels, and the labels that they tell."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, 3)) < 0.3).astype(np.int8)
    logits = (truth * 6 - 3 + shift + rng.normal(0, 0.7, truth.shape)).astype(np.float32)
    return logits, truth


def predictions(logits, targets):
    return Predictions(logits, targets, tuple(map(str, range(len(logits)))))


@pytest.mark.parametrize("shift", [0.0, 2.5, -2.5])
def test_planted_label_errors_are_found_and_nothing_else(shift):
    """However far all scores are shifted, as asymmetric losses do.

    The model is surer of the true state of these four than it is on average.
    """
    logits, truth = scored(shift=shift)
    planted = {(5, 0), (17, 0), (40, 1), (99, 2)}
    given = truth.copy()
    for i, c in planted:
        given[i, c] = 1 - given[i, c]
        logits[i, c] = shift + (4.5 if truth[i, c] else -4.5)
    found = suspects(predictions(logits, given))
    wrong = {(one.image, one.label) for mine in found for one in mine if one.label_error}
    certain = {(one.image, one.label) for mine in found for one in mine[:2]}
    assert planted <= wrong and {(5, 0), (17, 0)} <= certain
    for mine in found:
        assert [one.wrongness for one in mine] == sorted((s.wrongness for s in mine), reverse=True)
    given[5, 0] = -1
    found = suspects(predictions(logits, given))
    assert not any(one.image == 5 for one in found[0]), "unknown labels are no errors"


def test_labels_that_are_mistaken_for_each_other_are_named():
    logits, truth = scored()
    logits[:, 0] = np.maximum(logits[:, 0], logits[:, 1])  # label 1 looks like label 0
    logits, truth = (np.pad(one, ((0, 0), (0, 1))) for one in (logits, truth))
    confused = confusions(predictions(logits, truth), ("cat", "dog", "sun", "never"))
    assert confused[0][0][0] == "dog" and confused[0][0][1] > 0.6
    assert all(name != "cat" for name, _ in confused[0])
    assert "never" not in {name for mine in confused for name, _ in mine}


def test_the_curve_of_a_perfect_label_is_the_upper_edge():
    targets = np.array([1, 1, 0, 0], np.int8)
    assert curve(np.array([4.0, 3.0, 2.0, 1.0]), targets).split()[:2] == ["50.0,0.0", "100.0,0.0"]
    assert curve(np.zeros(3), np.ones(3, np.int8)) == ""


@pytest.fixture(scope="module")
def spoiled(small_run):
    """A run that was trained and scored on parts of train, with flipped and known labels."""
    drawn = {"label_noise": {"flip": 0.3}, "known_labels": {"share": 0.25}, "holdout": 0.3}
    return small_run("c_tran", **drawn)


@pytest.mark.parametrize("run", ["trained", "spoiled"])
def test_the_table_is_a_data_set_with_the_same_labels(cli, run, request, cache, tmp_path):
    out, trained = tmp_path / "the errors", request.getfixturevalue(run)
    done = cli("errors", trained.name[:8], "--out", out, "--results", trained.parent.parent)
    assert done.code == 0 and f"--datasets 'manifest:{out}/corrections.csv'" in done.out, done.err
    pictures = re.findall(r'img src="([^"]+)"', (out / "index.html").read_text(encoding="utf-8"))
    assert pictures and all((out / picture).is_file() for picture in pictures)
    before = open_splits("synthetic", FEW, None, cache)
    after = open_splits(f"manifest:{out / 'corrections.csv'}", {}, None, cache)

    def labels(splits):
        return {
            one.file.resolve(): (part, {splits.names[c] for c in np.flatnonzero(one.target == 1)})
            for part in ("train", "test")
            for one in getattr(splits, part)
        }

    assert labels(after) == labels(before)
    assert not [text for text in after.interpretation.warnings if "unused" in text]
    with (out / "corrections.csv").open(encoding="utf-8", newline="") as stream:
        doubtful = [bool(row["add"] or row["remove"]) for row in csv.DictReader(stream)]
    assert doubtful == sorted(doubtful, reverse=True)
    assert f"first {sum(doubtful)} picture" in done.out
    for edited in ("corrections.csv", "corrections-2.csv"):
        (out / edited).write_text("edited by hand")
        for _ in range(2):
            done = cli("errors", trained.name[:8], "--out", out, "--results", trained.parent.parent)
    assert (out / "corrections.csv").read_text() == "edited by hand"
    assert "corrections-3.csv" in done.out and len([*out.glob("*.csv")]) == 3


@pytest.mark.parametrize("unknown", [False, True])
def test_unknown_labels_groups_and_names_with_separators_come_back(unknown, cache, tmp_path):
    before = open_splits("synthetic", FEW, None, cache)
    group = dict.fromkeys(before.train.keys[:5], before.train.keys[0])
    before = replace(before, groups=lambda: group)
    names = ("a;b", "c d", "e|f", "g,h", "[i](j)", *before.names[5:])
    if unknown:
        before.train.targets[3:9, :4] = before.test.targets[0, 2] = -1
    file = write_corrections(tmp_path, replace(before, names=names), before.test.keys, [])
    after = open_splits(f"manifest:{file}", {}, None, cache)
    places = [after.names.index(name) for name in names]
    for part in ("train", "test"):
        kept = {one.file: one.target[places].tolist() for one in getattr(after, part)}
        assert kept == {one.file: one.target.tolist() for one in getattr(before, part)}
    together = {after.train.files[after.train.keys.index(key)] for key in after.groups()}
    assert together == set(before.train.files[:5]) and len({*after.groups().values()}) == 1
    assert outputs._labels(outputs.listed(names, names)) == [*names]
    for name in names[:5]:
        assert (outputs.listed([name], [name]) == name) == (name == "c d")


def test_the_page_of_the_run_shows_the_same_pictures(cli, trained, tmp_path):
    results = shutil.copytree(trained.parent.parent, tmp_path / "results")
    cli("errors", trained.name[:8], "--results", results).ok()
    folder = results / "runs" / trained.name / "errors"
    pictures = (folder / "index.html").read_text(encoding="utf-8").count("<img ")
    build = ("page", tmp_path / "site", "--results", results)
    cli(*build).ok()
    page = (tmp_path / "site" / "run" / f"{trained.name}.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg;base64,/9j/') == pictures > 0
    (folder / "errors.json").write_text('{"started": ')
    cli(*build).ok()
    page = (tmp_path / "site" / "run" / f"{trained.name}.html").read_text(encoding="utf-8")
    remedy = f"`mlbench errors {trained.name} --data DIR --results {results}`"
    assert "errors.json cannot be read" in page and f"write it again by {remedy}" in page


def test_other_data_are_refused(cli, trained, tmp_path):
    flags = ("--out", tmp_path / "errors", "--results", trained.parent.parent)
    assert "has no run" in cli("errors", "zzz", *flags).err
    refused = cli("errors", trained.name, "--out", "/dev/null/x", *flags[2:]).err
    assert "/dev/null/x cannot be written" in refused and "with --out" in refused
