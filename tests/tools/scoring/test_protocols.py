"""Every protocol against its plain reference, scikit-learn, the records and the page."""

import re
import warnings
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics

from mlbench.store import Store
from mlbench.types import MeasureError
from mlbench_tools.scoring import ranking
from mlbench_tools.scoring.measures import ProtocolInput
from mlbench_tools.scoring.protocols import (
    KINDS,
    PROTOCOLS,
    TREATMENTS,
    USERS,
    evaluate,
    find,
    names_for,
)
from tests.metrics import plain
from tests.metrics.samples import cases

ROOT = Path(__file__).parents[3]


def with_treatments(name):
    """A protocol's name, and with all treatments that go together."""
    choices = (
        ["", *(f"+{t.name}" for t in TREATMENTS.values() if t.kind == kind)]
        for kind in KINDS
        if kind in PROTOCOLS[name].kinds
    )
    return [name + "".join(chosen) for chosen in product(*choices)]


@st.composite
def wholes(draw):
    """A case with everything that a protocol may ask for, or without it."""
    scores, targets = draw(cases())
    c = targets.shape[1]
    held, positives = None, None
    if draw(st.booleans()):
        rows = draw(st.integers(1, 12))
        values = draw(arrays.arrays(np.int8, (rows, c), elements=st.sampled_from([1, 0, 0, -1])))
        coarse = st.integers(-2, 2).map(float)
        held = (draw(arrays.arrays(scores.dtype, (rows, c), elements=coarse)), values)
    if draw(st.booleans()):
        near = st.sampled_from([0, 19, 20, 60, 100, 101, 5000])
        positives = draw(arrays.arrays(np.int64, c, elements=near))
    return ProtocolInput(scores, targets, held, positives)


def plainly(case):
    def rows(logits, targets):
        return [
            [(float(s), int(t)) for s, t in zip(*row, strict=True)]
            for row in zip(logits, targets, strict=True)
        ]

    held = None if case.validation is None else rows(*case.validation)
    known = None if case.train_positives is None else case.train_positives.tolist()
    precision = case.logits.dtype.type
    return plain.Plain(rows(case.logits, case.targets), held, known, lambda x: float(precision(x)))


EQUAL = ProtocolInput(
    np.zeros((4, 3)), np.array([[1, 0, -1], [0, 1, 1], [1, 1, 0], [-1, 0, 1]], np.int8)
)
ONE = ProtocolInput(np.array([[2.0]]), np.ones((1, 1), np.int8))
UNKNOWN = ProtocolInput(np.eye(3), np.array([[1, 0, 1], [0, 1, 0], [-1, -1, -1]], np.int8))
ABSENT = ProtocolInput(np.eye(3), np.array([[1, 0, 1], [0, 0, 1], [1, 0, -1]], np.int8))


def test_each_protocol_has_a_plain_reference():
    assert list(PROTOCOLS) == list(plain.DEFINED)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=25)
@given(wholes())
@example(EQUAL)
@example(ONE)
@example(ABSENT)
@example(UNKNOWN)
def test_equals_its_definition_in_loops(protocol, case):
    given = (case.logits, case.targets, case.validation, case.train_positives)
    plain_case = plainly(case)
    for name in with_treatments(protocol):
        try:
            expected = plain.evaluate(name, plain_case)
        except plain.UndefinedError:
            with pytest.raises(MeasureError):
                evaluate(name, *given)
        else:
            assert evaluate(name, *given) == pytest.approx(expected, abs=1e-9), name


