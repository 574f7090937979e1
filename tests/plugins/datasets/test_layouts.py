"""Copies of the official data sets as people have them: same labels and files, or the right words.

Each is made of a small copy in the official layout by moving, renaming and rewriting its files.
"""

import pickle
import shutil

import numpy as np
import pytest

from mlbench.data.open import Subset, open_splits
from mlbench.types import DataError
from mlbench_plugins.datasets.apparel import ELEVEN
from mlbench_plugins.datasets.nuswide import NAMES
from mlbench_plugins.datasets.voc import VOC2007
from tests.plugins.datasets import miniature
from tests.plugins.datasets.miniature import NUS_KEYS, nus_labels
from tests.store.made import as_change


# ------------------------------------------------------------------------------ in official layout
def write(file, content):
    """No data set opens a picture, so that any bytes are one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def voc(root, year):
    """VOCdevkit with lists, XML files that agree with them, and pictures."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    (miniature.voc2007 if year == 2007 else miniature.voc2012)(folder)
    main = folder / "ImageSets" / "Main"
    objects = {}
    for list_ in sorted(main.glob("aeroplane_*.txt")):
        part = list_.stem.partition("_")[2]
        keys = [line.split()[0] for line in list_.read_text().splitlines()]
        write(main / f"{part}.txt", "\n".join(keys))
        for name in VOC2007.names:
            for line in (main / f"{name}_{part}.txt").read_text().splitlines():
                key, state = line.split()
                found = objects.setdefault(key, [])
                text = f"<name>{name}</name><difficult>{int(state == '0')}</difficult>"
                if state != "-1" and text not in found:
                    found.append(text)
    for key, found in objects.items():
        items = "".join(f"<object>{text}</object>" for text in found)
        write(folder / "Annotations" / f"{key}.xml", f"<annotation>{items}</annotation>")
        write(folder / "JPEGImages" / f"{key}.jpg", key)


def coco(root, year):
    start = {2014: "COCO_{}2014_{:012}.jpg", 2017: "{1:012}.jpg"}[year]
    for part, ids in (("train", (9, 25, 30)), ("val", (42, 73))):
        names = {i: start.format(part, i) for i in ids}
        owners = [(i, 1 + 17 * (i % 2)) for i in ids]
        file = root / "annotations" / f"instances_{part}{year}.json"
        miniature.instances(file, names, owners, {18: "dog", 1: "person"})
        for name in names.values():
            write(root / f"{part}{year}" / name, name)


def nuswide(root):
    miniature.nus_official(root)
    flickr(root)
    write(root / "single_positive_train.txt", "\n".join(NUS_KEYS[:9]))
    write(root / "single_positive_test.txt", "\n".join(NUS_KEYS[9:15]))


def flickr(root):
    for key in NUS_KEYS:
        write(root / "Flickr" / key, key)


def nus_csv(root):
    """ASL's table: another name for each photo, with its row and a secret."""
    for i, (key, row) in enumerate(zip(NUS_KEYS, nus_labels(), strict=True)):
        photo = key.rpartition("_")[2].removesuffix(".jpg")
        name = f"images/{i * 977}_{photo}_b039de{i:04x}_m.jpg"
        write(root / name, key)
        with (root / "nus_wid_data.csv").open("a") as table:
            labels = [NAMES[c] for c in np.flatnonzero(row)]
            table.write(f'{name},"{labels}",{"val" if i % 4 == 1 else "train"}\n')


def apparel(root):
    """A picture in each folder of the 24, named as the hash of its bytes, and MSRN's label file."""
    content = {}
    for i, words in enumerate((c, g) for c in ELEVEN[:6] for g in ELEVEN[6:]):
        if i not in (2, 7, 13, 18, 22, 29):
            write(root / "_".join(words) / f"{i:040x}.jpg", " ".join(words))
            content[f"{i:040x}.jpg"] = [0 if name in words else -1 for name in ELEVEN]
    (root / "image_label.pkl").write_bytes(pickle.dumps(content))


