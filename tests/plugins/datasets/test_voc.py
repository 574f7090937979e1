from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlbench.types import DataError, Index, digest
from mlbench_plugins.datasets.voc import VOC2007, VOC2012

LISTS = Path("ImageSets/Main")
IMAGES = {"trainval": ["000003", "000001", "000007"], "train": ["000003"], "test": ["000002"]}


def write_lists(folder: Path) -> Path:
    """A VOC folder in which no image has a label but the two that the tests look at."""
    (folder / LISTS).mkdir(parents=True)
    for name in VOC2007.names:
        for split, keys in IMAGES.items():
            lines = [f"{key} -1" for key in keys]
            (folder / LISTS / f"{name}_{split}.txt").write_text("\n".join(lines) + "\n")
    (folder / LISTS / "dog_trainval.txt").write_text("000003 -1\n000001  0\n000007  1\n")
    (folder / LISTS / "cat_test.txt").write_text("000002  0\n")
    return folder


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_lists(tmp_path / "VOC2007")


def opened(root: Path | None, **options: Any) -> VOC2007:
    return VOC2007(root, Path("nowhere"), **options)


def test_labels_keys_and_files(voc: Path) -> None:
    data = opened(voc)
    train, test = data.index("train"), data.index("test")
    dog, cat = data.names.index("dog"), data.names.index("cat")
    assert list(train.keys) == IMAGES["trainval"]
    assert train.files[1] == voc / "JPEGImages" / "000001.jpg"
    assert train.targets[:, dog].tolist() == [0, -1, 1]
    assert test.targets[:, cat].tolist() == [-1]
    assert np.abs(train.targets).sum() == 2
    assert train.targets.dtype == np.int8
    assert list(data.names) == sorted(data.names)


@pytest.mark.parametrize(("value", "target"), [("unknown", -1), ("positive", 1), ("negative", 0)])
def test_difficult_labels_in_training(voc: Path, value: str, target: int) -> None:
    data = opened(voc, difficult_train=value)
    assert data.index("train").targets[:, data.names.index("dog")].tolist() == [0, target, 1]
    assert data.index("test").targets[0, data.names.index("cat")] == -1


@pytest.mark.parametrize(
    "place",
    [
        "VOCdevkit/VOC2007",
        "VOC2007",
        ".",
        "voc2007/VOCdevkit/VOC2007",
        "voc2007/VOC2007",
        "voc2007",
    ],
)
def test_every_usual_place_is_found(tmp_path: Path, place: str) -> None:
    write_lists(tmp_path / "data" / place)
    assert len(opened(tmp_path / "data").index("train")) == 3


# ------------------------------------------------------------------------------------ wrong input
def test_a_missing_folder_lists_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data DIR") as error:
        opened(tmp_path)
    assert str(tmp_path / "VOCdevkit/VOC2007/ImageSets/Main") in str(error.value)
    assert "VOCtrainval_06-Nov-2007.tar" in str(error.value)
    with pytest.raises(DataError, match=r"no folder was given.*--data DIR"):
        opened(None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dog_trainval", "000003 -1\n000001 2\n", "line 2: '000001 2' is not .* unpack VOC 2007"),
        ("dog_trainval", "000003 -1\n000001\n000007 1\n", "line 2: '000001' is not"),
        ("dog_trainval", "000003 -1\n000007 1\n000001 0\n", "does not list the images of aero"),
        ("dog_trainval", "000003 -1\n000001 1\n", r"does not list .*\(2 and 3 images\)"),
        ("dog_trainval", "000003 -1\n000003 1\n", "line 2: image 000003 .* twice"),
        ("dog_trainval", "\n", r"is empty; unpack VOC 2007"),
        ("tvmonitor_test", None, "is missing; unpack VOC 2007"),
    ],
)
def test_a_wrong_list_is_named_with_its_line(
    voc: Path, name: str, content: str | None, message: str
) -> None:
    file = voc / LISTS / f"{name}.txt"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        opened(voc).index("train")
    assert str(file) in str(error.value)


def test_an_image_in_both_splits_is_refused(voc: Path) -> None:
    for name in VOC2007.names:
        (voc / LISTS / f"{name}_test.txt").write_text("000009 -1\n000001 -1\n")
    shared = r"'000001'; unpack .*aeroplane_trainval\.txt and .*aeroplane_test\.txt again"
    with pytest.raises(DataError, match=f"1 images are in both splits, the first is {shared}"):
        opened(voc).index("train")
    with pytest.raises(DataError, match="choose lists that share no image"):
        opened(voc, test_split="train").index("train")


@pytest.mark.parametrize("option", ["difficult_train", "train_split", "test_split"])
def test_wrong_options_are_refused(voc: Path, option: str) -> None:
    with pytest.raises(DataError, match=f"{option}='trial'; choose from"):
        opened(voc, **{option: "trial"})


