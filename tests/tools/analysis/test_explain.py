import itertools

import numpy as np
import pytest

from mlbench_tools.analysis.variance import analyse
from tests.store.made import made_record


def matrix(effect, seeds=(0,), skip=()):
    """A record for every combination that is not skipped; ``effect`` gives its score."""
    return [
        made_record(
            head,
            50 + effect(backbone, head, loss, seed),
            settings={"backbone": backbone, "loss": loss},
            spec={"seed": seed},
        )
        for backbone, head, loss, seed in itertools.product(
            ("small", "large"), ("gap", "gmp", "csra"), ("bce", "asl"), seeds
        )
        if (backbone, head, loss) not in skip
    ]


def parts(records):
    """Name -> part of the variance, and words; the shares of all parts add up."""
    (found,) = analyse(records)
    assert sum(part.share or 0 for part in found.parts) == pytest.approx(100)
    return {part.name: part for part in found.parts}, found.words


def test_a_balanced_matrix_is_the_analysis_of_variance():
    noise = np.random.default_rng(0).standard_normal(36)
    count = itertools.count()

    def effect(backbone, head, loss, seed):
        return 6 * (backbone == "large") + 2 * (head == "gap") + 0.5 * noise[next(count)]

    records = matrix(effect, seeds=(0, 1, 2))
    found, _ = parts(records)
    scores = np.array([r.scores.mAP for r in records])
    large = np.array([r.spec.settings.backbone == "large" for r in records])
    between = 36 / 4 * (scores[large].mean() - scores[~large].mean()) ** 2
    total = ((scores - scores.mean()) ** 2).sum()
    assert found["backbone"].share == pytest.approx(100 * between / total)
    assert found["backbone"].deviation == pytest.approx((between / 36) ** 0.5)
    assert [found[n].freedom for n in ("backbone", "head", "loss")] == [1, 2, 1]
    assert (found["interactions"].freedom, found["seed"].freedom) == (7, 24)
    within = scores.reshape(12, 3).var(axis=1, ddof=1).mean() ** 0.5
    assert found["seed"].deviation == pytest.approx(within)
    assert found["backbone"].p < 1e-6 < 0.01 < found["loss"].p


def test_shares_of_an_unbalanced_matrix_add_up():
    rng = np.random.default_rng(1)
    records = matrix(
        lambda backbone, head, *_: 3 * (backbone == "large") + (head == "gap") + rng.random(),
        seeds=(0, 1),
        skip={("small", "gap", "bce"), ("large", "gmp", "asl"), ("large", "csra", "bce")},
    )
    found, _ = parts(records)
    assert abs(found["together"].share) > 0.01


def test_a_negative_part_is_explained_and_has_no_points():
    # The better head runs with the worse loss most often: each hides what the other adds.
    effects = {("gap", "bce"): 0.0, ("gap", "asl"): 4.0, ("gmp", "bce"): 4.0, ("gmp", "asl"): 8.0}
    times = {("gap", "bce"): 1, ("gap", "asl"): 4, ("gmp", "bce"): 4, ("gmp", "asl"): 1}
    records = [
        made_record(head, 50 + value, settings={"loss": loss}, spec={"seed": seed})
        for (head, loss), value in effects.items()
        for seed in range(times[head, loss])
    ]
    found, words = parts(records)
    assert found["together"].share < -5 and found["together"].deviation is None
    [said] = [word for word in words if word.startswith("together: ")]
    assert f"{found['together'].share:.1f} %" in said and "hides another" in said


def test_a_factor_that_changes_only_with_another_is_not_given_a_share():
    skip = {("small", head, "asl") for head in ("gap", "gmp", "csra")}
    skip |= {("large", head, "bce") for head in ("gap", "gmp", "csra")}
    found, words = parts(matrix(lambda backbone, head, *_: 5.0 * (backbone == "large"), skip=skip))
    assert found["backbone"].share is found["loss"].share is None
    assert found["together"].share == pytest.approx(100)
    assert sum("changes only together" in word for word in words) == 2
    assert any("belongs to no single cause" in word for word in words)


def test_other_settings_are_not_taken_for_noise():
    records = [
        made_record(value=50.0 + i + 10 * j, settings={"optimizer": {"lr": lr}}, spec={"seed": i})
        for i in range(2)
        for j, lr in enumerate((1e-3, 1e-4))
    ]
    found, words = parts(records)
    assert found["other settings"].share == pytest.approx(100 * 100 / 101)
    assert found["seed"].deviation == pytest.approx(0.5**0.5)
    assert sum("only one on this board" in word for word in words) == 3


def test_too_few_runs_say_so_and_boards_are_not_mixed():
    found = analyse([made_record(), made_record(identity="voc2007-mini")])
    assert [one.board for one in found] == ["coco-mini, probe track", "voc2007-mini, probe track"]
    assert all(one.parts == () and "three runs" in one.words[0] for one in found)
    [two] = analyse([made_record(), made_record(value=52.0, spec={"seed": 1})])
    assert two.parts == () and two.deviation == pytest.approx(2**0.5)
    # Their mean is another float than they are.
    [equal] = analyse(made_record(value=49.3, spec={"seed": seed}) for seed in range(3))
    assert equal.parts == () and equal.deviation == pytest.approx(0)


def test_the_causes_of_the_spread_are_printed(cli, tmp_path, store):
    for seed, head, loss in itertools.product((0, 1), ("gap", "gmp"), ("bce", "asl")):
        value = 50.0 + 5 * (head == "gmp") + (loss == "asl") + seed / 10
        store.write(made_record(head, value, settings={"loss": loss}, spec={"seed": seed}))
    ended = cli("explain", "--results", tmp_path / "results").ok()
    lines = {line.split()[0]: line for line in ended.out.splitlines() if line.strip()}
    assert "96.1 %" in lines["head"] and "3.8 %" in lines["loss"] and "unknown" in lines["backbone"]
    assert "only one on this board" in ended.out and "coco-mini, probe track: 8 runs" in ended.out
    assert "-0.0" not in ended.out
    assert "noise of seeds within" not in ended.out and " < 0.001" in lines["head"]
    (found,) = cli("explain", tmp_path / "results", "--json").json
    assert [part["name"] for part in found["parts"]][:3] == ["backbone", "head", "loss"]
