"""Files and folders that must not be read or written: what is said, and that nothing is guessed."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.permissions import locked
from tests.plugins.datasets.miniature import vg500
from tests.plugins.datasets.test_coco import write as write_coco
from tests.plugins.datasets.test_voc import write_lists


def pictures(folder, number=6):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def table(root):
    pictures(root / "images")
    lines = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'test'}" for i in range(6)]
    (root / "photos.csv").write_text("\n".join(["image,labels,split", *lines]))
    return root / "photos.csv"


def coco(root):
    pictures(root / "images")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(6)],
        "categories": [{"id": c, "name": "ab"[c]} for c in range(2)],
        "annotations": [{"image_id": i, "category_id": i % 2} for i in range(6)],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def tree(root):
    for name in "ab":
        pictures(root / "train" / name, 3)
        pictures(root / "test" / name, 2)
    return root


def yolo(root):
    for split in ("train", "val"):
        pictures(root / "images" / split)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(6):
            (root / "labels" / split / f"{i}.txt").write_text(f"{i % 2} .5 .5 1 1\n")
    (root / "data.yaml").write_text("names: [a, b]\ntrain: images/train\nval: images/val\n")
    return root


@pytest.mark.parametrize(
    ("make", "lock"),
    [
        (table, "."),
        (table, "photos.csv"),
        (table, "images"),
        (coco, "coco.json"),
        (coco, "images"),
        (tree, "."),
        (tree, "train/a"),
        (yolo, "."),
        (yolo, "data.yaml"),
        (yolo, "labels"),
        (yolo, "labels/train"),
        (yolo, "labels/train/1.txt"),
        (yolo, "images/val"),
    ],
)
def test_a_manifest_that_must_not_be_read_says_so_and_what_to_do(cli, tmp_path, make, lock):
    source = make(tmp_path / "set")
    assert cli("data", "stats", f"manifest:{source}").code == 0
    with locked(tmp_path / "set" / lock):
        told = cli("data", "stats", f"manifest:{source}")
    said = told.err.replace("\n", " ")
    assert told.code == 2 and "Permission denied" in said and "give" in said, said
    assert said.count(str(tmp_path / "set" / lock)) == 1 or lock == "."


@pytest.mark.parametrize(
    ("name", "make", "lock", "mode"),
    [
        ("voc2007", write_lists, "ImageSets/Main/dog_test.txt", 0),
        ("voc2007", write_lists, "ImageSets", 0),
        ("vg500", vg500, "VG_100K", 0o311),
        ("vg500", vg500, "vg_category_500_labels_index.json", 0),
        ("coco", write_coco, "annotations/instances_val2017.json", 0),
        ("apparel", lambda root: pictures(root / "red_shoes"), "red_shoes", 0),
    ],
)
def test_a_benchmark_that_must_not_be_read_says_so_once(cli, tmp_path, name, make, lock, mode):
    make(tmp_path / "set")
    with locked(tmp_path / "set" / lock, mode):
        told = cli("data", "stats", name, "--data", tmp_path / "set")
    said = told.err.replace("\n", " ")
    assert told.code == 2 and "(Permission denied); give this user the right to read" in said, said
    assert said.count(str(tmp_path / "set" / lock)) == 1 and "unpack" not in said
