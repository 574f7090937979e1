"""The form of a pack: what goes in comes out, and what is no pack is refused."""

import io
import json
import zipfile
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbench.store import Store
from mlbench.types import PackError, Predictions
from mlbench_tools.submit import archive
from mlbench_tools.submit.archive import make, read
from mlbench_tools.submit.checks import verify
from mlbench_tools.submit.copies import ALIKE, SIMILAR, Seen, copies, correlation
from mlbench_tools.submit.intake import add, compare
from mlbench_tools.submit.seeds import seeds
from tests.store.made import made_predictions, made_record
from tests.tools.submit.parts import (
    RESULTS,
    committed,
    made,
    named,
    put_together,
    scored,
    taken_apart,
)


@pytest.fixture(scope="module")
def run(cache):
    return made(cache, settings={"selection": "validation"})


def written(tmp_path, data):
    file = tmp_path / "pack.zip"
    file.write_bytes(data)
    return file


def equal(one, other):
    if one is None or other is None:
        return one is other
    same = np.array_equal(one.logits, other.logits) and np.array_equal(one.targets, other.targets)
    return same and one.keys == other.keys and equal(one.validation, other.validation)


# ------------------------------------------------------------------------------------------- making
KEYS = st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), unique=True)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keys=KEYS, data=st.data())
def test_what_goes_in_comes_out(keys, data, tmp_path):
    shape = (len(keys), 3)
    logits = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(width=32)))
    targets = data.draw(arrays.arrays(np.int8, shape, elements=st.integers(-1, 1)))
    record, seen = made_record(), Predictions(logits, targets, tuple(keys))
    pack = read(written(tmp_path, make(record, seen)))
    assert pack.record == record
    np.testing.assert_array_equal(pack.predicted.predictions.logits, logits)
    np.testing.assert_array_equal(pack.predicted.predictions.targets, targets)
    assert pack.predicted.predictions.keys == tuple(keys)


