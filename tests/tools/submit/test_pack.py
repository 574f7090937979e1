"""`mlbench pack` and `verify`, as a contributor, a maintainer and the job of a pull request do."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from mlbench.store import Store
from tests.tools.submit.parts import committed, made, make


@pytest.fixture
def store(cache, store):
    """A store with one run."""
    store.write(*made(cache))
    return store


def test_a_contributor_packs_and_a_maintainer_adds(cli, store, tmp_path):
    [record] = store.records()
    file = tmp_path / f"gap-{record.identity}-{record.run_id}.zip"
    cli("pack", record.run_id[:6]).ok(f"next: mlbench verify {file.name}")
    assert file.exists()
    cli("verify", file.name).ok("clean", "not checked")
    cli("verify", file.name, "--into", "theirs").ok("added as theirs/records")
    [theirs] = Store(tmp_path / "theirs").records()
    assert theirs.added
    assert theirs == record.model_copy(update={"added": theirs.added, "digest": theirs.digest})
    assert "is in theirs already" in cli("verify", file.name, "--into", "theirs").out


def test_a_run_that_cannot_be_packed_is_named(cli, store, tmp_path):
    [record] = store.records()
    (tmp_path / "taken.zip").write_text("mine")
    for arguments, message in (
        (("zz",), "has no run 'zz'"),
        ((record.run_id, "--out", "taken.zip"), "exists and is another file"),
        ((record.run_id, "--out", "mine.txt"), "use the name mine.zip"),
    ):
        cli("pack", *arguments).failed(message)
    assert (tmp_path / "taken.zip").read_text() == "mine"


def test_outcomes_and_exit_codes(cli, store, tmp_path):
    [record] = store.records()
    packs = {
        "clean": ({}, 0, "clean: 0 findings, 0 warnings in 6 checks"),
        "warned": ({"commit": None}, 0, "warnings: 0 findings, 1 warning in 6 checks"),
        "forged": (
            {"commit": None, "scores": record.scores.model_copy(update={"mAP": 99.0})},
            1,
            "findings: 1 finding, 1 warning in 5 checks",
        ),
    }
    for name, (fields, code, outcome) in packs.items():
        changed = record.model_copy(update=fields)
        (tmp_path / f"{name}.zip").write_bytes(make(changed, store.predictions(record)))
        done = cli("verify", f"{name}.zip", "--into", name)
        assert done.code == code and outcome in done.out
        assert (tmp_path / name).exists() == (code == 0)
    assert "finding (scores): mAP is not what the predictions give" in done.out
    assert f"expected: {record.scores.mAP}" in done.out and "found:    99.0" in done.out
    (tmp_path / "text.zip").write_text("hello")
    done = cli("verify", "text.zip", "clean.zip", "forged.zip", "--json")
    text, good, bad = done.json
    assert done.code == 2
    assert text["verdict"] == "unreadable" and "not a pack" in text["error"]
    assert (good["verdict"], good["findings"]) == ("clean", [])
    assert (bad["verdict"], bad["findings"][0]["found"]) == ("findings", 99.0)
    done = cli("verify", "text.zip", "clean.zip")
    assert done.code == 2 and "text.zip: unreadable" in done.out and "clean" in done.out


def test_a_pack_whose_data_set_is_missing_costs_no_other_pack_its_report(cli, store, tmp_path):
    [record] = store.records()
    (tmp_path / "here.zip").write_bytes(make(record, store.predictions(record)))
    (tmp_path / "voc.zip").write_bytes(make(*committed("voc2007-mini", "gap")))
    asked = ("verify", "here.zip", "voc.zip", "here.zip", "--data", "nowhere", "--into", "theirs")
    done = cli(*asked)
    assert done.code == 2 and "added as theirs" in done.out and "voc.zip: unfinished" in done.out
    assert "is in theirs already" in done.out and "nowhere" in done.out
    here, voc, _ = cli(*asked, "--json").json
    assert here["added"] and voc["added"] is None and "nowhere" in voc["error"]
    assert voc["verdict"] == "unfinished" and voc["identity"] == "voc2007-mini"


def test_a_pack_replaces_a_record_only_if_asked(cli, store, tmp_path):
    [record] = store.records()
    later = record.model_copy(update={"started": "2026-02-02T00:00:00+00:00"})
    (tmp_path / "again.zip").write_bytes(make(later, store.predictions(record)))
    refused = cli("verify", "again.zip", "--into", "results")
    assert refused.code == 1 and "finding (store)" in refused.out
    assert "--supersede" in refused.out and store.records() == [record]
    cli("verify", "again.zip", "--into", "results", "--supersede").ok("supersedes that of")
    assert store.superseded() == [record]
    assert "name the store with --into" in cli("verify", "again.zip", "--supersede").err


def test_a_pack_cannot_steer_the_terminal(cli, tmp_path, cache):
    record, predictions = made(cache)
    odd = record.model_copy(update={"commit": "\x1b[2J[red]a\n::error::-dirty"})
    (tmp_path / "odd.zip").write_bytes(make(odd, predictions))
    printed = cli("verify", "odd.zip").out
    assert "\x1b[2J" not in printed and r"\x1b[2J[red]a\n::error::" in printed


def test_real_images_agree_with_committed_predictions(cli, tmp_path, real_data):
    for identity, folder in (("voc2007-mini", "."), ("coco-mini", "coco-mini")):
        (tmp_path / "a.zip").write_bytes(make(*committed(identity, "gap")))
        done = cli("verify", "a.zip", "--data", real_data / folder, "--json")
        [report] = done.json
        assert done.code == 0 and report["findings"] == []
        assert [one["check"] for one in report["not_checked"]] == ["scores", "costs"]


ROOT = Path(__file__).parents[3]
JOB = yaml.safe_load((ROOT / ".github" / "workflows" / "verify-results.yml").read_text())
STUB = '#!/bin/sh\nprintf "%s\\n" "$@" > "$RUNNER_TEMP/asked"\nexit "$ANSWER"\n'


@pytest.fixture
def proposed(tmp_path):
    """A repository as the job checks it out: a pack, and a commit on top of it."""
    folder = tmp_path / "proposed"
    (folder / "submissions").mkdir(parents=True)
    (folder / "submissions" / "old.zip").write_text("old")
    (folder / "submissions" / "gone.zip").write_text("gone")
    git(folder, "init", "-q")
    commit(folder)
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "mlbench"
    stub.write_text(STUB)
    stub.chmod(0o755)
    return folder


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def commit(folder):
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one", "--allow-empty")


def ran(folder, answer=0):
    """Exit code of the job's last step, and what `mlbench` was asked."""
    commit(folder)
    around = folder.parent
    path = f"{around / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RUNNER_TEMP": str(around), "ANSWER": str(answer)}
    script = JOB["jobs"]["verify"]["steps"][-1]["run"]
    done = subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=False)
    asked = around / "asked"
    return done.returncode, asked.read_text().splitlines() if asked.exists() else None


def test_only_what_was_added_or_changed_is_verified(proposed):
    packs = proposed / "submissions"
    (packs / "new one.zip").write_text("new")
    (packs / "gone.zip").unlink()
    (packs / "deep").mkdir()
    (packs / "deep" / "é; ls.zip").write_text("new")
    (proposed / "elsewhere.zip").write_text("new")
    code, asked = ran(proposed)
    assert code == 0
    assert asked == ["verify", "submissions/deep/é; ls.zip", "submissions/new one.zip"]


def test_findings_fail_the_job(proposed):
    (proposed / "submissions" / "old.zip").write_text("changed")
    code, asked = ran(proposed, answer=1)
    assert code != 0 and asked == ["verify", "submissions/old.zip"]


def test_the_verifier_is_not_the_pull_requests():
    first, *_ = JOB["jobs"]["verify"]["steps"]
    assert first["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert JOB["permissions"] == {"contents": "read"}