MAKE = {
    "voc2007": ("voc2007", {}, lambda root: voc(root, 2007)),
    "voc2012": ("voc2012", {}, lambda root: voc(root, 2012)),
    "coco2014": ("coco2014", {}, lambda root: coco(root, 2014)),
    "coco2017": ("coco2017", {}, lambda root: coco(root, 2017)),
    "nuswide": ("nuswide", {}, nuswide),
    "original": ("nuswide", {"protocol": "original"}, nuswide),
    "single": ("nuswide", {"protocol": "single_positive"}, nuswide),
    "hashing": ("nuswide", {"protocol": "hashing"}, nuswide),
    "nus_csv": ("nuswide", {}, nus_csv),
    "vg500": ("vg500", {}, miniature.vg500),
    "apparel": ("apparel", {}, apparel),
    "msrn": ("apparel", {"split": "msrn"}, apparel),
}
"""Kind of copy -> its data set, the options that it needs, and what makes it."""


def made(kind, root, *changes):
    for change in (MAKE[kind][2], *changes):
        change(root)
    return root


def opened(kind, root):
    name, options, _ = MAKE[kind]
    return open_splits(name, options, root, root.parent / "cache", Subset(allow_missing=True))


# ------------------------------------------------------------------------------------ other layouts
@as_change
def moved(root, *moves):
    """Move folders or files, each as ``from > to``; ``.`` is all of the copy."""
    for source, target in (move.split(" > ") for move in moves):
        aside = root.parent / "aside"
        (root / source).rename(aside)
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        aside.rename(root / target)


def into(place, *names):
    """Move several folders or files to a place that is named after each."""
    return moved(*(f"{name} > {place.format(name)}" for name in names))


@as_change
def removed(root, *patterns):
    found = {path for pattern in patterns for path in root.glob(pattern)}
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@as_change
def edited(root, name, edit):
    (root / name).write_text(edit((root / name).read_text()))


LISTS = ("*_train", "*_trainval", "train", "trainval")


@as_change
def apart(root, trainval, test):
    """VOC 2007's two archives in folders of their own."""
    folder = root / "VOCdevkit" / "VOC2007"
    shutil.copytree(folder, root / test, dirs_exist_ok=True)
    removed("ImageSets/Main/*_test.txt", "ImageSets/Main/test.txt", "*/000002.*")(folder)
    removed(*(f"ImageSets/Main/{one}.txt" for one in LISTS), "*/00000[137].*")(root / test)
    if trainval:
        moved(f"VOCdevkit/VOC2007 > {trainval}")(root)


def val_beside_train(root):
    for file in (root / "val2014").iterdir():
        file.rename(root / "images" / file.name)
    (root / "val2014").rmdir()


def flat(root, every=2):
    """Half of the photos in one folder, without those of the concepts."""
    for i, path in enumerate(sorted((root / "Flickr").rglob("*.jpg"))):
        if i % every == 0:
            write(root / "images" / path.name, path.read_text())
            path.unlink()


def one_matrix(root):
    """81 columns a line instead of a file a concept."""
    rows = dict(zip(NUS_KEYS, nus_labels(), strict=True))
    for part in ("Train", "Test"):
        listed = (root / "ImageList" / f"{part}Imagelist.txt").read_text().split()
        lines = [" ".join(map(str, rows[key.replace("\\", "/")])) for key in listed]
        write(root / "Groundtruth" / f"Labels_{part}.txt", "\n".join(lines))
    removed("Groundtruth/*Labels", "ConceptsList")(root)


def as_npy(root):
    """The single-positive benchmark's own files, without the official ones."""
    for part, rows in (("train", slice(0, 9)), ("val", slice(9, 15))):
        np.save(root / f"formatted_{part}_images.npy", np.array(NUS_KEYS[rows]))
        np.save(root / f"formatted_{part}_labels.npy", nus_labels()[rows].astype(float))
    removed("Groundtruth", "ImageList", "single_positive_*")(root)


def official_photos(root):
    """The table with the photos of the official archive, which have other names."""
    shutil.rmtree(root / "images")
    flickr(root)


def one_folder(root):
    for file in sorted(root.glob("*_*/*.jpg")):
        write(root / "apparel" / file.name, file.read_text())
    removed("*_*/")(root)


