"""Cards have the sizes and digests of their editions."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mlbench import registry
from mlbench.data.open import open_splits
from mlbench.types import Edition, Index, digest, keys_digest, split_digest

CARDS = {
    plugin.name: plugin.load().card
    for plugin in registry.plugins("dataset")
    if plugin.distribution == "mlbench-mlic"
}


def edition(train, test, names):
    digests = keys_digest(test.keys), split_digest(test.keys, test.targets, names)
    sizes = {"train_images": len(train), "test_images": len(test)}
    return Edition(**sizes, test_keys=digests[0], test=digests[1])


def test_every_identity_of_a_card_has_an_edition():
    for card in CARDS.values():
        assert set(card.editions) == set(card.identities.values())


def agrees(splits):
    assert splits.card.editions[splits.identity] == edition(splits.train, splits.test, splits.names)


def test_synthetic(cache):
    agrees(open_splits("synthetic", {}, None, cache))


@pytest.mark.parametrize(
    ("dataset", "folder"), [("coco", "coco-mini"), ("voc2007", "."), ("apparel", "apparel-mini")]
)
def test_small_editions(dataset, folder, real_data, tmp_path):
    agrees(open_splits(dataset, {}, real_data / folder, tmp_path))


@pytest.fixture
def lists():
    named = os.environ.get("MLBENCH_TEST_LISTS")
    if not named:
        pytest.skip("MLBENCH_TEST_LISTS names no folder with the official lists")
    return Path(named)


@pytest.mark.parametrize("difficult", ["unknown", "negative", "positive"])
def test_voc2007(difficult, lists, tmp_path):
    main = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    with zipfile.ZipFile(lists / "voc2007_imagesets_main.zip") as archive:
        for member in archive.namelist():
            (main / Path(member).name).write_bytes(archive.read(member))
    agrees(open_splits("voc2007", {"difficult_train": difficult}, tmp_path, tmp_path))


def test_coco2017(lists):
    card = CARDS["coco2017"]
    names = card.orders["official"]
    train, test = (
        listed(lists / f"tagclip_coco2017_{part}.txt", len(names)) for part in ("train", "val")
    )
    assert card.identities[digest(train, test, names)] == "coco2017"
    assert card.editions["coco2017"] == edition(train, test, names)


def listed(file, labels):
    keys, rows = [], []
    for line in file.read_text().splitlines():
        image, *present = map(int, line.split())
        keys.append(str(image))
        rows.append(np.isin(np.arange(labels), present))
    return Index([Path(key) for key in keys], keys, np.array(rows).astype(np.int8))


def test_apparel_as_msrn_splits_it(lists, tmp_path):
    (tmp_path / "blue_dress").mkdir()
    options = {"split": "msrn", "labels_file": str(lists / "apparel_kaggle_labels.json")}
    agrees(open_splits("apparel", options, tmp_path, tmp_path))
