"""Every fault at once: each run is done or failed with its reason, and later the board is whole."""

import pytest

from mlbench.store import Store
from tests.cli.manifests import table
from tests.executors.test_local import failures
from tests.faults.conftest import board, finished, look_again

REASONS = {
    "leaves": ("exit", "SystemExit: 0"),
    "exits7": ("exit", "SystemExit: 7"),
    "leaves7": ("exit", "code 7"),
    "aborts": ("crash", "SIGABRT"),
    "killed": ("killed", "memory ran out"),
    "freezes": ("hung", "no progress for"),
    "hangs": ("hung", "no progress for"),
    "greedy": ("error", "allocate"),
    "vanishes": ("error", ".png"),
}
"""How the run of each head ends; none of them comes after the one that takes the images away."""


@pytest.mark.slow
def test_a_matrix_of_every_fault_ends_as_an_undisturbed_one_once_they_are_mended(
    heads, suite, cli, tmp_path, monkeypatch
):
    images = table(tmp_path / "photos").parent / "images"
    file = suite(
        {"batch_size": 5, "epochs": 3},
        plugins=["careless", "plain", "second_fails", *REASONS],
        datasets=[f"manifest:{images.parent / 'photos.csv'}"],
        dataset_options={},
        backbones=["timm:test_resnet"],
        weights="none",
        per_method={"second_fails": {"loss": "nan"}},
        stall="30s",
    )
    run, results = ("run", "--suite", file), tmp_path / "results"
    monkeypatch.setenv("FAULT", "now")
    monkeypatch.setenv("FAULT_IMAGES", str(images))
    ended = cli(*run).failed(code=1)
    found = failures(tmp_path)
    assert found.keys() == REASONS.keys(), ended.err
    for name, failure in found.items():
        status, reason = REASONS[name]
        assert failure.status == status and reason in failure.reason, name
    done = {record.spec.method: record for record in Store(results).records()}
    assert set(done) == {"careless", "plain", "second_fails"}
    assert done["second_fails"].status == "diverged" and "nan" in done["second_fails"].error
    assert "12 runs in results: 2 done, 1 diverged, 9 failed" in cli("status").out
    before = finished(results)
    assert cli(*run).code == 2, "the images are still away"
    (tmp_path / "photos" / "images.away").rename(images)
    monkeypatch.delenv("FAULT")
    cli(*run).failed("--retry-diverged", code=1)  # nothing else is left
    assert not failures(tmp_path)
    look_again(before, results)
    again = ("--plugins", ",".join(["careless", "plain", *REASONS]), "--results", "undisturbed")
    cli(*run, *again).ok()
    assert [row for row in board(results) if row["loss"] == "bce"] == board(
        tmp_path / "undisturbed"
    )


RANKS = {
    "second_fails": ("error", "ArithmeticError: of rank 1"),
    "second_killed": ("killed", "rank 1: killed by SIGKILL"),
    "second_freezes": ("hung", "no progress for"),
    "second_starves": ("error", "give --set grad_accumulation=4"),  # its launcher has tried 2
}
"""How the run of each head ends that two processes train."""


@pytest.mark.slow
def test_a_rank_takes_its_own_run_along_and_no_other(heads, suite, cli, tmp_path, monkeypatch):
    run = ("run", "--processes", 2, "--suite")
    file = suite(plugins=["plain", *RANKS, "gap"], stall="30s")
    monkeypatch.setenv("FAULT", "now")
    assert cli(*run, file).code == 1
    found, results = failures(tmp_path), tmp_path / "results"
    assert {name: failure.status for name, failure in found.items()} == {
        name: status for name, (status, _) in RANKS.items()
    }
    assert all(RANKS[name][1] in failure.reason for name, failure in found.items())
    before = finished(results)
    assert len(Store(results).records()) == 2
    monkeypatch.delenv("FAULT")
    assert cli(*run, file).code == 0 and not failures(tmp_path)
    look_again(before, results)
    cli(*run, file, "--results", "undisturbed").ok()
    assert board(results) == board(tmp_path / "undisturbed")
