"""Data sets as a run opens them: what is in no two splits, what is held out, what is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlbench import registry
from mlbench.data.decode import MISSING
from mlbench.data.noise import with_label_noise
from mlbench.data.open import Subset, as_trained_on, coverage, files, leave_out, open_splits
from mlbench.data.stratify import list_digest, validation_keys
from mlbench.types import (
    DataError,
    Dataset,
    DatasetCard,
    Edition,
    Index,
    KnownLabels,
    LabelNoise,
    Places,
    PluginError,
    SplitCard,
    SuiteError,
    digest,
)

NAMES = ("a", "b", "c")


class Made(Dataset):
    """Some images to train on and four to score."""

    names = NAMES
    card = DatasetCard(title="t", bibtex="@b", licence="l", home="h")

    def __init__(
        self, root=None, cache=None, fault="", official=None, groups=None, images=10, **card
    ):
        self.card = self.card.model_copy(update=card)
        self.official, self.groups = official, groups
        self.fault, self.images = fault, images

    def index(self, split):
        n = {"train": self.images, "test": 4}[split]
        keys = [f"{split} {i}" for i in range(n)]
        named = [Path(f"{key}.jpg") for key in keys]
        if split == "test" and self.fault == "key":
            keys[2] = "train 3"
        if split == "test" and self.fault == "file":
            named[2] = Path("train 3.jpg")
        if split == "train" and self.fault == "within":
            keys[2] = keys[3]
        rows = np.arange(n)[:, None] + np.arange(len(NAMES))
        targets = (rows % 3 == 0).astype(np.int8)
        if split == "train" and self.fault == "target":
            targets[2, 1] = -2
        return Index(named, keys, targets)

    def validation_keys(self):
        return self.official

    def train_groups(self):
        return self.groups


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Open ``Made`` with arguments of its own."""

    def make(made=None, **arguments):
        plugin = registry.Plugin("dataset", "made", "", "", "")
        monkeypatch.setattr(type(plugin), "load", lambda _: lambda *_: made or Made())
        monkeypatch.setattr(registry, "find", lambda *_: plugin)
        monkeypatch.setattr(registry, "options", lambda *_: {})
        monkeypatch.setattr(registry, "needs_argument", lambda *_: False)
        return open_splits("made", {}, None, tmp_path, Subset(**arguments))

    return make


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("key", "1 images of made are in train and in test: 'train 3'"),
        ("file", "1 images of made are in train and in test: 'test 2'"),
        ("within", "1 keys of the train split of made stand for several images: 'train 3'"),
        ("target", "1 target of the train split .* such as -2 of label 'b' in image 'train 2'"),
    ],
)
def test_an_image_in_two_places_and_a_wrong_target_are_named(opened, fault, message):
    with pytest.raises(DataError, match=message):
        opened(Made(fault=fault))


def test_a_card_may_allow_shared_images_but_no_split_may_be_empty(opened):
    assert len(opened(Made(fault="key", shared_images="its makers score them")).test) == 4
    with pytest.raises(DataError, match="the train split of made is empty; restore its lists"):
        opened(Made(images=0))


