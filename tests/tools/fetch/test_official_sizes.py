"""The options of a data set choose the official sizes that ``mlbench data verify`` prints."""

import pytest

from mlbench.data.open import Subset, coverage, open_splits
from tests.plugins.datasets import miniature
from tests.plugins.datasets.test_apparel import labels_file
from tests.plugins.datasets.test_apparel import write as write_apparel
from tests.plugins.datasets.test_coco import write as write_coco
from tests.plugins.datasets.test_layouts import made


def official(name, root, cache, **options):
    found = coverage(open_splits(name, options, root, cache, Subset(allow_missing=True)), {}).splits
    return tuple(found[part].official for part in ("train", "test"))


def test_the_protocol_chooses_the_official_sizes_of_nuswide(tmp_path):
    root = miniature.nus_table(made("nuswide", tmp_path / "nus"))
    for protocol, wanted in (
        ("csv", (119_103, 50_720)),
        ("original", (161_789, 107_859)),
        ("single_positive", (150_000, 60_260)),
    ):
        assert official("nuswide", root, tmp_path, protocol=protocol) == wanted


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("coco", {}, (117_266, 4_952)),
        ("coco", {"unlabelled": True}, (118_287, 5_000)),
        ("coco", {"year": 2014}, (82_081, 40_137)),
        ("coco", {"year": 2014, "unlabelled": True}, (82_783, 40_504)),
        ("coco2014", {"unlabelled": True}, (82_783, 40_504)),
        ("coco2017", {"unlabelled": True}, (118_287, 5_000)),
    ],
)
def test_the_year_chooses_the_official_sizes_of_coco(tmp_path, name, options, wanted):
    write_coco(tmp_path / "coco", options.get("year", 2014 if name == "coco2014" else 2017))
    assert official(name, tmp_path / "coco", tmp_path, **options) == wanted


def test_the_lists_choose_the_official_sizes_of_voc(tmp_path):
    root = miniature.voc2007(tmp_path / "VOC2007")
    assert official("voc2007", root, tmp_path) == (5_011, 4_952)
    miniature.voc_lists(root, {"train": ["000003"], "val": ["000001"]}, {})
    assert official("voc2007", root, tmp_path, train_split="train") == (2_501, 4_952)
    found = official("voc2007", root, tmp_path, train_split="train", test_split="val")
    assert found == (2_501, 2_510)
    root = miniature.voc2012(tmp_path / "VOC2012")
    assert official("voc2012", root, tmp_path) == (5_717, 5_823)
    found = official("voc2012", root, tmp_path, train_split="val", test_split="train")
    assert found == (5_823, 5_717)


def test_other_sizes_and_held_out_images_are_no_official_splits(tmp_path):
    sizes = {"train_images": 20, "test_images": 600, "size": 32}
    assert official("synthetic", None, tmp_path, **sizes) == (None, 600)
    held = open_splits("synthetic", sizes, None, tmp_path, Subset(holdout=0.5))
    assert {part.official for part in coverage(held, {}).splits.values()} == {None}


def test_the_split_chooses_the_official_sizes_of_apparel(tmp_path):
    apparel = write_apparel(tmp_path / "apparel", red_shoes=8)
    labels_file(apparel, {f"{i:03}.jpg": ["red", "shoes"] for i in range(8)})
    assert official("apparel", apparel, tmp_path, split="msrn") == (5_692, 5_692)
    assert official("apparel", apparel, tmp_path) == (5_668, 5_716)