def test_the_same_run_gives_the_same_bytes(run, monkeypatch):
    first = make(*run)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert make(*run) == first
    with zipfile.ZipFile(io.BytesIO(first)) as file:
        assert {member.date_time for member in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert file.namelist() == ["manifest.json", "record.json", "recipe.yaml", "predictions.npz"]


def test_pack_verify_store_is_a_round_trip(run, tmp_path):
    record, seen = run
    pack = read(written(tmp_path, make(record, seen)))
    assert verify(pack).verdict == "clean"
    store = Store(tmp_path / "theirs")
    assert list(compare(pack, store)) == []
    assert add(pack, store).startswith("added as")
    again = Store(tmp_path / "theirs")
    [taken] = again.records()
    assert (
        datetime.now(UTC) - taken.appeared < timedelta(minutes=5) and taken.began < taken.appeared
    )
    assert taken == record.model_copy(update={"added": taken.added})
    assert equal(again.predictions(taken), seen)
    assert add(pack, again) == f"is in {again.root} already"


def test_what_images_do_to_the_score_goes_with_the_predictions(run, tmp_path):
    record, seen = run
    store = Store(tmp_path / "mine")
    store.write(record, seen)
    kept = store.influence(record)
    pack = read(written(tmp_path, make(record, seen, kept)))
    assert pack.predicted.influence.values.tolist() == kept.values.tolist()
    assert replace(pack.predicted.influence, values=None) == replace(kept, values=None)
    assert "influence" in verify(pack).checks and verify(pack).verdict == "clean"


def test_a_newer_run_supersedes_and_says_so(run, tmp_path):
    record, seen = run
    store = Store(tmp_path / "store")
    store.write(record, seen)
    newer = record.model_copy(update={"started": "2026-02-02T00:00:00+00:00"})
    pack = read(written(tmp_path, make(newer, seen)))
    [remark] = compare(pack, store)
    assert remark.kind == "finding" and "holds this run already; --supersede puts" in remark.text
    assert record.started in remark.expected and newer.started in remark.found
    assert list(compare(pack, store, supersede=True)) == []
    said = add(pack, store)
    assert f"of {newer.started}" in said and f"supersedes that of {record.started}" in said
    [taken] = store.records()
    assert taken.model_copy(update={"added": ""}) == newer and store.superseded() == [record]
    assert add(pack, store).endswith("already"), "whenever it was taken in"


@pytest.mark.parametrize("supersede", [False, True])
def test_nothing_older_and_nothing_diverged_supersedes(supersede, run, tmp_path):
    record, seen = run
    store = Store(tmp_path / "store")
    store.write(record, seen)
    older = record.model_copy(update={"started": "2025-02-02T00:00:00+00:00"})
    [remark] = compare(read(written(tmp_path, make(older, seen))), store, supersede)
    assert remark.kind == "finding" and "an older one never supersedes" in remark.text
    nothing = {"scores": None, "average_precision": (), "efficiency": None, "epochs": ()}
    later = {"started": "2026-02-02T00:00:00+00:00", "status": "diverged", "error": "at step 3"}
    diverged = record.model_copy(update={**nothing, **later})
    [remark] = compare(read(written(tmp_path, make(diverged, None))), store, supersede)
    assert remark.kind == "finding" and "one that diverged never supersedes" in remark.text
    assert store.records() == [record]


def test_the_same_run_with_something_else_in_it_is_a_finding(run, tmp_path):
    record, seen = run
    store = Store(tmp_path / "store")
    store.write(record, seen)
    scores = record.scores.model_copy(update={"mAP_low": record.scores.mAP_low - 1e-6})
    other = record.model_copy(update={"notes": ("changed",), "scores": scores})
    [remark] = compare(read(written(tmp_path, make(other, seen))), store)
    assert remark.kind == "finding" and "begun in the same second" in remark.text
    assert remark.text.endswith("something else in scores.mAP_low, notes")
    low = record.scores.mAP_low
    assert remark.expected == f"scores.mAP_low {low}, notes {list(record.notes)}"
    assert remark.found == f"scores.mAP_low {low - 1e-6}, notes ['changed']"


def test_a_run_with_a_nan_is_no_conflict_with_itself(run, tmp_path):
    record, seen = run
    first, *rest = record.epochs
    odd = first.model_copy(update={"grad_norm": float("nan")})
    record = record.model_copy(update={"epochs": (odd, *rest)})
    store = Store(tmp_path / "store")
    store.write(record, seen)
    pack = read(written(tmp_path, make(record, seen)))
    assert list(compare(pack, store)) == [] and add(pack, store).endswith("already")
    assert store.superseded() == []


def test_predictions_of_another_run_of_the_store_are_told(run, tmp_path):
    record, seen = run
    store = Store(tmp_path / "store")
    store.write(record, seen)
    copied = named(record, seed=5)
    [remark] = compare(read(written(tmp_path, make(copied, seen))), store)
    assert remark.kind == "finding" and f"run {record.run_id} (gap, seed 0)" in remark.text
    assert "1.000000 with seed 5" in remark.found
    # Another loss may be the same one up to a factor.
    namesake = named(record, settings={**record.spec.settings.model_dump(), "loss": "soft_margin"})
    [remark] = compare(read(written(tmp_path, make(namesake, seen))), store)
    assert remark.kind == "warning" and "are they one model?" in remark.text


def reordered(seen):
    order = np.argsort(seen.keys)[::-1]
    keys = tuple(seen.keys[i] for i in order)
    return Predictions(seen.logits[order], seen.targets[order], keys)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda seen: replace(seen, logits=seen.logits * np.float32(1.0000001)),
        lambda seen: replace(seen, logits=3 * seen.logits - 1),
        lambda seen: replace(seen, logits=np.arctan(seen.logits)),
        lambda seen: replace(seen, logits=noisy(seen.logits, 0.02)),
        reordered,
    ],
)
def test_a_copy_is_known_by_the_order_of_its_images(disguise):
    """On 915 images, as ranks of 30 are coarse."""
    _, seen = committed("coco-mini", "gap")
    assert correlation(seen, disguise(seen)) > ALIKE


