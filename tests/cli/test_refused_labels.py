"""Labels from which no score or no model can come are refused before anything is trained."""

import shlex

import numpy as np
import pytest

from mlbench.preflight import check_labels
from mlbench.types import Index, Splits
from tests.cli.manifests import TINY, draw, split, table
from tests.store.made import CARD

ZERO = "write 0 (absent) instead"


@pytest.fixture
def plan(cli, here, tmp_path):
    """Write a table of two good labels and these others (row -> cell), and plan a run on it."""

    def planned(*flags, good=True, **others):
        columns = {"cat": lambda i: i // 2 % 2, "dog": lambda i: int(i % 5 == 0)} if good else {}
        columns |= others
        rows = [",".join(("image", *columns, "split"))]
        for i in range(30):
            draw(i, tmp_path)
            cells = [cell(i) for cell in columns.values()]
            rows.append(",".join(map(str, (f"{i:02}.png", *cells, split(i)))))
        (tmp_path / "t.csv").write_text("\n".join(rows))
        return cli("run", "--datasets", "manifest:t.csv", *TINY, *flags, "--dry-run")

    return planned


@pytest.mark.parametrize("absent", ["", "-1"])
def test_a_table_of_positives_alone(plan, absent):
    cells = {"otter": lambda i: i % 2 or absent, "newt": lambda i: absent if i % 3 else 1}
    remedy = f"--option absent={absent or 'blank'}"
    plan(good=False, **cells).failed("nowhere 0 (absent)", ZERO, remedy)
    plan(*remedy.split(), good=False, **cells).ok()


def test_a_test_split_without_a_positive(plan):
    said = "otter (0 present, 10 absent, 0 unknown). Add images", "with --set holdout="
    plan(good=False, otter=lambda i: int(i % 3 == 1)).failed("the test split of t-", *said)
    plan("--set", "holdout=0.3", good=False, otter=lambda i: int(i % 3 == 1)).ok()


@pytest.mark.parametrize(
    "cell", [lambda i: 1, lambda i: -1, lambda i: 1 if i % 4 else "", lambda i: 0]
)
def test_a_label_that_train_never_knows_to_be_absent(plan, cell):
    done = plan(owl=cell)
    if cell(1) == 0:  # cannot be learnt, but does no harm
        assert done.code == 0
        return
    assert done.code == 2 and "no image is known to lack 1 of 3 labels" in done.err
    assert (ZERO in done.err) == (cell(4) != 1)
    remedy = '--set \'labels=["cat", "dog"]\''
    assert remedy in done.err and plan("--set", remedy[7:-1], owl=cell).code == 0


def test_a_validation_part_without_a_positive(plan):
    flags = ("--set", "selection=validation", "--set", 'labels=["rare"]')
    rare = {"rare": lambda i: int(i in (0, 1))}
    done = plan(*flags, **rare).failed("the validation part of t-")
    remedy = "--set selection=last"
    assert remedy in done.err and plan(*flags[2:], *remedy.split(), **rare).code == 0


def test_noise_may_hide_negatives_but_excuses_no_table(plan):
    noise = ("--set", "label_noise.single_positive=true")
    assert plan(*noise).code == 0
    assert "no image is known to lack" in plan(*noise, owl=lambda i: 1).err


def test_one_reason_is_printed_once(plan):
    done = plan("--plugins", "gap,gmp,csra", owl=lambda i: 1)
    assert done.err.count("no image is known to lack") == 1
    assert all(name in done.err for name in ("gap on", "gmp on", "csra on"))


def test_one_constant_label_of_test_is_left_out_everywhere(plan, cli, tmp_path, store):
    """A run that is scored, its board, its record, ``score``, ``evaluate`` and ``stats`` agree."""
    plan(owl=lambda i: 1 if i % 3 == 0 else i % 2)
    done = cli("run", "--datasets", "manifest:t.csv", *TINY).ok()
    assert "10 test images, 3 labels (1 without an AP left out)" in done.out.replace("\n", " ")
    (record,) = store.records()
    assert record.scores.classes_left_out == 1 and record.average_precision[2] is None
    remark = "1 of 3 labels have no AP and are left out"
    assert [note for note in record.notes if "owl (10 present, 0 absent, 0 unknown)" in note]
    scored = cli("score", record.run_id, "--json")
    assert remark in scored.err
    values = scored.json["protocols"]["canonical"]["values"]
    assert values["mAP"] == pytest.approx(record.scores.mAP)
    again = cli("evaluate", tmp_path / "results" / record.checkpoint, "--dataset", "manifest:t.csv")
    assert again.code == 0 and f"warning: {remark}" in again.err
    stats = cli("data", "stats", "manifest:t.csv")
    assert "1 label without an AP in test" in stats.out and stats.out.count("without an AP") == 1


def test_a_loss_that_uses_unknown_labels_takes_them():
    class Loss:
        uses_unknown = True

    test = Index(["a", "b"], ["a", "b"], np.array([[1], [0]], np.int8))
    train = Index(["c", "d"], ["c", "d"], np.array([[1], [-1]], np.int8))
    check_labels(Splits(CARD, ("otter",), train, test, "0", "mine"), Loss())


def test_the_command_that_shows_the_labels_runs_as_printed(cli, tmp_path):
    place = table(tmp_path / "my set").rename(tmp_path / "my set" / "a b.csv")
    place.write_text(place.read_text().replace(",b,", ',"b, c",'))
    options = ("--set", "dataset_options.separator=;", "--set", "dataset_options.test_share=0.3")
    data = ("--data", tmp_path / "my set", "--datasets", "manifest:a b.csv")
    done = cli("run", *data, *options, *TINY).ok("all of it: mlbench data look 'manifest:a b.csv'")
    (printed,) = [line for line in done.out.splitlines() if "all of it: " in line]
    cli(*shlex.split(printed.partition("all of it: mlbench ")[2])).ok("b, c")
