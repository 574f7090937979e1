"""Every fault at once: each run is done or failed with its reason, and later the board is whole."""

import pytest

from mlbench.store import Store
from tests.cli.manifests import table
from tests.executors.test_local import failures
from tests.faults.conftest import board, finished, look_again

REASONS = {
    "leaves": ("exit", "SystemExit: 0"),
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
        plugins=["plain", "second_fails", *REASONS],
        datasets=[f"manifest:{images.parent / 'photos.csv'}"],
        dataset_options={},
        backbones=["timm:test_resnet"],
        weights="none",
        per_method={"second_fails": {"loss": "nan"}},
        stall="8s",
    )
    run, results = ("run", "--suite", file), tmp_path / "results"
    monkeypatch.setenv("FAULT", "now")
    monkeypatch.setenv("FAULT_IMAGES", str(images))
    ended = cli(*run)
    assert ended.code == 1, ended.err
    found = failures(tmp_path)
    assert found.keys() == REASONS.keys(), ended.err
    for name, failure in found.items():
        status, reason = REASONS[name]
        assert failure.status == status and reason in failure.reason, name
    done = {record.spec.method: record for record in Store(results).records()}
    assert set(done) == {"plain", "second_fails"}
    assert done["second_fails"].status == "diverged" and "nan" in done["second_fails"].error
    told = cli("status").out
    assert "10 runs in results: 2 done, 8 failed" in told
    before = finished(results)
    assert cli(*run).code == 2, "the images are still away"
    (tmp_path / "photos" / "images.away").rename(images)
    monkeypatch.delenv("FAULT")
    ended = cli(*run)
    assert ended.code == 1 and "--retry-diverged" in ended.err, "nothing else is left"
    assert not failures(tmp_path)
    look_again(before, results)
    again = ("--plugins", ",".join(["plain", *REASONS]), "--results", "undisturbed")
    assert cli(*run, *again).code == 0
    assert [row for row in board(results) if row["loss"] == "bce"] == board(
        tmp_path / "undisturbed"
    )