def noisy(logits, part):
    noise = np.random.default_rng(0).standard_normal(logits.shape) * logits.std(axis=0)
    return logits + (part * noise).astype(np.float32)


def test_no_two_trainings_of_other_seeds_are_taken_for_copies():
    store = Store(RESULTS)
    rows = defaultdict(list)
    for record in store.records():
        rows[record.spec.model_copy(update={"seed": 0}).run_id].append(record)
    pairs = [
        correlation(*(store.predictions(one) for one in pair))
        for row in rows.values()
        for pair in combinations(row, 2)
    ]
    assert len(pairs) >= 10 and max(pairs) < 0.96


def pushed(seen):
    """Some positives of the rarest labels ranked higher, which adds points to mAP."""
    logits = seen.logits.copy()
    for label in np.argsort((seen.targets == 1).sum(axis=0))[:4]:
        logits[seen.targets[:, label] == 1, label] += 3
    return replace(seen, logits=logits)


@pytest.mark.parametrize(
    ("disguise", "kind"),
    [
        (pushed, "finding"),
        (lambda seen: replace(seen, logits=noisy(seen.logits, 0.1)), "warning"),
    ],
)
def test_a_copy_is_told_whatever_its_score(disguise, kind, tmp_path):
    record, seen = committed("coco-mini", "gap")
    mine = disguise(seen)
    copied = scored(named(record, seed=11), mine)
    pack = read(written(tmp_path, make(copied, mine)))
    [remark] = copies(pack, [Seen("results", record, lambda _: seen)])
    assert remark.kind == kind and f"run {record.run_id}" in remark.text
    if disguise is pushed:
        assert copied.scores.mAP - record.scores.mAP > 0.2
    else:
        assert SIMILAR < correlation(seen, mine) < ALIKE


def with_map(record, mAP):
    return record.model_copy(update={"scores": record.scores.model_copy(update={"mAP": mAP})})


@pytest.mark.parametrize("points", [-4.0, -0.5, 0.5, 4.0])
def test_a_seed_far_from_its_rows_others_is_told(points):
    records = Store(RESULTS).records()
    record, _ = committed("coco-mini", "gap")
    new = named(record, seed=11)
    others = [one for one in records if named(one, seed=11).run_id == new.run_id]
    assert others
    mean = np.mean([one.scores.mAP for one in others])
    remarks = list(seeds(with_map(new, mean + points), records))
    if abs(points) < 1:
        assert remarks == []
    else:
        [remark] = remarks
        assert remark.kind == "warning" and f"{abs(points):.1f} points" in remark.text
        assert all(one.run_id in remark.text for one in others)


def test_no_committed_run_is_far_from_its_rows_others():
    records = Store(RESULTS).records()
    assert [remark for record in records for remark in seeds(record, records)] == []


def test_where_no_spread_is_known_five_points_are_far():
    record = made_record()
    score, other = record.scores.mAP, named(record, seed=1)
    assert list(seeds(with_map(other, score + 4.9), [record])) == []
    [remark] = seeds(with_map(other, score + 5.1), [record])
    assert "more than 5.0 is unlikely" in remark.text


def test_a_copy_supersedes_nothing(run, tmp_path):
    """Seed 0 under the name of seed 1, which is there."""
    record, seen = run
    other = named(record, seed=1)
    theirs = replace(seen, logits=noisy(seen.logits, 1.0))
    store = Store(tmp_path / "store")
    store.write(record, seen)
    store.write(scored(other, theirs), theirs)
    later = other.model_copy(update={"started": "2026-02-02T00:00:00+00:00"})
    pack = read(written(tmp_path, make(later, seen)))
    assert "finding" in {one.kind for one in compare(pack, store, supersede=True)}


