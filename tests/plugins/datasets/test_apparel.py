import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlbench.data.open import Subset, open_splits
from mlbench.types import DataError, SplitCard
from mlbench_plugins.datasets import duplicates
from mlbench_plugins.datasets.apparel import COLOURS, ELEVEN, GARMENTS, Apparel

RED, BLUE = ("red", "shoes"), ("blue", "dress")


def write(root, **folders):
    """Folders with so many files of different bytes; apparel opens no picture."""
    for name, files in {"blue_dress": 20, **folders}.items():
        (root / name).mkdir(parents=True)
        for i in range(files):
            (root / name / f"{i:03}.jpg").write_bytes(f"{name} {i:03}".encode())
    return root


def opened(root, cache, **options):
    return Apparel(root, cache, **options)


def keys(data):
    return set(data.index("train").keys), set(data.index("test").keys)


def test_a_folder_says_both_labels(tmp_path):
    data = opened(write(tmp_path / "a", red_shoes=20), tmp_path / "c")
    assert data.names == ELEVEN, "labels that no folder has keep their column"
    for split in ("train", "test"):
        for file, target, key in data.index(split):
            assert {ELEVEN[c] for c in np.flatnonzero(target)} == set(file.parent.name.split("_"))
            assert key == f"{file.parent.name}/{file.name}"


def test_the_set_with_jeans_has_the_labels_found(tmp_path):
    data = opened(write(tmp_path / "a", black_jeans=20), tmp_path / "c")
    assert data.names == ("black", "blue", "dress", "jeans")


def test_the_fixed_split_moves_no_image_when_another_goes(tmp_path):
    root = write(tmp_path / "a", red_shoes=40)
    train, test = keys(opened(root, tmp_path / "c"))
    assert min(len(train), len(test)) > 15
    gone = sorted(train)[0]
    (root / gone).unlink()
    assert keys(opened(root, tmp_path / "c")) == (train - {gone}, test)
    folds = [Subset(holdout=0.5, fold=i) for i in (0, 1)]
    held = [open_splits("apparel", {}, root, tmp_path, fold).test for fold in folds]
    assert min(map(len, held)) > 5, "other hashes than those that drew the split"


def test_exact_duplicates_are_on_one_side_as_their_smallest_key_says(tmp_path):
    root = write(tmp_path / "a", blue_dress=60)
    train, test = keys(opened(root, tmp_path / "c"))
    for kept, other in ((sorted(train)[0], sorted(test)[-1]), (sorted(test)[0], sorted(train)[-1])):
        before = (root / other).read_bytes()
        shutil.copy(root / kept, root / other)
        now = keys(opened(root, tmp_path / "c"))
        assert any({kept, other} <= side for side in now)
        assert now[kept in test] >= {kept, other}
        (root / other).write_bytes(before)


def test_a_picture_in_two_folders_is_one_sample_with_the_labels_of_both(tmp_path, caplog):
    root = write(tmp_path / "a", red_shoes=20, blue_shoes=20)
    for key in ("red_shoes/003.jpg", "red_shoes/004.jpg", "blue_shoes/009.jpg"):
        (root / key).write_bytes((root / "blue_shoes" / "005.jpg").read_bytes())
    data = opened(root, tmp_path / "c")
    train, test = data.index("train"), data.index("test")
    assert len(train) + len(test) == 57
    rows = dict(zip([*train.keys, *test.keys], [*train.targets, *test.targets], strict=True))
    found = {data.names[c] for c in np.flatnonzero(rows["blue_shoes/005.jpg"])}
    assert found == {"red", "blue", "shoes"}
    assert "1 picture in several folders" in caplog.text
    assert "blue_shoes/005.jpg, also in blue_shoes, red_shoes" in caplog.text


def test_the_larger_set_is_recognised_and_a_copy_with_one_more_counted(
    tmp_path, caplog, monkeypatch
):
    data = opened(write(tmp_path / "a", silver_skirt=20, black_suit=20), tmp_path / "c")
    assert data.names == ("black", "blue", "silver", "dress", "skirt", "suit")
    assert "the larger set that kaiska/apparel-dataset is today (37 folders" in caplog.text
    folders = [f"{c}_{g}" for c in COLOURS for g in GARMENTS][:24]
    whole = write(tmp_path / "b", **dict.fromkeys(folders, 1))
    sizes = {"train": SplitCard(images=11), "test": SplitCard(images=12)}
    monkeypatch.setattr(Apparel, "card", Apparel.card.model_copy(update={"splits": sizes}))
    opened(whole, tmp_path / "c")
    assert "24 images in 24 folders, +1 beside the 23 of MSRN's list" in caplog.text


