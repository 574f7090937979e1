"""Every protocol once more, in loops over entries, written from its definition: slow and plain.

``DEFINED[name](case)`` gives the values in percent, or raises ``UndefinedError``. The rows of a
case are images, each a list of (score, target).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction


class UndefinedError(Exception):
    """The definition gives no number here."""


@dataclass(frozen=True)
class Plain:
    rows: list
    validation: list | None
    train_positives: list | None
    rounded: Callable  # a number in the precision of the scores
    absent: str = "left out"

    def columns(self):
        return columns(self.rows)


def columns(rows):
    """What is known of each class."""
    return [[row[c] for row in rows if row[c][1] >= 0] for c in range(len(rows[0]))]


def mean(values):
    return sum(values) / len(values)


def f1(p, r):
    return 2 * p * r / (p + r) if p + r else 0


def percent(values):
    return {name: 100 * float(value) for name, value in values.items()}


# ---------------------------------------------------------------------------------------------- AP
def points(column):
    """(precision, hits) at each positive, everything that scores as high counted."""
    for score, target in column:
        if target == 1:
            above = [t for s, t in column if s >= score]
            yield Fraction(above.count(1), len(above)), above.count(1)


def plain_ap(column):
    return mean([precision for precision, _ in points(column)])


def interpolated_ap(column):
    found = list(points(column))
    return mean([max(p for p, more in found if more >= hits) for _, hits in found])


def eleven_point_ap(column):
    found = list(points(column))
    levels = [Fraction(k, 10) for k in range(11)]
    return mean([max(p for p, h in found if Fraction(h, len(found)) >= r) for r in levels])


def both(column):
    """A class has an AP if it is known to be present somewhere and absent elsewhere."""
    return {t for _, t in column} == {0, 1}


def aps(case, rule):
    """AP a class, None where it is left out."""
    found = []
    for column in case.columns():
        if any(t == 1 for _, t in column):
            found.append(rule(column) if both(column) else None)
        elif case.absent == "refused":
            raise UndefinedError
        else:
            found.append(0 if case.absent == "zero" else None)
    return found


def ap(rule):
    def values(case):
        found = aps(case, rule)
        scored = [x for x in found if x is not None]
        counts = {"classes_scored": len(scored), "classes_left_out": len(found) - len(scored)}
        return percent({"mAP": mean(scored)}) | counts

    return values


# ------------------------------------------------------------------------------------------ P/R/F1
def predictions(rows, thresholds, top=None):
    """Entries (row, column) that are predicted."""
    found = set()
    for i, row in enumerate(rows):
        known = [c for c, (_, t) in enumerate(row) if t >= 0]
        for c in sorted(known, key=lambda c: (-row[c][0], c))[:top]:
            if row[c][0] >= thresholds[c]:
                found.add((i, c))
    return found


def groups_of(rows, predicted, axis):
    """(correct, predicted, positive) of each class (axis 1) or image (axis 0)."""
    total = [[0, 0, 0] for _ in range(len(rows) if axis == 0 else len(rows[0]))]
    for i, row in enumerate(rows):
        for c, (_, target) in enumerate(row):
            count = total[(i, c)[axis]]
            count[0] += target == 1 and (i, c) in predicted
            count[1] += (i, c) in predicted
            count[2] += target == 1
    return total


def averaged(counts, constant=(), absent="left out"):
    """Without the classes that are constant: never known to be absent."""
    if absent == "refused" and any(positive == 0 for *_, positive in counts):
        raise UndefinedError
    p, r, f = [], [], []
    for c, (correct, predicted, positive) in enumerate(counts):
        if (positive and c not in constant) or (not positive and absent == "zero"):
            p.append(Fraction(correct, predicted) if predicted else 0)
            r.append(Fraction(correct, positive) if positive else 0)
            f.append(f1(p[-1], r[-1]))
    return mean(p), mean(r), f1(mean(p), mean(r)), mean(f)


def seven(case, thresholds, top=None):
    thresholds = [case.rounded(threshold) for threshold in thresholds]
    counts = groups_of(case.rows, predictions(case.rows, thresholds, top), axis=1)
    constant = [c for c, column in enumerate(case.columns()) if not any(t == 0 for _, t in column)]
    cp, cr, cf1, cf1_mean = averaged(counts, constant, case.absent)
    correct, predicted, positive = (sum(column) for column in zip(*counts, strict=True))
    op = Fraction(correct, predicted) if predicted else 0
    recall = Fraction(correct, positive)
    overall = {"OP": op, "OR": recall, "OF1": f1(op, recall)}
    return percent({"CP": cp, "CR": cr, "CF1": cf1, "CF1_mean": cf1_mean} | overall)


def prf(threshold, top=None):
    return lambda case: seven(case, [threshold] * len(case.rows[0]), top)


def best(column):
    """The threshold with the highest F1; of several the highest. None without a positive."""
    positive = sum(t == 1 for _, t in column)
    if not positive:
        return None
    found = []
    for threshold in {s for s, _ in column}:
        chosen = [t for s, t in column if s >= threshold]
        found.append((Fraction(2 * chosen.count(1), len(chosen) + positive), threshold))
    return max(found)[1]


def held_out(case):
    if not case.validation or not any(map(both, columns(case.validation))):
        raise UndefinedError
    return columns(case.validation)


def told(threshold):
    chance = 1 / (1 + math.exp(-threshold))
    return {"threshold_probability": chance, "threshold_logit": threshold}


def on_validation(case):
    threshold = best([entry for column in held_out(case) for entry in column])
    return prf(threshold)(case) | told(threshold)


def on_validation_by_class(case):
    found = [best(column) for column in held_out(case)]
    values = seven(case, [0 if threshold is None else threshold for threshold in found])
    return values | {"thresholds_not_found": found.count(None)}


def oracle(case):
    sweep = [k / 10 for k in range(-10, 10)]
    free = replace(case, absent="left out")
    found = [prf(threshold)(free) for threshold in sweep]
    sums = [values["CF1"] + values["OF1"] for values in found]
    threshold = next(t for t, s in zip(sweep, sums, strict=True) if s >= max(sums) - 1e-10)
    return prf(threshold)(case) | told(threshold)


def by_image(case):
    found = averaged(groups_of(case.rows, predictions(case.rows, [0] * len(case.rows[0])), axis=0))
    return percent(dict(zip(("IP", "IR", "IF1", "IF1_mean"), found, strict=True)))


def canonical(case):
    at_half, top = prf(0)(case), prf(0, 3)(case)
    for values in (at_half, top):
        del values["CF1_mean"]
    return ap(plain_ap)(case) | at_half | {f"top3_{name}": top[name] for name in top}


# ----------------------------------------------------------------------------------------- ranking
def one_auc(entries):
    pairs = [(p, n) for p, t in entries if t == 1 for n, u in entries if u == 0]
    wins = [Fraction((p > n) * 2 + (p == n), 2) for p, n in pairs]
    return mean(wins) if wins else None


def auc(case):
    found = [x for x in map(one_auc, case.columns()) if x is not None]
    if not found:
        raise UndefinedError
    micro = one_auc([entry for column in case.columns() for entry in column])
    return percent({"macro_AUC": mean(found), "micro_AUC": micro}) | {"classes_scored": len(found)}


def label_ranking(case):
    lrap, coverage, loss = [], [], []
    for row in case.rows:
        present = [s for s, t in row if t == 1]
        absent = [s for s, t in row if t == 0]
        if not present and not absent:
            continue
        depth = {s: sum(other >= s for other in present + absent) for s in present}
        coverage.append(max(depth.values(), default=0))
        if not present or not absent:
            lrap.append(1)
            loss.append(0)
            continue
        lrap.append(mean([Fraction(sum(o >= s for o in present), depth[s]) for s in present]))
        loss.append(mean([Fraction(a >= p) for p in present for a in absent]))
    found = percent({"LRAP": mean(lrap), "ranking_loss": mean(loss)})
    return found | {"coverage_error": mean(coverage)}


def hamming(case):
    known = [entry for column in case.columns() for entry in column]
    return percent({"hamming_loss": mean([Fraction((s >= 0) != (t == 1)) for s, t in known])})


# ----------------------------------------------------------------------------- calibration, groups
def one_ece(entries):
    total = 0.0
    for b in range(15):
        own = [(p, t) for p, t in entries if b / 15 <= p < (b + 1) / 15 or (b == 14 and p == 1)]
        if own:
            share, confidence = mean([t == 1 for _, t in own]), mean([p for p, _ in own])
            total += len(own) * abs(share - confidence)
    return total / len(entries)


def calibration(case):
    known = [[(1 / (1 + math.exp(-s)), t) for s, t in column] for column in case.columns()]
    labels = [one_ece(column) for column in known if column]
    together = one_ece([entry for column in known for entry in column])
    return percent({"ECE": mean(labels), "ECE_pooled": together})


def grouped(case, group):
    found = aps(case, plain_ap)
    values = {}
    for name in ("head", "middle", "tail"):
        own = [x for x, g in zip(found, group, strict=True) if g == name and x is not None]
        values[f"labels_{name}"] = len(own)
        if own:
            values |= percent({f"mAP_{name}": mean(own)})
    return values


def groups(case):
    if case.train_positives is None:
        raise UndefinedError
    named = {True: {False: "head"}, False: {False: "middle", True: "tail"}}
    return grouped(case, [named[n > 100][n < 20] for n in case.train_positives])


def thirds(case):
    counts = [sum(t == 1 for _, t in column) * both(column) for column in case.columns()]
    scored = [n for n in counts if n]
    place = [Fraction(sum(other > n for other in counts), len(scored)) for n in counts]
    names = [
        "head" if p < Fraction(1, 3) else "middle" if p < Fraction(2, 3) else "tail" for p in place
    ]
    return grouped(case, names)


def partners(case):
    with_it, without = [], []
    size = len(case.rows[0])
    for c in range(size):
        together = [sum(r[c][1] == 1 and r[j][1] == 1 for r in case.rows) for j in range(size)]
        together[c] = 0
        if not any(together):
            continue
        partner = together.index(max(together))
        parts = [
            [row[c] for row in case.rows if row[partner][1] == state and row[c][1] >= 0]
            for state in (1, 0)
        ]
        if all({t for _, t in part} == {0, 1} for part in parts):
            with_it.append(four(parts[0]))
            without.append(four(parts[1]))
    if not with_it:
        raise UndefinedError
    values = {}
    for ending, found in (("with", with_it), ("without", without)):
        for name in found[0]:
            values |= percent({f"{name}_{ending}": mean([one[name] for one in found])})
    return values | {"labels_probed": len(with_it)}


def four(part):
    recall = mean([Fraction(s >= 0) for s, t in part if t == 1])
    right = mean([Fraction((s >= 0) == (t == 1)) for s, t in part])
    return {"AP": plain_ap(part), "AUC": one_auc(part), "recall": recall, "accuracy": right}


DEFINED = {
    "canonical": canonical,
    "ap": ap(plain_ap),
    "ap-interpolated": ap(interpolated_ap),
    "ap-11-point": ap(eleven_point_ap),
    "prf-0.5": prf(0),
    "prf-0.8": prf(math.log(4)),
    "prf-0.75": prf(math.log(3)),
    "prf-top3": prf(0, 3),
    "prf-top3-any": prf(-math.inf, 3),
    "prf-validation": on_validation,
    "prf-validation-by-class": on_validation_by_class,
    "prf-oracle": oracle,
    "auc": auc,
    "prf-by-image": by_image,
    "label-ranking": label_ranking,
    "hamming": hamming,
    "calibration": calibration,
    "groups": groups,
    "groups-by-thirds": thirds,
    "partners": partners,
}


def settled(rows, value):
    return [[(s, value if t < 0 else t) for s, t in row] for row in rows]


def evaluate(name, case):
    """A protocol with its treatments."""
    base, *treatments = name.split("+")
    for treatment in treatments:
        kind, _, how = treatment.partition("-")
        if kind == "absent":
            case = replace(case, absent=how)
        else:
            value = int(how == "positive")
            held = None if case.validation is None else settled(case.validation, value)
            case = replace(case, rows=settled(case.rows, value), validation=held)
    if not any(map(both, case.columns())):
        raise UndefinedError
    return DEFINED[base](case)