@pytest.mark.parametrize(("status", "seen"), [("ok", None), ("diverged", made_predictions())])
def test_what_nobody_could_verify_is_not_packed(status, seen):
    with pytest.raises(PackError, match="nobody could verify"):
        make(made_record(status=status), seen)


# ----------------------------------------------------------------------------------------- refusing
def with_member(name, data=b"x"):
    return lambda pack: archive.zipped({**taken_apart(pack), name: data})


def without(name):
    return lambda pack: put_together({n: d for n, d in taken_apart(pack).items() if n != name})


def with_manifest(**fields):
    def change(pack):
        members = taken_apart(pack)
        manifest = {**json.loads(members[archive.MANIFEST]), **fields}
        return archive.zipped({**members, archive.MANIFEST: json.dumps(manifest).encode()})

    return change


def with_array(name, array):
    def change(pack):
        members = taken_apart(pack)
        with np.load(io.BytesIO(members[archive.PREDICTIONS])) as found:
            changed = {**found, name: array}
        buffer = io.BytesIO()
        np.savez(buffer, **{n: a for n, a in changed.items() if a is not None})
        return put_together({**members, archive.PREDICTIONS: buffer.getvalue()})

    return change


def around_arrays(change):
    def changed(pack):
        members = taken_apart(pack)
        return put_together({**members, archive.PREDICTIONS: change(members[archive.PREDICTIONS])})

    return changed


def with_inner(name):
    """Something else among the arrays."""
    return around_arrays(lambda data: archive.zipped({**taken_apart(data), name: b"x"}))


def with_record(**scores):
    def change(pack):
        members = taken_apart(pack)
        record = json.loads(members[archive.RECORD])
        record["scores"] |= scores
        return put_together({**members, archive.RECORD: json.dumps(record).encode()})

    return change


def commented(pack):
    buffer = io.BytesIO(pack)
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"mAP 99"
    return buffer.getvalue()


def with_header(name, header):
    """An array that claims another shape and type than its bytes have."""

    def change(pack):
        members = taken_apart(pack)
        arrays = taken_apart(members[archive.PREDICTIONS])
        said = io.BytesIO()
        np.lib.format.write_array_header_1_0(said, {"fortran_order": False, **header})
        inner = archive.zipped({**arrays, f"{name}.npy": said.getvalue() + b"\0" * 64})
        return put_together({**members, archive.PREDICTIONS: inner})

    return change


