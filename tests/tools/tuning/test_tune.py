"""The same trials for every method, a suite of the winners, and what `mlbench settings` says."""

from pathlib import Path

import pytest
import yaml

from mlbench.boards.rows import tables
from mlbench.suite import Suite
from mlbench.suite_file import FILES, read_suite
from mlbench.types import Settings
from mlbench_tools.tuning.show_settings import fields_of
from mlbench_tools.tuning.trials import Trial, add_rates, collect, rates, winners, write_suite
from tests.store.made import made_record

FEW = {"train_images": 80, "test_images": 20, "size": 32}


@pytest.mark.parametrize(
    ("centre", "number", "expected"),
    [
        (2e-3, 3, (6e-4, 2e-3, 6e-3)),
        (1e-4, 4, (3e-5, 1e-4, 3e-4, 1e-3)),
        (1.5e-4, 2, (1.5e-4, 5e-4)),
    ],
)
def test_rates_are_powers_of_about_3_around_the_tracks(centre, number, expected):
    assert rates(centre, number) == pytest.approx(expected)


def test_a_data_set_with_an_argument_has_the_rates_of_its_track():
    fields = {"methods": ("gap",), "holdout": 0.2, "track": "probe"}
    found = add_rates(Suite(datasets=("manifest:photos.csv",), **fields), 3)
    assert found.grid == {"optimizer.lr": (6e-4, 2e-3, 6e-3)}


@pytest.fixture
def tuned(cli, install, tmp_path):
    """Run `mlbench tune` for a head of ours and one of somebody else's."""
    source = "from mlbench_plugins.methods.pooling import GAP"
    install("theirs", source, "[mlbench.heads]\ntheir_mean = theirs:GAP\n")
    small = tmp_path / "small.yaml"
    content = {"dataset_options": {"synthetic": FEW}, "settings": {"image_size": 32, "epochs": 1}}
    small.write_text(yaml.safe_dump(content))

    def call(*arguments):
        given = ("--plugins", "gap,their_mean", "--track", "probe", "--suite", small)
        return cli("tune", *given, "--out", "tuned.yaml", *arguments)

    return call


def test_the_winners_are_a_suite(cli, tuned, tmp_path, store):
    asked = ("--trials", "2", "--grid", "optimizer.weight_decay=0.01", "--image-size", "48")
    done = tuned(*asked).ok("validation images held out of train")
    trials = store.records()
    assert all(record.spec.holdout == 0.2 for record in trials), "never on test images"
    assert {record.spec.settings.image_size for record in trials} == {48}
    tried = {"gap": {}, "their_mean": {}}
    for record in trials:
        tried[record.spec.method][record.spec.settings.optimizer.lr] = record.scores.mAP
    assert [sorted(rates) for rates in tried.values()] == [[2e-3, 6e-3]] * 2
    best = {method: max(rates, key=rates.get) for method, rates in tried.items()}
    fields = yaml.safe_load((tmp_path / "tuned.yaml").read_text())
    assert {m: f["optimizer"]["lr"] for m, f in fields["per_method"].items()} == best
    assert "holdout" not in fields and "grid" not in fields

    assert tuned(*asked).out == done.out and len(store.records()) == 4, "it resumes"
    ran = cli("run", "--suite", "tuned.yaml", "--seeds", "0", "--set", "measure=false").ok()
    final = [record for record in store.records() if not record.spec.holdout]
    assert {r.spec.method: r.spec.settings.optimizer.lr for r in final} == best
    assert "Untuned" not in ran.out, "held-out runs in this store were best at these rates"


def test_mappings_are_tried_on_the_suites_own_part_and_seeds(cli, tmp_path, store):
    part = {"seeds": [1], "holdout": 0.3, "holdout_fold": 1}
    small = {"plugins": ["gap"], "dataset_options": {"synthetic": FEW}, "track": "probe", **part}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(small))
    grid = ("--grid", "schedule=[{name: constant}, {name: one_cycle}]", "--trials", "2")
    fast = ("--suite", "s.yaml", "--epochs", "1", "--image-size", "32", "--out", "tuned.yaml")
    done = cli("tune", *fast, *grid).ok()
    records = store.records()
    tried = [record.spec.settings for record in records]
    assert len({(used.schedule.name, used.optimizer.lr) for used in tried}) == 4
    assert {(r.spec.seed, r.spec.holdout, r.spec.holdout_fold) for r in records} == {(1, 0.3, 1)}
    assert len(collect(records, ("optimizer.lr", "schedule"))) == 4
    assert done.out.count(" name: constant ") == done.out.count(" name: one_cycle ") == 2, done.out
    assert cli("run", "--suite", "tuned.yaml", "--dry-run").ok().out.count("would run") == 3


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--grid", "epochs="], "grid.epochs = "),
        (["--grid", "label_noise.keep=0.5"], "label_noise.keep cannot be tuned"),
        (["--holdout", "0"], "would choose settings on test images"),
        (["--plugins", "gap,bce,asl"], "one value for losses"),
        (["--grid", "graph=identity,random"], "graph cannot be tuned"),
        (["--grid", "optimizer.rate"], "--grid 'optimizer.rate' is not NAME=VALUE"),
        (["--grid", "optimizer.rate=1,2"], "optimizer.rate"),
        (["--track", "published"], "papers' settings"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tuned, arguments, part):
    tuned(*arguments).failed(part)


