"""The job that verifies what a pull request submits verifies just that."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

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
