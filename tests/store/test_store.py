"""Records and predictions are read as they were written; a damaged file is named, no other lost."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from mlbench.evidence import seal
from mlbench.files import safe_name
from mlbench.numbers import NUMBERS
from mlbench.store import Store
from mlbench.types import Predictions, Pretraining, StoreError
from tests.store.made import edit, equal, kept, made_cost, made_epoch, made_predictions, made_record


def test_what_was_written_is_read(store):
    assert store.records() == [] and store.read_all()[1] == [] and store.find("0" * 16) is None
    assert not store.root.exists(), "opening creates nothing"
    record, validation = made_record(), made_predictions(seed=1, n=7)
    predictions = replace(made_predictions(), validation=validation)
    file = store.write(record, predictions)
    assert file == store.root / "records" / "coco-mini" / "ssgrl" / f"{record.run_id}.json"
    again = Store(store.root)
    [sealed] = again.records()
    assert (
        again.find(record.run_id) == sealed == seal(record, file.with_suffix(".npz").read_bytes())
    )
    found = again.predictions(record)
    assert equal(found, predictions)
    assert (found.logits.dtype, found.targets.dtype) == (np.float32, np.int8)


def test_the_same_result_gives_the_same_bytes(tmp_path):
    files = [Store(tmp_path / n).write(made_record(), made_predictions()) for n in "ab"]
    for suffix in (".json", ".npz"):
        first, second = (file.with_suffix(suffix).read_bytes() for file in files)
        assert first == second
    (store := Store(tmp_path / "a")).write(made_record(), made_predictions())
    assert store.superseded() == [], "the same record"


def test_numbers_that_are_not_finite_are_read_back(store):
    odd = made_epoch(1, 1.0, grad_norm=float("inf"), aux={"group": float("nan")})
    file = store.write(made_record(status="diverged", scores=None, epochs=(odd,)))
    (found,) = store.records()
    assert found.epochs[0].grad_norm == float("inf") and np.isnan(found.epochs[0].aux["group"])
    json.loads(file.read_text(), parse_constant=pytest.fail)  # JSON that any reader reads


def test_names_that_are_no_file_names(store):
    odd = made_record("../timm:a/b", identity="..")
    file = store.write(odd)
    odd = seal(odd, None)
    assert file.is_relative_to(store.root / "records")
    assert len(file.parts) == len(store.root.parts) + 4
    assert store.records() == [odd]
    names = ["a/b", "a%2Fb", "a b", "a:b", ".", "..", "", "é"]
    assert len({safe_name(name) for name in names}) == len(names)
    assert all("/" not in safe_name(n) and safe_name(n) not in ("", ".", "..") for n in names)


def test_a_data_set_of_a_long_name_keeps_its_results(cli, store):
    for name in ("我" * 80, "我" * 81):
        record = made_record("gap", identity=name, spec={"seed": len(name)})
        store.write(record, made_predictions())
        assert store.find(record.run_id).identity == name
        cli("pack", record.run_id).ok()
    assert len(store.records()) == 2 and store.predictions(store.find(record.run_id))
    cli("leaderboard").ok()
    assert len([*store.root.glob("leaderboards/*.csv")]) == 2


def test_a_repeat_without_predictions_leaves_none(store):
    store.write(made_record(), made_predictions())
    diverged = made_record(status="diverged", scores=None)
    store.write(diverged)
    with pytest.raises(StoreError, match=rf"npz: run {diverged.run_id} has no predictions"):
        store.predictions(diverged)


def test_different_records_of_one_second_are_all_kept(store):
    """Two machines made one run in the same second; then a third did, and the first came back."""
    records = [
        kept(store, made_record(value=value), made_predictions(seed=seed))
        for seed, value in enumerate((10.0, 20.0, 30.0))
    ]
    for newest in (2, 0, 0, 1):
        store.write(records[newest], made_predictions(seed=newest))
        again = Store(store.root)
        assert again.records() == [records[newest]] and again.read_all()[1] == []
        older = {record.scores.mAP for record in again.superseded()}
        assert older | {records[newest].scores.mAP} == {10, 20, 30}
        for seed, record in enumerate(records):
            found = again.predictions(record).logits
            np.testing.assert_array_equal(found, made_predictions(seed=seed).logits)
    assert len(store.superseded()) == 3  # one a record, however often it was superseded


def test_a_unique_prefix_finds_its_run_and_a_shared_one_is_refused(store):
    for seed in range(40):  # more than there are hexadecimal digits
        store.write(made_record(("gap", "gmp")[seed % 2], spec={"seed": seed}))
    ids = [record.run_id for record in store.records()]
    for run_id in ids:
        for length in range(1, len(run_id) + 1):
            prefix = run_id[:length]
            several = [other for other in ids if other.startswith(prefix)]
            if several == [run_id]:
                assert store.find(f"results/runs/{prefix}").run_id == run_id
            else:
                with pytest.raises(StoreError, match=f"is the beginning of {len(several)} runs"):
                    store.find(prefix)
    for text in ("", "zz", "*", "../gap", "0123456789abcdef0"):
        assert store.find(text) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"run_id": "1', "Invalid JSON"),
        (b"[]", "the file"),
        (b'{"anything": 1}', "run_id|spec|anything"),
    ],
)
def test_one_bad_file_hides_no_other(store, content, reason):
    good, bad = kept(store, made_record()), made_record("gap")
    file = store.write(bad)
    file.write_bytes(content)
    assert store.records() == [good] and set(store.record_files()) == {good.run_id, bad.run_id}
    (problem,) = store.read_all()[1]
    assert str(file) in str(problem) and "delete it and run again" in str(problem)
    assert re.search(reason, str(problem))
    with pytest.raises(StoreError, match=re.escape(str(file))):
        store.find(bad.run_id)


def test_a_record_under_another_name_is_a_problem(store):
    for value in (10.0, 20.0):
        newest = store.write(made_record(value=value))
    [old] = store.root.glob("records/*/*/superseded/*.json")
    old.rename(old.with_name(f"{old.stem.rpartition('.')[0]}.x.json"))
    newest.rename(newest.with_stem("0" * 16))
    assert store.records() == store.superseded() == [] and len(store.read_all()[1]) == 2


IMPOSSIBLE = [
    (("scores", "mAP"), float("nan")),
    (("scores", "mAP"), 147.0),
    (("average_precision", 0), 100.1),
    (("efficiency", "gmacs_head"), -1.0),
    (("train_positives",), [-1, 0, 0]),
    (("started",), "yesterday"),
    (("added",), "lately"),
]


@pytest.mark.parametrize(("path", "value"), IMPOSSIBLE)
def test_an_impossible_number_is_a_problem_of_its_file(store, path, value):
    file = store.write(made_record())
    other = kept(store, made_record("gap"))
    edit(file, path, value)
    [problem] = store.read_all()[1]
    assert str(file) in str(problem) and str(path[0]) in str(problem)
    assert store.records() == [other]


def test_an_interval_may_reach_beyond_what_a_score_can_be(store):
    edit(store.write(made_record()), ("scores", "mAP_high"), 100.4, sealed=True)
    assert store.read_all()[1] == [] and len(store.records()) == 1


def test_the_boards_name_bad_records_and_runs_without_predictions(cli, store):
    bad = store.write(made_record())
    edit(bad, ("scores", "mAP"), float("nan"))
    good = made_record(spec={"seed": 1})
    store.write(good)
    said = "".join(cli("leaderboard").ok("ssgrl").err.split())
    assert f"notontheboard:{bad.relative_to(store.root.parent)}" in said
    assert "scores.mAP" in said and f"run{good.run_id}hasnousablepredictions(" in said


def test_predictions_that_do_not_fit_their_record_are_refused(store):
    good = made_predictions()
    bad = Predictions(good.logits, good.targets, good.keys[:3])
    for predictions, message in [
        (bad, r"logits \(4, 3\).*3 keys"),
        (replace(good, validation=bad), r"validation_logits \(4, 3\)"),
    ]:
        with pytest.raises(StoreError, match=message):
            store.write(made_record(), predictions)
    assert not store.root.exists()
    record = kept(store, made_record(), good)
    with pytest.raises(StoreError, match="labels are not"):
        store.predictions(record.model_copy(update={"label_names": ("cat", "dog", "cow")}))


def test_what_was_measured_elsewhere_or_otherwise_is_kept(store):
    for other in ({}, {}, {"device": "H100"}, {"precision": "bf16"}, {"runtime": "onnxruntime"}):
        store.write_cost(made_cost(made_record(), **other))
    costs, errors = store.read_costs()
    assert len(costs) == 4 and not errors


def test_pruning_keeps_the_best_model_of_a_method_and_backbone_on_a_board(tmp_path):
    store = Store(tmp_path)

    def stored(value, seed, core=NUMBERS, head=1, spec=(), **fields):
        fields |= {"numbers": {"core": core, "head gap": head}}
        record = made_record("gap", value, spec={"seed": seed, **dict(spec)}, **fields)
        file = store.run_folder(record.run_id) / "checkpoint.safetensors"
        record = record.model_copy(update={"checkpoint": file.relative_to(tmp_path).as_posix()})
        file.parent.mkdir(parents=True)
        file.touch()
        return kept(store, record), file

    worse, best, equal = stored(40.0, 1), stored(50.0, 2), stored(50.0, 3)
    elsewhere = {"data": "e" * 16, "init": "sha256:" + "e" * 64, "track": "controlled"}
    others = (
        *(stored(30.0, 4, spec={name: value}) for name, value in elsewhere.items()),
        stored(30.0, 4, core=NUMBERS - 1),
        stored(30.0, 7, head=2),
        stored(30.0, 8, pretraining=Pretraining(data="captions", saw=("coco",))),
        stored(30.0, 9, settings={"backbone": "resnet50"}),
    )
    stored(60.0, 5)[1].unlink()
    kept(store, made_record("gap", 70.0, spec={"seed": 6}))  # run with --keep none
    for record, _ in others:
        store.prune(record)
    assert all(file.exists() for _, file in (worse, best, equal, *others))
    store.prune(worse[0])
    first, second = sorted((best, equal), key=lambda pair: pair[0].run_id)
    assert [file.exists() for _, file in (worse, first, second)] == [False, True, False]
    assert all(file.exists() for _, file in others)
    assert len(store.records()) == 12, "records stay"
