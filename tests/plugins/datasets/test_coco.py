from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.coco
import pytest

from mlbench import registry
from mlbench.types import DataError, Index, Split, digest
from mlbench_plugins.datasets import instances
from mlbench_plugins.datasets.coco import COCO, COCO2014, COCO2017
from mlbench_plugins.datasets.instances import read_instances

CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "categories": [
        {"id": 18, "name": "dog"},
        {"id": 1, "name": "person"},
        {"id": 90, "name": "cup"},
    ],
    "images": [
        {"id": 30, "file_name": "c.jpg", "width": 3},
        {"id": 9, "file_name": "a.jpg", "width": 3},
        {"id": 25, "file_name": "b.jpg", "width": 3},
    ],
    "annotations": [
        {"id": 5, "image_id": 30, "category_id": 90, "segmentation": [[1.0, 2.0]], "iscrowd": 0},
        {"id": 6, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        {"id": 7, "image_id": 30, "category_id": 18, "iscrowd": 0},
        {"id": 8, "image_id": 30, "category_id": 90, "iscrowd": 0},
    ],
}


def write(root: Path, year: int = 2017, content: Any = CONTENT) -> Path:
    """Train holds the content, val the same with ids that are greater by 100."""
    (root / "annotations").mkdir(parents=True)
    for split, step in (("train", 0), ("val", 100)):
        (root / f"{split}{year}").mkdir()
        text = json.dumps(moved(content, step) if step else content)
        (root / "annotations" / f"instances_{split}{year}.json").write_text(text)
    return root


def moved(content: Any, step: int) -> Any:
    """The same with other image ids, as far as it is right."""
    content = copy.deepcopy(content)
    with contextlib.suppress(LookupError, TypeError):
        for item in content["images"]:
            item["id"] += step
        for item in content["annotations"]:
            item["image_id"] += step
    return content


@pytest.fixture(autouse=True)
def somewhere_else(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


def opened(root: Path | None, **options: Any) -> COCO:
    return COCO(root, Path("cache"), **options)


def test_a_json_is_parsed_once_as_long_as_it_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    read = instances.read_instances
    monkeypatch.setattr(instances, "read_instances", lambda f: parsed.append(f.name) or read(f))
    root = write(tmp_path)
    first = opened(root).index("test")
    again = opened(root).index("test")
    assert parsed == ["instances_train2017.json", "instances_val2017.json"]
    assert (first.targets == again.targets).all()
    assert (list(first.files), first.keys) == (list(again.files), again.keys)
    for kept in Path("cache").glob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:50])
    assert (opened(root).index("test").targets == first.targets).all()
    assert len(parsed) == 4
    changed = moved(CONTENT, 100)
    changed["annotations"].append({"id": 9, "image_id": 125, "category_id": 1})
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(changed))
    assert list(opened(root).index("test").keys) == ["109", "125", "130"]


def test_labels_stand_in_category_order_and_images_in_id_order(tmp_path: Path) -> None:
    data = opened(write(tmp_path))
    index = data.index("test")
    assert data.names == ("person", "dog", "cup")
    assert list(index.keys) == ["109", "130"]
    assert index.files[1] == tmp_path / "val2017" / "c.jpg"
    assert index.targets.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert index.targets.dtype == np.int8


