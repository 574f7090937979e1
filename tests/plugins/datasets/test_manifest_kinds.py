"""Inputs as people have them: refused where they would make a wrong number, else with a word.

Every remedy that a message prints as a command or an option is typed here as printed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbench.data.open import open_splits
from mlbench.text import named_values
from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_cells import labels_in
from tests.plugins.datasets.test_manifest import folder, labels_of, opened, pictures, sides, yolo

__all__ = ["folder"]

HERE = [f"p{i}.jpg" for i in range(12)]


def made(folder, lines, name="t.csv"):
    """A table, and twelve pictures of different bytes."""
    pictures(folder, HERE)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(lines, encoding="utf-8")


def table(head, *cells):
    """A row a picture; the cells are repeated."""
    rows = (f"{image},{cells[i % len(cells)]}" for i, image in enumerate(HERE))
    return "\n".join([f"image,{head}", *rows])


def refused(source, message, **options):
    with pytest.raises(DataError, match=message) as error:
        opened(source, **options)
    return str(error.value)


def options_in(text):
    """The options that a message names, as a shell would read them."""
    printed = re.findall(r"--option ('(?:[^']|'\"'\"')*'|[^\s;]+)", text)
    return [named_values(shlex.split(option)) for option in printed]


def run_printed(text):
    """Run the command that a message prints; the file that it makes."""
    (command, file), *_ = re.findall(r": ((?:[a-z{][^:]*?|.*) > ((?:'.*?')|\S+))(?: makes|$)", text)
    command = command[re.search(r"\b(sed|tail|grep|python|iconv)\b|\{ echo", command).start() :]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path})
    return shlex.split(file)[0]


def warned(source, **options):
    return "\n".join(opened(source, **options).interpretation().warnings)


# -------------------------------------------------------------- A. unknown taken where absent was
@pytest.mark.parametrize("absent", ["", "-1", "-1.0"])
def test_a_table_without_a_zero_is_refused(folder, absent):
    made(folder, table("x,y", f"1,{absent}", f"{absent},1", f"{absent},{absent}"))
    (remedy,) = options_in(refused("t.csv", r"nowhere 0 \(absent\) in 2 columns"))
    data = opened("t.csv", **remedy)
    assert labels_of(data)["p0.jpg"] == {"x"} and labels_of(data)["p2.jpg"] == set()


def test_null_in_json_is_no_zero(folder):
    content = [{"image": n, "x": 1 if i % 2 else None, "y": True} for i, n in enumerate(HERE)]
    made(folder, json.dumps(content), "t.json")
    (remedy,) = options_in(refused("t.json", r"nowhere 0 \(absent\)"))
    assert labels_of(opened("t.json", **remedy))["p0.jpg"] == {"y"}


def test_some_columns_without_a_zero_and_two_words_for_unknown_are_told(folder):
    made(folder, table("x,y", "1,", "0,1", "0,"))
    assert "without a 0 (absent), where blank is unknown: y" in warned("t.csv", test_share=0.5)
    made(folder, table("x,y", "1,", "0,1", "-1,0"))
    text = warned("t.csv", test_share=0.5)
    assert "blank and -1 are both read as unknown" in text
    (remedy,) = options_in(text)
    assert "both" not in warned("t.csv", test_share=0.5, **remedy)


# ------------------------------------------------------------------------------ B. cells of labels
@pytest.mark.parametrize(
    "cell",
    [
        "a b;c",
        "a b|c",
        "['a b' 'c']",
        "['a b'\n 'c']",
        "['a b', 'c', nan]",
        '["a b", "c", null]',
        "array(['a b', 'c'], dtype=object)",
        "np.array(['a b' 'c'])",
        "Index(['a b', 'c'], dtype='object')",
        "{'a b', 'c'}",
        "frozenset({'a b', 'c'})",
        "('a b', 'c')",
        "{a b,c}",
        "[a b, c]",
        "{'choices': ['a b', 'c']}",
        '{"choices": ["a b", "c"]}',
        '{"a b": 1, "c": 1, "d": 0}',
        '[{"label": "a b"}, {"label": "c"}]',
        "'a b';'c'",
        {"classifications": [{"label": "a b"}, {"label": "c"}]},
        np.array(["a b", "c"]),
        ["a b", "c", None, float("nan"), ""],
    ],
)
def test_a_cell_lists_its_labels_in_any_notation(cell):
    assert sorted(labels_in(cell, "line 2", None)) == ["a b", "c"]


@pytest.mark.parametrize("cell", ["[a b]", "['a', b]", "{'x': 'y'}", [["a"]], [True], "{a: 0.7}"])
def test_a_cell_in_an_unknown_notation_is_refused(cell):
    with pytest.raises(DataError, match=r"line 2: .* is no list of labels; write names with ;"):
        labels_in(cell, "line 2", None)


@pytest.mark.parametrize("separator", [" ", "/", "+", "&", ","])
def test_names_made_of_others_are_refused_and_both_remedies_work(folder, separator):
    cells = ["otter", f"otter{separator}newt", f"tern{separator}newt", "tern", "healthy"]
    made(folder, table("labels", *(f'"{cell}"' for cell in cells)))
    apart, whole = options_in(refused("t.csv", "labels"))
    assert opened("t.csv", **apart).names == ("healthy", "newt", "otter", "tern")
    assert len(opened("t.csv", **whole).names) == 5


def test_names_of_several_words_are_names(folder):
    names = ["dog", "hot dog", "wine glass", "cell phone", "t-shirt", "traffic light"]
    made(folder, table("labels", *names))
    assert opened("t.csv").names == tuple(sorted(names))


@pytest.mark.parametrize("cells", [["[1 0 1]", "[0 1 0]"], ["1 0 1", "0 1 0"], ["[1. 0. 1.]"]])
def test_a_vector_in_a_cell_needs_names(folder, cells):
    made(folder, table("labels", *cells))
    (remedy,) = options_in(refused("t.csv", "3 numbers, 0 or 1, for 3 labels"))
    assert labels_of(opened("t.csv", **remedy))["p0.jpg"] == {"label 0", "label 2"}


def test_numbers_may_be_names_and_half_a_list_may_not(folder):
    made(folder, table("labels", "3;7", "7"))
    (remedy,) = options_in(refused("t.csv", "contains numbers"))
    assert opened("t.csv", **remedy).names == ("3", "7")
    made(folder, table("labels", "['a';'b']", "c"))
    refused("t.csv", "is no list of labels")
    made(folder, table("labels", '"[""a"', "c"))
    refused("t.csv", "is no name; a list needs both of its brackets")


def test_names_in_a_list_may_have_brackets_and_commas(folder):
    names = {"[link](x)", "size [L]", "{a}", "x, y"}
    made(folder, table("labels", '"[""[link](x)"", ""size [L]""]"', '"[""{a}"", ""x, y""]"'))
    assert {*opened("t.csv").names} == names
    made(folder, json.dumps(dict.fromkeys(HERE, sorted(names))), "t.json")
    assert {*opened("t.json").names} == names
    made(folder, json.dumps({name: {"label": "x, y"} for name in HERE}), "t.json")
    refused("t.json", "has a label with a comma in it")


# ------------------------------------------------------------------------- C. columns and names
@pytest.mark.parametrize(
    ("head", "cells", "test"),
    [
        ("is_valid", ("True", "False", "False"), 4),
        ("is_test", ("0", "1", "0"), 4),
        ("IsTrain", ("1", "1", "0"), 4),
        ("subset", ("train", "validation", "train"), 4),
    ],
)
def test_a_column_that_says_the_split_is_no_label(folder, head, cells, test):
    made(folder, table(f"x,y,{head}", *(f"{i % 2},{1 - i % 2},{c}" for i, c in enumerate(cells))))
    data = opened("t.csv")
    assert data.names == ("x", "y") and len(sides(data)[1]) == test
    assert data.interpretation().facts["split"] == f"column {head!r}"
    assert sides(opened("t.csv", split_column=head)) == sides(data)


@pytest.mark.parametrize(
    ("head", "cells", "sizes"),
    [
        ("is_train,is_test", ("1,0", "0,1", "0,0"), (4, 4)),
        ("train,test", ("1,0", "0,1", "1,0"), (8, 4)),
        ("Train,valid,test", ("1,0,0", "0,1,0", "0,0,1"), (4, 4)),
    ],
)
def test_several_columns_that_say_the_split(folder, head, cells, sizes):
    rows = [f"{i % 2},{i // 2},{cell}" for i, cell in enumerate(cells)]
    made(folder, table(f"x,y,{head}", *rows))
    data = opened("t.csv", val="leave_out")
    assert data.names == ("x", "y") and tuple(map(len, sides(data))) == sizes
    both = cells[1].replace("0", "1", 1)
    made(folder, table(f"x,y,{head}", *rows, f"0,1,{both}"))
    refused("t.csv", "line 5: 2 of the columns .*, .* are 1; set one of them, to say the split")
    names = ("x", "y", *head.split(","))
    assert opened("t.csv", label_names=names).names == names


def test_a_label_may_be_called_train(folder):
    made(folder, table("boat,train,is_test", "1,0,1", "0,1,0", "1,1,0"))
    assert opened("t.csv").names == ("boat", "train")


@pytest.mark.parametrize("name", ["value", "is_present"])
def test_states_beside_labels_are_refused_or_read(folder, name):
    states = table(f"label,IsOccluded,{name}", "a,0,1", "b,1,0", "b,0,1").replace("p1.", "p0.")
    made(folder, states)
    text = refused("t.csv", f"column '{name}' holds 0 and 1, .* call the column 'confidence'")
    assert labels_of(opened("t.csv", **options_in(text)[0]))["p0.jpg"] == {"a", "b"}
    made(folder, states.replace(name, "confidence"))
    data = opened("t.csv")
    assert labels_of(data)["p0.jpg"] == {"a"}
    assert "absent where 'confidence' is below 0.5" in data.interpretation().facts["labels"]


def test_a_score_of_the_picture_takes_no_label_away(folder):
    made(folder, table("labels,score", "a;b,0", "b,1"))
    assert labels_of(opened("t.csv"))["p0.jpg"] == {"a", "b"}
    assert "unused columns: score" in warned("t.csv")


def test_a_picture_has_the_group_of_any_of_its_rows(folder):
    rows = table("label,group", "a,", "b,one", "b,two").replace("p1.", "p0.")
    made(folder, rows)
    groups = opened("t.csv", split_seed=1)._groups
    assert groups["p0.jpg"] == groups["p4.jpg"]
    made(folder, rows.replace("p2.", "p0."))
    refused("t.csv", "line 4: 'p0.jpg' is in group 'two', and in 'one' in a row above")


def test_columns_that_are_no_labels_are_left_out_or_told(folder):
    made(folder, table("x,y,notes,occluded", "1,0,,1", "0,1,,0"))
    data = opened("t.csv")
    assert data.names == ("occluded", "x", "y")
    assert data.interpretation().facts["left out"] == "notes (blank throughout)"
    text = "\n".join(data.interpretation().warnings)
    assert "blank throughout are left out: notes" in text
    (remedy,) = options_in(text)
    assert opened("t.csv", **remedy).names == ("x", "y")
    made(folder, table("x,y,width", "1,0,640", "0,1,480"))
    (remedy,) = options_in(refused("t.csv", "column 'width' contains '640'"))
    assert opened("t.csv", **remedy).names == ("x", "y")
    made(folder, table("labels,holdout", "x,True", "y,False"))
    refused("t.csv", "call the column is_test, is_valid or is_train", split_column="holdout")


@pytest.mark.parametrize(
    "pair",
    [
        ("tern", "tern\u200b"),
        ("B\u00e4r", "Ba\u0308r"),
        ("sea otter", "sea  otter"),
        ("sea otter", "sea\u00a0otter"),
        ("sea otter", "sea_otter"),
        ("Tern", "tern"),
        ("\uff34ern", "Tern"),
        ("ter\u00adn", "tern"),
    ],
)
def test_names_that_look_alike_are_told(folder, pair):
    made(folder, table("labels", *pair, "other"))
    assert "count as several" in warned("t.csv")
    for name in pair if "\u0308" not in pair[1] else ("B\u00e4r", "b\u00e4r"):
        pictures(folder / "set", [f"{name}/{i}.jpg" for i in range(5)])
    pictures(folder / "set", [f"other/{i}.jpg" for i in range(5)])
    assert "count as several" in warned("set", test_share=0.5)


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "N/A", "<NA>"])
def test_a_word_for_a_blank_is_told(folder, word):
    made(folder, table("labels", "a;b", word, "b"))
    assert f"{word!r} is taken for the name of a label" in warned("t.csv")


def twelve(folder, yaml, lines="0 .5 .5 .1 .1\n1 .5 .5 .2 .2\n"):
    yolo(folder, yaml, [("train", lines)] * 8 + [("val", lines)] * 4)


SPLIT = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ("{1: 007, 0: NO}", ("NO", "007")),
        ("[yes, no]", ("yes", "no")),
        ("[010, 7]", ("010", "7")),
        ("[null, 1.50]", ("null", "1.50")),
        ("[2024-01-01, ~]", ("2024-01-01", "~")),
    ],
)
def test_a_name_that_yaml_reads_otherwise_is_refused(folder, names, read):
    twelve(folder, f"{SPLIT}names: {names}\n")
    text = refused("data.yaml", "in YAML, no text; put names in quotes")
    (folder / "data.yaml").write_text(f"{SPLIT}{text.rpartition('quotes: ')[2]}\n")
    assert opened("data.yaml").names == read


# ----------------------------------------------------------------------- D. pictures passed over
def test_folders_take_what_is_decoded_and_tell_what_they_pass_over(folder):
    taken = ("a.jfif", "b.avif", "c.jp2", "d.JPG", "e.webp", "f.pbm")
    pictures(folder / "set", [f"cat/{name}" for name in taken])
    pictures(folder / "set", [f"dog/{i}.png" for i in range(6)])
    pictures(folder / "set", ["dog/x.heic", "dog/y.mp4", "dog/notes.txt", "owl/z.heic"])
    Image.new("RGB", (8, 8), "red").save(folder / "real.jpg")
    shutil.copy(folder / "real.jpg", folder / "set" / "dog" / "without")
    shutil.copy(folder / "real.jpg", folder / "set" / "dog" / "photo.2024")
    data = opened("set", test_share=0.5)
    found = {Path(key).name for key in labels_of(data)}
    assert {*taken, "without", "photo.2024"} <= found and len(found) == 14
    text = "\n".join(data.interpretation().warnings)
    assert "2 .heic, 1 .mp4; HEIC needs a decoder: pip install pillow-heif" in text
    assert "folders without a picture are no labels: owl" in text and "txt" not in text
    assert "1 .txt" in data.interpretation().facts["passed over"]


def test_a_folder_of_nothing_but_heic_says_why(folder):
    pictures(folder / "set", ["cat/a.heic", "dog/b.heic"])
    refused("set", "holds no image; .* 2 .heic; HEIC needs a decoder")


def test_yolo_and_tables_in_folders_tell_what_they_pass_over(folder):
    twelve(folder, f"{SPLIT}names: [a, b]\n")
    pictures(folder, ["images/train/x.heic"])
    assert "1 .heic" in warned("data.yaml")


# ------------------------------------------------------------------------------ F. contrary labels
def test_equal_bytes_with_contrary_labels_are_told(folder):
    made(folder, table("labels", "a;b", "a", "b", ""))
    half = {"test_share": 0.5}
    for name in HERE[:5]:
        (folder / name).write_bytes(b"photo unavailable")
    assert "5 pictures are byte for byte the same as others and have 4 different" in warned(
        "t.csv", **half
    )
    for name in HERE[:5]:
        (folder / name).write_bytes(name.encode())
    assert "byte for byte" not in warned("t.csv", **half)


def test_copies_under_another_name_and_links_of_folders_are_told(folder):
    pictures(folder / "set", [f"{label}/{label}{i}.jpg" for label in "ab" for i in range(6)])
    (folder / "set/b/again.jpg").write_bytes((folder / "set/a/a1.jpg").read_bytes())
    assert "2 pictures are byte for byte the same" in warned("set", test_share=0.5)
    (folder / "set/b/again.jpg").unlink()
    (folder / "set/c").symlink_to(folder / "set/a")
    (folder / "set/a/up").symlink_to(folder / "set")
    data = opened("set", test_share=0.5)
    assert labels_of(data)["a/a1.jpg"] == {"a", "c"}
    text = "\n".join(data.interpretation().warnings)
    assert "c is a link to a: its pictures have both labels" in text
    subprocess.run(re.search(r"rm \S+", text)[0], shell=True, check=True)
    assert labels_of(opened("set", test_share=0.5))["a/a1.jpg"] == {"a"}


@pytest.mark.parametrize(
    ("names", "lines"), [("[a, b, c, d, e]", "0 1 0 0 1\n"), ("[a, b]", "1 0\n")]
)
def test_a_row_of_0_and_1_is_no_box(folder, names, lines):
    twelve(folder, f"{SPLIT}names: {names}\n", lines)
    refused("data.yaml", r"0\.txt line 1: .* is no box but a row of 0 and 1")


# ------------------------------------------------------------------------ H. causes and remedies
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image;labels;remark, if any\n", "';' separates its cells"),
        ("t.csv", "image;labels\n", "';' separates its cells"),
        ("t.csv", "image\tlabels\n", r"'\\t' separates its cells"),
        ("t.tsv", "image,labels\n", "',' separates its cells"),
        ("t.csv", "sep=,\nimage,labels\n", "a mark for Excel"),
        ("my t.csv", "", "line 1 looks like a picture, 'p0.jpg', not like names of columns"),
        ("t.csv", "\ufeff", "line 1 looks like a picture"),
    ],
)
def test_a_table_in_another_form_is_made_right_by_the_printed_command(folder, name, text, message):
    mark = ";" if ";" in text else "\t" if "\t" in text else ","
    rest = mark if "remark" in text else ""
    lines = (f"{image}{mark}{'ab'[i % 2]}{rest}" for i, image in enumerate(HERE))
    made(folder, text + "\n".join(lines), name)
    data = opened(run_printed(refused(name, message)))
    assert data.names == ("a", "b") and data.missing() is None


def test_a_table_of_states_or_several_labels_without_a_header(folder):
    made(folder, table("1,0", "1,0", "0,1").partition("\n")[2])
    data = opened(run_printed(refused("t.csv", "line 1 looks like a picture")))
    assert data.names == ("label 0", "label 1")
    made(folder, table("x", "a,b", "b,c").partition("\n")[2])
    data = opened(run_printed(refused("t.csv", "line 1 looks like a picture")))
    assert data.names == ("a", "b", "c")
    made(folder, "TRAIN,gs://bucket/p0.jpg,a,b\nTRAIN,gs://bucket/p1.jpg,\n")
    refused("t.csv", "a picture, 'gs://.*, image, labels, and give every line as many cells: one")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("p{}", True),
        ("P{}.JPG", True),
        ("%70{}.jpg", True),
        ("p{}.png", True),
        ("./p{}.jpg", False),
    ],
)
def test_names_like_those_of_files_find_them(folder, written, told):
    rows = [f"{written.format(i)},{'ab'[i % 2]}" for i in range(12)]
    made(folder, "\n".join(["image,labels", *rows]))
    data = opened("t.csv", test_share=0.5)
    assert data.missing() is None
    assert sorted(f.name for s in ("train", "test") for f in data.index(s).files) == sorted(HERE)
    assert told == (
        "12 names not written as the file is" in "".join(data.interpretation().warnings)
    )


def test_a_backslash_in_a_name_of_a_file_is_no_other_name(folder):
    lines = table("labels", "a", "b").replace("p0.jpg", "back\\slash.jpg")
    made(folder, lines)
    pictures(folder, ["back\\slash.jpg", "0a1b2c3d-marked.jpg"])
    assert "not written as the file is" not in warned("t.csv")
    made(folder, lines.replace("p1.jpg", "marked.jpg"))
    assert "1 name not written as the file is" in warned("t.csv")


def test_a_name_like_two_files_is_missing(folder):
    made(folder, table("labels", "a", "b").replace("p0.jpg", "q"))
    pictures(folder, ["q.jpg", "q.png"])
    assert "1 of 12 pictures are not under" in str(opened("t.csv").missing())
    (folder / "q.png").unlink()
    assert opened("t.csv").missing() is None


@pytest.mark.parametrize("start", ["C:\\my pics\\", "/home/me/x.y/", "https://host/a?b=1/"])
@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_paths_of_another_machine_are_cut_by_the_printed_command(folder, start, name):
    listed = [{"image": start + image, "labels": ["ab"[i % 2]]} for i, image in enumerate(HERE)]
    rows = [f"{row['image']},{row['labels'][0]}" for row in listed]
    made(folder, json.dumps(listed) if "json" in name else "\n".join(["image,labels", *rows]), name)
    text = str(opened(name).missing())
    assert "12 of 12 pictures are not under" in text
    assert opened(run_printed(text.split(":\n")[0])).missing() is None


def test_text_ids_of_coco(folder):
    images = [{"id": i, "file_name": name, "uuid": "x-1"} for i, name in enumerate(HERE)]
    marks = [{"id": f"m{i}", "image_id": str(i), "category_id": i % 2} for i in range(12)]
    kinds = [{"id": i, "name": "ab"[i]} for i in range(2)]
    content = {"images": images, "annotations": marks, "categories": kinds}
    made(folder, json.dumps(content), "c.json")
    text = refused("c.json", r"image_id is '0', a text, while images\[0\].id is 0, a number")
    assert opened(run_printed(text)).names == ("a", "b")
    for image in images:
        image["id"] = str(image["id"])
    made(folder, json.dumps(content), "c.json")
    assert opened(run_printed(refused("c.json", r"images\[0\].id is '0', a text, while"))).names


@pytest.mark.parametrize(
    "parts",
    [
        "train: images/train\n",
        "val: images\n",
        "train: images\nval: images\n",
        "train:\n  - images\nval:\n- images\n",
    ],
)
def test_yolo_with_one_split(folder, parts):
    twelve(folder, f"{parts}names: [a, b]\n")
    text = refused("data.yaml", "leave .* out, so that a hash splits the pictures")
    assert len(labels_of(opened(run_printed(text)))) == 12


def test_an_empty_split_says_what_helps(folder):
    (folder / "t.csv").write_text("image,labels\np1.jpg,a\np2.jpg,b\n")
    pictures(folder, HERE)
    options = options_in(refused("t.csv", "the test split is empty; it was drawn of 2 groups"))
    assert sides(opened("t.csv", **options[0]))[1]
    (folder / "t.csv").write_text("image,labels\np1.jpg,a\n")
    refused("t.csv", "drawn of 1 group of pictures; add pictures")
    pictures(folder / "set", ["train/a/1.jpg", "train/b/2.jpg"])
    refused("set", r"names 2 of train; mark some pictures as test \(the folders above the labels")


def test_a_list_of_pictures_is_no_file_of_names(folder):
    rows = "\n".join(f"./{image}\t{i % 2},{1 - i % 2}" for i, image in enumerate(HERE))
    made(folder, rows, "train_list.txt")
    data = opened("train_list.txt")
    assert data.names == ("label 0", "label 1") and labels_of(data)["p0.jpg"] == {"label 1"}
    assert "the list names no labels" in "".join(data.interpretation().warnings)
    assert opened("train_list.txt", label_names=["x", "y"]).names == ("x", "y")


def test_the_core_hands_on_how_a_manifest_was_read(folder):
    made(folder, table("x,y", "1,0", "0,1"))
    splits = open_splits("manifest:t.csv", {}, None, folder / "cache")
    assert splits.interpretation.facts["labels"] == "2 columns, one a label: x, y"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "image,labels\n.,a\np1.jpg,b\np2.jpg,b\np3.jpg,a\n"),
        ("x.csv", "image,labels\np1.jpg,frozenset()\np2.jpg,b\n"),
        ("x.json", '{"p1.jpg": {"a": 1, "b": 0}, "p2.jpg": "b"}'),
        ("x.csv", "image,is_valid,is_test,b\np1.jpg,1,0,1\np2.jpg,0,1,0\np3.jpg,0,0,0\n"),
        ("x.csv", "image,label,confidence\np1.jpg,b,0.9\np2.jpg,b,0\n"),
        pytest.param("x.csv", f"image,labels,v\np1.jpg,b,{'9' * 140_000}\np2.jpg,a,9\n", id="long"),
    ],
)
def test_odd_content_is_read(folder, name, content):
    made(folder, content, name)
    assert "b" in opened(name, test_share=0.5).names