# ---------------------------------------------------------------------------------------- VOC 2012
def write_2012(folder: Path) -> Path:
    """Five images; 2008_000008 shows a dog, and perhaps a cat."""
    parts = {
        "train": ["2008_000008", "2011_003276"],
        "val": ["2007_000032", "2009_000001", "2010_000002"],
    }
    parts["trainval"] = [*parts["train"], *parts["val"]]
    (folder / LISTS).mkdir(parents=True)
    for name in VOC2012.names:
        for part, keys in parts.items():
            value = {"dog": " 1", "cat": " 0"}.get(name, "-1")
            lines = [f"{key} {value if key == '2008_000008' else '-1'}\n" for key in keys]
            (folder / LISTS / f"{name}_{part}.txt").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOC2012", ".", "voc2012"])
def test_voc2012_trains_on_train_and_scores_val(tmp_path: Path, place: str) -> None:
    folder = write_2012(tmp_path / "data" / place)
    data = VOC2012(tmp_path / "data", Path("nowhere"), difficult_train="negative")
    train, test = data.index("train"), data.index("test")
    assert list(train.keys) == ["2008_000008", "2011_003276"]
    assert len(test) == 3
    assert train.files[0] == folder / "JPEGImages" / "2008_000008.jpg"
    present = [data.names[c] for c in np.flatnonzero(train.targets[0])]
    assert present == ["dog"]
    other = VOC2012(tmp_path / "data", Path("nowhere"), train_split="val", test_split="train")
    assert list(other.index("test").keys) == list(train.keys)
    assert other.index("test").targets[0, data.names.index("cat")] == -1


def test_the_labels_of_the_test_split_of_2012_are_not_public(tmp_path: Path) -> None:
    write_2012(tmp_path)
    for option in ("train_split", "test_split"):
        with pytest.raises(DataError, match=r"test split are not public.*train, val$"):
            VOC2012(tmp_path, Path("nowhere"), **{option: "test"})
    with pytest.raises(DataError, match="2 images are in both splits"):
        VOC2012(tmp_path, Path("nowhere"), test_split="train").index("train")
    with pytest.raises(DataError, match="3 images are in both splits"):
        VOC2012(tmp_path, Path("nowhere"), train_split="trainval").index("train")


# --------------------------------------------------------------------------------------- real data
def counts(folder: Path, name: str, split: str, value: str) -> int:
    lines = (folder / LISTS / f"{name}_{split}.txt").read_text().split("\n")
    return sum(line.endswith(f" {value}") for line in lines)


def assert_counts(data: VOC2007, folder: Path) -> tuple[Index, Index]:
    for split, official in (("train", "trainval"), ("test", "test")):
        targets = data.index(split).targets  # type: ignore[arg-type]
        for c, name in enumerate(data.names):
            assert (targets[:, c] == 1).sum() == counts(folder, name, official, "1")
            assert (targets[:, c] == -1).sum() == counts(folder, name, official, "0")
    return data.index("train"), data.index("test")


def test_voc2007_mini(real_data: Path) -> None:
    data = opened(real_data)
    train, test = assert_counts(data, real_data / "VOCdevkit" / "VOC2007")
    assert (len(train), len(test)) == (944, 980)
    assert data.card.identities[digest(train, test, data.names)] == "voc2007-mini"
    for difficult in ("negative", "positive"):
        data = opened(real_data, difficult_train=difficult)
        found = digest(data.index("train"), data.index("test"), data.names)
        assert data.card.identities[found] == f"voc2007-mini-difficult-{difficult}"
    assert all(Path(file).is_file() for file in [*train.files, *test.files])


def test_official_lists(tmp_path: Path) -> None:
    named = os.environ.get("MLBENCH_TEST_LISTS")
    if not named:
        pytest.skip("MLBENCH_TEST_LISTS names no folder with voc2007_imagesets_main.zip")
    (tmp_path / LISTS).mkdir(parents=True)
    with zipfile.ZipFile(Path(named) / "voc2007_imagesets_main.zip") as archive:
        for member in archive.namelist():
            (tmp_path / LISTS / Path(member).name).write_bytes(archive.read(member))
    data = opened(tmp_path)
    train, test = assert_counts(data, tmp_path)
    for part, index in (("train", train), ("test", test)):
        card = data.card.splits[part]
        assert (len(index), (index.targets == 1).sum()) == (card.images, card.positives)
    person = data.names.index("person")
    assert (train.targets[:, person] == 1).sum() == 2008
    assert (test.targets[:, person] == 1).sum() == 2007
    assert data.card.splits["train"].positives == 7306
    parts = opened(tmp_path, train_split="train", test_split="val")
    for part, index in (("the list train", "train"), ("the list val", "test")):
        targets, card = parts.index(index).targets, data.card.splits[part]
        assert (len(targets), (targets == 1).sum()) == (card.images, card.positives)
    assert data.card.identities[digest(train, test, data.names)] == "voc2007"
    for difficult, positives in (("negative", 7306), ("positive", 7913)):
        data = opened(tmp_path, difficult_train=difficult)
        train = data.index("train")
        assert (train.targets == 1).sum() == positives
        found = digest(train, data.index("test"), data.names)
        assert data.card.identities[found] == f"voc2007-difficult-{difficult}"