def test_files_are_read_once_and_only_where_sizes_agree(tmp_path, monkeypatch):
    root = write(tmp_path / "a")
    (root / "blue_dress" / "alone.jpg").write_bytes(b"of another size than all others")
    read = []
    digest_of = duplicates.sha256
    monkeypatch.setattr(duplicates, "sha256", lambda f: read.append(f.name) or digest_of(f))
    first = keys(opened(root, tmp_path / "c"))
    assert len(read) == 20 and "alone.jpg" not in read
    assert keys(opened(root, tmp_path / "c")) == first and len(read) == 20
    (root / "blue_dress" / "003.jpg").write_bytes(b"changed 003 :)")
    opened(root, tmp_path / "c")
    assert read[20:] == ["003.jpg"]
    for memory in (tmp_path / "c").iterdir():
        memory.write_text("{damaged")
    opened(root, tmp_path / "c")
    assert len(read) == 41


def labels_file(folder, content):
    file = folder / "apparel_kaggle_labels.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_msrn_shuffles_the_items_of_its_file_with_seed_10(tmp_path):
    root = write(tmp_path / "a" / "apparel", red_shoes=2)
    content = {f"{i}.jpg": ["red", "shoes"] if i % 3 else ["blue", "dress"] for i in range(9)}
    file = labels_file(tmp_path / "a", content)
    data = opened(tmp_path / "a", tmp_path / "c", split="msrn")
    random.seed(10)
    items = list(content.items())
    random.shuffle(items)
    index = data.index("train")
    assert set(index.keys) == {f"{a}_{b}/{name}" for name, (a, b) in items[:4]}
    assert len(data.index("test")) == 5
    assert index.files[0] == root / index.keys[0]
    elsewhere = file.rename(tmp_path / "other.json")
    again = opened(tmp_path / "a", tmp_path / "c", split="msrn", labels_file=str(elsewhere))
    assert keys(again) == keys(data)
    with pytest.raises(DataError, match=r"apparel_kaggle_labels\.json.* is missing.*labels_file"):
        opened(tmp_path / "a", tmp_path / "c", split="msrn")


def test_msrns_own_label_file_is_read_and_runs_nothing(tmp_path):
    root = write(tmp_path / "a", red_shoes=2)
    row = {words: [0 if name in words else -1 for name in ELEVEN] for words in (RED, BLUE)}
    content = {f"{i:03}.jpg": row[RED if i < 2 else BLUE] for i in range(9)}
    file = root / "image_label.pkl"
    file.write_bytes(pickle.dumps(content, protocol=2))
    found = opened(root, tmp_path / "c", split="msrn")
    file.rename(tmp_path / "kept.pkl")
    words = {name: list(RED if i < 2 else BLUE) for i, name in enumerate(content)}
    labels_file(root, words)
    same = opened(root, tmp_path / "c", split="msrn")
    assert keys(found) == keys(same)
    assert (found.index("train").targets == same.index("train").targets).all()
    for bad, message in (
        ({"a.jpg": [1] * 11}, "not eleven labels of 0"),
        ({"a.jpg": [0, 0, 0, *[-1] * 8]}, "'black_blue_brown': no <colour>_<garment>"),
        (Path("x"), r"asks for pathlib\S*\.PosixPath"),
        ([], "no pickle of file name"),
    ):
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(bad))
        with pytest.raises(DataError, match=message):
            opened(root, tmp_path / "c", split="msrn", labels_file=str(tmp_path / "bad.pkl"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a.jpg": [', "is not valid JSON"),
        ([], "is not a JSON object"),
        ({"a.jpg": ["dress", "red"]}, r"'a\.jpg': 'dress_red': no <colour>_<garment>"),
    ],
)
def test_a_wrong_label_file_is_named(tmp_path, content, message):
    root = write(tmp_path / "a")
    file = labels_file(root, content)
    with pytest.raises(DataError, match=message) as error:
        opened(root, tmp_path / "c", split="msrn")
    assert str(file) in str(error.value)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"(?s)not found under .*black_dress or the like"):
        opened(tmp_path, tmp_path / "c")
    with pytest.raises(DataError, match="has no split='random'; choose from fixed, msrn"):
        opened(write(tmp_path / "a"), tmp_path / "c", split="random")
    root = write(tmp_path / "b", blue_coat=1)
    with pytest.raises(DataError, match="'blue_coat': no <colour>_<garment>") as error:
        opened(root, tmp_path / "c")
    assert str(root / "blue_coat") in str(error.value)


def test_apparel_mini_is_counted_by_its_folders(real_data, tmp_path):
    data = opened(real_data / "apparel-mini", tmp_path)
    train, test = data.index("train"), data.index("test")
    assert (len(train), len(test)) == (1226, 1203)
    folders = [p for p in (real_data / "apparel-mini").iterdir() if p.is_dir()]
    counted = {p.name: len(list(p.iterdir())) for p in folders}
    for label, positives in zip(
        data.names, train.targets.sum(0) + test.targets.sum(0), strict=True
    ):
        folders = [count for name, count in counted.items() if label in name.split("_")]
        assert positives == sum(folders), label
