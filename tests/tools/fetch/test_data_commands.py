"""``mlbench data``: fetch from a server and a path, verify, count and draw."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbench_tools.fetch import archives
from tests.given import locked, path_of
from tests.plugins.datasets import miniature

PARTS = ("trainval", "test")


# ------------------------------------------------------------------------------------------- fetch
def picture(file):
    with Image.open(file) as opened:
        return opened.convert("RGB")


def jpeg(colour):
    content = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(content, "JPEG")
    return content.getvalue()


@pytest.fixture
def shelf(tmp_path):
    """Two small tars in the official layout: images 1 to 3 and 4 to 6; 2 and 5 are dogs."""
    folder = tmp_path / "shelf"
    parts = {"trainval": ["000001", "000002", "000003"], "test": ["000004", "000005", "000006"]}
    states = {f"dog_{part}": [-1, 1, -1] for part in parts}
    for part, keys in parts.items():
        voc = miniature.voc_lists(folder / part / "VOC2007", {part: keys}, states)
        (voc / "JPEGImages").mkdir()
        for key in keys:
            (voc / "JPEGImages" / f"{key}.jpg").write_bytes(jpeg((int(key) * 20, 0, 0)))
        with tarfile.open(folder / f"mini_{part}.tar", "w") as tar:
            tar.add(folder / part, "VOCdevkit")
        shutil.rmtree(folder / part)
    return folder


def named(place):
    return [f"--archive={place}/mini_{part}.tar" for part in PARTS]


def zipped(folder, archive, *tops):
    with zipfile.ZipFile(archive, "w") as into:
        for file in sorted(f for top in tops for f in (folder / top).rglob("*") if f.is_file()):
            into.write(file, file.relative_to(folder))


@pytest.mark.parametrize(
    ("name", "make", "archives", "by_hand"),
    [
        (
            "nuswide",
            lambda root: (miniature.nus_official(root), miniature.nus_photos(root)),
            {"ImageList.zip": "ImageList", "Groundtruth.zip": "Groundtruth"},
            ("Flickr",),
        ),
        (
            "vg500",
            miniature.vg500,
            {"images.zip": "VG_100K", "images2.zip": "VG_100K_2"},
            ("train_list_500.txt", "test_list_500.txt", "vg_category_500_labels_index.json"),
        ),
    ],
)
def test_the_steps_by_hand_lead_to_the_data(cli, tmp_path, name, make, archives, by_hand):
    official = tmp_path / "official"
    make(official)
    done = cli("data", "fetch", name, "--root", "data")
    assert done.code == 1 and f"mlbench data fetch {name} --root DIR --mirror" in done.out
    assert all(file in done.out for file in (*archives, *by_hand))
    (tmp_path / "shelf").mkdir()
    for archive, top in archives.items():
        zipped(official, tmp_path / "shelf" / archive, top)
    cli("data", "fetch", name, "--root", "data", "--mirror", "shelf").ok()
    for file in by_hand:
        (official / file).rename(tmp_path / "data" / name / file)
    option = ("--option", "protocol=original") if name == "nuswide" else ()
    assert cli("data", "verify", name, "--data", "data", *option, "--json").ok().json["usable"] == 1


@pytest.mark.parametrize("form", ["without folders", "of today"])
def test_archives_of_nuswide_in_other_forms_are_unpacked_and_found(cli, tmp_path, form):
    official = miniature.nus_official(tmp_path / "NUS-WIDE")
    (tmp_path / "shelf").mkdir()
    fetch = ("data", "fetch", "nuswide", "--root", "data", "--mirror", "shelf")
    if form == "of today":
        zipped(tmp_path, "shelf/NUS-WIDE.zip", "NUS-WIDE/Groundtruth", "NUS-WIDE/ConceptsList")
        cli(*fetch).failed("ImageList.zip is missing")
    else:
        zipped(official / "Groundtruth", "shelf/Groundtruth.zip", "AllLabels", "TrainTestLabels")
    zipped(official / "ImageList", "shelf/ImageList.zip", "")
    assert "ImageList.zip is in" in cli(*fetch).ok().err
    miniature.nus_photos(tmp_path / "data")
    done = cli("data", "verify", "nuswide", "--data", "data", "--option", "protocol=original")
    done.ok("18 images listed (officially 161,789), 18 usable")


def test_two_fetches_into_one_folder(cli, shelf, tmp_path, monkeypatch):
    """The second is refused and does not disturb the first."""
    second, asked = [], ("data", "fetch", "voc2007", "--root", "data", *named(shelf))

    def busy(*arguments):
        second.append(cli(*asked))
        return fetch(*arguments)

    fetch = archives.unpack
    monkeypatch.setattr(archives, "unpack", busy)
    cli(*asked).ok("mlbench data verify voc2007")
    assert {one.code for one in second} == {2} and "another `mlbench data fetch`" in second[0].err
    assert len(list(tmp_path.glob("data/VOCdevkit/VOC2007/JPEGImages/*.jpg"))) == 6
    monkeypatch.setattr(archives, "unpack", fetch)
    assert "was there already" in cli(*asked).err


def test_an_archive_of_another_data_set_is_refused(cli, shelf):
    said = ("what was unpacked is not coco", "instances_train2017.json")
    said += ("mini_trainval.tar holds VOCdevkit, now in data/coco",)
    assert not cli("data", "fetch", "coco", "--root", "data", *named(shelf)).failed(*said).out
    half, rest = (("data", "fetch", "voc2007", "--root", "half", one) for one in named(shelf))
    cli(*half).failed("if more archives belong to voc2007, fetch them")
    cli(*rest).ok()


def test_an_unchecked_archive_is_named_with_its_checksum(cli, shelf):
    sums = [hashlib.sha256((shelf / f"mini_{p}.tar").read_bytes()).hexdigest() for p in PARTS]
    done = cli("data", "fetch", "voc2007", "--root", "data", *named(shelf)).err
    assert "Flickr" in done, "where the pictures are from"
    for part, found in zip(PARTS, sums, strict=True):
        assert f"mini_{part}.tar has the SHA-256 {found}, not checked against anything" in done
    checked = [f"{one}#sha256={found}" for one, found in zip(named(shelf), sums, strict=True)]
    done = cli("data", "fetch", "voc2007", "--root", "other", *checked).ok()
    assert "not checked" not in done.err


@pytest.mark.parametrize(
    ("name", "files", "edition"),
    [
        ("voc2007", ("voc2007_mini_trainval.tar", "voc2007_mini_test.tar"), "voc2007-mini"),
        (
            "coco",
            ("coco_mini_annotations.zip", "coco_mini_train2017.zip", "coco_mini_val2017.zip"),
            "coco-mini",
        ),
        ("apparel", ("apparel_mini.zip",), "apparel-mini"),
    ],
)
def test_real_archives_from_nothing_to_a_picture(cli, site, tmp_path, name, files, edition):
    folder = path_of("ARCHIVES", "folder with the archives of the mini sets")
    site.files = {file: (folder / file).read_bytes() for file in files}
    site.cuts = [100_000]
    places = [f"--archive={site.address}/{file}" for file in files]
    cli("data", "fetch", name, "--root", "data", *places).ok()
    assert cli("data", "verify", name, "--data", "data", "--json").ok().json["identity"] == edition
    if name == "coco":  # with the most labels; the same for each that is read
        cli("data", "stats", name, "--data", "data", "--plot", "plot.png").ok()
        cli("data", "show", name, "--data", "data", "--out", "show.png").ok()
        assert picture("plot.png").width > 200 and picture("show.png").width > 800


# --------------------------------------------------------------------------- verify, stats and show
TABLE = """image,split,dog,cat,sofa
a b.jpg,train,1,0,1
\u00fc.jpg,train,1,1,1
c.jpg,train,0,1,0
d.jpg,train,0,0,
e.jpg,test,1,,0
f.jpg,test,0,0,0
"""


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "photos.csv").write_text(TABLE)
    for line in TABLE.splitlines()[1:]:
        (folder / line.partition(",")[0]).write_bytes(jpeg("red"))
    return folder


@pytest.fixture
def data(cli):
    """A command of the group on the photographs."""
    return lambda verb, *flags: cli("data", verb, "manifest:photos/photos.csv", *flags)


def test_every_bad_image_is_named_with_its_fault(data, photos):
    (photos / "a b.jpg").write_text("this is text")
    (photos / "\u00fc.jpg").write_bytes(jpeg("blue")[:-200])
    (photos / "c.jpg").write_bytes(jpeg("blue")[:-200])
    found = data("verify", "--json").failed(code=1).json
    assert {image["key"] for image in found["bad"]} == {"a b.jpg", "\u00fc.jpg", "c.jpg"}
    assert {image["problem"] for image in found["bad"]} == {"corrupt"}
    assert found["splits"]["train"]["corrupt"] == 3 and found["splits"]["test"]["usable"] == 2
    assert found["usable"] == 0.5
    assert "a b.jpg: the file is not an image" in data("verify").failed(code=1).out


def test_missing_images_are_counted_in_each_split(cli, shelf, tmp_path):
    cli("data", "fetch", "voc2007", "--root", "data", *named(shelf))
    (tmp_path / "data/part two").mkdir()
    for key in (1, 4, 6):
        file = tmp_path / f"data/VOCdevkit/VOC2007/JPEGImages/{key:06}.jpg"
        file.rename(tmp_path / "data/part two" / file.name)
    found = cli("data", "verify", "voc2007", "--data", "data", "--json").failed(code=1).json
    assert [found["splits"][split]["missing"] for split in ("train", "test")] == [1, 2]
    assert {image["key"] for image in found["bad"]} == {"000001", "000004", "000006"}
    assert {image["problem"] for image in found["bad"]} == {"missing"}
    assert found["known"] is False and found["identity"].startswith("voc2007-unknown-")
    done = cli("data", "verify", "voc2007", "--data", "data").out
    assert "not a known edition" in done and "3 images listed (officially 5,011)" in done
    assert "JPEGImages (3), the first is 000001.jpg; files of these names are in data/part" in done
    assert done.count(".jpg") == 1


def test_a_picture_under_many_names_is_told(data, photos):
    found = data("verify").out
    assert "6 images with different labels are one picture, perhaps that of a dead link" in found
    (photos / "f.jpg").write_bytes(jpeg("blue"))
    (photos / "e.jpg").write_bytes(jpeg("green"))
    assert "one picture" not in data("verify").out


def test_a_users_own_pictures_have_no_edition_and_may_be_read_only(data, photos, cache):
    before = sorted(photos.parent.rglob("*"))
    with locked(photos.parent, 0o500):
        found = data("verify", "--data", photos.parent, "--json").ok().json
    assert Path(found["written"]).is_relative_to(cache)
    assert found["known"] is None and found["splits"]["train"]["official"] is None
    assert sorted(photos.parent.rglob("*")) == before
    with locked(photos, 0o500), locked(cache / "coverage", 0o500):
        done = data("verify", "--json")
    assert done.code == 0 and "the result cannot be written" in done.err
    assert done.json["written"] is None


def test_labels_are_counted(data, photos):
    found = data("stats", "--json").json
    labels = {label.pop("name"): label for label in found["labels"]}
    counts = {"train": 2, "test": 1, "train_unknown": 0, "test_unknown": 0}
    assert labels["dog"] == {"frequency": "tail", **counts}
    assert labels["cat"]["test_unknown"] == 1 and labels["sofa"]["train_unknown"] == 1
    train = found["splits"]["train"]
    assert train["unlabelled"] == ["d.jpg"]
    assert train["per_image"] == {"0": 1, "1": 1, "2": 1, "3": 1}
    assert train["labels_per_image"] == 6 / 4
    order = list(labels)
    counts = np.array(found["cooccurrence"])
    assert counts[order.index("dog"), order.index("sofa")] == 2
    assert counts[order.index("cat"), order.index("cat")] == 2
    strongest = found["pairs"][0]
    assert {strongest["first"], strongest["second"]} == {"dog", "sofa"}
    assert strongest["images"] == 2 and strongest["jaccard"] == 1
    data("stats").ok("without labels in train: d.jpg")


def test_the_cooccurrence_is_drawn(data, photos):
    data("stats", "--plot", "plot.png").ok()
    plot = np.asarray(picture("plot.png"))[-3 * 28 :, -3 * 28 :][14::28, 14::28]
    certain, never = [8, 48, 107], [255, 255, 255]
    order = [x["name"] for x in data("stats", "--json").json["labels"]]
    dog, cat, sofa = (order.index(name) for name in ("dog", "cat", "sofa"))
    assert plot[dog, dog].tolist() == certain and plot[dog, sofa].tolist() == certain
    assert never > plot[cat, dog].tolist() > certain


def test_samples_are_drawn_with_labels_unknowns_and_faults(data, photos):
    (photos / "c.jpg").write_text("this is text")
    data("show", "--grid", "3x2", "--out", "deep/show.png").ok()
    sheet = picture("deep/show.png")
    colours = {colour for _, colour in sheet.getcolors(1 << 24)}
    green, orange, red = (0x0A, 0x6B, 0x2D), (0xB4, 0x5F, 0x06), (0xB0, 0x00, 0x20)
    assert {green, orange, red} <= colours
    assert sheet.width > sheet.height
    first = sheet.tobytes()
    data("show", "--grid", "3x2", "--out", "again.png")
    assert picture("again.png").tobytes() == first


def test_a_picture_of_an_unknown_format_is_refused(data, photos):
    for command in (("show", "--out"), ("stats", "--plot")):
        data(*command, "g.xyz").failed("g.xyz: unknown file extension")
    assert not Path("g.xyz").exists()


# -------------------------------------------------------------------------------------------- list
def test_list_says_how_to_get_each(cli):
    rows = {row["name"]: row for row in cli("data", "list", "--json").json}
    assert rows["voc2007"]["train"] == 5011 and rows["voc2007"]["had_by"] == "fetch"
    assert rows["apparel"]["had_by"] == "steps by hand"
    cli("data", "list").ok(*rows)


def test_a_page_says_how_a_data_set_was_understood(cli, data, photos):
    with (photos / "photos.csv").open("a") as table:
        table.write("g.jpg,test,1,,0\n")
    found = data("look", "--json").json
    assert found["read"]["pictures"] == "column 'image'" and found["missing"] == 1
    assert len(found["rows"]) == 7 and found["splits"] == {"train": 4, "test": 3}
    done = data("look")
    lines = done.out.splitlines()
    assert lines[0].startswith("warning: ") and done.err == "", "warnings first"
    assert any("1 picture missing: mlbench data verify manifest:" in line for line in lines)
    (photos / "photos.csv").rename(photos / "my photos.csv")
    place = f"manifest:{photos}/my photos.csv"
    done = cli("data", "look", place, "--data", photos, "--option", "split_seed=1")
    done.ok(f"data verify '{place}' --data {photos} --option=split_seed=1")
    assert sum(".jpg" in line for line in lines[-7:]) == 7, "every row"


def test_a_page_of_an_official_set(cli, shelf, tmp_path):
    cli("data", "fetch", "voc2007", "--root", "data", *named(shelf))
    done = cli("data", "look", "voc2007", "--data", "data").ok("set             PASCAL VOC 2007")
    assert "official sizes  train 5,011, test 4,952" in done.out
    assert done.out.startswith("warning: train has ") and "the official split 5,011" in done.out
