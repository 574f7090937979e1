"""The form of a pack: reading returns what was packed, and other files are refused."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbench.metrics.paired import derive_influence
from mlbench.store import Store
from mlbench.types import PackError, Predictions
from mlbench_tools.submit import pack_file
from mlbench_tools.submit.five_checks import verify
from mlbench_tools.submit.pack_file import make, read
from mlbench_tools.submit.verify import superseding
from tests.store.made import NAMES, as_change, equal, made_predictions, made_record, with_arrays
from tests.tools.submit.parts import made, put_together, taken_apart
from tests.tools.submit.parts import make as sealed_pack

LATER = {"started": "2026-02-02T00:00:00+00:00"}
PROPERTY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def run(cache):
    return made(cache, settings={"selection": "validation"})


def written(tmp_path, data):
    file = tmp_path / "pack.zip"
    file.write_bytes(data)
    return file


KEYS = st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), unique=True)


@PROPERTY
@given(keys=KEYS, data=st.data())
def test_reading_returns_what_was_packed(keys, data, tmp_path):
    shape = (len(keys), len(NAMES))
    logits = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(width=32)))
    targets = data.draw(arrays.arrays(np.int8, shape, elements=st.integers(-1, 1)))
    record = made_record(test_images=len(keys))
    predictions = Predictions(logits, targets, tuple(keys))
    pack = read(written(tmp_path, make(record, predictions)))
    assert pack.record == record
    assert equal(pack.predictions, predictions)


def test_the_same_run_gives_the_same_bytes(run, monkeypatch):
    first = make(*run)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert make(*run) == first
    members = ["manifest.json", "record.json", "recipe.yaml", "predictions.npz"]
    assert list(taken_apart(first)) == members


def test_a_pack_of_an_older_version_is_read(run, tmp_path):
    """It also held the influence of each image on mAP."""
    record, predictions = run
    members = taken_apart(sealed_pack(record, predictions))
    influence = derive_influence(predictions, record.label_names)
    members[pack_file.PREDICTIONS] = with_arrays(
        members[pack_file.PREDICTIONS],
        influence=influence.values,
        influence_of=np.array(influence.images),
        influence_mAP=np.array(influence.mAP),
        influence_version=np.array(1),
    )
    pack = read(written(tmp_path, put_together(members)))
    assert equal(pack.predictions, predictions) and verify(pack).verdict == "clean"


def test_the_entry_of_a_folder_is_no_member(run, tmp_path):
    members = {"folder/": b"", **taken_apart(sealed_pack(*run))}
    assert verify(read(written(tmp_path, put_together(members, honest=False)))).verdict == "clean"


@pytest.mark.parametrize(("status", "seen"), [("ok", None), ("diverged", made_predictions())])
def test_a_run_that_nobody_could_verify_is_not_packed(status, seen):
    with pytest.raises(PackError, match="cannot be verified"):
        make(made_record(status=status), seen)


def test_no_older_and_no_diverged_run_supersedes(run, tmp_path):
    record, predictions = run
    store = Store(tmp_path / "store")
    store.write(record, predictions)
    for changed, text in (
        ({"started": "2025-02-02T00:00:00+00:00"}, "did not start earlier"),
        ({**LATER, "status": "diverged", "scores": None}, "the pack's diverged"),
    ):
        [remark] = superseding(record.model_copy(update=changed), store, True)
        assert remark.kind == "finding" and text in remark.text


def with_member(name, data):
    return lambda pack: put_together({**taken_apart(pack), name: data}, honest=False)


def without(name):
    return lambda pack: put_together({n: d for n, d in taken_apart(pack).items() if n != name})


@as_change
def with_fields(pack, name, **fields):
    """Other fields in a member of JSON."""
    member = {**json.loads(taken_apart(pack)[name]), **fields}
    return with_member(name, json.dumps(member).encode())(pack)


@as_change
def appended(data, name, size=None):
    """One more member of this name, which says that it holds so many bytes."""
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"{}")
        archive.infolist()[-1].file_size = size or 2
    return buffer.getvalue()


@as_change
def with_predictions(pack, change):
    members = taken_apart(pack)
    data = change(members[pack_file.PREDICTIONS])
    return put_together({**members, pack_file.PREDICTIONS: data})


def with_array(name, array):
    return with_predictions(lambda archive: with_arrays(archive, **{name: array}))


BAD = {
    "text": (lambda _: b"hello", "damaged or not a pack"),
    "manifest": (with_member(pack_file.MANIFEST, b"{"), "cannot read manifest.json"),
    "format": (
        with_fields(pack_file.MANIFEST, format=2),
        "manifest.json .format = 2.*update mlbench",
    ),
    "no record": (without(pack_file.RECORD), "it has no record.json"),
    "no predictions": (without(pack_file.PREDICTIONS), "it has no predictions.npz"),
    "half a validation": (with_array("validation_targets", None), "predictions.npz is damaged"),
    "pickled": (with_array("keys", np.array([{}])), "predictions.npz is damaged"),
    "a bomb": (appended("more", 3 << 30), "it holds 3,.* bytes, more than 2,147,483,648"),
    "a bomb of arrays": (
        with_predictions(appended("more.npy", 3 << 30)),
        "predictions.npz is damaged .it holds 3,.* bytes, more than",
    ),
    "a member twice": (appended(pack_file.RECORD), "it holds 'record.json' twice"),
    "fewer images": (with_fields(pack_file.RECORD, test_images=31), "30 images, the record 31"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", BAD)
def test_a_damaged_pack_is_refused(name, run, tmp_path):
    change, message = BAD[name]
    file = written(tmp_path, change(make(*run)))
    with pytest.raises(PackError, match=message) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert list(tmp_path.iterdir()) == [file], "reading leaves nothing behind"


@PROPERTY
@given(data=st.data())
def test_no_flipped_byte_changes_what_is_read(data, run, tmp_path):
    record, predictions = run
    pack = bytearray(make(record, predictions))
    pack[data.draw(st.integers(0, len(pack) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = read(written(tmp_path, bytes(pack)))
    except PackError:
        return
    # The byte has no meaning, such as the time of a member.
    assert found.record == record and equal(found.predictions, predictions)