@given(cases())
def test_equals_scikit_learn_where_nothing_is_unknown(case):
    logits, targets = case[0], np.maximum(case[1], 0)
    both = [c for c in range(targets.shape[1]) if 0 < targets[:, c].mean() < 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = metrics.hamming_loss(targets, logits >= 0)
        areas = [metrics.roc_auc_score(targets[:, c], logits[:, c]) for c in both]
        if targets.shape[1] > 1:
            found = evaluate("label-ranking", logits, targets)
            lrap = metrics.label_ranking_average_precision_score(targets, logits)
            assert found["LRAP"] == pytest.approx(100 * lrap)
            assert found["coverage_error"] == pytest.approx(metrics.coverage_error(targets, logits))
            loss = metrics.label_ranking_loss(targets, logits)
            assert found["ranking_loss"] == pytest.approx(100 * loss)
    assert evaluate("hamming", logits, targets) == pytest.approx({"hamming_loss": 100 * wrong})
    if both:
        found = evaluate("auc", logits, targets)
        micro = metrics.roc_auc_score(targets.ravel(), logits.ravel())
        assert found["macro_AUC"] == pytest.approx(100 * np.mean(areas))
        assert found["micro_AUC"] == pytest.approx(100 * micro)


@given(cases())
def test_blocks_of_comparisons_change_no_ranking_of_an_image(case):
    whole = ranking.image_rankings(*case)
    with patch.object(ranking, "BLOCK", 1):
        np.testing.assert_allclose(ranking.image_rankings(*case), whole)


@settings(max_examples=30)
@given(cases(), st.randoms())
def test_the_order_of_images_changes_no_number(case, random):
    logits, targets = case
    order = random.sample(range(len(logits)), len(logits))
    for name in names_for(targets):
        protocol = find(name)
        try:
            straight = protocol.measure(ProtocolInput(logits, targets)).values
        except MeasureError:
            continue
        shuffled = protocol.measure(ProtocolInput(logits[order], targets[order])).values
        assert shuffled == pytest.approx(straight, abs=1e-9)


def test_the_canonical_protocol_is_what_committed_records_hold():
    store = Store(ROOT / "results")
    records = [record for record in store.records() if record.scores is not None]
    assert records
    for record in records:
        given = ProtocolInput.of_run(store.predictions(record))
        values = PROTOCOLS["canonical"].measure(given).values
        wanted = record.scores.model_dump(exclude={"mAP_low", "mAP_high"})
        assert values == pytest.approx(wanted, abs=1e-9), record.run_id


def test_three_of_ten_positives_reach_a_recall_of_three_tenths():
    # 3 * 0.1 is above 0.3 in floating point; the precision of 1 up to the third positive counts.
    targets = np.array([1] * 3 + [0] * 7 + [1] * 7, np.int8)[:, None]
    found = evaluate("ap-11-point", -np.arange(17.0)[:, None], targets)
    assert found["mAP"] == pytest.approx(100 * (4 * 1 + 7 * 10 / 17) / 11)


def test_a_label_that_is_guessed_from_its_partner():
    # Label 0 is scored by its partner 1 alone: beside it all are guessed, without it none is.
    targets = np.array([[1, 1], [1, 1], [0, 1], [1, 0], [0, 0]], np.int8)
    logits = np.where(targets[:, 1:] == 1, 3.0, -3.0) * np.ones((1, 2))
    found = find("partners").measure(ProtocolInput(logits, targets))
    assert found.by_label["partner"].tolist() == [1, 0]
    assert found.by_label["recall_with"][0] == 100 and found.by_label["recall_without"][0] == 0
    assert found.by_label["AUC_with"][0] == found.by_label["AUC_without"][0] == 50


def test_calibration_by_hand():
    # Probability 0.75 (bin 11) on four entries of which one is present: off by a half.
    targets = np.array([[1], [0], [0], [0]], np.int8)
    found = find("calibration").measure(ProtocolInput(np.full((4, 1), np.log(3)), targets))
    assert found.values == pytest.approx({"ECE": 50, "ECE_pooled": 50})
    assert found.curves["entries"].tolist() == [0] * 11 + [4] + [0] * 3
    assert found.curves["confidence"][11] == pytest.approx(75)
    assert found.curves["frequency"][11] == 25


def test_only_protocols_that_may_differ_are_listed():
    known, unknown = np.eye(3, dtype=np.int8), np.array([[1, 0, 0], [0, -1, 0]], np.int8)
    assert names_for(known) == list(PROTOCOLS)
    names = names_for(unknown)
    assert "ap-interpolated+difficult-positive+absent-zero" in names
    assert "hamming+difficult-negative" in names and "hamming+absent-zero" not in names
    assert not any(name.startswith("canonical+") for name in names)
    assert len(names) == len(set(names))
    # Absent classes are not treated where a difficult entry makes them present.
    names = names_for(np.array([[1, 0], [0, -1]], np.int8))
    assert "ap+difficult-negative+absent-zero" in names and "ap+absent-refused" in names
    assert "ap+difficult-positive" in names
    assert not [name for name in names if "positive+absent" in name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ap-interpolatd", "unknown protocol 'ap-interpolatd'; did you mean ap-interpolated"),
        ("ap+absent-nul", "unknown treatment 'absent-nul'; did you mean absent-zero"),
        ("hamming+absent-zero", "hamming does not depend on absent-zero; it changes ap"),
        ("ap+absent-zero+absent-refused", "treats absent entries twice"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(MeasureError, match=re.escape(message)):
        evaluate(name, np.zeros((2, 1)), np.array([[1], [0]], np.int8))


def test_the_readme_has_the_same_table():
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    section = readme.partition("\n## Protocols\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    wanted = [(p.name, f"{p.version} | {p.definition} | {p.source}") for p in PROTOCOLS.values()]
    wanted += [(f"+{t.name}", f"{t.definition} | {t.source}") for t in TREATMENTS.values()]
    assert found == [*wanted, *USERS.items()]
