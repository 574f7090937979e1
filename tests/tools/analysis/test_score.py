"""``mlbench score``: any file of predictions, under any protocol."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlbench.store import Store
from mlbench_tools.analysis.predictions import read
from mlbench_tools.scoring.protocols import PROTOCOLS, evaluate
from tests.store.made import made_predictions, made_record

RESULTS = Path(__file__).parents[3] / "results"
NAMES = ("cat", "dog: big", "[red]car")
TARGETS = np.array([[1, 0, 0], [0, 1, -1], [1, 1, 0], [0, 0, 1]], np.int8)
LOGITS = np.array([[2, -1, 0.5], [-2, 1, 3], [-0.5, -1, -3], [0.5, -3, 1]], np.float32)


@pytest.fixture
def arrays():
    keys = np.array(["a", "b", "c", "NA"])
    return {"logits": LOGITS, "targets": TARGETS, "keys": keys, "names": np.array(NAMES)}


@pytest.fixture
def file(tmp_path, arrays):
    np.savez(tmp_path / "p.npz", **arrays)
    return tmp_path / "p.npz"


def table(kind="logit", scores=LOGITS):
    columns = {"key": ["a", "b", "c", "NA"]}
    columns |= {f"{kind}:{name}": scores[:, i] for i, name in enumerate(NAMES)}
    return pd.DataFrame(columns | {f"target:{n}": TARGETS[:, i] for i, n in enumerate(NAMES)})


def as_json(cli, *arguments):
    return cli("score", *arguments, "--json").ok().json


def test_all_protocols_and_why_some_are_not_defined(cli, file):
    assert list(as_json(cli, file)["protocols"]) == ["canonical"], "by default"
    found = as_json(cli, file, "--protocol", "all")
    assert (found["images"], found["labels"], found["run_id"]) == (4, 3, None)
    for name, told in found["protocols"].items():
        assert told["values"] == evaluate(name, LOGITS, TARGETS)
        assert told["version"] == PROTOCOLS[name.partition("+")[0]].version
    assert "ap-interpolated+difficult-positive" in found["protocols"]
    for name in ("prf-validation", "prf-validation-by-class"):
        assert "no predictions on validation images" in found["undefined"][name]
    assert [name for name, told in found["protocols"].items() if told["oracle"]] == [
        f"prf-oracle{ending}" for ending in ("", "+difficult-negative", "+difficult-positive")
    ]
    by_label = found["protocols"]["ap"]["by_label"]["AP"]
    assert tuple(by_label) == NAMES and by_label["cat"] == pytest.approx(250 / 3)


def test_the_table_a_person_reads(cli, file):
    done = cli("score", file, "--protocol", "prf-oracle, auc,prf-validation", "--by-label").ok()
    assert "p.npz: 4 images, 3 labels" in done.out
    assert re.search(r"prf-oracle \(oracle\) +CP \d", done.out)
    assert "reads the answers" in done.out
    assert "prf-validation" in done.out and "not defined: there are no predictions" in done.out
    assert re.search(r"\[red\]car +100\.00", done.out), "markup in a name is text"


def test_validation_and_training_positives_of_a_file(cli, arrays, tmp_path):
    more = {"validation_logits": LOGITS, "validation_targets": TARGETS}
    np.savez(tmp_path / "v.npz", **arrays, **more, train_positives=np.array([500, 50, 5]))
    found = as_json(cli, tmp_path / "v.npz", "--protocol", "prf-validation-by-class,groups")
    assert found["undefined"] == {}
    wanted = evaluate("prf-validation-by-class", LOGITS, TARGETS, (LOGITS, TARGETS))
    assert found["protocols"]["prf-validation-by-class"]["values"] == wanted
    thresholds = found["protocols"]["prf-validation-by-class"]["by_label"]
    assert thresholds["threshold_logit"] == dict(zip(NAMES, (-0.5, -1.0, 1.0), strict=True))
    chances = list(thresholds["threshold_probability"].values())
    assert chances == pytest.approx(1 / (1 + np.exp([0.5, 1, -1])))
    flags = ("--protocol", "prf-validation-by-class", "--by-label")
    assert re.search(r"dog: big +0\.27 +-1\.00", cli("score", tmp_path / "v.npz", *flags).out)
    groups = found["protocols"]["groups"]["by_label"]["group"]
    assert list(groups.values()) == ["head", "middle", "tail"]


@pytest.mark.parametrize(
    ("logits", "targets", "reason"),
    [
        (LOGITS, np.full_like(TARGETS, -1), "validation split: nothing can be scored"),
        (LOGITS[:, :2], TARGETS[:, :2], "validation split: 2 classes, but 3 are scored; give"),
    ],
)
def test_validation_that_does_not_serve_matters_to_its_protocols_only(
    cli, arrays, tmp_path, logits, targets, reason
):
    more = {"validation_logits": logits, "validation_targets": targets}
    np.savez(tmp_path / "v.npz", **arrays, **more)
    names = ("prf-validation", "prf-validation-by-class")
    found = as_json(cli, tmp_path / "v.npz", "--protocol", ",".join(("canonical", *names)))
    assert list(found["protocols"]) == ["canonical"]
    assert all(reason in found["undefined"][name] for name in names)


def test_a_run_by_its_id_its_record_or_its_predictions(cli):
    record = next(r for r in Store(RESULTS).records() if r.scores is not None)
    (place,) = (RESULTS / "records").glob(f"*/*/{record.run_id}.json")
    by_id = as_json(cli, record.run_id, "--results", RESULTS)
    by_record, by_file = as_json(cli, place), as_json(cli, place.with_suffix(".npz"))
    assert by_id["run_id"] == by_record["run_id"] == record.run_id
    assert by_id["protocols"] == by_record["protocols"] == by_file["protocols"]
    assert by_id["protocols"]["canonical"]["values"]["mAP"] == pytest.approx(record.scores.mAP)


def test_groups_of_a_run_follow_from_its_record(cli, tmp_path):
    store, seen = Store(tmp_path / "results"), made_predictions(n=40)
    seen = replace(seen, validation=made_predictions(1, n=40))
    known, old = made_record(train_positives=(200, 50, 2)), made_record(spec={"seed": 1})
    store.write(known, seen)
    store.write(old, seen)
    found = as_json(cli, known.run_id, "--protocol", "groups,prf-validation")["protocols"]
    assert list(found["groups"]["by_label"]["group"].values()) == ["head", "middle", "tail"]
    assert found["prf-validation"]["values"], "on its own validation images"
    asked = as_json(cli, old.run_id, "--protocol", "groups,groups-by-thirds")
    assert list(asked["protocols"]) == ["groups-by-thirds"]
    assert "records of older runs" in asked["undefined"]["groups"]


@pytest.mark.parametrize("blank", [False, True])
def test_a_table_is_scored_as_the_arrays_are(cli, file, tmp_path, blank):
    written = table()
    if blank:
        written = written.replace({"target:[red]car": {-1: None}})
    written.to_csv(tmp_path / "p.csv", index=False)
    flags = ("--protocol", "ap,prf-0.5,hamming")
    found, wanted = (as_json(cli, f, *flags) for f in (tmp_path / "p.csv", file))
    assert found["protocols"] == wanted["protocols"]


def test_probabilities_are_scored_as_their_logits_are(tmp_path):
    chances = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    table("probability", chances).to_csv(tmp_path / "p.csv", index=False)
    np.savez(tmp_path / "p.npz", probabilities=chances, targets=TARGETS)
    for name in ("p.csv", "p.npz"):
        given = read(str(tmp_path / name), RESULTS).given
        np.testing.assert_allclose(given.logits, LOGITS, atol=1e-12)


def test_certain_probabilities_stay_at_the_ends_of_the_ranking(tmp_path):
    chances = np.array([[0.0], [np.nextafter(0, 1)], [0.5], [np.nextafter(1, 0)], [1.0]])
    np.savez(tmp_path / "p.npz", probabilities=chances, targets=np.array([[0], [1], [1], [1], [1]]))
    logits = read(str(tmp_path / "p.npz"), RESULTS).given.logits[:, 0]
    assert (np.diff(logits) > 0).all() and np.isfinite(logits).all() and logits[2] == 0


def test_more_unknown_than_absent_causes_a_warning(cli, file, arrays, tmp_path):
    assert cli("score", file).err == ""
    voc = np.where(TARGETS == 1, 1, -1)
    voc[1, 2] = 0
    np.savez(tmp_path / "voc.npz", **arrays | {"targets": voc})
    done = cli("score", "voc.npz")
    assert done.code == 0 and "warning: voc.npz: targets has -1 (unknown" in done.err
    assert "6 times and 0 (absent) 1 time;" in done.err and "exchange the two" in done.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.full((4, 3), np.nan)}, "bad.npz: logits .* 12 of 12 scores are not finite"),
        ({"logits": LOGITS[:, :2]}, r"\(4, 2\) and targets \(4, 3\)"),
        ({"targets": np.zeros_like(TARGETS)}, "bad.npz: .*nothing can be scored: none of 3 labels"),
        ({"targets": np.where(TARGETS == 1, 1, -1)}, r"write 0 \(absent\) instead"),
        ({"targets": np.ones_like(TARGETS)}, "Add images that differ in these labels"),
        ({"targets": TARGETS * 2}, "targets 1 .present., 0 .absent. or -1 .unknown."),
        ({"targets": None}, "an .npz holds targets"),
        ({"probabilities": LOGITS}, "needs targets and either logits or probabilities"),
        ({"logits": None, "probabilities": LOGITS}, "must lie within 0 and 1"),
        ({"names": np.array(["a", "a", "b"])}, "3 label names, 2 of them different"),
        ({"keys": np.array(["a", "b", "a", "c"])}, "4 keys, 3 of them different, for 4 images"),
        ({"validation_logits": LOGITS}, "needs validation_targets and .*an .npz holds"),
        (
            {f"validation_{n}": a for n, a in (("logits", LOGITS[:, :2]), ("targets", TARGETS))},
            r"validation_logits and validation_targets: scores \(4, 2\) and targets \(4, 3\)",
        ),
        ({"names": np.array([{}, {}, {}])}, "holds objects of Python"),
        ({"train_positives": np.array(list("abc"))}, "train_positives .* hold a, b, c; give whole"),
        ({"train_positives": np.array([5, np.nan, 1])}, "have each label, but hold nan; give"),
        ({"train_positives": np.array([5, -1, 1.5])}, "but hold -1.0, 1.5; give"),
        (dict.fromkeys(("logits", "targets", "keys"), LOGITS[:0]), "none of 3 labels"),
    ],
)
def test_arrays_that_are_no_predictions(cli, arrays, tmp_path, changes, message):
    kept = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(tmp_path / "bad.npz", **kept)
    assert re.search(message, cli("score", tmp_path / "bad.npz").failed().err)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="key"), "needs a column key"),
        (lambda t: t.drop(columns="target:cat"), "lacks the column target:cat"),
        (lambda t: t.assign(**{"logit:cat": "high"}), "column logit:cat: .*'high'"),
    ],
)
def test_tables_that_are_no_predictions(cli, tmp_path, change, message):
    change(table()).to_csv(tmp_path / "bad.csv", index=False)
    assert re.search(message, cli("score", tmp_path / "bad.csv").failed().err)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.npz", b"PK\x03\x04 and no more", "damaged or no .npz"),
        ("empty.csv", b"", "cannot be read as a table"),
        ("cut.csv", b"key,logit:a,target:a\nx,1,1\n\ny,1", "line of 'y' has 2 fields"),
        ("p.txt", b"?", "neither an .npz, a .csv"),
        ("alone.json", b"{}", "nor a run in /"),
    ],
)
def test_damaged_files(cli, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    cli("score", tmp_path / name).failed(message, name)


def test_a_csv_of_a_spreadsheet_is_made_right_by_the_printed_command(cli, tmp_path):
    rows = ["key,target:b\u00e4r,logit:b\u00e4r", "a,1,0.5", "b,0,-0.5"]
    (tmp_path / "p.csv").write_text("\n".join(rows).replace(",", ";"), encoding="latin-1")
    name = "p.csv"
    for fault in ("is not UTF-8", "';' separates its cells, where commas are expected"):
        done = cli("score", name).failed(fault)
        command = re.search(r"(iconv|python -c) .*> \S+", " ".join(done.err.split()))[0]
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
        name = command.rpartition(" ")[2]
    cli("score", name).ok()


def test_saturated_probabilities_are_told(cli, arrays, tmp_path):
    chances = np.where(LOGITS > 0, 1, 0.5).astype(np.float16)
    rest = {name: array for name, array in arrays.items() if name != "logits"}
    np.savez(tmp_path / "half.npz", **rest, probabilities=chances)
    assert "of probabilities are 1 in 16 bits" in cli("score", "half.npz").ok().err
