"""Pictures and folders of a data set that are missing, damaged or not to be read."""

import pytest

from mlbench.boards.rows import tables
from tests.cli.manifests import PICTURES, TINY, TRAIN, draw, folders, instances, table, yolo
from tests.given import locked
from tests.plugins.datasets.miniature import vg500, voc2007
from tests.plugins.datasets.test_coco import write as write_coco

ALLOW = ("--set", "allow_missing=true")


@pytest.mark.parametrize("form", [table, instances, yolo])
def test_a_manifest_runs_without_missing_pictures_if_asked_to(cli, here, tmp_path, form, store):
    source = form(tmp_path / "photos")
    run = ("run", *TINY, "--datasets", f"manifest:{source}")
    for number in (4, 6):
        (file,) = source.parent.rglob(f"{number:02}.png")
        file.unlink()
    cli(*run).failed("2 of 30 pictures")
    assert not store.records()
    cli(*run, *ALLOW).ok()
    (record,) = store.records()
    splits = record.coverage.splits
    assert sum(part.missing for part in splits.values()) == 2 and record.coverage.known
    assert sum(part.images for part in splits.values()) == PICTURES
    assert record.train_images + record.test_images == PICTURES - 2
    if form is not instances:  # whose split is a hash of the keys
        assert (splits["train"].missing, splits["test"].missing) == (1, 1)
    assert record.spec.incomplete and not record.complete
    assert f"-incomplete-{record.spec.data}" in record.identity
    assert len(tables([record])) == 1 and not tables([record])[0].known
    assert "Nothing is missing" in cli(*run, *ALLOW).out


def test_an_incomplete_split_has_a_board_of_its_own(cli, here, tmp_path, store):
    source = table(tmp_path / "photos")
    run = ["run", *TINY, "--datasets", f"manifest:{source}"]
    ended = cli(*run, *ALLOW).ok()
    assert f"mlbenchdatalookmanifest:{source}" in "".join((ended.out + ended.err).split())
    assert "Nothing is missing" in cli(*run).out, "complete data needs no flag"
    assert "gap" in cli("leaderboard", "--dataset", "photos").out
    (tmp_path / "photos" / "images" / "04.png").write_text("this is text")
    (tmp_path / "photos" / "images" / "06.png").write_text("")
    cli(*run, "--seeds", 1).failed("04.png", "--set allow_missing=true", code=1)
    cli(*run, "--seeds", 1, *ALLOW).ok()
    whole, part = sorted(store.records(), key=lambda record: record.spec.seed)
    assert whole.complete and not part.complete
    assert tables([whole])[0].known and whole.identity == f"photos-{whole.spec.data[:8]}"
    assert part.identity == f"{whole.identity}-incomplete-{part.spec.data}"
    assert part.spec.incomplete and part.spec.data != whole.spec.data
    assert (part.train_images, part.test_images) == (TRAIN - 1, PICTURES - TRAIN - 1)
    train, test = part.coverage.splits["train"], part.coverage.splits["test"]
    assert (train.images, train.usable, train.corrupt) == (TRAIN, TRAIN - 1, 1)
    assert (test.images, test.usable) == (10, 9) and not part.coverage.complete
    assert len(tables([whole, part])) == 2


def test_verify_names_missing_pictures_and_a_manifest_without_any_is_refused(cli, here, tmp_path):
    source = table(tmp_path / "photos")
    (source.parent / "images" / "05.png").unlink()
    ended = cli("data", "verify", f"manifest:{source}", "--json").failed(code=1)
    assert [(one["key"], one["problem"]) for one in ended.json["bad"]] == [("05.png", "missing")]
    cli("data", "stats", f"manifest:{source}").ok()
    for file in source.parent.rglob("*.png"):
        file.unlink()
    ended = cli("run", *TINY, "--datasets", f"manifest:{source}", *ALLOW)
    ended.failed("none of the images of its train split can be used")


def test_a_matrix_with_missing_runs_opens_its_data_once(cli, tmp_path):
    source = table(tmp_path / "photos")
    source.write_text(source.read_text().replace("00.png,a,", "00.png,a;rare,"))
    told = cli("run", *TINY, "--datasets", f"manifest:{source}", "--dry-run")
    assert told.out.count("would run") == 1
    assert told.err.count("without a positive in train: rare") == 1


def test_a_rehearsal_that_meets_a_damaged_picture_says_how_to_go_on_without_it(cli, tmp_path):
    source = table(tmp_path / "photos")
    (source.parent / "images" / "01.png").write_bytes(b"")
    run = ("run", *TINY, "--image-size", 40, "--datasets", f"manifest:{source}")
    told = " ".join(cli(*run, "--dry-run").out.split())
    assert "01.png: the file is empty" in told and "--set allow_missing=true" in told


@pytest.mark.parametrize(
    ("form", "lock"),
    [
        (table, "photos.csv"),
        (table, "images"),
        (instances, "coco.json"),
        (folders, "train/a"),
        (yolo, "."),
        (yolo, "labels/train/01.txt"),
        (yolo, "images/test"),
    ],
)
def test_an_unreadable_manifest_is_named_with_the_remedy(cli, tmp_path, form, lock):
    source = form(tmp_path / "set")
    cli("data", "stats", f"manifest:{source}").ok()
    with locked(tmp_path / "set" / lock):
        ended = cli("data", "stats", f"manifest:{source}")
    message = ended.err.replace("\n", " ")
    assert ended.code == 2 and "Permission denied" in message and "give" in message, message
    assert message.count(str(tmp_path / "set" / lock)) == 1 or lock == "."


@pytest.mark.parametrize(
    ("name", "make", "lock"),
    [
        ("voc2007", voc2007, "ImageSets"),
        ("vg500", vg500, "VG_100K"),
        ("coco", write_coco, "annotations/instances_val2017.json"),
        ("apparel", lambda root: draw(0, root / "red_shoes"), "red_shoes"),
    ],
)
@pytest.mark.parametrize("command", ["stats", "look", "verify"])
def test_an_unreadable_benchmark_is_named_once(cli, tmp_path, command, name, make, lock):
    make(tmp_path / "set")
    with locked(tmp_path / "set" / lock):
        ended = cli("data", command, name, "--data", tmp_path / "set")
    message = ended.err.replace("\n", " ")
    assert ended.code == 2, message
    assert "Permission denied" in message and "give this user the right to read" in message, message
    assert message.count(str(tmp_path / "set" / lock)) == 1 and "unpack" not in message
