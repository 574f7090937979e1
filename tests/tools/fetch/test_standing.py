"""What is said of data without a published digest: sizes, positives, and how many are lacking."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbench.data.open import coverage, open_splits
from mlbench.types import DatasetCard, Edition, Index, SplitCard, Splits
from mlbench_plugins.datasets.voc import VOC2007
from mlbench_tools.fetch.standing import fewer, standing
from tests.plugins.datasets import miniature
from tests.plugins.datasets.test_coco import write as write_coco
from tests.plugins.datasets.test_voc import write_2012, write_lists


def index(name, images, positives):
    targets = np.zeros((images, 2), np.int8)
    targets.flat[:positives] = 1
    keys = [f"{name}{i}" for i in range(images)]
    return Index([Path(key) for key in keys], keys, targets)


def splits(official, positives=(5, 3), **card):
    plain = {"title": "T", "bibtex": "", "licence": "L", "home": "H", "splits": official}
    found = DatasetCard(**plain | card)
    train, test = index("a", 6, positives[0]), index("b", 4, positives[1])
    return Splits(found, ("x", "y"), train, test, "d", "made-unknown-d", official=official)


def sizes(train=6, test=4, positives=None):
    return {"train": SplitCard(images=train, positives=positives), "test": SplitCard(images=test)}


def edition(train, test):
    return Edition(train_images=train, test_images=test, test_keys="", test="")


def test_the_official_sizes_without_a_published_digest():
    said = standing(splits(sizes()))
    assert said.startswith("sizes are the official ones; no digest of it is published")
    assert "a board of its own" in said and said.endswith("made-unknown-d")
    assert standing(splits(sizes(positives=5))).startswith("sizes and the positives of train are")


def test_official_sizes_with_other_positives_images_or_labels():
    assert standing(splits(sizes(positives=7))).endswith("train are not: 5 instead of 7")
    known = splits(sizes(), editions={"made-1": edition(6, 4)})
    assert standing(known).endswith("images or labels are not those of made-1")


def test_other_sizes_say_nothing():
    assert standing(splits(sizes(train=7))) == standing(splits({})) == ""


def test_the_validation_part_counts_as_train():
    whole = splits(sizes(positives=5))
    cut = replace(whole, train=whole.train[:4], validation=whole.train[4:])
    assert standing(cut) == standing(whole) != ""


def test_images_that_only_their_number_tells():
    card = {"big": edition(60, 40), "mini": edition(7, 4), "big again": edition(50, 50)}
    lacking = splits({}, editions=card, unlisted=True)
    assert fewer(lacking) == {"mini": 1, "big": 90}
    assert fewer(splits({}, editions=card)) == {}, "a list names what is missing"
    named = replace(lacking, identity="mini")
    named = replace(named, card=named.card.model_copy(update={"identities": {"d": "mini"}}))
    assert fewer(named) == {}


# ------------------------------------------------------------------------ what the options choose
def official(name, root, cache, **options):
    found = coverage(open_splits(name, options, root, cache, allow_missing=True), {}).splits
    return tuple(found[part].official for part in ("train", "test"))


def test_the_protocol_chooses_the_official_sizes_of_nuswide(tmp_path):
    root = miniature.nus_table(miniature.nus_official(tmp_path / "nus"))
    miniature.nus_photos(root)
    paths = [path.replace("\\", "/") for path in miniature.nus_paths()]
    for part, chosen in (("train", paths[:9]), ("test", paths[9:])):
        miniature.write(root / f"single_positive_{part}.txt", chosen)
    assert {
        protocol: official("nuswide", root, tmp_path, protocol=protocol)
        for protocol in ("csv", "original", "single_positive")
    } == {
        "csv": (119_103, 50_720),
        "original": (161_789, 107_859),
        "single_positive": (150_000, 60_260),
    }


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("coco", {}, (117_266, 4_952)),
        ("coco", {"unlabelled": True}, (118_287, 5_000)),
        ("coco", {"year": 2014}, (82_081, 40_137)),
        ("coco", {"year": 2014, "unlabelled": True}, (82_783, 40_504)),
        ("coco2014", {}, (82_081, 40_137)),
        ("coco2014", {"unlabelled": True}, (82_783, 40_504)),
        ("coco2017", {"unlabelled": True}, (118_287, 5_000)),
    ],
)
def test_the_year_chooses_the_official_sizes_of_coco(tmp_path, name, options, wanted):
    year = options.get("year", 2014 if name == "coco2014" else 2017)
    write_coco(tmp_path / "coco", year)
    assert official(name, tmp_path / "coco", tmp_path, **options) == wanted


def test_the_lists_choose_the_official_sizes_of_voc(tmp_path):
    root = write_lists(tmp_path / "VOC2007")
    assert official("voc2007", root, tmp_path) == (5_011, 4_952)
    for name in VOC2007.names:
        for part, key in (("train", "000003"), ("val", "000001")):
            (root / f"ImageSets/Main/{name}_{part}.txt").write_text(f"{key} -1\n")
    assert official("voc2007", root, tmp_path, train_split="train") == (2_501, 4_952)
    found = official("voc2007", root, tmp_path, train_split="train", test_split="val")
    assert found == (2_501, 2_510)
    root = write_2012(tmp_path / "VOC2012")
    assert official("voc2012", root, tmp_path) == (5_717, 5_823)
    assert official("voc2012", root, tmp_path, train_split="val", test_split="train") == (
        5_823,
        5_717,
    )


def test_other_sizes_and_held_out_images_are_no_official_splits(tmp_path, cache):
    assert official("synthetic", None, cache, train_images=20, test_images=600) == (None, 600)
    held = open_splits("synthetic", {}, None, cache, holdout=0.5)
    assert {part.official for part in coverage(held, {}).splits.values()} == {None}


# ------------------------------------------------------------------------------ the command verify
@pytest.fixture
def apparel(tmp_path):
    root = tmp_path / "apparel"
    for number, name in enumerate(("red_shoes", "white_shirt")):
        (root / name).mkdir(parents=True)
        for i in range(8):
            colour = (number * 100, i * 20, 0)
            Image.new("RGB", (8, 8), colour).save(root / name / f"{i}.png")
    return root


def test_apparel_is_known_by_any_folder_and_tells_how_many_are_gone(cli, apparel):
    told = cli("data", "verify", "apparel", "--data", apparel)
    assert told.code == 1, "the set of seven folders has 2,429 images, Kaggle's 11,384"
    assert "images are missing: 2,413 of apparel-mini or 11,368 of apparel" in told.out
    found = json.loads(cli("data", "verify", "apparel", "--data", apparel, "--json").out)
    assert found["fewer"] == {"apparel-mini": 2_413, "apparel": 11_368} and not found["bad"]


def test_msrns_split_has_its_own_official_sizes(tmp_path, apparel):
    listed = {f"{i}.png": ["red", "shoes"] for i in range(8)}
    (apparel / "apparel_kaggle_labels.json").write_text(json.dumps(listed))
    assert official("apparel", apparel, tmp_path, split="msrn") == (5_692, 5_692)
    assert official("apparel", apparel, tmp_path) == (5_668, 5_716)


def test_ones_own_pictures_are_not_held_against_themselves(cli, apparel):
    told = cli("data", "verify", f"manifest:{apparel}", "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert "known" not in found and found["splits"]["train"]["official"] is None
    assert "known" not in json.loads(Path(found["written"]).read_text())
    said = cli("data", "verify", f"manifest:{apparel}").out
    assert "officially" not in said and "no edition" not in said


def test_what_verify_found_lies_beside_a_manifest(cli, apparel, tmp_path):
    (tmp_path / "photos.csv").write_text(
        "image,labels\n" + "".join(f"red_shoes/{i}.png,{'ab'[i % 2]}\n" for i in range(8))
    )
    for source, home in ((apparel, apparel), ("photos.csv", tmp_path)):
        written = Path(
            json.loads(cli("data", "verify", f"manifest:{source}", "--json").out)["written"]
        )
        assert written.resolve().parent == home.resolve()


def test_a_folder_of_data_that_is_none_is_refused_for_a_manifest_too(cli, apparel):
    told = cli("data", "verify", f"manifest:{apparel}", "--data", "/nope")
    assert told.code == 2 and "/nope is no folder" in told.err
