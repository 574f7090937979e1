import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pycocotools.coco
import pytest

from mlbench.data.open import open_splits
from mlbench.types import DataError
from mlbench_plugins.datasets import instances
from mlbench_plugins.datasets.coco import COCO
from tests.plugins.datasets.miniature import photo

FILES = ((30, "c"), (9, "a"), (25, "b"))
CONTENT = {
    "info": {"year": 2017},
    "categories": [{"id": i, "name": n} for i, n in ((18, "dog"), (1, "person"), (90, "cup"))],
    "images": [{"id": i, "file_name": f"{n}.jpg", "width": 3} for i, n in FILES],
    "annotations": [
        {"id": 5, "image_id": 30, "category_id": 90, "segmentation": [[1.0, 2.0]], "iscrowd": 0},
        {"id": 6, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        {"id": 7, "image_id": 30, "category_id": 18, "iscrowd": 0},
        {"id": 8, "image_id": 30, "category_id": 90, "iscrowd": 0},
    ],
}


def write(root, year=2017, content=CONTENT):
    """Train holds the content, val the same with ids that are greater by 100."""
    (root / "annotations").mkdir(parents=True)
    for split, step in (("train", 0), ("val", 100)):
        (root / f"{split}{year}").mkdir()
        text = json.dumps(moved(content, step) if step else content)
        (root / "annotations" / f"instances_{split}{year}.json").write_text(text)
    return root


def moved(content, step):
    """The same with other image ids, as far as it is right."""
    content = copy.deepcopy(content)
    with contextlib.suppress(LookupError, TypeError):
        for item in content["images"]:
            item["id"] += step
        for item in content["annotations"]:
            item["image_id"] += step
    return content


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


def opened(root, **options):
    return COCO(root, Path("cache"), **options)


def test_a_json_is_parsed_once_as_long_as_it_stays_the_same(tmp_path, monkeypatch):
    parsed = []
    read = instances.read_instances
    monkeypatch.setattr(instances, "read_instances", lambda f: parsed.append(f.name) or read(f))
    root = write(tmp_path)
    before = sorted(root.rglob("*"))
    first = opened(root).index("test")
    again = opened(root).index("test")
    assert sorted(root.rglob("*")) == before, "nothing is written where the data are"
    assert parsed == ["instances_train2017.json", "instances_val2017.json"]
    assert (first.targets == again.targets).all()
    assert (list(first.files), first.keys) == (list(again.files), again.keys)
    for kept, damage in zip(
        Path("cache").iterdir(), (lambda c: c[:50], lambda c: c[::-1]), strict=True
    ):
        kept.write_bytes(damage(kept.read_bytes()))
    assert (opened(root).index("test").targets == first.targets).all()
    assert len(parsed) == 4
    changed = moved(CONTENT, 100)
    changed["annotations"].append({"id": 9, "image_id": 125, "category_id": 1})
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(changed))
    assert list(opened(root).index("test").keys) == ["109", "125", "130"]


def test_labels_stand_in_category_order_and_images_in_id_order(tmp_path):
    data = opened(write(tmp_path))
    index = data.index("test")
    assert data.names == ("person", "dog", "cup")
    assert list(index.keys) == ["109", "130"]
    assert index.files[1] == tmp_path / "val2017" / "c.jpg"
    assert index.targets.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert index.targets.dtype == np.int8


def test_images_without_labels_are_kept_on_request(tmp_path):
    index = opened(write(tmp_path), unlabelled=True).index("train")
    assert list(index.keys) == ["9", "25", "30"]
    assert index.targets[1].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="unlabelled='no'; choose from True, False"):
        opened(tmp_path, unlabelled="no")


@pytest.mark.parametrize("year", [2014, 2017])
def test_every_name_of_a_year_is_one_data_set(cli, tmp_path, year, store):
    root = write(tmp_path / "data" / f"coco{year}", year)
    for i, file in enumerate(
        f"{part}{year}/{name}.jpg" for part in ("train", "val") for name in "abc"
    ):
        photo(root / file, i)
    first = open_splits(f"coco{year}", {}, root, tmp_path)
    second = open_splits("coco", {"year": year}, root, tmp_path)
    assert first.train.files[0] == root / f"train{year}" / "a.jpg"
    assert first.identity == second.identity == f"{RECORDED[year]}-unknown-{first.digest}"
    assert first.card == second.card and first.official == second.official
    tiny = ("--backbones", "timm:test_resnet", "--weights", "none", "--image-size", "32")
    matrix = ("run", "--plugins", "gap", "--data", root, *tiny, "--epochs", "1")
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"seeds: [0]\nmeasure: false\ndataset_options: {{coco: {{year: {year}}}}}")
    cli(*matrix, "--datasets", f"coco,coco{year}", "--suite", suite).ok()
    (record,) = store.records()  # one run for both names
    options = {"unlabelled": False} | ({"year": 2017} if year == 2017 else {})
    assert (record.spec.dataset, record.spec.dataset_options) == (RECORDED[year], options)


