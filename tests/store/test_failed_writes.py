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
from tests.store.made import made_predictions, made_record

ROOT = Path(__file__).parent.parent.parent


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


@pytest.mark.parametrize("after", [0.03, 0.11])
def test_sigkill_leaves_whole_records_only(tmp_path, after):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"started\n"
        time.sleep(after)
        writer.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    records = store.records()
    assert records and store.problems() == []
    for record in records:
        assert len(store.predictions(record).keys) == 2000