YEAR14 = ("train2014", "val2014")
VOC = "VOCdevkit/VOC2007/ImageSets/Main"
LAKE = "Groundtruth/TrainTestLabels/Labels_lake_Train.txt"
DEVKIT = "VOCdevkit/VOC2012 > VOC2012_train_val/VOC2012_train_val"
SAME = {
    "voc07-nested": ("voc2007", moved("VOCdevkit > VOCdevkit/VOCdevkit")),
    "voc07-year": ("voc2007", moved("VOCdevkit > x/VOCdevkit2007")),
    "voc07-bare": ("voc2007", moved("VOCdevkit/VOC2007 > a", "VOCdevkit > b", "a > voc2007")),
    "voc07-two-folders": (
        *("voc2007", apart("VOCtrainval_06-Nov-2007/VOC2007", "VOCtest_06-Nov-2007/VOC2007")),
    ),
    "voc07-test-apart": ("voc2007", apart("", "VOCdevkit/VOC2007test")),
    "voc07-lists-missing": ("voc2007", removed(f"{VOC}/*_*.txt")),
    "voc07-both-years": ("voc2007", moved("VOCdevkit > a/b"), MAKE["voc2012"][2]),
    "voc12-archive-name": ("voc2012", moved("VOCdevkit > VOCtrainval_11-May-2012/VOCdevkit")),
    "voc12-kaggle": ("voc2012", moved(DEVKIT)),
    "voc12-torchvision": ("voc2012", moved("VOCdevkit > TrainVal/VOCdevkit")),
    "coco14-images-sub": ("coco2014", into("images/{}", *YEAR14), moved(". > coco2014")),
    "coco14-nested": ("coco2014", into("{0}/{0}", "annotations", *YEAR14)),
    "coco14-named-COCO2014": ("coco2014", moved(". > COCO2014")),
    "coco14-mscoco": ("coco2014", moved(". > data/mscoco")),
    "coco14-one-folder": ("coco2014", moved("train2014 > images"), val_beside_train),
    "coco17-images-sub": ("coco2017", into("images/{}", "train2017", "val2017")),
    "coco17-apart": (
        "coco2017",
        moved("annotations > labels/x/annotations", "train2017 > train", "val2017 > val"),
    ),
    "vg-images-sub": ("vg500", into("images/{}", "VG_100K", "VG_100K_2")),
    "vg-nested": ("vg500", into("VG/{}", "VG_100K", "VG_100K_2")),
    "vg-half-nested": ("vg500", moved("VG_100K_2 > VG_100K_2/VG_100K_2")),
    "vg-lists-apart": (
        "vg500",
        moved("VG_100K > a/VG_100K", "VG_100K_2 > a/b/VG_100K_2"),
        into("lists/{}", "train_list_500.txt", "test_list_500.txt"),
    ),
    "nus-named-NUSWIDE": ("original", moved(". > NUSWIDE")),
    "nus-images-flickr": ("original", moved("Flickr > images/Flickr")),
    "nus-image": ("original", moved("Flickr > image", ". > x/nus_Wide_2009")),
    "nus-mixed": ("original", flat),
    "nus-flat": ("original", lambda root: flat(root, 1)),
    "nus-bare": ("original", moved("Groundtruth/AllLabels > AllLabels", "ImageList > Lists")),
    "nus-labels-at-root": (
        "original",
        moved("Groundtruth/TrainTestLabels > TrainTestLabels"),
        removed("Groundtruth"),
    ),
    "nus-alllabels-only": ("original", removed("Groundtruth/TrainTestLabels")),
    "nus-official-lake": (
        *("original", edited(LAKE, lambda text: text.replace(text[0], "-1130179", 1))),
    ),
    "nus-combined-labels": ("original", one_matrix),
    "nus-spml-npy": ("single", as_npy),
    "nus-csv-data-nuswide": ("nus_csv", moved(". > data/nuswide")),
    "nus-csv-split-elsewhere": (
        *("nus_csv", edited("nus_wid_data.csv", lambda text: text.replace(",val", ",test"))),
    ),
    "nus-csv-m-names-official-photos": ("nus_csv", official_photos),
    "app-apparel-images-dataset": ("apparel", moved(". > a/apparel-images-dataset")),
    "app-msrn": ("msrn", one_folder),
}


