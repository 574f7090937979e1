"""What cards say of their data sets, and sizes, digests and validation lists of their editions."""

import numpy as np
import pytest
from PIL import Image

from mlbench import registry
from mlbench.data.open import Subset, open_splits
from mlbench.data.stratify import held_out, list_digest, stratify
from mlbench.tracks import for_dataset
from mlbench.types import (
    Edition,
    Index,
    SplitCard,
    digest,
    keys_digest,
    sampled_files,
    split_digest,
)
from mlbench_plugins.datasets.duplicates import drawn
from tests.given import path_of

LISTED = [plugin for plugin in registry.plugins("dataset") if plugin.distribution == "mlbench-mlic"]
CARDS = {plugin.name: plugin.load().card for plugin in LISTED}
BENCHMARKS = ("voc2007", "voc2012", "coco", "coco2014", "coco2017", "nuswide", "vg500")


@pytest.mark.parametrize("plugin", LISTED, ids=lambda plugin: plugin.name)
def test_orders_are_orders_of_the_same_labels(plugin):
    factory = plugin.load()
    said = factory.card
    for names in said.orders.values():
        assert sorted(names) == sorted(next(iter(said.orders.values())))
        assert len(set(names)) == len(names) == said.labels
    names = getattr(factory, "names", None)
    assert names is None or not said.orders or said.orders["official"] == names


def test_sizes_that_are_known():
    """Others are in ``tests/tools/fetch/test_official_sizes.py``."""
    vg, voc, nus = (CARDS[name].splits for name in ("vg500", "voc2012", "nuswide"))
    assert (vg["train"].images, vg["test"].images) == (82_904, 10_000)
    assert voc["train"].images + voc["test"].images == voc["the list trainval"].images
    (unsure,) = (name for name in nus if name.startswith("test by original"))
    assert nus["train by original"].images + nus[unsure].images == 269_648
    assert nus["train by single_positive"] == SplitCard(images=150_000)
    assert nus["test by single_positive"] == SplitCard(images=60_260)


def test_families():
    families = {name: CARDS[name].family for name in BENCHMARKS}
    coco = dict.fromkeys(("coco", "coco2014", "coco2017"), "coco")
    assert families == {**dict.fromkeys(BENCHMARKS, ""), **coco, "voc2012": "voc2007"}


@pytest.mark.parametrize("method", ["ssgrl", "csra", "ml_gcn", "msrn"])
def test_what_authors_do_with_voc_they_do_in_both_years(method):
    table = registry.find("recipe", method).load().dataset_options
    assert for_dataset(table, "voc2012") == for_dataset(table, "voc2007") != {}


@pytest.mark.parametrize("name", ["coco", "nuswide", "voc2007"])
def test_the_labels_are_those_that_others_have(name):
    with np.load(path_of("WORDS", "label_words.npz")) as held:
        names = held[f"{name}/names"].tolist()
    said = CARDS[name]
    assert sorted(names) == sorted(said.orders["official"])
    if name == "coco":
        assert tuple(names) == said.orders["alphabetical"]


def edition(train, test, names):
    digests = keys_digest(test.keys), split_digest(test.keys, test.targets, names)
    sizes = {"train_images": len(train), "test_images": len(test)}
    return Edition(**sizes, test_keys=digests[0], test=digests[1])


def held_out_list(index):
    """Digest of the validation images drawn from these training images, and each label's share."""
    side = stratify(index.keys, index.targets, held_out(len(index)))
    chosen = [key for key, held in zip(index.keys, side, strict=True) if held]
    return list_digest(chosen), index.targets[side].sum(axis=0) / index.targets.sum(axis=0)


def test_every_identity_of_a_card_has_an_edition():
    for card in CARDS.values():
        assert set(card.editions) == set(card.identities.values())


def agrees(name, options, root, cache):
    """The splits have their card's edition and validation list; the latter splits."""
    splits = open_splits(name, options, root, cache)
    known = splits.card.editions[splits.identity]
    assert known.images in ("", splits.digest.partition("-")[2])
    found = edition(splits.train, splits.test, splits.names)
    assert known.model_copy(update={"images": ""}) == found
    part = open_splits(name, options, root, cache, Subset(validation=True))
    assert part.identity == splits.identity
    assert list_digest(part.validation.keys) == part.card.validation[part.identity]
    return part


def test_synthetic(cache):
    assert agrees("synthetic", {}, None, cache).identity == "synthetic-2"