RECORDED = {2014: "coco2014", 2017: "coco"}


def test_a_year_opens_its_own_files(tmp_path):
    with pytest.raises(DataError, match=r"(?s)COCO 2014 .*instances_train2014\.json"):
        open_splits("coco", {"year": 2014}, write(tmp_path), tmp_path)
    with pytest.raises(DataError, match="year=2015; choose from 2014, 2017"):
        open_splits("coco", {"year": 2015}, tmp_path, tmp_path)


def changed(change):
    content = copy.deepcopy(CONTENT)
    return change(content) or content


def put(part, at, **fields):
    return lambda content: content[part][at].update(fields)


WRONG = [
    (
        lambda _: [{"image_id": 9, "category_id": 1, "score": 0.5}],
        r"Expected `object`, got `array`; expected an instances json .* no detection results",
    ),
    (lambda c: c.pop("categories") and None, "missing required field `categories`"),
    (put("annotations", 2, category_id=2), r"1 annotations name category ids .* id 2\. Unpack the"),
    (put("annotations", 1, image_id=10), r"annotations\[1\] with image id 10"),
    (put("images", 1, id=30), "the image id 30 is used twice"),
    (put("categories", 0, id=1), "the category id 1 is used twice"),
    (put("images", 2, id="25"), r"Expected `int`, got `str` - at `\$\.images\[2\]\.id`"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_json_is_named_with_what_is_wrong(tmp_path, change, message):
    root = write(tmp_path, content=changed(change))
    with pytest.raises(DataError, match=message) as error:
        opened(root)
    file = root / "annotations" / "instances_train2017.json"
    assert str(file) in str(error.value)
    file.write_text(json.dumps(CONTENT)[:-20])
    with pytest.raises(DataError, match=r"json cannot be read: Input data was truncated; .* whole"):
        opened(root)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="no folder was given"):
        opened(None)
    with pytest.raises(DataError, match=r"annotations_trainval2017\.zip"):
        opened(tmp_path)
    root = write(tmp_path / "coco")
    (root / "val2017").rmdir()
    with pytest.raises(DataError, match=r"none of the 2 listed images .*unpack val2017\.zip in"):
        opened(root).index("test")


def by_pycocotools(file):
    """Category names and, by image id, the names in it, as the official tool reads them."""
    with contextlib.redirect_stdout(io.StringIO()):
        official = pycocotools.coco.COCO(str(file))
    names = {c["id"]: c["name"] for c in official.loadCats(sorted(official.getCatIds()))}
    found = {
        image: {names[a["category_id"]] for a in official.imgToAnns[image]}
        for image in official.getImgIds()
    }
    return list(names.values()), found


@pytest.mark.parametrize("split", ["train", "test"])
def test_coco_mini_is_what_pycocotools_reads(real_data, split):
    root = real_data / "coco-mini"
    data = opened(root)
    index = data.index(split)
    part = {"train": "train", "test": "val"}[split]
    names, found = by_pycocotools(root / "annotations" / f"instances_{part}2017.json")
    assert list(data.names) == names == list(data.card.orders["official"])
    assert len(index) == {"train": 2089, "test": 915}[split]
    assert [int(key) for key in index.keys] == sorted(found)
    for file, target, key in index:
        assert {data.names[c] for c in np.flatnonzero(target)} == found[int(key)]
        assert file.is_file()


def test_a_split_without_any_annotation_is_told(tmp_path):
    root = write(tmp_path)
    bare = moved({**CONTENT, "annotations": []}, 100)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(bare))
    with pytest.raises(DataError, match=r"val2017\.json: none of its 3 images .* unlabelled=true"):
        opened(root).index("test")
    assert len(opened(root, unlabelled=True).index("test")) == 3