def test_images_without_labels_are_kept_on_request(tmp_path: Path) -> None:
    index = opened(write(tmp_path), unlabelled=True).index("train")
    assert list(index.keys) == ["9", "25", "30"]
    assert index.targets[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("place", [".", "coco", "coco2017", "COCO"])
def test_every_usual_place_is_found(tmp_path: Path, place: str) -> None:
    write(tmp_path / "data" / place)
    assert len(opened(tmp_path / "data").index("train")) == 2


def test_the_layout_of_2014(tmp_path: Path) -> None:
    write(tmp_path, 2014)
    index = opened(tmp_path, year=2014).index("train")
    assert index.files[0] == tmp_path / "train2014" / "a.jpg"
    with pytest.raises(DataError, match=r"(?s)COCO 2017 .*instances_train2017\.json"):
        opened(tmp_path)


@pytest.mark.parametrize(("factory", "year"), [(COCO2014, 2014), (COCO2017, 2017)])
def test_a_year_has_a_name_of_its_own(tmp_path: Path, factory: Any, year: int) -> None:
    write(tmp_path / f"coco{year}", year)
    named, asked = factory(tmp_path, Path("cache")), opened(tmp_path, year=year)
    for split in ("train", "test"):
        assert named.index(split).files == asked.index(split).files
        assert (named.index(split).targets == asked.index(split).targets).all()
    assert named.names == asked.names
    assert len(factory(tmp_path, Path("cache"), unlabelled=True).index("train")) == 3
    assert set(registry.options(factory, ("root", "cache"))) == {"unlabelled"}
    with pytest.raises(DataError, match=rf"(?s)COCO {year} .*instances_train{year}\.json"):
        factory(Path("nowhere"), Path("cache"))


def test_names_with_spaces_and_other_scripts(tmp_path: Path) -> None:
    content = changed(put("images", 1, file_name="a b é 猫.jpg"))
    index = opened(write(tmp_path, content=content)).index("train")
    assert index.files[0] == tmp_path / "train2017" / "a b é 猫.jpg"


def test_nothing_is_written_where_the_data_lie(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")} | {root: root.stat()}
    opened(root).index("test")
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} | {root: root.stat()} == (
        before
    )
    assert len(list(Path("cache").glob("*.npz"))) == 2


def test_a_cache_that_cannot_be_written_to_only_costs_time(tmp_path: Path) -> None:
    Path("file").write_text("no folder")
    assert len(COCO(write(tmp_path), Path("file") / "cache").index("test")) == 2


# ------------------------------------------------------------------------------------ wrong input
def changed(change: Callable[[Any], Any]) -> Any:
    content = copy.deepcopy(CONTENT)
    return change(content) or content


def put(part: str, at: int, **fields: Any) -> Callable[[Any], None]:
    return lambda content: content[part][at].update(fields)


WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (
        lambda _: [{"image_id": 9, "category_id": 1, "score": 0.5}],
        r"Expected `object`, got `array`; expected an instances json .* no detection results",
    ),
    (lambda _: "text", "got `str`"),
    (
        lambda c: c.pop("categories") and None,
        "missing required field `categories`; expected an instances json",
    ),
    (lambda c: c.pop("images") and None, "missing required field `images`"),
    (lambda c: c.update(annotations={}), r"got `object` - at `\$\.annotations`"),
    (put("annotations", 2, category_id=2), r"1 annotations name category ids .* id 2\. Unpack the"),
    (put("images", 2, file_name="c.jpg"), r"images 30 and 25 have one file_name, 'c\.jpg'; give"),
    (put("images", 2, file_name="./x/../c.jpg"), r"images 30 and 25 have one file_name"),
    (put("images", 2, file_name="../../../etc/passwd"), r"passwd' of image id 25 leads out of the"),
    (put("images", 2, file_name="/etc/passwd"), "leads out of the folder"),
    (put("images", 2, file_name="x\\..\\..\\b.jpg"), "leads out of the folder"),
    (put("images", 2, file_name="C:\\b.jpg"), "leads out of the folder"),
    (put("images", 2, file_name="."), "leads out of the folder"),
    (put("annotations", 2, category_id=99), r"annotations\[2\] with category id 99"),
    (put("annotations", 1, image_id=10), r"annotations\[1\] with image id 10"),
    (put("annotations", 1, image_id=31), r"annotations\[1\] with image id 31"),
    (put("images", 1, id=30), "ids of images stand there twice, first 30"),
    (put("categories", 0, id=1), "ids of categories stand there twice, first 1"),
    (put("images", 2, id="25"), r"Expected `int`, got `str` - at `\$\.images\[2\]\.id`"),
    (put("images", 2, id=2.5), r"Expected `int`, got `float` - at `\$\.images\[2\]\.id`"),
    (put("images", 2, id=2**70), r"Expected `int` <= 9223372036854775807 .*images\[2\]\.id"),
    (lambda c: c["annotations"][3].pop("image_id") and None, r"`image_id` - at .*annotations\[3\]"),
    (lambda c: c["annotations"].append(7), r"got `int` - at .*annotations\[4\]"),
    (put("images", 0, file_name=None), r"got `null` - at .*images\[0\]\.file_name"),
    (put("categories", 2, name=3), r"got `int` - at .*categories\[2\]\.name"),
    (lambda c: c.update(images=[]), "4 annotations name image ids"),
    (put("categories", 2, name="dog"), "two categories are called 'dog'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_json_is_named_with_what_is_wrong(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    root = write(tmp_path, content=changed(change))
    with pytest.raises(DataError, match=message) as error:
        opened(root)
    assert str(root / "annotations" / "instances_train2017.json") in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\n{"id": 1, "file_name": "a"},', "no whole json: Input data was truncated"),
        (b'{"images": [], "annotations": [}', r"no whole json: .*byte 31"),
        (b"", "no whole json: Input data was truncated"),
        (b'{"images": [{"file_name": "\xff\xd8"}]}', "no json text"),
        (b'{"info": ' + b"[" * 10_000, "no whole json: .*recursion"),
    ],
)
def test_broken_json_is_named_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "instances_train2017.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_instances(file)
    assert str(file) in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder was given"):
        opened(None)
    with pytest.raises(DataError, match=r"annotations_trainval2017\.zip"):
        opened(tmp_path)
    root = write(tmp_path / "coco")
    (root / "val2017").rmdir()
    with pytest.raises(DataError, match=r"val2017 is missing; unpack val2017\.zip"):
        opened(root).index("test")
    (root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(DataError, match=r"instances_val2017\.json is missing"):
        opened(root).index("test")


def test_splits_of_different_releases_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    other = changed(put("categories", 0, name="wolf"))
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="different categories"):
        opened(root).index("test")
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(CONTENT))
    with pytest.raises(DataError, match="3 images stand in both splits, the first is '9'; take"):
        opened(root).index("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"year": 2015}, "year=2015; choose from 2014, 2017"), ({"unlabelled": "no"}, "'no'; choose")],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(write(tmp_path), **options)


# --------------------------------------------------------------------------------------- real data
def by_pycocotools(file: Path) -> tuple[list[str], dict[int, set[str]]]:
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
def test_coco_mini_is_what_pycocotools_reads(real_data: Path, split: Split) -> None:
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


def test_a_split_without_any_annotation_is_told(tmp_path: Path) -> None:
    root = write(tmp_path)
    bare = moved({**CONTENT, "annotations": []}, 100)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(bare))
    with pytest.raises(DataError, match=r"val2017\.json: none of its 3 images .* unlabelled=true"):
        opened(root).index("test")
    assert len(opened(root, unlabelled=True).index("test")) == 3


