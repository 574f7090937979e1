"""Independent answers to compare with: scikit-learn on what is known, and plain counting."""

import warnings

import numpy as np
from sklearn.metrics import average_precision_score


def sklearn_ap(scores, targets, weights=None):
    """[C], NaN where a class has no positive."""
    values = []
    for column, target in zip(scores.T, targets.T, strict=True):
        known = target >= 0
        if not (target == 1).any():
            values.append(np.nan)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.append(average_precision_score(target[known], column[known]))
    return np.array(values)


def counted(scores, targets, top_k=None):
    """CP CR CF1 OP OR OF1 by loops over entries."""
    n, c = scores.shape
    right, said, true = np.zeros(c), np.zeros(c), np.zeros(c)
    for i in range(n):
        known = [j for j in range(c) if targets[i, j] >= 0]
        chosen = sorted(known, key=lambda j: (-scores[i, j], j))[:top_k]
        for j in known:
            predicted = j in chosen and scores[i, j] >= 0
            said[j] += predicted
            true[j] += targets[i, j] == 1
            right[j] += predicted and targets[i, j] == 1
    some = true > 0
    cp = np.mean([r / s if s else 0.0 for r, s in zip(right[some], said[some], strict=True)])
    cr = np.mean(right[some] / true[some])
    op = right.sum() / said.sum() if said.sum() else 0.0
    recall = right.sum() / true.sum()

    def f1(p, r):
        return 2 * p * r / (p + r) if p + r else 0.0

    return {"CP": cp, "CR": cr, "CF1": f1(cp, cr), "OP": op, "OR": recall, "OF1": f1(op, recall)}