@pytest.mark.parametrize(
    ("dataset", "folder", "options", "identity"),
    [
        ("voc2007", ".", {}, "voc2007-mini"),
        ("voc2007", ".", {"difficult_train": "negative"}, "voc2007-mini-difficult-negative"),
        ("voc2007", ".", {"difficult_train": "positive"}, "voc2007-mini-difficult-positive"),
        ("coco", "coco-mini", {}, "coco-mini"),
        ("apparel", ".", {}, "apparel-mini"),
    ],
)
def test_small_editions(dataset, folder, options, identity, real_data, tmp_path):
    splits = agrees(dataset, options, real_data / folder, tmp_path)
    assert splits.identity == identity
    if dataset != "voc2007":  # whose own list was made for more images
        for part in (splits.validation, splits.train):
            assert (part.targets == 1).any(axis=0).all()


def test_resized_images_are_another_edition_under_any_name(real_data, tmp_path):
    official = real_data / "coco-mini"
    root = tmp_path / "coco"
    for folder in official.iterdir():
        (root / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            (root / folder.name / file.name).symlink_to(file)
    linked = open_splits("coco2017", {"unlabelled": False}, root, tmp_path)
    plain = open_splits("coco", {}, official, tmp_path)
    assert (linked.identity, linked.digest) == (plain.identity, plain.digest)
    for file in sampled_files(linked.train, linked.test).values():
        with Image.open(file) as image:
            small = image.resize((image.width // 2, image.height // 2))
        file.unlink()
        small.save(file)
    resized = open_splits("coco", {}, root, tmp_path)
    labels, images = (one.digest.partition("-")[::2] for one in (plain, resized))
    assert labels[0] == images[0] and labels[1] != images[1]
    assert resized.identity == f"coco-mini-images-{images[1]}"
    file.unlink()
    unsure = open_splits("coco", {}, root, tmp_path)
    assert unsure.identity == "coco-mini", "a missing image is reported as missing"


@pytest.mark.parametrize("difficult", ["unknown", "negative", "positive"])
def test_voc2007(difficult, official_voc, tmp_path):
    splits = agrees("voc2007", {"difficult_train": difficult}, official_voc, tmp_path)
    ending = "" if difficult == "unknown" else f"-difficult-{difficult}"
    assert splits.identity == f"voc2007{ending}"
    assert (len(splits.train), len(splits.validation)) == (2501, 2510)


def test_vocs_list_val_is_scored_where_it_is_the_test_split(official_voc, tmp_path):
    part = {"train_split": "train", "test_split": "val"}
    splits = open_splits("voc2007", part, official_voc, tmp_path, Subset(validation=True))
    assert len(splits.validation) == pytest.approx(500, abs=20)


def test_coco2017(official_coco):
    train, test = official_coco
    card = CARDS["coco2017"]
    names = card.orders["official"]
    assert card.identities[digest(train, test, names)] == "coco2017"
    assert card.editions["coco2017"] == edition(train, test, names)
    for part, index in (("train", train), ("test", test)):
        known = card.splits[part]
        assert (len(index), index.targets.sum()) == (known.images, known.positives)
    found, share = held_out_list(train)
    assert found == card.validation["coco2017"]
    assert share.min() > 0.041 and share.max() < 0.044


def test_apparel(lists, tmp_path):
    """MSRN's split from its file, and ours of the same images."""
    (tmp_path / "blue_dress").mkdir()
    options = {"split": "msrn", "labels_file": str(lists / "apparel_kaggle_labels.json")}
    splits = open_splits("apparel", options, tmp_path, tmp_path)
    names, card = splits.names, splits.card
    assert splits.identity == "apparel-msrn"
    assert card.editions[splits.identity] == edition(splits.train, splits.test, names)
    known = {sample.key: sample.target for sample in (*splits.train, *splits.test)}
    assert len({key.partition("/")[0] for key in known}) == 24
    keys = sorted(known)
    side = drawn(keys, 0.5)
    train, test = (
        Index(part, part, np.stack([known[key] for key in part]))
        for part in ([k for k, s in zip(keys, side, strict=True) if s == t] for t in (1, 0))
    )
    assert card.identities[digest(train, test, names)] == "apparel"
    assert card.editions["apparel"] == edition(train, test, names)
    assert held_out_list(train)[0] == card.validation["apparel"]
