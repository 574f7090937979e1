"""`mlbench pack` and `mlbench verify`, as a contributor and a maintainer use them."""

import json

import pytest

from mlbench.store import Store
from mlbench_tools.submit.archive import make
from tests.tools.submit.parts import RESULTS, committed, made, named


@pytest.fixture
def store(cache, tmp_path):
    """A store with one run."""
    made_store = Store(tmp_path / "results")
    made_store.write(*made(cache))
    return made_store


def test_a_contributors_way_and_a_maintainers(cli, store, tmp_path):
    [record] = store.records()
    packed = cli("pack", record.run_id[:6])
    file = tmp_path / f"gap-{record.identity}-{record.run_id}.zip"
    assert packed.code == 0 and file.exists(), packed.err
    assert f"next: mlbench verify {file.name}" in packed.out
    looked = cli("verify", file.name)
    assert looked.code == 0 and "clean" in looked.out and "not checked" in looked.out
    taken = cli("verify", file.name, "--into", "theirs")
    assert taken.code == 0 and "added as theirs/records" in taken.out
    theirs = Store(tmp_path / "theirs")
    [took] = theirs.records()
    assert took == record.model_copy(update={"added": took.added}) and took.added
    assert "is in theirs already" in cli("verify", file.name, "--into", "theirs").out


def test_a_run_is_named_by_id_prefix_or_file(cli, store, tmp_path):
    [record] = store.records()
    [file] = (tmp_path / "results").glob("records/*/*/*.json")
    for i, name in enumerate((record.run_id, record.run_id[:4], file)):
        assert cli("pack", name, "--out", f"deep/{i}.zip").code == 0
    packs = {(tmp_path / "deep" / f"{i}.zip").read_bytes() for i in range(3)}
    assert packs == {make(record, store.predictions(record), store.influence(record))}


def test_runs_that_cannot_be_packed_are_told(cli, store, tmp_path, cache):
    record, seen = made(cache)
    digits = "0123456789abcdef"
    others = [named(record, seed=seed) for seed in range(1, 40)]
    first = next(d for d in digits if sum(o.run_id[0] == d for o in others) > 1)
    for one in others:
        store.write(one, seen)
    assert "is the beginning of" in cli("pack", first).err
    (tmp_path / "stray.json").write_text(record.model_dump_json())
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "taken.zip").write_text("mine")
    for arguments, said in (
        (("zz",), "has no run 'zz'"),
        (("",), "has no run ''"),
        (("stray.json",), "lies in no store"),
        (("bad.json",), "no record of this mlbench"),
        (("none.json",), "cannot be read"),
        ((record.run_id, "--out", "taken.zip"), "holds something else"),
        ((record.run_id, "--out", "mine.txt"), "ends in .zip, as mine.zip"),
    ):
        told = cli("pack", *arguments)
        assert told.code == 2 and said in told.err, told
    assert (tmp_path / "taken.zip").read_text() == "mine"
    assert not (tmp_path / "mine.txt").exists()


def test_findings_give_one_and_what_is_no_pack_two(cli, tmp_path):
    record, seen = committed("voc2007-mini", "gap")
    better = record.scores.model_copy(update={"mAP": 99.0})
    forged = record.model_copy(update={"scores": better})
    (tmp_path / "good.zip").write_bytes(make(record, seen))
    (tmp_path / "forged.zip").write_bytes(make(forged, seen))
    (tmp_path / "text.zip").write_text("hello")
    told = cli("verify", "forged.zip", "--into", "theirs")
    assert told.code == 1 and not (tmp_path / "theirs").exists()
    assert "finding (scores): mAP is not what the predictions give" in told.out
    assert f"expected: {record.scores.mAP}" in told.out and "found:    99.0" in told.out
    told = cli("verify", "good.zip", "forged.zip", "text.zip", "--json")
    good, bad, text = json.loads(told.out)
    assert told.code == 2
    assert (good["verdict"], good["findings"]) == ("clean", [])
    assert (bad["verdict"], bad["findings"][0]["found"]) == ("findings", "99.0")
    assert text["verdict"] == "unreadable" and "no pack" in text["error"]


