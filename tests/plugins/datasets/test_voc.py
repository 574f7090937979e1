"""VOC, VG500 and NUS-WIDE from small files of the official form."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlbench import contracts
from mlbench.types import DataError, digest
from mlbench_plugins.datasets.nuswide import NUSWIDE
from mlbench_plugins.datasets.vg500 import VG500
from mlbench_plugins.datasets.voc import VOC2007, VOC2012
from tests.plugins.datasets import miniature
from tests.plugins.datasets.miniature import NUS_KEYS as KEYS
from tests.plugins.datasets.miniature import TEST, TRAIN, VG_TEST, VG_TRAIN, nus_labels

LISTS = Path("ImageSets/Main")


@pytest.fixture
def voc(tmp_path):
    return miniature.voc2007(tmp_path / "VOC2007")


def opened(root, **options):
    return VOC2007(root, Path("nowhere"), **options)


def test_labels_keys_and_files(voc):
    data = opened(voc)
    train, test = data.index("train"), data.index("test")
    dog, cat = data.names.index("dog"), data.names.index("cat")
    assert list(train.keys) == ["000003", "000001", "000007"]
    assert train.files[1] == voc / "JPEGImages" / "000001.jpg"
    assert train.targets[:, dog].tolist() == [0, -1, 1]
    assert test.targets[:, cat].tolist() == [-1]
    assert np.abs(train.targets).sum() == 2
    assert train.targets.dtype == np.int8
    assert list(data.names) == sorted(data.names)


@pytest.mark.parametrize(("value", "target"), [("unknown", -1), ("positive", 1), ("negative", 0)])
def test_difficult_labels_in_training(voc, value, target):
    data = opened(voc, difficult_train=value)
    assert data.index("train").targets[:, data.names.index("dog")].tolist() == [0, target, 1]
    assert data.index("test").targets[0, data.names.index("cat")] == -1


def test_a_missing_folder_lists_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="--data DIR") as error:
        opened(tmp_path)
    assert str(tmp_path / "VOCdevkit/VOC2007/ImageSets/Main") in str(error.value)
    assert "VOCtrainval_06-Nov-2007.tar" in str(error.value)
    with pytest.raises(DataError, match=r"no folder was given.*--data DIR"):
        opened(None)
    with pytest.raises(DataError, match="difficult_train='trial'; choose from"):
        opened(tmp_path, difficult_train="trial")


def test_an_image_in_both_splits_is_refused(voc):
    for name in VOC2007.names:
        (voc / LISTS / f"{name}_test.txt").write_text("000009 -1\n000001 -1\n")
    shared = r"'000001'; unpack .*aeroplane_trainval\.txt and .*aeroplane_test\.txt again"
    with pytest.raises(DataError, match=f"1 images are in both splits, the first is {shared}"):
        opened(voc).index("train")
    with pytest.raises(DataError, match="choose lists that share no image"):
        opened(voc, test_split="train").index("train")


def test_voc2012_trains_on_train_and_scores_val(tmp_path):
    folder = miniature.voc2012(tmp_path / "data" / "VOCdevkit" / "VOC2012")
    data = VOC2012(tmp_path / "data", Path("nowhere"), difficult_train="negative")
    train, test = data.index("train"), data.index("test")
    assert list(train.keys) == ["2008_000008", "2011_003276"]
    assert len(test) == 3
    assert train.files[0] == folder / "JPEGImages" / "2008_000008.jpg"
    assert [data.names[c] for c in np.flatnonzero(train.targets[0])] == ["dog"]
    other = VOC2012(tmp_path / "data", Path("nowhere"), train_split="val", test_split="train")
    assert list(other.index("test").keys) == list(train.keys)
    assert other.index("test").targets[0, data.names.index("cat")] == -1


def test_the_labels_of_the_test_split_of_2012_are_not_public(tmp_path):
    miniature.voc2012(tmp_path)
    for option in ("train_split", "test_split"):
        with pytest.raises(DataError, match=r"test split are not public.*train, val$"):
            VOC2012(tmp_path, Path("nowhere"), **{option: "test"})
    with pytest.raises(DataError, match="2 images are in both splits"):
        VOC2012(tmp_path, Path("nowhere"), test_split="train").index("train")
    with pytest.raises(DataError, match="3 images are in both splits"):
        VOC2012(tmp_path, Path("nowhere"), train_split="trainval").index("train")


def counts(folder, name, split, value):
    lines = (folder / LISTS / f"{name}_{split}.txt").read_text().split("\n")
    return sum(line.endswith(f" {value}") for line in lines)


def assert_counts(data, folder):
    for split, official in (("train", "trainval"), ("test", "test")):
        targets = data.index(split).targets
        for c, name in enumerate(data.names):
            assert (targets[:, c] == 1).sum() == counts(folder, name, official, "1")
            assert (targets[:, c] == -1).sum() == counts(folder, name, official, "0")
    return data.index("train"), data.index("test")


def test_voc2007_mini(real_data):
    train, test = assert_counts(opened(real_data), real_data / "VOCdevkit" / "VOC2007")
    assert (len(train), len(test)) == (944, 980)
    assert all(Path(file).is_file() for file in [*train.files, *test.files])


def test_official_lists(official_voc):
    data = opened(official_voc)
    train, test = assert_counts(data, official_voc)
    for part, index in (("train", train), ("test", test)):
        card = data.card.splits[part]
        assert (len(index), (index.targets == 1).sum()) == (card.images, card.positives)
    parts = opened(official_voc, train_split="train", test_split="val")
    for part, index in (("the list train", "train"), ("the list val", "test")):
        targets, card = parts.index(index).targets, data.card.splits[part]
        assert (len(targets), (targets == 1).sum()) == (card.images, card.positives)
    for difficult, positives in (("negative", 7306), ("positive", 7913)):
        data = opened(official_voc, difficult_train=difficult)
        assert (data.index("train").targets == 1).sum() == positives


LABELS = "vg_category_500_labels_index.json"


@pytest.fixture
def vg(tmp_path):
    return miniature.vg500(tmp_path / "VG")


def opened_vg(root, **options):
    return VG500(root, Path("nowhere"), **options)


def test_lists_labels_and_files(vg):
    data = opened_vg(vg)
    train, test = data.index("train"), data.index("test")
    assert (len(train), len(test)) == (VG_TRAIN, VG_TEST)
    assert list(train.keys) == (vg / "train_list_500.txt").read_text().split()
    labels = json.loads((vg / LABELS).read_text())
    for file, target, key in [*train, *test]:
        assert np.flatnonzero(target).tolist() == labels[key]
        assert target.dtype == np.int8
        assert target.shape == (500,)
        assert file.is_file()
    assert {file.parent.name for file in train.files} == {"VG_100K", "VG_100K_2"}
    assert len(set(data.names)) == 500


def test_labels_may_be_named(vg):
    (vg / "names.txt").write_text("".join(f"thing {i}\n" for i in range(500)))
    assert opened_vg(vg, names_file="names.txt").names[499] == "thing 499"
    (vg / "names.txt").write_text("thing\n" * 500)
    with pytest.raises(DataError, match="1 different names in 500 lines"):
        opened_vg(vg, names_file="names.txt")


def test_missing_folders_are_named(vg, tmp_path):
    with pytest.raises(DataError, match=r"VG500 (?s:.*)not found under"):
        opened_vg(vg / "VG_100K")
    for name in ("VG_100K", "VG_100K_2"):
        (vg / name).rename(tmp_path / name)
    with pytest.raises(DataError, match=r"none of the 20 listed images .*unpack images\.zip and"):
        opened_vg(vg).index("train")


NAMES = NUSWIDE.names


def opened_nus(root, **options):
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
    data = opened_nus(official, protocol="original")
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
    data = opened_nus(tmp_path)
    train, test = data.index("train"), data.index("test")
    labelled = [key for key in KEYS if any(truth(key))]
    assert sorted([*train.keys, *test.keys]) == sorted(f"Flickr/{key}" for key in labelled)
    assert all(KEYS.index(key.removeprefix("Flickr/")) % 4 == 1 for key in test.keys)
    for file, target, key in [*train, *test]:
        assert target.tolist() == truth(key.removeprefix("Flickr/"))
        assert file == tmp_path / key
        assert file.is_file()


def test_the_single_positive_lists_take_labels_from_the_list_of_all(single):
    data = opened_nus(single, protocol="single_positive")
    assert list(data.index("train").keys) == KEYS[5:0:-1]
    assert list(data.index("test").keys) == KEYS[20:26]
    for _, target, key in [*data.index("train"), *data.index("test")]:
        assert target.tolist() == truth(key)


def test_the_default_is_the_table_and_protocols_differ_in_their_digest(single):
    miniature.nus_table(single)
    found = set()
    for options in ({}, {"protocol": "csv"}, {"protocol": "original"}):
        data = opened_nus(single, **options)
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
            opened_nus(official, protocol=protocol)
    with pytest.raises(DataError, match="protocol='asl'; choose from csv, original, single_pos"):
        opened_nus(official, protocol="asl")
    shutil.rmtree(official / "Flickr")
    with pytest.raises(DataError, match=r"none of the 28 listed images is under .*put the folder"):
        opened_nus(official, protocol="original").index("train")


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
    index = opened_nus(official, protocol="original").index("test")
    assert index.files[-1] == official / "Flickr/zoo" / f"0999_{number}"
    assert "1 photo of test are in train under another path" in caplog.text
    assert f"is zoo/0999_{number}" in caplog.text
