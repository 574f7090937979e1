"""The cache from the command line: right or made again, listed, limited and cleared."""

import pytest

from mlbench.store import Store


@pytest.fixture
def own(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def probe(cli, small, tmp_path):
    """Run a matrix of the probe track into a store of its own; returns the mAP and the log."""

    def run(name, *arguments):
        command = ("run", "--suite", small, "--track", "probe", "--results", tmp_path / name)
        ended = cli(*command, *arguments)
        assert ended.code == 0, ended.err
        found = Store(tmp_path / name).records()
        logs = [file.read_text() for file in (tmp_path / name / "runs").rglob("log.txt")]
        return [record.scores.mAP for record in found], "".join(logs)

    return run


def maps(folder):
    return sorted((folder / "features").rglob("*.rows"))


def test_a_flipped_bit_in_a_map_changes_no_score_and_is_said_in_one_line(probe, own):
    score, log = probe("one")
    assert "damaged" not in log
    content = bytearray(maps(own)[0].read_bytes())
    content[len(content) // 2] ^= 64
    maps(own)[0].write_bytes(content)
    again, log = probe("two")
    assert again == score
    assert log.count("are damaged") == 1, log
