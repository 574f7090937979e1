from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlbench.types import DataError
from mlbench_plugins.datasets.vg500 import VG500
from tests.plugins.datasets import miniature
from tests.plugins.datasets.miniature import VG_TEST, VG_TRAIN

LABELS = "vg_category_500_labels_index.json"


@pytest.fixture
def vg(tmp_path: Path) -> Path:
    return miniature.vg500(tmp_path / "VG")


def opened(root: Path | None, **options: Any) -> VG500:
    return VG500(root, Path("nowhere"), **options)


def test_lists_labels_and_files(vg: Path) -> None:
    data = opened(vg)
    train, test = data.index("train"), data.index("test")
    assert (len(train), len(test)) == (VG_TRAIN, VG_TEST)
    assert list(train.keys) == (vg / "train_list_500.txt").read_text().split()
    labels = json.loads((vg / LABELS).read_text())
    for file, target, key in [*train, *test]:
        assert np.flatnonzero(target).tolist() == labels[key]
        assert target.dtype == np.int8
        assert target.shape == (500,)
        assert file.is_file()
    assert {file.parent.name for file in train.files} == {"VG_100K", "VG_100K_2"}
    assert len(set(data.names)) == 500


def test_labels_may_be_named(vg: Path) -> None:
    (vg / "names.txt").write_text("".join(f"thing {i}\n" for i in range(500)))
    assert opened(vg, names_file="names.txt").names[499] == "thing 499"
    (vg / "names.txt").write_text("thing\n" * 500)
    with pytest.raises(DataError, match="1 different names in 500 lines"):
        opened(vg, names_file="names.txt")


# ------------------------------------------------------------------------------------ wrong input
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.jpg": [1]}, "has no labels of the listed image '2390000.jpg'"),
        ({"2390000.jpg": [3, 500]}, "not a list of indices 0 to 499"),
        ([1, 2], "is not a JSON object of file name"),
    ],
)
def test_wrong_labels_are_named(vg: Path, content: Any, message: str) -> None:
    (vg / LABELS).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        opened(vg).index("train")
    assert str(vg / LABELS) in str(error.value)


def test_wrong_lists_are_named(vg: Path) -> None:
    train, test = (vg / f"{part}_list_500.txt" for part in ("train", "test"))
    names = train.read_text()
    first = names.split()[0]
    for content, message in (
        (names + first + "\n", f"image {first} is listed twice"),
        (test.read_text(), "8 images are in both splits"),
    ):
        train.write_text(content)
        with pytest.raises(DataError, match=message):
            opened(vg).index("test")
    train.write_text(names)
    test.unlink()
    with pytest.raises(DataError, match=r"test_list_500\.txt not found under (?s:.*)--data DIR"):
        opened(vg).index("train")


def test_missing_folders_are_named(vg: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"VG500 (?s:.*)not found under"):
        opened(vg / "VG_100K")
    for name in ("VG_100K", "VG_100K_2"):
        (vg / name).rename(tmp_path / name)
    with pytest.raises(DataError, match=r"none of the 20 listed images .*unpack images\.zip and"):
        opened(vg).index("train")
