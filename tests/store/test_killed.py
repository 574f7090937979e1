"""A process that writes in a loop is killed at any moment; what is left is whole."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlbench.store import Store

ROOT = Path(__file__).parent.parent.parent
WRITER = """
import itertools, sys
from pathlib import Path
from mlbench.store import Store
from tests.store.made import made_predictions, made_record

store = Store(Path(sys.argv[1]))
for i in itertools.count():
    # Few runs, so that records are replaced as well as made; the mAP tells which predictions.
    record = made_record(value=float(i), spec={"seed": i % 5}, test_images=2000)
    store.write(record, made_predictions(seed=i % 7, n=2000))
    if not i:
        print("started", flush=True)
"""


@pytest.mark.parametrize("after", [0.0, 0.03, 0.11, 0.2])
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
    assert not list(tmp_path.rglob("*.tmp"))
