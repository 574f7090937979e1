"""A failed or killed write leaves whole records only; a failed one is saved elsewhere."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlbench.store import Store
from mlbench.types import StoreError
from tests.store.made import kept, made_predictions, made_record

ROOT = Path(__file__).parent.parent.parent


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


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_a_write_that_dies_between_its_files_is_whole_when_repeated(store, monkeypatch, renames):
    old = kept(store, made_record(value=40.0), made_predictions(seed=1))
    new, replace, done = made_record(started="2026-02-01T00:00:00+00:00"), Path.replace, []

    def dying(file, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return replace(file, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        store.write(new, made_predictions())
    monkeypatch.undo()
    assert all(store.predictions(one) for one in (*store.records(), *store.superseded()))
    store.write(new, made_predictions())
    found = {one.started: store.predictions(one).logits for one in (new, old)}
    np.testing.assert_array_equal(found[new.started], made_predictions().logits)
    np.testing.assert_array_equal(found[old.started], made_predictions(seed=1).logits)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_failed_write_loses_neither_the_old_result_nor_the_new(store, shelter, monkeypatch, code):
    old, record, predictions = made_record(value=40.0), made_record(), made_predictions()
    old = kept(store, old, made_predictions(seed=1))
    fail(monkeypatch, code, store.root)
    with pytest.raises(StoreError) as caught:
        store.write(record, predictions)
    message = str(caught.value)
    assert record.run_id in message and os.strerror(code) in message and str(shelter) in message
    assert store.records() == [old]
    np.testing.assert_array_equal(store.predictions(old).logits, made_predictions(seed=1).logits)
    # The command of the message puts it back.
    monkeypatch.undo()
    subprocess.run(message.partition("put it back with: ")[2], shell=True, check=True)
    assert [one.scores for one in store.records()] == [record.scores]
    np.testing.assert_array_equal(store.predictions(record).logits, predictions.logits)


def test_when_there_is_room_nowhere_the_message_says_so(store, shelter, monkeypatch, tmp_path):
    fail(monkeypatch, errno.ENOSPC, tmp_path)
    with pytest.raises(StoreError, match="it is lost"):
        store.write(made_record(), made_predictions())


WRITER = """
import itertools, sys
from pathlib import Path
from mlbench.store import Store
from tests.store.made import made_predictions, made_record

store = Store(Path(sys.argv[1]))
for i in itertools.count():
    # Few runs, so that records are replaced as well as made.
    record = made_record(value=float(i), spec={"seed": i % 5}, test_images=2000)
    store.write(record, made_predictions(seed=i % 7, n=2000))
    if not i:
        print("started", flush=True)
"""


def test_sigkill_leaves_whole_records_only(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"started\n"
        time.sleep(0.1)
        writer.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    records = store.records()
    assert records and store.read_all()[1] == []
    for record in records:
        assert len(store.predictions(record).keys) == 2000
