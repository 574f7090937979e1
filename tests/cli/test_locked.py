"""Files and folders without read permission: the message names the path and the remedy."""

import pytest

from tests.cli.manifests import draw, folders, instances, table, yolo
from tests.permissions import locked
from tests.plugins.datasets.miniature import vg500, voc2007
from tests.plugins.datasets.test_coco import write as write_coco


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