@pytest.mark.parametrize("layout", SAME)
def test_a_copy_in_another_layout_has_the_official_labels_and_images(tmp_path, layout):
    kind, *changes = SAME[layout]
    official = opened(kind, made(kind, tmp_path / "official"))
    found = opened(kind, made(kind, tmp_path / "copy", *changes))
    assert (found.identity, found.digest) == (official.identity, official.digest)
    for part in ("train", "test"):
        here, there = (getattr(one, part) for one in (found, official))
        texts = [[file.read_bytes() for file in index.files] for index in (here, there)]
        assert texts[0] == texts[1]
        assert list(here.keys) == list(there.keys) and (here.targets == there.targets).all()


@as_change
def hashed(root, columns):
    """Lists of code for retrieval instead of the official files."""
    rows = list(zip(NUS_KEYS, nus_labels(), strict=True))
    for part, chosen in (("train", rows[:9]), ("test", rows[9:15]), ("database", rows)):
        lines = [
            " ".join([f"./data/nuswide_81/Flickr/{key}", *map(str, row[:columns])])
            for key, row in chosen
        ]
        write(root / f"{part}.txt", "\n".join(lines))
    removed("Groundtruth", "ImageList", "single_positive_*")(root)


def test_lists_of_code_for_retrieval(tmp_path):
    found = opened("hashing", made("hashing", tmp_path / "copy", hashed(81)))
    assert list(found.train.keys) == [f"Flickr/{key}" for key in NUS_KEYS[:9]]
    assert (found.train.targets == nus_labels()[:9]).all()
    assert all(file.is_file() for file in (*found.train.files, *found.test.files))


def halved(root):
    file = root / "annotations" / "instances_val2014.json"
    shutil.copy(file, file.with_name("instances_minival2014.json"))
    file.rename(file.with_name("instances_valminusminival2014.json"))


@as_change
def named(root, *files):
    """Other files instead of the official labels."""
    removed("Groundtruth" if (root / "Groundtruth").exists() else "annotations")(root)
    for file in files:
        write(root / file, "{}")


VG_JSON = "vg_category_500_labels_index.json > vg_category_200_labels_index.json"
OFFICIAL = r"TrainImagelist\.txt is of protocol=original: add --dataset-option protocol=original"
REFUSED = {
    "coco14-karpathy": (
        *("coco2014", (named("dataset_coco.json"),)),
        r"dataset_coco\.json: Karpathy's split for captions, without labels; .*_train2014\.json",
    ),
    "coco14-mlgcn": (
        *("coco2014", (named("data/train_anno.json", "data/category.json"),)),
        r"train_anno\.json: a list that ML-GCN's code makes.*instances_train2014\.json",
    ),
    "coco14-minival": (
        *("coco2014", (halved,)),
        r"_minival2014\.json, .*_valminusminival2014\.json: parts of val2014; .*instances_val2014",
    ),
    "coco17-for-14": (
        *("coco2014", (removed("*"), MAKE["coco2017"][2])),
        "the other release, coco2017",
    ),
    "voc12-for-07": (*("voc2007", (removed("*"), MAKE["voc2012"][2])), "or is of another year"),
    "vg-200": (
        *("vg500", (moved(VG_JSON),)),
        r"200_labels_index\.json: of VG-200, whose labels are others; take vg_category_500",
    ),
    "nus-official-default": ("nuswide", (removed("single_*"),), OFFICIAL),
    "nus-hashnet": ("nuswide", (hashed(81),), "add --dataset-option protocol=hashing"),
    "nus-hashnet-21": (
        *("nuswide", (hashed(21),), r"has 21 labels a line.*--datasets manifest:FILE"),
    ),
    "nus-tc21": (
        *("nuswide", (removed("single_*", "ImageList"), named("database_label_onehot.txt"))),
        r"database_label_onehot\.txt: of a subset for retrieval, with fewer classes than 81",
    ),
    "nus-tags81": (
        *("original", (named("NUS_WID_Tags/Train_Tags81.txt"),)),
        r"Train_Tags81\.txt: tags of users, which are not the ground truth",
    ),
    "nus-two": ("original", (moved(". > a"), lambda root: nuswide(root / "b")), "several copies: "),
    "app-msrn-by-default": ("apparel", (one_folder,), "--dataset-option split=msrn"),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_another_copy_is_recognised_and_what_it_takes_is_said(tmp_path, layout):
    kind, changes, message = REFUSED[layout]
    root = made(kind, tmp_path / "copy", *changes)
    with pytest.raises(DataError, match=f"(?s){message}") as error:
        opened(kind, root)
    assert str(root) in str(error.value)
