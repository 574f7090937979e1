import numpy as np

from mlbench.metrics.precision_recall import precision_recall_f1


def test_logit_zero_is_a_prediction():
    one = np.ones((1, 1), dtype=np.int8)
    assert precision_recall_f1(np.array([[0.0]]), one)["OR"] == 1
    assert precision_recall_f1(np.array([[-1e-9]]), one)["OR"] == 0


def test_of_equal_scores_in_an_image_the_first_classes_are_chosen():
    targets = np.array([[1, 1, 1, 0, 0]], dtype=np.int8)
    found = precision_recall_f1(np.ones((1, 5)), targets, top_k=3)
    assert found["OP"] == found["OR"] == 1


def test_an_unknown_label_takes_no_place_among_the_top():
    scores, targets = np.array([[9.0, 3, 2, 1]]), np.array([[-1, 1, 1, 1]], dtype=np.int8)
    assert precision_recall_f1(scores, targets, top_k=3)["OR"] == 1


def test_predictions_for_an_absent_class_are_wrong_overall_but_not_per_class():
    targets = np.array([[1, 0]], dtype=np.int8)
    found = precision_recall_f1(np.ones((1, 2)), targets)
    assert (found["CP"], found["OP"]) == (1.0, 0.5)


def test_cf1_is_the_f1_of_the_means():
    # Class 0: P 1, R 1/2; class 1: P 1/2, R 1. Mean of the classes' F1 would be 2/3.
    scores = np.array([[1.0, 1], [-1, 1]])
    targets = np.array([[1, 1], [1, 0]], dtype=np.int8)
    assert precision_recall_f1(scores, targets)["CF1"] == 0.75
