import numpy as np
import pytest

from mlbench.metrics import (
    average_precision,
    bootstrap_map,
    interpolated_average_precision,
    precision_recall_f1,
    score,
)

TOLERANCE = 1e-7  # the published meter is float32
ORDER = ("OP", "OR", "OF1", "CP", "CR", "CF1")


def close(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)


def test_average_precision_of_the_published_meters(published):
    scores, targets, partly, expected = published
    close(average_precision(scores, targets), expected["ap_plain"])
    close(average_precision(scores, partly), expected["ap_ignore_difficult"])
    close(100 * interpolated_average_precision(scores, targets), expected["ap_interpolated"])
    close(100 * average_precision(scores, targets).mean(), expected["map_asl"])


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("difficult", [False, True])
def test_precision_and_recall_of_the_published_meter(published, top_k, difficult):
    scores, targets, partly, expected = published
    # The published code counts difficult entries as negatives here.
    used = np.where(partly == -1, 0, partly).astype(np.int8) if difficult else targets
    found = precision_recall_f1(scores, used, top_k=top_k)
    name = "prf" + ("_top3" if top_k else "") + ("_difficult" if difficult else "")
    close([found[key] for key in ORDER], expected[name])


def test_the_protocol_is_its_parts_in_percent(published):
    scores, _, partly, _ = published
    found, by_class = score(scores, partly, resamples=100)
    assert by_class == pytest.approx(100 * average_precision(scores, partly))
    assert found.mAP == pytest.approx(np.mean(by_class))
    draws = 100 * bootstrap_map(scores, partly, resamples=100)
    centred = draws - draws.mean() + found.mAP
    assert (found.mAP_low, found.mAP_high) == pytest.approx(np.percentile(centred, (2.5, 97.5)))
    assert found.mAP_low < found.mAP < found.mAP_high
    plain, top3 = precision_recall_f1(scores, partly), precision_recall_f1(scores, partly, top_k=3)
    for name in ORDER:
        assert getattr(found, name) == pytest.approx(100 * plain[name])
        assert getattr(found, f"top3_{name}") == pytest.approx(100 * top3[name])


def test_absent_classes_are_counted_and_never_nan():
    targets = np.array([[1, 0, -1], [0, 0, -1]], dtype=np.int8)
    found, by_class = score(np.array([[1.0, 2, 3], [0, 1, 2]]), targets, resamples=20)
    assert (found.classes_scored, found.classes_left_out) == (1, 2)
    assert by_class == (100.0, None, None)
    assert found.mAP == 100
    assert "NaN" not in found.model_dump_json() and "null" not in found.model_dump_json()
