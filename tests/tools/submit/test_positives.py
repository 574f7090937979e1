"""Training positives that a pack claims, held against its record, its card and its data set."""

import numpy as np
import pytest

from mlbench.data.open import open_splits
from mlbench.types import SplitCard
from mlbench_tools.submit.archive import make, read
from mlbench_tools.submit.case import Case, case
from mlbench_tools.submit.checks import verify
from mlbench_tools.submit.positives import train_positives
from tests.tools.submit.parts import made, named


def counted(cache, settings=None, **fields):
    """A run that knows its training positives, and its predictions."""
    record, seen = made(cache, settings, **fields)
    spec = record.spec
    splits = open_splits(
        *(spec.dataset, spec.dataset_options, None, cache),
        labels=spec.labels,
        holdout=spec.holdout,
        validation=spec.settings.selection == "validation",
    )
    true = tuple(np.count_nonzero(splits.train.targets == 1, axis=0).tolist())
    return record.model_copy(update={"train_positives": true}), seen


def unpacked(record, seen, tmp_path):
    (tmp_path / "one.zip").write_bytes(make(record, seen))
    return read(tmp_path / "one.zip")


def findings(report):
    return [(one.check, one.text) for one in report.of("finding")]


@pytest.mark.parametrize(
    "fields",
    [{}, {"labels": ("sun", "moon")}, {"holdout": 0.3}, {"settings": {"selection": "validation"}}],
)
def test_true_ones_are_believed_with_and_without_the_data(cache, tmp_path, fields):
    pack = unpacked(*counted(cache, **fields), tmp_path)
    assert findings(verify(pack)) == []
    opened = verify(pack, tmp_path, cache)
    assert findings(opened) == []
    assert "training positives" in opened.checks
    assert "training positives" not in {one.check for one in opened.of("not checked")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda true: true[:-1], "does not have one number of training positives a label"),
        (lambda true: (), "does not have one number of training positives a label"),
        (lambda true: (41, *true[1:]), "impossible training positives of 1 of the labels"),
        (lambda true: (41, 41, *true[2:]), "impossible training positives of 2 of the labels"),
    ],
)
def test_what_no_run_can_have_is_found(cache, tmp_path, change, said):
    record, seen = counted(cache)
    forged = record.model_copy(update={"train_positives": change(record.train_positives)})
    assert findings(verify(unpacked(forged, seen, tmp_path))) == [
        ("training positives", said if said[0] == "i" else f"the record {said}")
    ]


def test_one_more_than_the_data_set_has_is_found_with_it(cache, tmp_path):
    record, seen = counted(cache)
    first, *rest = record.train_positives
    forged = record.model_copy(update={"train_positives": (first + 1, *rest)})
    pack = unpacked(forged, seen, tmp_path)
    assert findings(verify(pack)) == []
    [one] = verify(pack, tmp_path, cache).of("finding")
    assert one.text == "training positives of 1 of the labels are not the data set's"
    name = record.label_names[0]
    assert (one.expected, one.found) == (f"{name} {first}", f"{name} {first + 1}")


def test_the_model_saw_the_labels_that_noise_left(cache, tmp_path):
    record, seen = counted(cache)
    known = case(
        unpacked(named(record, label_noise={"keep": 0.5}), seen, tmp_path), tmp_path, cache
    )
    digest = known.splits.digest
    noisy = named(known.record, data=digest)
    known = case(unpacked(noisy, seen, tmp_path), tmp_path, cache)
    [one] = train_positives(known)
    assert "are not the data set's" in one.text
    left = np.count_nonzero(known.splits.train.targets == 1, axis=0)
    assert left.sum() < sum(record.train_positives)
    true = noisy.model_copy(update={"train_positives": tuple(left.tolist())})
    assert list(train_positives(case(unpacked(true, seen, tmp_path), tmp_path, cache))) == []


def test_a_scored_checkpoint_has_none(cache, tmp_path):
    record, seen = counted(cache)
    scored = named(record, checkpoint="sha256:ab")
    [one] = train_positives(Case(unpacked(scored, seen, tmp_path)))
    assert one.text == "a checkpoint that was only scored has training positives"


@pytest.mark.parametrize(("beside", "kind"), [(0, "not checked"), (1, "finding")])
def test_the_card_of_a_whole_official_split_knows_the_sum(cache, tmp_path, beside, kind):
    record, seen = counted(cache)
    record = named(record, dataset_options={})
    known = case(unpacked(record, seen, tmp_path))
    total = sum(record.train_positives)
    whole = SplitCard(images=record.train_images, positives=total + beside)
    update = {"splits": {"train": whole}, "identities": {record.spec.data: record.identity}}
    [one] = train_positives(Case(known.pack, known.card.model_copy(update=update)))
    assert one.kind == kind
    if beside:
        assert (one.expected, one.found) == (str(total + 1), str(total))
    part = whole.model_copy(update={"images": record.train_images + 1})
    update["splits"] = {"train": part}
    [one] = train_positives(Case(known.pack, known.card.model_copy(update=update)))
    assert one.kind == "not checked" and "a part of the official images" in one.text
    few = part.model_copy(update={"positives": total - 1})
    update["splits"] = {"train": few}
    [one] = train_positives(Case(known.pack, known.card.model_copy(update=update)))
    assert one.kind == "finding" and one.expected == f"{total - 1} at most"
