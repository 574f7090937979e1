import shutil
from pathlib import Path

import numpy as np
import pytest

from mlbench import contracts
from mlbench.types import DataError, digest
from mlbench_plugins.datasets.nuswide import NUSWIDE
from tests.plugins.datasets import miniature
from tests.plugins.datasets.miniature import NUS_KEYS as KEYS
from tests.plugins.datasets.miniature import TEST, TRAIN, nus_labels

NAMES = NUSWIDE.names


def opened(root, **options):
    return NUSWIDE(root, Path("nowhere"), **options)


@pytest.fixture
def official(tmp_path):
    root = miniature.nus_official(tmp_path / "NUS-WIDE")
    miniature.nus_photos(root)
    return root


@pytest.fixture
def single(official):
    """The lists of the single-positive benchmark: some images of both official splits."""
    (official / "single_positive_train.txt").write_text("\n".join(KEYS[5:0:-1]))
    (official / "single_positive_test.txt").write_text("\n".join(KEYS[20:26]) + "\n")
    return official


def truth(key):
    return nus_labels()[KEYS.index(key)].tolist()


def test_the_official_lists_and_labels(official):
    data = opened(official, protocol="original")
    train, test = data.index("train"), data.index("test")
    assert (len(train), len(test)) == (TRAIN, TEST)
    assert sorted([*train.keys, *test.keys]) == sorted(KEYS)
    for file, target, key in [*train, *test]:
        assert target.tolist() == truth(key)
        assert target.dtype == np.int8
        assert file == official / "Flickr" / key
        assert file.is_file()
    assert min(target.sum() for target in train.targets) == 0, "images without labels count"


@pytest.mark.parametrize("header", [True, False])
def test_the_table_that_was_published_with_asl(tmp_path, header):
    miniature.nus_table(tmp_path, header)
    miniature.nus_photos(tmp_path)
    data = opened(tmp_path)
    train, test = data.index("train"), data.index("test")
    labelled = [key for key in KEYS if any(truth(key))]
    assert sorted([*train.keys, *test.keys]) == sorted(f"Flickr/{key}" for key in labelled)
    assert all(KEYS.index(key.removeprefix("Flickr/")) % 4 == 1 for key in test.keys)
    for file, target, key in [*train, *test]:
        assert target.tolist() == truth(key.removeprefix("Flickr/"))
        assert file == tmp_path / key
        assert file.is_file()


def test_the_single_positive_lists_take_labels_from_the_list_of_all(single):
    data = opened(single, protocol="single_positive")
    assert list(data.index("train").keys) == KEYS[5:0:-1]
    assert list(data.index("test").keys) == KEYS[20:26]
    for _, target, key in [*data.index("train"), *data.index("test")]:
        assert target.tolist() == truth(key)


def test_the_default_is_the_table_and_protocols_differ_in_their_digest(single):
    miniature.nus_table(single)
    found = set()
    for options in ({}, {"protocol": "csv"}, {"protocol": "original"}):
        data = opened(single, **options)
        found.add(digest(data.index("train"), data.index("test"), data.names))
    assert len(found) == 2


def test_the_contract_is_kept(official):
    class Here(NUSWIDE):
        def __init__(self, root, cache):
            super().__init__(root or official, cache, "original")

    for check in contracts.checks_of("dataset"):
        if check.__name__ != "refuses_a_folder_without_it":
            check(Here)


def test_what_is_missing_is_named(official):
    for protocol, needed in (
        ("csv", r"protocol=csv \(others: original, single_positive, hashing\) needs nus_wid_data"),
        ("single_positive", "needs the benchmark's own lists"),
    ):
        with pytest.raises(DataError, match=f"{needed}(?s:.*)not found under"):
            opened(official, protocol=protocol)
    with pytest.raises(DataError, match="protocol='asl'; choose from csv, original, single_pos"):
        opened(official, protocol="asl")
    shutil.rmtree(official / "Flickr")
    with pytest.raises(DataError, match=r"none of the 28 listed images is under .*put the folder"):
        opened(official, protocol="original").index("train")


def test_photos_in_both_splits_under_two_paths_are_told(official, caplog):
    trained = (official / "ImageList/TrainImagelist.txt").read_text().split()
    number = trained[0].rpartition("_")[2]
    lists = ("ImageList/Imagelist.txt", "ImageList/TestImagelist.txt")
    more = dict.fromkeys(lists, f"zoo\\0999_{number}")
    more |= dict.fromkeys((official / "Groundtruth/AllLabels").iterdir(), "0")
    for name, line in more.items():
        with (official / name).open("a") as file:
            file.write(f"{line}\n")
    miniature.photo(official / "Flickr/zoo" / f"0999_{number}", 0)
    index = opened(official, protocol="original").index("test")
    assert index.files[-1] == official / "Flickr/zoo" / f"0999_{number}"
    assert "1 photo of test are in train under another path" in caplog.text
    assert f"is zoo/0999_{number}" in caplog.text
