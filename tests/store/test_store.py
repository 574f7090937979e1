import errno
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlbench.files import safe_name, temporary
from mlbench.store import Store
from mlbench.types import EpochLog, Predictions, StoreError
from tests.store.made import made_predictions, made_record


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def shelter(tmp_path, monkeypatch):
    """The folder of temporary files, where results are rescued to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def fail(monkeypatch, code, below):
    """Make every flush of a file below this folder fail."""
    flush = os.fsync

    def failing(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_relative_to(below):
            raise OSError(code, os.strerror(code))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


def test_what_was_written_is_read(store):
    record, predictions = made_record(), made_predictions()
    file = store.write(record, predictions)
    assert file == store.root / "records" / "coco-mini" / "ssgrl" / f"{record.run_id}.json"
    again = Store(store.root)
    assert again.records() == [record] and again.get(record.run_id) == record
    found = again.predictions(record)
    np.testing.assert_array_equal(found.logits, predictions.logits)
    np.testing.assert_array_equal(found.targets, predictions.targets)
    assert found.keys == predictions.keys
    assert (found.logits.dtype, found.targets.dtype) == (np.float32, np.int8)


def test_the_same_result_gives_the_same_bytes(tmp_path):
    files = [Store(tmp_path / n).write(made_record(), made_predictions()) for n in "ab"]
    for suffix in (".json", ".npz"):
        first, second = (file.with_suffix(suffix).read_bytes() for file in files)
        assert first == second


def test_numbers_that_are_not_finite_are_read_back(store):
    epoch = {"epoch": 1, "loss": 1.0, "lr": 0.1, "seconds": 1.0, "images_per_second": 1.0}
    odd = EpochLog(**epoch, grad_norm=float("inf"), aux={"group": float("nan")})
    record = made_record(status="diverged", scores=None, epochs=(odd,))
    file = store.write(record)
    (found,) = store.records()
    assert found.epochs[0].grad_norm == float("inf") and np.isnan(found.epochs[0].aux["group"])
    json.loads(file.read_text(), parse_constant=pytest.fail)  # JSON that any reader reads


def test_opening_makes_nothing(store):
    assert not store.root.exists()
    assert store.records() == [] and store.problems() == [] and store.get("0" * 16) is None


def test_names_that_are_no_file_names(store):
    odd = made_record("../timm:a/b", identity="..")
    file = store.write(odd)
    assert (
        file.is_relative_to(store.root / "records") and len(file.parts) == len(store.root.parts) + 4
    )
    assert store.records() == [odd]
    names = ["a/b", "a%2Fb", "a b", "a:b", ".", "..", "", "é"]
    assert len({safe_name(name) for name in names}) == len(names)
    assert all("/" not in safe_name(n) and safe_name(n) not in ("", ".", "..") for n in names)


def test_a_run_without_predictions_leaves_none(store):
    record = made_record()
    store.write(record, made_predictions())
    store.write(record.model_copy(update={"status": "diverged", "scores": None}))
    with pytest.raises(StoreError, match=r"npz: run .* \(diverged\) has no predictions"):
        store.predictions(record.model_copy(update={"status": "diverged"}))


def test_different_records_of_one_second_are_all_kept(store):
    """Two machines made one run in the same second; then a third did, and the first came back."""
    records = [made_record(value=value) for value in (10.0, 20.0, 30.0)]
    for seed, record in enumerate(records):
        store.write(record, made_predictions(seed=seed))
    for newest in (2, 0, 0, 1):
        store.write(records[newest], made_predictions(seed=newest))
        again = Store(store.root)
        assert again.records() == [records[newest]] and again.problems() == []
        older = {record.scores.mAP for record in again.superseded()}
        assert older | {records[newest].scores.mAP} == {10, 20, 30}
        for seed, record in enumerate(records):
            found = again.predictions(record).logits
            np.testing.assert_array_equal(found, made_predictions(seed=seed).logits)
    assert len(store.superseded()) == 3  # one a record, however often it was superseded


def test_a_superseded_record_under_another_name_is_a_problem(store):
    for value in (10.0, 20.0):
        store.write(made_record(value=value))
    [old] = store.root.glob("records/*/*/superseded/*.json")
    old.rename(old.with_name(f"{old.stem}.x.json"))
    assert store.superseded() == [] and len(store.problems()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Invalid JSON"),
        (b'{"run_id": "1', "Invalid JSON"),
        (b"\xff\xfe", "the file"),
        (b"[]", "the file"),
        (b'{"anything": 1}', "run_id|spec|anything"),
    ],
)
def test_one_bad_file_hides_no_other(store, content, reason):
    good, bad = made_record(), made_record("gap")
    store.write(good)
    file = store.write(bad)
    file.write_bytes(content)
    assert store.records() == [good]
    (problem,) = store.problems()
    assert str(file) in str(problem) and "delete it and run again" in str(problem)
    assert re.search(reason, str(problem))
    with pytest.raises(StoreError, match=re.escape(str(file))):
        store.get(bad.run_id)


def test_a_record_under_the_name_of_another_is_a_problem(store):
    file = store.write(made_record())
    file.rename(file.with_stem("0" * 16))
    assert store.records() == [] and len(store.problems()) == 1


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_damaged_predictions_are_named(store, part):
    record = made_record()
    file = store.write(record, made_predictions()).with_suffix(".npz")
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(StoreError, match=re.escape(str(file)) + ".*damaged"):
        store.predictions(record)


def test_predictions_of_other_labels_are_refused(store):
    record = made_record()
    store.write(record, made_predictions())
    other = record.model_copy(update={"label_names": ("cat", "dog", "cow")})
    with pytest.raises(StoreError, match="labels are not"):
        store.predictions(other)


def test_predictions_that_do_not_fit_their_record_are_refused(store):
    good = made_predictions()
    with pytest.raises(StoreError, match=r"logits \(4, 3\).*3 keys"):
        store.write(made_record(), Predictions(good.logits, good.targets, good.keys[:3]))
    assert not store.root.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failed_write_loses_nothing(store, shelter, monkeypatch, code):
    record, predictions = made_record(), made_predictions()
    store.root.mkdir()
    fail(monkeypatch, code, store.root)
    with pytest.raises(StoreError) as caught:
        store.write(record, predictions)
    told = str(caught.value)
    assert record.run_id in told and os.strerror(code) in told and str(shelter) in told
    assert store.records() == [] and not list(store.root.rglob("*.*"))
    # The command of the message puts it back.
    monkeypatch.undo()
    subprocess.run(told.partition("put it back with: ")[2], shell=True, check=True)
    assert store.records() == [record]
    np.testing.assert_array_equal(store.predictions(record).logits, predictions.logits)


def test_when_there_is_room_nowhere_the_message_says_so(store, shelter, monkeypatch, tmp_path):
    fail(monkeypatch, errno.ENOSPC, tmp_path)
    with pytest.raises(StoreError, match="it is lost"):
        store.write(made_record(), made_predictions())


def test_a_failed_write_leaves_the_old_record(store, shelter, monkeypatch):
    old, predictions = made_record(value=40.0), made_predictions()
    store.write(old, predictions)
    fail(monkeypatch, errno.ENOSPC, store.root)
    with pytest.raises(StoreError):
        store.write(made_record(value=60.0), made_predictions(seed=1))
    assert store.records() == [old]
    np.testing.assert_array_equal(store.predictions(old).logits, predictions.logits)


def test_a_file_where_the_store_should_be(tmp_path, shelter):
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(StoreError, match="saved in"):
        Store(tmp_path / "results").write(made_record())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(store, shelter):
    store.root.mkdir(mode=0o500)
    with pytest.raises(StoreError, match=r"Permission denied.*saved in"):
        store.write(made_record(), made_predictions())


def test_a_full_disk(tmp_path, shelter):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted")
    try:
        with pytest.raises(StoreError, match=r"No space left on device.*saved in"):
            Store(disk).write(made_record(), made_predictions(n=50_000))
        assert not list(disk.rglob("*.*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_temporary_files_of_the_dead_are_swept_and_of_the_living_are_not(store):
    file = store.write(made_record())
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    mine = temporary(file)
    abandoned = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{dead.stdout.strip()}."))
    elsewhere, old = file.with_name(".a.json.other-1.tmp"), file.with_name(".b.json.other-1.tmp")
    for left in (mine, abandoned, elsewhere, old):
        left.write_text("half")
    os.utime(old, (0, 0))
    Store(store.root)
    assert [left.exists() for left in (mine, abandoned, elsewhere, old)] == [
        True,
        False,
        True,
        False,
    ]
