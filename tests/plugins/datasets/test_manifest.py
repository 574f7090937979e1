import json
import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbench import contracts, registry
from mlbench.data.open import Subset, open_splits
from mlbench.types import DataError, digest
from mlbench_plugins.datasets import manifest
from mlbench_plugins.datasets.manifest import Manifest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder; what was said once may be said again."""
    manifest._warn.cache_clear()
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def pictures(folder, names):
    """Files of different bytes; a data set opens none of them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"picture {name}".encode())


def opened(source="photos.csv", root=None, **options):
    return Manifest(source, root, Path("cache"), **options)


def table(folder, text, name="photos.csv"):
    (folder / name).write_text(text, encoding="utf-8")


def labels_of(data):
    """Key -> its labels, in both splits; unknown ones with a question mark."""
    return {
        sample.key: {
            name + ("?" if state < 0 else "")
            for name, state in zip(data.names, sample.target, strict=True)
            if state
        }
        for split in ("train", "test")
        for sample in data.index(split)
    }


FOUR = {"a.jpg": {"cat", "dog"}, "b.jpg": {"dog"}, "c.jpg": set(), "d.jpg": {"cat"}}
LISTS = "image,labels,split\na.jpg,cat;dog,train\nb.jpg, dog ,Train\nc.jpg,,test\nd.jpg,cat,test\n"
OBJECTS = [
    {"image": key, "labels": sorted(labels), "split": "train" if key < "c" else "test"}
    for key, labels in FOUR.items()
]
FORMS = {
    "lists.csv": LISTS,
    "bar.csv": LISTS.replace(";", "|"),
    "bom.csv": "\ufeff" + LISTS,
    "windows.csv": LISTS.replace("\n", "\r\n"),
    "lists.tsv": LISTS.replace(",", "\t"),
    "json_cells.csv": LISTS.replace("cat;dog", '"[""cat"", ""dog""]"'),
    "python_cells.csv": LISTS.replace("cat;dog", "\"['cat', 'dog']\""),
    "columns.csv": (
        "file,dog,cat,split\na.jpg,1,1,train\nb.jpg,1.00,0,train\nc.jpg,0.00,0,test\nd.jpg,False,true,test\n"
    ),
    "objects.json": json.dumps(OBJECTS),
    "mapping.json": json.dumps({key: sorted(labels) for key, labels in FOUR.items()}),
    "lines.jsonl": "\r\n".join(map(json.dumps, OBJECTS)) + "\n\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_table_says_the_same(folder, name):
    pictures(folder, FOUR)
    table(folder, FORMS[name], name)
    data = opened(name, test_share=0.5)
    assert data.names == ("cat", "dog")
    assert labels_of(data) == FOUR
    if name != "mapping.json":
        assert list(data.index("test").keys) == ["c.jpg", "d.jpg"]


def test_parquet_says_the_same_and_its_blanks_are_blanks(folder):
    pytest.importorskip("pyarrow", reason="the optional pyarrow is not installed")
    import pandas as pd

    pictures(folder, FOUR)
    pd.DataFrame(OBJECTS).to_parquet("lists.parquet")
    assert labels_of(opened("lists.parquet")) == FOUR
    frame = pd.DataFrame(
        {
            "image": pd.array(list(FOUR), "string"),
            "group": pd.array(["g", None, "g", None], "string"),
            "cat": pd.array([1, 0, None, 1], "Int64"),
            "dog": pd.array([True, None, False, True], "boolean"),
            "cow": [1, 0, None, 1],
        }
    )
    frame.to_parquet("columns.parquet")
    data = opened("columns.parquet", test_share=0.5)
    assert labels_of(data) == {
        "a.jpg": {"cat", "dog", "cow"},
        "b.jpg": {"dog?"},
        "c.jpg": {"cat?", "cow?"},
        "d.jpg": {"cat", "dog", "cow"},
    }
    assert [data._groups[key] for key in FOUR] == ["a.jpg", "b.jpg", "a.jpg", "d.jpg"]
    pd.DataFrame({"image": [{"bytes": b"x"}], "labels": ["a"]}).to_parquet("inside.parquet")
    with pytest.raises(DataError, match=r"'image' holds no text but dict; if these are the pict"):
        opened("inside.parquet")


def test_blank_and_minus_one_are_unknown_in_columns(folder):
    pictures(folder, ("a.jpg", "b.jpg"))
    table(folder, "image,split,x,y,z\na.jpg,train,1,,0\nb.jpg,test,-1,-1.0,1\n")
    data = opened()
    assert data.index("train").targets.tolist() == [[1, -1, 0]]
    assert data.index("test").targets.tolist() == [[-1, -1, 1]]
    assert data.index("test").targets.dtype == np.int8


def test_columns_can_be_named(folder):
    pictures(folder, FOUR)
    text = "Foto,image,Art,Teil,width\n"
    text += "".join(
        f"{key},x,{'/'.join(sorted(labels))},{'test' if i > 1 else 'train'},640\n"
        for i, (key, labels) in enumerate(FOUR.items())
    )
    table(folder, text)
    named = {"image_column": "Foto", "label_columns": ["Art"], "split_column": "Teil"}
    assert labels_of(opened(**named, separator="/")) == FOUR
    both = opened(**named, separator="/", label_names=["dog", "horse", "cat"])
    assert both.names == ("dog", "horse", "cat") and labels_of(both) == FOUR


def test_columns_that_label_names_leaves_out_are_left_out(folder):
    pictures(folder, ("a.jpg", "b.jpg"))
    table(folder, "image,split,x,y,z\na.jpg,train,1,0,7\nb.jpg,test,0,1,7\n")
    for names in (["y", "x"], "y, x"):
        assert opened(label_names=names).index("train").targets.tolist() == [[0, 1]]
    assert labels_of(opened(label_columns="y")) == {"a.jpg": set(), "b.jpg": {"y"}}


# ----------------------------------------------------------------------------- files and their keys
def test_names_with_spaces_unicode_and_backslashes(folder):
    here = ("sub dir/a b.jpg", "sub dir/Größe ☂.jpg", "猫/c.jpg")
    pictures(folder, here)
    apart = unicodedata.normalize("NFD", here[1])
    rows = [r"sub dir\a b.jpg,x,train", f"./{apart},x,test", f"{folder}/猫/c.jpg,y,train"]
    table(folder, "\n".join(["image,labels,split", *rows]))
    data = opened()
    assert set(labels_of(data)) == set(here)
    assert all(
        file.is_file()
        for split in (data.index("train"), data.index("test"))
        for file in split.files
    )


def test_a_picture_stored_with_accents_apart_is_found(folder):
    pictures(folder, (unicodedata.normalize("NFD", "é.jpg"), "b.jpg"))
    table(folder, "image,labels,split\né.jpg,x,train\nb.jpg,x,test\n")
    assert opened().index("train").keys == ["é.jpg"]


def test_pictures_lie_beside_the_table_in_images_or_where_data_says(folder):
    (folder / "far" / "away").mkdir(parents=True)
    for place in (folder, folder / "images", folder / "far" / "away"):
        pictures(place, ("s/a.jpg", "s/b.jpg"))
        table(folder, "image,labels,split\ns/a.jpg,x,train\ns/b.jpg,x,test\n")
        data = opened(root=folder / "far" / "away")
        assert (folder / data.index("train").files[0]).parent.parent == place
        assert data.index("train").keys == ["s/a.jpg"]
        for name in ("s/a.jpg", "s/b.jpg"):
            (place / name).unlink()
    table(folder / "far", "image,labels,split\ns/a.jpg,x,train\ns/b.jpg,x,test\n", "t.csv")
    pictures(folder / "far", ("s/a.jpg", "s/b.jpg"))
    assert opened("t.csv", root=folder / "far").index("train").keys == ["s/a.jpg"]


def test_missing_pictures_are_counted_and_the_first_named(folder):
    pictures(folder, ("a.jpg",))
    table(folder, "image,labels\na.jpg,x\n" + "".join(f"no {i}.jpg,x\n" for i in range(5)))
    (folder / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r"(?s)5 of 6 pictures .*'no 0\.jpg' \(line 3\)") as error:
        open_splits("manifest:photos.csv", {}, folder / "elsewhere", folder / "cache")
    assert " and 2 more" in str(error.value) and "--data" in str(error.value)
    assert "'no 3.jpg'" not in str(error.value)


def test_pictures_that_may_be_missing_stay_in_the_lists(folder):
    here = [f"{i}.jpg" for i in range(12)]
    pictures(folder / "far", [*here[:3], *here[5:]])
    pictures(folder, here[:4])
    rows = [f"{key},{'xy'[i % 2]},{'test' if i > 8 else 'train'}" for i, key in enumerate(here)]
    table(folder, "\n".join(["image,labels,split", *rows]))
    data = opened(root=folder / "far")
    assert labels_of(data) == {key: {"xy"[i % 2]} for i, key in enumerate(here)}
    gone = [f for split in ("train", "test") for f in data.index(split).files if not f.is_file()]
    assert gone == [folder / "far" / "3.jpg", folder / "far" / "4.jpg"], "of the fuller folder"
    (folder / "far" / "3.jpg").write_bytes(b"picture 3.jpg")
    assert "1 of 12 pictures" in str(opened(root=folder / "far").missing())
    (folder / "far" / "4.jpg").write_bytes(b"picture 4.jpg")
    assert opened(root=folder / "far").missing() is None


# ------------------------------------------------------------------------------------------- splits
def many(folder, rows=200):
    pictures(folder, (f"{i:03}.jpg" for i in range(rows)))
    lines = [f"{i:03}.jpg,{'ab'[i % 2]},g{i // 5}" for i in range(rows)]
    table(folder, "\n".join(["image,labels,group", *lines]))


def sides(data):
    return set(data.index("train").keys), set(data.index("test").keys)


def test_a_seeded_split_keeps_groups_and_moves_nothing_when_rows_go(folder):
    many(folder)
    train, test = sides(opened())
    assert 20 <= len(test) <= 60 and not train & test and len(train | test) == 200
    assert not {int(k[:3]) // 5 for k in train} & {int(k[:3]) // 5 for k in test}
    lines = Path("photos.csv").read_text().splitlines()
    Path("photos.csv").write_text("\n".join([lines[0], *reversed(lines[6:])]))
    gone = {f"{i:03}.jpg" for i in range(5)}
    assert sides(opened()) == (train - gone, test - gone)
    assert sides(opened(split_seed=1)) != (train - gone, test - gone)
    assert len(sides(opened(test_share=0.5))[1]) > 60


def test_a_seeded_split_keeps_exact_duplicates_and_their_groups_together(folder):
    many(folder)
    train, test = sides(opened())
    one, other = sorted(train)[0], sorted(test)[0]
    (folder / other).write_bytes((folder / one).read_bytes())
    groups = {int(one[:3]) // 5, int(other[:3]) // 5}
    moved = {f"{i:03}.jpg" for i in range(200) if i // 5 in groups}
    now = sides(opened())
    assert moved <= now[0] or moved <= now[1]
    assert now[0] - moved == train - moved


@pytest.mark.parametrize(
    ("splits", "options", "wanted"),
    [
        ("train val test", {}, ({"a", "b"}, {"c"})),
        ("train val test", {"val": "leave_out"}, ({"a"}, {"c"})),
        ("train train validation", {}, ({"a", "b"}, {"c"})),
    ],
)
def test_what_becomes_of_val(folder, splits, options, wanted):
    pictures(folder, "abc")
    rows = [f"{key},x,{split}" for key, split in zip("abc", splits.split(), strict=True)]
    table(folder, "\n".join(["image,labels,split", *rows]))
    assert sides(opened(**options)) == wanted


def test_what_is_on_both_sides_of_a_given_split_is_said(folder, caplog):
    pictures(folder, "abcd")
    (folder / "d").write_bytes((folder / "a").read_bytes())
    table(
        folder, "image,labels,split,group\na,x;y,train,1\nb,x,train,2\nc,x,test,2\nd,x;y,test,3\n"
    )
    with caplog.at_level(logging.WARNING):
        opened()
        opened()
    assert [r.getMessage().partition(": ")[2] for r in caplog.records][:2] == [
        "1 pictures of the test split are byte for byte in train, too: d",
        "1 pictures of the test split have others of their group in train: c",
    ]


# ------------------------------------------------------------------------------------- wrong tables
HEAD = "image,labels,split\na,x,train\nb,x,test\n"
WRONG = [
    ("t.csv", "", {}, "is empty; its first line must name the columns"),
    ("t.csv", "nr,labels\na,x\n", {}, "no column of pictures .* nr, labels.* image_column"),
    ("t.csv", "image,path,labels\na,b,x\n", {}, "'image' and 'path' could both be meant"),
    ("t.csv", "image\na\n", {}, "no labels: give it a column 'labels' or one column per label"),
    ("t.csv", HEAD + "c,y\n", {}, "line 4: 2 cells, but there are 3 columns"),
    ("t.csv", HEAD + '"c,x,test\n', {}, "line 4: unexpected end of data; correct the quotes"),
    ("t.csv", HEAD + ",x,test\n", {}, "line 4: column 'image' is blank"),
    ("t.csv", HEAD + "c,x,holdout\n", {}, "line 4: split 'holdout' is none of train, val and test"),
    ("t.csv", HEAD + "a,x,test\n", {}, "name the same picture 'a'.* in one split"),
    (
        *("t.csv", HEAD.replace("test", "train"), {}),
        "the test split is empty; .* 2 of train; mark some pictures as test",
    ),
    ("t.csv", "image,labels\na,\nb,\n", {}, "column 'labels' contains no label at all"),
    ("t.csv", 'image,labels\na,"x, y"\n', {}, "label with a comma in it, 'x, y'.*separator"),
    ("t.csv", HEAD, {"group_column": "g"}, "unknown column 'g' in the option group_column"),
    ("t.csv", HEAD, {"label_names": ["y"]}, "line 2: 'x' is none of the labels .* label_names"),
    ("t.csv", "image,x\na,yes\nb,0\n", {}, r"'yes', .*; write 1 \(present\) or 0 \(absent\)"),
    ("t.json", '[{"image": "a", "x": [1], "y": 1}]', {}, r"column 'x' contains \[1\]"),
    ("t.json", r'[{"image": "a", "labels": ["x\ud800"]}]', {}, r"x.ud800 is not UTF-8: JSON"),
    ("t.json", '{"a": 1}', {}, "is no table: expected a list of objects"),
    ("t.json", '[{"image": "a",}]', {}, "line 1: no whole json"),
    ("t.json", '[{"image": "a"}, {"labels": ["x"]}]', {}, "entry 2: column 'image' is blank"),
    ("t.json", '{"images": [], "annotations": null, "categories": []}', {}, "an instances json"),
    ("t.json", '{"images": [{"id": "a"}], "annotations": [], "categories": []}', {}, "give every"),
    ("t.json", '{"categories": {}, "items": [{"id": 1}]}', {}, "no whole json of Datumaro"),
    ("t.json", '{"classes": ["a"], "labels": {"p": 3}}', {}, "no whole json of FiftyOne"),
    (
        *("t.json", '[{"id": 1, "data": {"image": "a"}, "annotations": []}]', {}),
        "no annotated picture",
    ),
    ("t.xml", "<annotations><image/>", {}, "is no whole XML"),
    ("t.xml", "<html/>", {}, "is no XML of images and their tags; export it from CVAT"),
    ("t.txt", "a.jpg 1 0\nb.jpg 1\n", {}, r"line 2: 'b\.jpg 1' is no picture with 1 or 0"),
    ("t.txt", "a.jpg cat\n", {}, "A .txt is a list of such lines, or YOLO's names of labels"),
    ("t.yaml", "names: [a]\ntrain: 3\n", {}, "'3' is no folder of images"),
]


@pytest.mark.parametrize(("name", "text", "options", "message"), WRONG)
def test_a_wrong_manifest_is_named_with_its_remedy(folder, name, text, options, message):
    pictures(folder, "abc")
    table(folder, text, name)
    with pytest.raises(DataError, match=message):
        opened(name, **options)


# -------------------------------------------------------------------------------------- other forms
def test_a_folder_a_label(folder):
    pictures(folder / "set", [f"cat/{i}.jpg" for i in range(10)])
    pictures(folder / "set", [f"dog/deep/{i}.jpg" for i in range(9)])
    (folder / "set" / "dog" / "7.jpg").write_bytes((folder / "set/cat/7.jpg").read_bytes())
    (folder / "set" / "cat" / ".DS_Store").touch()
    (folder / "set" / "cat" / "notes.txt").touch()
    found = labels_of(opened("set"))
    assert found["cat/7.jpg"] == {"cat", "dog"}, "equal bytes, equal names: one image"
    assert found["cat/3.jpg"] == {"cat"} and found["dog/deep/3.jpg"] == {"dog"}, "only equal names"
    assert "dog/7.jpg" not in found and len(found) == 19


def test_a_folder_a_label_below_splits(folder):
    pictures(folder / "set", ("train/cat/1.jpg", "train/dog/1.jpg", "valid/cat/2.jpg"))
    data = opened("set")
    assert sides(data) == ({"train/cat/1.jpg", "train/dog/1.jpg"}, {"valid/cat/2.jpg"})
    assert data.names == ("cat", "dog")
    (folder / "set" / "train" / "dog" / "1.jpg").write_bytes(b"picture train/cat/1.jpg")
    assert labels_of(opened("set"))["train/cat/1.jpg"] == {"cat", "dog"}


def test_a_wrong_folder_is_told(folder):
    (folder / "set" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="set holds no image; it needs one folder a label"):
        opened("set")
    pictures(folder / "set", ("cat/1.jpg", "2.jpg"))
    with pytest.raises(DataError, match=r"set/2\.jpg is in no label's folder"):
        opened("set")
    for name in ("train/cat/1.jpg", "Valid/cat/2.jpg", "samples/3.jpg"):
        pictures(folder / "mixed", [name])
    with pytest.raises(DataError, match=r"splits \(Valid, train\) and beside them samples; move"):
        opened("mixed")
    with pytest.raises(DataError, match="is no table: label_names, separator"):
        opened("set", label_names=["cat"])


BOXES = [("train", "0 .5 .5 .1 .1\n2 .1 .1 .2 .2 .3 .3\n"), ("val", "1 .5 .5 1 1\n"), ("train", "")]
"""The first image has labels 0 and 2, the second 1, the third no label file."""


def yolo(folder, content, boxes=BOXES, layout="{part}/{split}", name="data.yaml"):
    """An image for each split and text of its label file, and what names the labels."""
    for number, (split, lines) in enumerate(boxes):
        image = Path(layout.format(part="images", split=split)) / f"{number}.png"
        pictures(folder, (image.as_posix(),))
        labels = folder / layout.format(part="labels", split=split) / f"{number}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            labels.write_text(lines)
    (folder / name).parent.mkdir(exist_ok=True)
    table(folder, content, name)


LISTED = "names: [a, b, c]\n"
HERE = LISTED + "train: images/train\nval: images/val\n"
MAPPED = "names: {00: a, 1: b, 002: c}\n"


@pytest.mark.parametrize(
    ("layout", "name", "content"),
    [
        ("{part}/{split}", "data.yaml", HERE),
        ("{part}/{split}", "data.yaml", MAPPED + "path: .\ntrain: [images/train]\nval: images/val"),
        ("{split}/{part}", "data.yaml", LISTED + "train: ../train/images\nval: ../val/images\n"),
        ("{split}/{part}", "classes.txt", "a\nb\n\nc\n"),
        ("{split}", "classes.txt", "a\nb\nc"),
    ],
)
def test_yolo_in_its_layouts(folder, layout, name, content):
    yolo(folder / "set", content, layout=layout, name=name)
    for source in ("set", f"set/{name}"):
        data = opened(source)
        assert data.names == ("a", "b", "c")
        found = {Path(key).stem: labels for key, labels in labels_of(data).items()}
        assert found == {"0": {"a", "c"}, "1": {"b"}, "2": set()}
        assert [Path(key).stem for key in data.index("test").keys] == ["1"]
        assert data.card.title == "set"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels/train/0.txt", "3 .5 .5 .1 .1\n", r"0\.txt line 1: '3' is no number of the 3"),
        ("labels/train/77.txt", "0 .5 .5 .1 .1\n", r"1 of 4 pictures .*(?s:.*)'images/train/77"),
        ("data.yaml", "names: {1: a}\n", "has no 'names'"),
        ("data.yaml", "names: &a [*a]\n", "is not YAML: found unconstructable recursive node"),
        ("data.yaml", "[" * 1000, "is not YAML: maximum recursion depth"),
        ("data.yaml", LISTED + "train: images/no\n", "'images/no' is no folder of images"),
    ],
)
def test_wrong_yolo_is_named(folder, file, content, message):
    yolo(folder, HERE)
    assert len(labels_of(opened("data.yaml"))) == 3
    table(folder, content, file)
    with pytest.raises(DataError, match=message):
        open_splits("manifest:data.yaml", {}, None, folder / "cache")


def test_yolo_pictures_that_may_be_missing_have_their_labels_and_split(folder):
    yolo(folder, HERE)
    for name in ("train/0", "val/1"):
        (folder / f"labels/{name}.txt").rename(folder / f"labels/{name}.TXT")
    whole = opened("data.yaml")
    pictures(folder, ("images/train/3.png", "images/val/4.png"))
    (folder / "labels" / "val" / "4.txt").write_text("2 .5 .5 1 1\n")
    (folder / "images" / "train" / "0.png").unlink()
    (folder / "images" / "val" / "4.png").unlink()
    data = opened("data.yaml")
    found = {Path(key).stem: labels for key, labels in labels_of(data).items()}
    assert found == {"0": {"a", "c"}, "1": {"b"}, "2": set(), "3": set(), "4": {"c"}}
    assert [Path(key).stem for key in data.index("test").keys] == ["1", "4"]
    assert str(data.missing()).startswith("data.yaml: 2 of 5 pictures are not under ")
    assert whole.missing() is None and "0" in {Path(k).stem for k in whole.index("train").keys}


def test_yolo_without_any_label_file_is_another_layout(folder):
    pictures(folder, ("pics/a.jpg", "pics/b.jpg"))
    table(folder, "a\nb\n", "classes.txt")
    with pytest.raises(DataError, match=r"none of the 2 images has a label file, such as .*a\.txt"):
        opened("classes.txt")


# ------------------------------------------------------------------------------- a set of one's own
def test_the_set_is_its_own_edition(folder):
    many(folder)
    data = opened()
    found = digest(data.index("train"), data.index("test"), data.names)
    splits = open_splits("manifest:photos.csv", {}, None, folder / "cache")
    assert splits.digest.startswith(f"{found}-")
    assert splits.identity == f"photos-{found[:8]}"
    assert data.card.splits == {}, "its own sizes are no official ones"
    assert Manifest.card.identities == {}, "the class's card is every set's"
    some = open_splits("manifest:photos.csv", {}, None, folder / "cache", Subset(labels=["b"]))
    assert some.identity == f"photos-{found[:8]}-1-labels"


def test_it_keeps_the_contract_of_data_sets(folder):
    many(folder)
    for width, file in enumerate(folder.glob("*.jpg"), start=1):
        Image.new("RGB", (width, 1)).save(file)
    contracts.require(registry.find("dataset", "manifest:photos.csv"))
