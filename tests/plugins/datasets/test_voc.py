from pathlib import Path

import numpy as np
import pytest

from mlbench.types import DataError
from mlbench_plugins.datasets.voc import VOC2007, VOC2012
from tests.plugins.datasets import miniature

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