def test_files_are_not_compared_with_an_edition_that_publishes_none(opened, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    train, test = (Made().index(split) for split in ("train", "test"))
    for file in (*train.files, *test.files):
        file.touch()
    edition = Edition(train_images=10, test_images=4, test_keys="", test="")
    card = {"identities": {digest(train, test, NAMES): "made-1"}, "editions": {"made-1": edition}}
    assert opened(Made(**card)).identity == "made-1"


def test_counts_of_objects_have_the_shape_of_the_labels(opened):
    made = Made()
    made.objects = lambda keys: np.zeros((len(keys), 2))
    splits = opened(made)
    with pytest.raises(PluginError, match=r"made gives counts of objects of shape \(10, 2\), not"):
        splits.objects(splits.train)


@pytest.mark.parametrize("labels", [(), ("a", "a")])
def test_labels_that_take_part_are_named_once(opened, labels):
    with pytest.raises(SuiteError, match="must be a list of different names"):
        opened(labels=labels)


def test_a_part_is_named_after_what_takes_part_and_has_no_official_size(opened):
    made = Made(splits={"train": SplitCard(images=10)})
    assert opened(made).official == made.card.splits
    part = opened(made, labels=("a", "c"), holdout=0.5, fold=1, validation=True)
    assert part.identity.endswith("-2-labels-holdout-0.5-fold-1-and-validation")
    assert part.official == {}


def test_the_validation_part_is_cut_off_train_and_moves_no_identity(opened):
    whole, cut = opened(), opened(validation=True)
    assert whole.validation is None and cut.validation is not None
    assert (len(cut.train), len(cut.validation), len(cut.test)) == (7, 3, 4)
    assert {*cut.train.keys, *cut.validation.keys} == set(whole.train.keys)
    assert (cut.digest, cut.identity) == (whole.digest, whole.identity)
    by_key = dict(zip(whole.train.keys, whole.train.targets, strict=True))
    for part in (cut.train, cut.validation):
        for file, target, key in part:
            assert file == Path(f"{key}.jpg") and np.array_equal(target, by_key[key])


def test_the_makers_own_list_counts_first(opened):
    splits = opened(Made(official=["train 7", "train 1", "elsewhere"]), validation=True)
    assert list(splits.validation.keys) == ["train 1", "train 7"]


@pytest.mark.parametrize("part", [{"validation": True}, {"holdout": 0.4}])
def test_groups_stay_together(opened, part):
    assert len(opened(Made(groups=["one"] * 6 + ["two"] * 4), **part).train) == 6


@pytest.mark.parametrize("groups", [None, [f"train {i}" for i in range(10)]])
def test_images_without_groups_are_held_out_as_ever(opened, groups):
    parts = [opened(Made(groups=groups), holdout=1 / 3, fold=fold).test.keys for fold in range(3)]
    held = [[int(key.removeprefix("train ")) for key in keys] for keys in parts]
    assert held == [[0, 1, 2, 5, 9], [4, 7], [3, 6, 8]]


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_fold_leaves_its_share_of_the_validation_part(opened, folds):
    made = Made(images=300)
    parts = [opened(made, holdout=1 / folds, fold=f, validation=True) for f in range(folds)]
    whole = len(opened(made, validation=True).validation)
    held = [key for part in parts for key in part.test.keys]
    assert sorted(held) == sorted(made.index("train").keys)
    for part in parts:
        assert len(part.validation) == pytest.approx(whole * (1 - 1 / folds), rel=0.25)


@pytest.mark.parametrize(("share", "fold"), [(0.3, 3), (0.6, 1), (0.0, 1)])
def test_a_fold_that_is_not_a_whole_part_is_refused(opened, share, fold):
    with pytest.raises(SuiteError, match=f"holdout {share:g} has no fold {fold}.* holdout 1/N"):
        opened(holdout=share, fold=fold)


@pytest.mark.parametrize("official", [[], ["elsewhere"], [f"train {i}" for i in range(10)]])
def test_a_part_that_leaves_nothing_on_one_side_is_refused(opened, official):
    with pytest.raises(DataError, match=r"of 10 training images.*--set selection=last"):
        opened(Made(official=official), validation=True)


def test_another_list_than_the_published_one_is_refused(opened):
    made = Made()
    found = digest(made.index("train"), made.index("test"), NAMES)
    keys = validation_keys(made, made.index("train"), "made-1")
    published = {"identities": {found: "made-1"}, "validation": {"made-1": list_digest(keys)}}
    assert opened(Made(**published), validation=True).identity == "made-1"
    published["validation"] = {"made-1": "0" * 64}
    with pytest.raises(DataError, match=r"made-1 has the digest .* published list has 0000"):
        opened(Made(**published), validation=True)
    assert opened(Made(**published)).validation is None


def test_fewer_labels_leave_the_same_images_held_out(opened):
    keys = opened(validation=True).validation.keys
    some = opened(validation=True, labels=("c",))
    assert some.validation.keys == keys and some.validation.targets.shape == (3, 1)
    part = opened(validation=True, holdout=0.4)
    assert set(part.validation.keys) <= set(keys)
    assert not {*part.validation.keys, *part.train.keys} & set(part.test.keys)


BAD = {Path("train 3.jpg"): MISSING, Path("test 0.jpg"): "the file is empty (0 bytes)"}


def test_coverage_counts_what_is_listed_and_what_can_be_used(opened):
    splits = opened()
    found = coverage(splits, BAD)
    assert not found.known and not found.complete
    for identity, known in (("made-1", True), ("made-1-images-0a", False)):
        assert coverage(replace(splits, identity=identity), BAD).known is known
    train, test = found.splits["train"], found.splits["test"]
    assert (train.images, train.usable, train.missing, train.corrupt) == (10, 9, 1, 0)
    assert (test.images, test.usable, test.missing, test.corrupt) == (4, 3, 0, 1)
    assert coverage(splits, {}).complete
    assert coverage(opened(validation=True), BAD) == found, "validation counts as train"


def test_what_is_left_is_an_edition_of_its_own(opened):
    whole = opened()
    same = leave_out(whole, {})
    assert (same.digest, same.identity) == (whole.digest, whole.identity)
    left = leave_out(whole, BAD)
    assert left.incomplete and (len(left.train), len(left.test)) == (9, 3)
    assert left.digest != whole.digest
    assert left.identity == f"{whole.identity}-incomplete-{left.digest}"
    assert not set(BAD) & set(files(left))
    cut = leave_out(opened(validation=True), BAD)
    assert (cut.digest, cut.identity) == (left.digest, left.identity)
    assert {*cut.train.keys, *cut.validation.keys} == set(left.train.keys)
    assert leave_out(whole, {Path("train 4.jpg"): MISSING}).identity != left.identity


def test_label_noise_spares_the_validation_part_and_says_one_name(opened):
    noise = LabelNoise(keep=0.4)
    cut, whole = (with_label_noise(opened(validation=v), noise) for v in (True, False))
    assert cut.identity == whole.identity and cut.digest == whole.digest
    assert (cut.train.targets == -1).any() and not (cut.validation.targets == -1).any()
    places = Places(results=Path("results"), cache=Path("cache"))
    known = as_trained_on(opened(), noise, KnownLabels(share=0.25), places, incomplete=False)
    assert known.identity == f"{whole.identity}-known-25", "files are not looked at"