def trial(method, lr, value, identity="voc-holdout-0.2", **fields):
    settings, spec = {"optimizer": {"lr": lr}}, {"holdout": 0.2}
    return made_record(method, value, settings=settings, spec=spec, identity=identity, **fields)


def test_the_best_is_the_mean_over_seeds_and_an_edge_is_remarked():
    names = ("optimizer.lr",)
    scores = {1e-3: 50.0, 3e-3: 52.0, 1e-2: 51.0}
    found = collect([trial("gap", rate, score) for rate, score in scores.items()], names)
    assert [one.remark for one in found] == ["", "best", ""]
    found = collect([trial("gap", 1e-3, 50.0), trial("gap", 1e-2, 52.0)], names)
    assert winners(found)["gap"].settings == {"optimizer.lr": 1e-2}
    assert "highest optimizer.lr tried" in winners(found)["gap"].remark
    diverged = trial("gap", 1e-2, scores=None, value=0.0, status="diverged", error="nan")
    found = collect([trial("gap", 1e-3, 50.0), diverged], names)
    assert winners(found)["gap"].settings == {"optimizer.lr": 1e-3} and found[1].mAP is None
    assert winners(collect([diverged], names)) == {}


def test_a_suite_in_another_folder_names_the_same_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).touch()
    Path("there").mkdir()
    named = {name: name for name in FILES} | {"datasets": ["manifest:data", "synthetic"]}
    write_suite(Path("there/tuned.yaml"), Suite(**named), {}, "tune")
    fields = read_suite(tmp_path / "there/tuned.yaml")
    assert all(Path(fields[name]).samefile(name) for name in FILES)
    assert Path(fields["datasets"][0].removeprefix("manifest:")).samefile("data")
    assert fields["datasets"][1] == "synthetic"


@pytest.mark.parametrize("identity", ["voc-holdout-0.2", "voc-holdout-0.2-and-validation"])
def test_boards_say_which_images_and_which_rates(identity):
    held, other = (trial("gap", r, v, identity) for r, v in ((3e-3, 52.0), (1e-3, 50.0)))
    (board,) = tables([held, other])
    assert board.images == "validation image" and not board.untuned
    voc = {"spec": {"data": "e" * 16}, "identity": "voc"}
    rows = [made_record("gap", settings={"optimizer": {"lr": lr}}, **voc) for lr in (1e-3, 3e-3)]
    named = made_record("msrn", recipe_rate=True, **voc)
    final = next(t for t in tables([held, other, *rows, named]) if t.identity == "voc")
    assert final.images == "test image"
    assert [title.split()[-1] for title in final.untuned] == ["optimizer.lr=0.001"]
    elsewhere = trial("gap", 1e-3, 50.0, identity="pictures-1a2b3c4d-holdout-0.2-fold-1")
    for trials in ([held], [held, elsewhere]):  # one rate alone was compared with nothing
        assert len(next(t for t in tables([*trials, *rows]) if t.identity == "voc").untuned) == 2


def test_an_interval_ends_at_0_and_100():
    assert Trial("gap", {}, mAP=50.0, low=-1.2, high=101.1).interval == "[0.0, 100.0]"


def test_every_setting_and_field_of_a_suite_is_shown_with_default_and_meaning(cli):
    out = cli("settings").ok().out
    lines = out.splitlines()
    for field, default, meaning in (*fields_of(Settings), *fields_of(Suite)):
        assert meaning, field
        assert any(
            line.startswith(f"{field} ") and default in line and meaning[:20] in line
            for line in lines
        )
    said = " ".join(out.split())
    assert "optimizer.lr 0.0001 learning rate" in said and "mixing: cutmix" in said
    assert "sha256:... of a file head" in said and "(SSGRL, sec. 4.1) resize" in said
    assert "augmentation: rand_augment Apply a few" in said and "num_ops 2 number of oper" in said