def test_coco_mini_has_its_name(real_data: Path) -> None:
    data = opened(real_data / "coco-mini")
    found = digest(data.index("train"), data.index("test"), data.names)
    assert data.card.identities[found] == "coco-mini"


def test_full_lists_have_their_name(real_data: Path) -> None:
    named = os.environ.get("MLBENCH_TEST_LISTS")
    if not named:
        pytest.skip("MLBENCH_TEST_LISTS names no folder with tagclip_coco2017_train.txt")
    names = opened(real_data / "coco-mini").names
    train, test = (
        listed(Path(named) / f"tagclip_coco2017_{part}.txt", len(names))
        for part in ("train", "val")
    )
    for part, index in (("train", train), ("test", test)):
        card = COCO2017.card.splits[part]
        assert (len(index), index.targets.sum()) == (card.images, card.positives)
    assert (len(train), len(test)) == (117_266, 4_952)
    assert COCO.card.identities[digest(train, test, names)] == "coco2017"


def listed(file: Path, labels: int) -> Index:
    keys, rows = [], []
    for line in file.read_text().splitlines():
        image, *present = map(int, line.split())
        keys.append(str(image))
        rows.append(np.isin(np.arange(labels), present))
    return Index([Path(key) for key in keys], keys, np.stack(rows).astype(np.int8))


@pytest.mark.slow
def test_labels_of_a_full_size_json_without_an_image(tmp_path: Path) -> None:
    import resource

    rng = np.random.default_rng(0)
    images, annotations = 82_783, 604_907
    owner, kind = rng.integers(images, size=annotations), rng.integers(80, size=annotations)
    polygon = json.dumps([np.round(rng.uniform(0, 640, 64), 2).tolist()])
    file = tmp_path / "instances_train2014.json"
    with file.open("w") as out:
        out.write('{"images": [')
        out.write(",".join(f'{{"id": {i}, "file_name": "{i:012d}.jpg"}}' for i in range(images)))
        out.write('], "categories": [')
        out.write(",".join(f'{{"id": {i}, "name": "c{i}"}}' for i in range(80)))
        out.write('], "annotations": [')
        for i, (image, category) in enumerate(zip(owner.tolist(), kind.tolist(), strict=True)):
            comma = "," if i else ""
            out.write(f'{comma}{{"id": {i}, "image_id": {image}, "category_id": {category}, ')
            out.write(
                f'"iscrowd": 0, "area": 1.5, "bbox": [1, 2, 3, 4], "segmentation": {polygon}}}'
            )
        out.write("]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    instances = read_instances(file)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    wanted = np.zeros((images, 80), np.int8)
    wanted[owner, kind] = 1
    assert np.array_equal(instances.targets, wanted)
    counted = np.bincount(owner * 80 + kind, minlength=images * 80).reshape(images, 80)
    assert np.array_equal(instances.objects, counted)
    assert grown_mib < 1024
