"""No change of a record or its predictions goes unseen, and a damaged one hides no other."""

import io
import json
from contextlib import suppress

import numpy as np
import pytest

from mlbench.boards.render import csv, markdown
from mlbench.boards.rows import tables
from mlbench.data.words import word_vectors
from mlbench.run_file import read_run
from mlbench.types import MlbenchError, StoreError
from mlbench_tools.analysis import predictions
from mlbench_tools.submit.pack_file import make
from tests.boards.scored import write
from tests.store.made import damages, edit, with_arrays


@pytest.fixture
def run(store):
    """A record of twenty images, as it is read."""
    return write(store, targets=np.tile([[1, 0, 1], [0, 1, 1], [0, 0, 0]], (7, 1)).astype(np.int8))


EDITS = {
    "mAP": (("scores", "mAP"), 86.61),
    "CF1": (("scores", "CF1"), 77.7),
    "GMACs": (("efficiency", "gmacs_backbone"), 0.3),
    "seed": (("spec", "seed"), 5),
    "epochs": (("spec", "settings", "epochs"), 40),
    "command": (("command",), "mlbench run --plugins gap"),
    "notes": (("notes",), ["unbelievable"]),
    "digest": (("digest",), ""),
    "predictions": (("predictions_sha256",), {}),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_is_named_and_left_out(name, cli, store, run):
    other = write(store, "gap", noise=2)
    edit(store.file(run), *EDITS[name])
    shown = cli("leaderboard")
    said = "".join(shown.err.split())
    assert shown.code == 0 and "gap" in shown.out and "ssgrl" not in shown.out
    file = store.file(run).relative_to(store.root.parent)
    assert f"notontheboard:{file}:changedsinceitwaswritten" in said
    assert "restorethefile,ordeleteitandrunagain" in said
    for command in (("score",), ("pack",), ("compare", other.run_id)):
        cli(*command, run.run_id).failed("changed since it was written")
    cli("repeat", store.file(run), "--dry-run").failed("changed since it was written")


def test_replaced_logits_are_refused_by_every_reader(cli, store, run):
    other = write(store, "gap", noise=2, targets=store.predictions(run).targets)
    archive = store.predictions_file(run)
    logits = store.predictions(run).targets.astype(np.float32)  # perfect
    archive.write_bytes(with_arrays(archive.read_bytes(), logits=logits))
    for command in (
        ("score", run.run_id),
        ("score", archive),
        ("compare", run.run_id, other.run_id),
        ("pack", run.run_id),
    ):
        refused = cli(*command).failed(str(archive.name))
        assert "what the record beside it was made with" in refused.err or command[0] == "compare"
    for command in (("leaderboard",), ("page", "site"), ("explain",), ("history", "2020-01-01")):
        assert archive.name in "".join(cli(*command).ok().err.split())
    assert not (store.root.parent / "site" / "run" / f"{run.run_id}.html").exists()


def test_damaged_runs_leave_the_board_of_the_others_as_it_was(cli, store, tmp_path):
    kept = [write(store, f"method{i}", 1 + i / 4, noise=i) for i in range(4)]
    board = tables(store.records(), store.influence)
    before = markdown(board), csv(board[0])
    edited, truncated, swapped, later = (write(store, name, noise=9) for name in "abcd")
    edit(store.file(edited), ("scores", "mAP"), 86.61)
    archive = store.predictions_file(truncated)
    archive.write_bytes(archive.read_bytes()[:-100])
    store.predictions_file(swapped).write_bytes(store.predictions_file(kept[0]).read_bytes())
    directory = bytearray(store.predictions_file(later).read_bytes())
    directory[directory.index(b"PK\x01\x02") + 6] = 109  # a zip of version 10.9, which none reads
    store.predictions_file(later).write_bytes(directory)
    said = "".join(cli("leaderboard").ok().err.split())
    for file, reason in (
        (store.file(edited), "changedsinceitwaswritten"),
        (archive, "damagedpredictions"),
        (store.predictions_file(later), "damagedpredictions"),
        (store.predictions_file(swapped), "itsdirectoryisnotwhattherecordbesideitwasmadewith"),
    ):
        assert f"notontheboard:{file.relative_to(tmp_path)}:{reason}" in said
    assert said.count("notontheboard") == 4 == said.count("runagain")
    folder = store.root / "leaderboards"
    files = [folder / f"coco-mini-probe.{ending}" for ending in ("md", "csv")]
    assert tuple(file.read_text() for file in files) == before


def test_records_of_other_code_have_a_board_of_their_own(cli, store):
    """The numbers of another version of the core."""
    old, new = write(store, "a", 2.0), write(store, "b")
    edit(store.file(old), ("numbers", "core"), old.numbers["core"] - 1, sealed=True)
    [current, other] = tables(store.records(), store.influence)
    assert (current.name, other.name) == ("coco-mini-probe", "coco-mini-probe-other-code")
    assert [row.method for row in current.rows] == ["b"] and "other code" not in markdown([current])
    assert [row.method for row in other.rows] == ["a"]
    assert markdown([other]).startswith("# coco-mini, probe track, made by other code\n")
    refused = cli("compare", old.run_id, new.run_id).failed(f"run {old.run_id} made by other code")
    assert "mlbench repeat" in refused.err
    assert f"made by `{old.command}`" in cli("why", old.run_id).out
    assert "made by other code" in cli("score", old.run_id).ok().err
    cli("page", "site").ok()
    page = (store.root.parent / "site" / "run" / f"{old.run_id}.html").read_text()
    assert "Made by other code than is installed" in page


@pytest.mark.parametrize("part", ["record", "predictions"])
def test_no_damage_goes_unseen_or_ends_in_another_error(part, store, run):
    def read():
        if part == "record":
            return store.find(run.run_id)
        seen, influence = store.predictions(run), store.influence(run)
        arrays = (seen.logits, seen.targets, influence.values)
        return [array.tobytes() for array in arrays], seen.keys, influence.images, influence.mAP

    file = store.file(run) if part == "record" else store.predictions_file(run)
    expected = read()
    for damaged in damages(file.read_bytes(), 1500):
        file.write_bytes(damaged)
        try:
            assert read() == expected
        except StoreError as error:
            assert str(file) in str(error)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("scores.npz", lambda file: predictions.read(str(file), file.parent)),
        ("words.npz", lambda file: word_vectors(("cat",), file)),
        ("run.zip", read_run),
    ],
)
def test_damage_to_foreign_archives_ends_in_no_other_error(name, read, store, run, tmp_path):
    archive = io.BytesIO()
    if name == "run.zip":
        archive.write(make(run, store.predictions(run)))
    else:
        vectors = {"names": np.array(["cat", "dog"]), "vectors": np.ones((2, 3))}
        scores = {"targets": np.eye(2), "logits": np.ones((2, 2))}
        np.savez_compressed(archive, **(vectors if name == "words.npz" else scores))
    for damaged in damages(archive.getvalue(), 200):
        (tmp_path / name).write_bytes(damaged)
        with suppress(MlbenchError):
            read(tmp_path / name)


def test_json_that_only_looks_different_is_the_same_record(store, run):
    file = store.file(run)
    file.write_text(json.dumps(dict(reversed(json.loads(file.read_text()).items()))))
    assert store.find(run.run_id) == run