def test_there_are_three_outcomes(cli, store, tmp_path):
    [record] = store.records()
    seen = store.predictions(record)
    scores = record.scores.model_copy(update={"mAP": 99.0})
    for name, fields in (
        ("clean", {}),
        ("warned", {"commit": None}),
        ("forged", {"commit": None, "scores": scores}),
    ):
        changed = record.model_copy(update=fields)
        (tmp_path / f"{name}.zip").write_bytes(make(changed, seen))
    for name, code, words in (
        ("clean", 0, "clean: no finding and no warning in "),
        ("warned", 0, "no finding, and 1 warning for you to judge, in "),
        ("forged", 1, "1 finding in "),
    ):
        told = cli("verify", f"{name}.zip")
        assert told.code == code and words in told.out and "not checked: the log" in told.out
        assert ("clean" in told.out.replace("clean.zip", "")) == (name == "clean")


def test_a_pack_takes_the_place_of_a_record_only_if_asked(cli, store, tmp_path):
    [record] = store.records()
    later = record.model_copy(update={"started": "2026-02-02T00:00:00+00:00"})
    (tmp_path / "again.zip").write_bytes(make(later, store.predictions(record)))
    refused = cli("verify", "again.zip", "--into", "results")
    assert refused.code == 1 and "finding (store)" in refused.out
    assert record.started in refused.out and later.started in refused.out
    assert "--supersede" in refused.out and store.records() == [record]
    taken = cli("verify", "again.zip", "--into", "results", "--supersede")
    assert taken.code == 0 and "supersedes that of" in taken.out
    assert store.superseded() == [record]
    assert "name the store with --into" in cli("verify", "again.zip", "--supersede").err


def test_packs_of_one_command_are_held_against_each_other(cli, store, tmp_path):
    [record] = store.records()
    seen = store.predictions(record)
    for seed in (0, 1):
        (tmp_path / f"{seed}.zip").write_bytes(make(named(record, seed=seed), seen))
    told = cli("verify", "0.zip", "1.zip")
    assert told.code == 1 and "finding (copies)" in told.out and "of 0.zip ranks" in told.out


def test_a_damaged_pack_stops_no_other(cli, tmp_path):
    (tmp_path / "a.zip").write_text("hello")
    (tmp_path / "b.zip").write_bytes(make(*committed("voc2007-mini", "gap")))
    told = cli("verify", "a.zip", "b.zip")
    assert told.code == 2 and "a.zip: unreadable" in told.out and "clean" in told.out


def test_whoever_means_the_data_set_is_told(cli):
    told = cli("verify", "voc2007")
    assert told.code == 2 and "mlbench data verify voc2007" in told.out


def test_a_pack_cannot_steer_the_terminal(cli, tmp_path, cache):
    record, seen = made(cache)
    names = ("\x1b[2J[red]a\n::error::", *record.label_names[1:])
    forged = record.model_copy(update={"label_names": names})
    (tmp_path / "odd.zip").write_bytes(make(forged, seen))
    told = cli("verify", "odd.zip")
    assert told.code == 1 and "\x1b[2J" not in told.out
    assert r"\x1b[2J[red]a\n::error::" in told.out


def test_the_data_set_is_opened_with_data(cli, store, tmp_path):
    [record] = store.records()
    cli("pack", record.run_id, "--out", "a.zip")
    told = cli("verify", "a.zip", "--data", tmp_path, "--json")
    [report] = json.loads(told.out)
    assert told.code == 0 and "data" in report["checks"]


def test_a_committed_record_is_packed_by_its_file(cli, tmp_path):
    file = min((RESULTS / "records" / "voc2007-mini" / "gap").glob("*.json"))
    assert cli("pack", file).code == 0
    assert cli("verify", next(tmp_path.glob("*.zip"))).code == 0


def test_real_images_agree_with_committed_predictions(cli, tmp_path, real_data):
    for identity, folder in (("voc2007-mini", "."), ("coco-mini", "coco-mini")):
        (tmp_path / "a.zip").write_bytes(make(*committed(identity, "gap")))
        told = cli("verify", "a.zip", "--data", real_data / folder, "--json")
        [report] = json.loads(told.out)
        unchecked = [one["check"] for one in report["not_checked"]]
        assert told.code == 0 and unchecked == ["epochs", "scores", "efficiency"]