def twice(pack):
    buffer = io.BytesIO(pack)
    with zipfile.ZipFile(buffer, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("record.json", b"{}")
    return buffer.getvalue()


def damaged(pack):
    at = pack.index(b"predictions.npz") + 200
    return pack[:at] + bytes([pack[at] ^ 255]) + pack[at + 1 :]


def encrypted(pack):
    """The flag of the first member says that it is; the central directory, too."""
    changed = bytearray(pack)
    for mark, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        changed[pack.index(mark) + offset] |= 1
    return bytes(changed)


BAD = {
    "text": (lambda _: b"hello", "no pack, or damaged"),
    "empty": (lambda _: b"", "no pack, or damaged"),
    "cut": (lambda pack: pack[: len(pack) // 2], "no pack, or damaged"),
    "damaged": (damaged, "no pack, or damaged"),
    "encrypted": (encrypted, "no pack, or damaged"),
    "another zip": (lambda _: archive.zipped({}), "no manifest.json, so it is no pack"),
    "climbs out": (with_member("../../record.json"), "would land outside of the pack"),
    "absolute": (with_member("/etc/passwd"), "would land outside"),
    "backslash": (with_member("..\\record.json"), "would land outside"),
    "drive": (with_member("C:record.json"), "would land outside"),
    "stranger": (with_member("run.sh"), "'run.sh' has no place in a pack"),
    "twice": (twice, "'record.json' is there 2 times"),
    "no manifest": (lambda p: archive.zipped({"record.json": b"{}"}), "no manifest.json"),
    "manifest": (with_member(archive.MANIFEST, b"{"), "manifest.json is no JSON"),
    "manifest list": (with_member(archive.MANIFEST, b"[1]"), "format None"),
    "manifest fields": (with_manifest(more=1), "manifest.json is malformed"),
    "format": (with_manifest(format=2), "has format 2, and mlbench .* reads format 1; update"),
    "no record": (without(archive.RECORD), "has no record.json"),
    "record": (with_member(archive.RECORD, b"{}"), "record.json is no record of mlbench"),
    "no arrays": (with_member(archive.PREDICTIONS, b"PK"), "predictions.npz is damaged"),
    "lacks logits": (with_array("logits", None), "has no array logits"),
    "half an influence": (with_array("influence_of", np.array("0")), "no array influence"),
    "influence of float64": (
        with_array("influence", np.zeros(30)),
        "influence of type float64, not float32",
    ),
    "half a validation": (with_array("validation_keys", None), "no array validation_keys"),
    "float64": (with_array("logits", np.zeros((2, 2))), "logits of type float64, not float32"),
    "pickled": (
        with_array("keys", np.array([{}])),
        "has keys that is no array of plain numbers or texts",
    ),
    "an array more": (
        with_array("payload", np.zeros(9)),
        r"has 'payload\.npy', which has no place",
    ),
    "a member more": (with_inner("run.sh"), r"has 'run\.sh', which has no place"),
    "before": (lambda pack: b"#!/bin/sh\n" + pack, "bytes before its first member"),
    "after": (lambda pack: pack + b"PK more", "bytes after its last member"),
    "comment": (commented, "bytes after its last member"),
    "before the arrays": (around_arrays(lambda data: b"x" + data), "holds bytes before"),
    "after the arrays": (around_arrays(lambda data: data + b"x"), "holds bytes after"),
    "a score that is none": (with_record(mAP="NaN"), r"scores\.mAP: Input should be a finite"),
    "flat": (with_array("targets", np.zeros(3, np.int8)), "targets of shape"),
    "endless": (
        with_header("logits", {"descr": "<f4", "shape": (10**14, 80)}),
        "predictions.npz is damaged",
    ),
    "endless nothing": (
        with_header("keys", {"descr": "<U0", "shape": (10**14,)}),
        "keys of type <U0",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_pack_is_refused(name, run, tmp_path):
    change, said = BAD[name]
    file = written(tmp_path, change(make(*run)))
    with pytest.raises(PackError, match=said) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert list(tmp_path.iterdir()) == [file], "reading leaves nothing behind"


@pytest.mark.parametrize("inside", [False, True])
def test_a_bomb_is_refused_unread(inside, run, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LIMIT", 1 << 20)
    bomb = bytes(2 << 20)
    change = with_member(archive.RECORD, bomb)
    if inside:  # small as the pack counts it, and large when the arrays are read
        buffer = io.BytesIO()
        np.savez_compressed(buffer, logits=np.zeros(1 << 20, np.float32))
        change = with_member(archive.PREDICTIONS, buffer.getvalue())
    file = written(tmp_path, change(make(*run)))
    assert file.stat().st_size < 1 << 17
    with pytest.raises(PackError, match="nothing was read"):
        read(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PackError, match=r"nowhere\.zip cannot be read \(No such file"):
        read(tmp_path / "nowhere.zip")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_flipped_byte_goes_unnoticed(data, run, tmp_path):
    record, seen = run
    pack = bytearray(make(record, seen))
    at = data.draw(st.integers(0, len(pack) - 1))
    pack[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(written(tmp_path, bytes(pack)))
    except PackError:
        return
    # What is left: bytes of the zip that mean nothing, such as the time of a member.
    assert found.record == record and equal(found.predicted.predictions, seen)
