"""The official lists of the full data sets, where the machine has them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from mlbench.types import Index
from tests.given import path_of


@pytest.fixture(scope="session")
def lists():
    """The folder of the lists."""
    return path_of("LISTS", "folder with the official lists")


@pytest.fixture
def official_voc(lists, tmp_path):
    """A folder of VOC 2007 with all its lists and no image."""
    main = tmp_path / "official" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    with zipfile.ZipFile(lists / "voc2007_imagesets_main.zip") as archive:
        for member in archive.namelist():
            (main / Path(member).name).write_bytes(archive.read(member))
    return tmp_path / "official"


@pytest.fixture(scope="session")
def official_coco(lists):
    """(train, test) of COCO 2017, images without labels left out."""
    return tuple(_listed(lists / f"tagclip_coco2017_{part}.txt") for part in ("train", "val"))


def _listed(file):
    keys, rows = [], []
    for line in file.read_text().splitlines():
        image, *present = map(int, line.split())
        keys.append(str(image))
        rows.append(np.zeros(80, np.int8))
        rows[-1][present] = 1
    return Index([Path(key) for key in keys], keys, np.stack(rows))
