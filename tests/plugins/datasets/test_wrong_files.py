"""Files of official data sets that are missing, malformed or contradict each other are named."""

import shutil

import pytest

from mlbench.types import DataError
from tests.plugins.datasets.miniature import NUS_KEYS
from tests.plugins.datasets.test_layouts import VOC, made, opened

DOG = f"{VOC}/dog_trainval.txt"
VG_JSON = "vg_category_500_labels_index.json"
VG_TRAIN, VG_TEST = "train_list_500.txt", "test_list_500.txt"
ALL = "Groundtruth/AllLabels/Labels_zebra.txt"
ZEBRA = "Groundtruth/TrainTestLabels/Labels_zebra_Train.txt"
NUS_TRAIN, NUS_TEST = (f"ImageList/{part}Imagelist.txt" for part in ("Train", "Test"))
NUS_TABLE, SINGLE = "nus_wid_data.csv", "single_positive_test.txt"
COCO_TRAIN, COCO_VAL = (f"annotations/instances_{part}2017.json" for part in ("train", "val"))


def fewer(lines):
    lines.pop()


def added(text):
    return lambda lines: lines.append(text)


def line(number, text):
    return lambda lines: lines.__setitem__(number, text)


def row(text):
    return lambda lines: lines.insert(3, text)


def photo(label, split):
    return row(f"a.jpg,\"['{label}']\",{split}")


def repeated(at):
    return lambda lines: lines.__setitem__(at + 1, lines[at])


WRONG = [
    ("voc2007", DOG, "000003 -1\n000001 2\n", "line 2: '000001 2' is not .* unpack VOC 2007"),
    ("voc2007", DOG, "000003 -1\n000007 1\n000001 0\n", "does not list the images of aero"),
    ("voc2007", DOG, "000003 -1\n000003 1\n", "line 2: image 000003 .* twice"),
    ("voc2007", f"{VOC}/tvmonitor_test.txt", None, "is missing; unpack VOC 2007"),
    ("vg500", VG_JSON, '{"a.jpg": [1]}', "has no labels of the listed image '2390000.jpg'"),
    ("vg500", VG_JSON, '{"2390000.jpg": [3, 500]}', "not a list of indices 0 to 499"),
    ("vg500", VG_JSON, "[1, 2]", "is not a JSON object of file name"),
    ("vg500", VG_TRAIN, added("2390000.jpg"), "image 2390000.jpg is listed twice"),
    ("vg500", VG_TEST, None, "not found under (?s:.*)--data DIR"),
    ("original", ALL, None, "is missing; unpack"),
    ("original", ALL, fewer, r"has 27 lines, but .*Imagelist\.txt lists 28"),
    ("original", ALL, line(3, "2"), "line 4: '2' is neither 0 nor 1; unpack"),
    ("original", ZEBRA, fewer, r"has 17 lines, but .*TrainImagelist\.txt lists 18"),
    ("original", ZEBRA, line(3, "2"), "line 4: '2' .*; put AllLabels of Grou"),
    ("original", NUS_TRAIN, repeated(1), "line 3: image .* twice"),
    ("single", SINGLE, added("zoo/9.jpg"), r"line 7: 'zoo/9.jpg' is not in .*Imagelist\.txt"),
    ("nus_csv", NUS_TABLE, row("0,a.jpg,\"['sky']\",train"), "line 4 has 4 columns, not path, lab"),
    ("nus_csv", NUS_TABLE, photo("sky", "test"), "line 4: 'test' is neither 'train' nor 'v"),
    ("nus_csv", NUS_TABLE, photo("sky", "dev"), "line 4: 'dev' is neither 'train' nor 'val"),
    ("nus_csv", NUS_TABLE, photo("moose", "train"), "line 4: 'moose' is none of the 81 con"),
    ("nus_csv", NUS_TABLE, row("a.jpg,\"[print('sky')]\",train"), "line 4: .* is no list such as"),
]


@pytest.mark.parametrize(("kind", "name", "change", "message"), WRONG)
def test_a_wrong_file_is_named_with_its_line(tmp_path, kind, name, change, message):
    file = made(kind, tmp_path / "copy") / name
    if name == ZEBRA:  # which is read without the labels of all images alone
        shutil.rmtree(tmp_path / "copy/Groundtruth/AllLabels")
    if callable(change):
        lines = file.read_text().splitlines()
        change(lines)
        change = "".join(f"{one}\n" for one in lines)
    if change is None:
        file.unlink()
    else:
        file.write_text(change)
    with pytest.raises(DataError, match=message) as error:
        opened(kind, tmp_path / "copy")
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "source", "target", "message"),
    [
        ("vg500", VG_TEST, VG_TRAIN, "8 images are in both splits"),
        ("coco2017", COCO_TRAIN, COCO_VAL, "3 images are in both .*, the first is '9'; take"),
        ("original", NUS_TEST, NUS_TRAIN, f"10 images are .*, the first is '{NUS_KEYS[1]}'"),
    ],
)
def test_splits_that_share_images_are_refused(tmp_path, kind, source, target, message):
    root = made(kind, tmp_path / "copy")
    shutil.copy(root / source, root / target)
    with pytest.raises(DataError, match=message):
        opened(kind, root)
