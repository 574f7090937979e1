"""The cache from the command line: right or made again, listed, limited and cleared."""

import os

import pytest

from mlbench.store import Store


@pytest.fixture
def probe(cli, small, tmp_path):
    """Run a matrix of the probe track into a store of its own; returns the mAP and the log."""

    def run(name, *arguments):
        command = ("run", "--suite", small, "--track", "probe", "--results", tmp_path / name)
        cli(*command, *arguments).ok()
        found = Store(tmp_path / name).records()
        logs = [file.read_text() for file in (tmp_path / name / "runs").rglob("log.txt")]
        return [record.scores.mAP for record in found], "".join(logs)

    return run


def maps(folder):
    return sorted((folder / "features").rglob("*.rows"))


def test_a_flipped_bit_in_a_map_changes_no_score_and_is_said_in_one_line(probe, own, tmp_path):
    score, log = probe("one")
    assert "damaged" not in log
    content = bytearray(maps(own)[0].read_bytes())
    content[len(content) // 2] ^= 64
    maps(own)[0].write_bytes(content)
    left = [own / ".old.tmp", tmp_path / "two" / "runs" / "x" / ".checkpoint.old.tmp"]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        os.utime(file, (1, 1))
    again, log = probe("two")
    assert again == score
    assert log.count("are damaged") == 1, log
    assert not any(file.exists() for file in left), "swept, as no process can be using them"


def test_the_cache_is_limited_listed_and_cleared(cli, probe, own):
    probe("one")
    first = {file.parent.name for file in maps(own)}
    probe("two", "--image-size", "48", "--set", "cache_limit=1kB")
    second = {file.parent.name for file in maps(own)}
    assert len(second) == 2 and not first & second
    listed = cli("cache").out
    assert "feature maps of train, timm:" in listed and listed.count("synthetic at 48") == 2
    assert "pictures of the synthetic data set" in listed
    assert "did you mean features?" in cli("cache", "feature").err
    assert "deleted 2 items" in cli("cache", "features", "--clear").out and not maps(own)
    assert (own / "synthetic-2").exists()
    assert cli("cache", "--clear").code == 0 and "0 items" in cli("cache").out
