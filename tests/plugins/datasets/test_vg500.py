import json
from pathlib import Path

import numpy as np
import pytest

from mlbench.types import DataError
from mlbench_plugins.datasets.vg500 import VG500
from tests.plugins.datasets import miniature
from tests.plugins.datasets.miniature import VG_TEST, VG_TRAIN

LABELS = "vg_category_500_labels_index.json"


@pytest.fixture
def vg(tmp_path):
    return miniature.vg500(tmp_path / "VG")


def opened(root, **options):
    return VG500(root, Path("nowhere"), **options)


def test_lists_labels_and_files(vg):
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


def test_labels_may_be_named(vg):
    (vg / "names.txt").write_text("".join(f"thing {i}\n" for i in range(500)))
    assert opened(vg, names_file="names.txt").names[499] == "thing 499"
    (vg / "names.txt").write_text("thing\n" * 500)
    with pytest.raises(DataError, match="1 different names in 500 lines"):
        opened(vg, names_file="names.txt")


def test_missing_folders_are_named(vg, tmp_path):
    with pytest.raises(DataError, match=r"VG500 (?s:.*)not found under"):
        opened(vg / "VG_100K")
    for name in ("VG_100K", "VG_100K_2"):
        (vg / name).rename(tmp_path / name)
    with pytest.raises(DataError, match=r"none of the 20 listed images .*unpack images\.zip and"):
        opened(vg).index("train")
