"""The published validation lists, made again where the sets or their lists are at hand."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mlbench.data.open import open_splits
from mlbench.data.stratify import held_out, list_digest, stratify
from mlbench.registry import find
from mlbench_plugins.datasets.duplicates import drawn

MINI = [
    ("voc2007", ".", {}, "voc2007-mini"),
    ("voc2007", ".", {"difficult_train": "negative"}, "voc2007-mini-difficult-negative"),
    ("coco", "coco-mini", {}, "coco-mini"),
    ("apparel", ".", {}, "apparel-mini"),
]


@pytest.fixture
def lists():
    named = os.environ.get("MLBENCH_TEST_LISTS")
    if not named:
        pytest.skip("MLBENCH_TEST_LISTS names no folder with tagclip_coco2017_train.txt")
    return Path(named)


@pytest.mark.parametrize(("name", "folder", "options", "edition"), MINI)
def test_small_sets_have_their_published_list(real_data, tmp_path, name, folder, options, edition):
    splits = open_splits(name, options, real_data / folder, tmp_path, validation=True)
    assert splits.identity == edition
    assert list_digest(splits.validation.keys) == splits.card.validation[edition]
    if name != "voc2007":  # whose own list was made for more images
        for part in (splits.validation, splits.train):
            assert (part.targets == 1).any(axis=0).all()


def test_synthetic_has_its_published_list(cache):
    splits = open_splits("synthetic", {}, None, cache, validation=True)
    assert list_digest(splits.validation.keys) == splits.card.validation["synthetic-1"]


def test_vocs_own_list_is_the_published_one(lists, tmp_path):
    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(lists / "voc2007_imagesets_main.zip") as archive:
        for member in archive.namelist():
            (folder / Path(member).name).write_bytes(archive.read(member))
    splits = open_splits("voc2007", {}, tmp_path, tmp_path, validation=True)
    assert (len(splits.train), len(splits.validation)) == (2501, 2510)
    assert list_digest(splits.validation.keys) == splits.card.validation["voc2007"]
    part = {"train_split": "train", "test_split": "val"}
    part = open_splits("voc2007", part, tmp_path, tmp_path, validation=True)
    assert len(part.validation) == pytest.approx(500, abs=20), "the list val is scored here"


def test_cocos_list_is_made_again_and_keeps_every_labels_share(lists):
    keys, rows = [], []
    for line in (lists / "tagclip_coco2017_train.txt").read_text().splitlines():
        image, *present = map(int, line.split())
        keys.append(str(image))
        rows.append(np.isin(np.arange(80), present))
    targets = np.stack(rows).astype(np.int8)
    side = stratify(keys, targets, held_out(len(keys)))
    chosen = [key for key, held in zip(keys, side, strict=True) if held]
    assert list_digest(chosen) == find("dataset", "coco").load().card.validation["coco2017"]
    share = targets[side].sum(axis=0) / targets.sum(axis=0)
    assert share.min() > 0.041 and share.max() < 0.044


def test_apparels_list_is_made_again(lists, tmp_path):
    from mlbench_plugins.datasets.apparel import Apparel

    (tmp_path / "blue_dress").mkdir()
    file = str(lists / "apparel_kaggle_labels.json")
    data = Apparel(tmp_path, tmp_path, split="msrn", labels_file=file)
    known = {s.key: s.target for part in ("train", "test") for s in data.index(part)}
    keys = sorted(known)
    keys = [key for key, train in zip(keys, drawn(keys, 0.5), strict=True) if train]
    side = stratify(keys, np.stack([known[key] for key in keys]), held_out(len(keys)))
    chosen = [key for key, held in zip(keys, side, strict=True) if held]
    assert list_digest(chosen) == Apparel.card.validation["apparel"]
