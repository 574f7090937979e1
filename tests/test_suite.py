import re
from pathlib import Path

import numpy as np
import pytest

from mlbench import suite, suite_file
from mlbench.plan import expand as expand_suite
from mlbench.tracks import settle
from mlbench.types import (
    Index,
    LabelNoise,
    PluginError,
    RunSpec,
    Schedule,
    Settings,
    Splits,
    SuiteError,
    runs,
)
from tests.store.made import CARD

BUDGET = {"backbone": "resnet18", "image_size": 32, "epochs": 3, "weights": "none"}
BUDGETED = CARD.model_copy(update={"budget": BUDGET})


def splits_of(spec):
    index = Index(["x"], ["x"], np.ones((1, 2), np.int8))
    noise = "" if spec.label_noise == LabelNoise() else f"-{spec.label_noise}"
    return Splits(BUDGETED, ("a", "b"), index, index, f"digest-of-{spec.dataset}{noise}", "x")


def expand(**fields):
    specs, refused = expand_suite(suite.make_suite(fields), splits_of)
    assert not refused
    return specs


def test_names_of_any_kind_are_sorted_into_axes():
    names = ("ssgrl", "asl", "voc2007", "resnet50", "bce", "gap", "timm:x")
    made = suite.make_suite({"plugins": names})
    assert made.methods == ("ssgrl", "gap") and made.losses == ("asl", "bce")
    assert made.datasets == ("voc2007",) and made.backbones == ("resnet50", "timm:x")


def test_files_of_data_sets_are_relative_to_the_suite(tmp_path):
    (tmp_path / "a.csv").touch()
    (file := tmp_path / "s.yaml").write_text(
        "plugins: [gap, 'manifest:a.csv']\ndatasets: 'manifest:a.csv, manifest:below-data.csv'\n"
        "dataset_options: {'manifest:a.csv': {val: test}, 'manifest:a.csv.test_share': 0.5}"
    )
    made, here = suite.make_suite(suite_file.read_suite(file)), f"manifest:{tmp_path / 'a.csv'}"
    assert set(made.datasets) == {here, "manifest:below-data.csv"}
    assert made.dataset_options[here] == {"val": "test", "test_share": 0.5}


def test_a_file_of_words_needs_no_suffix(tmp_path):
    (file := tmp_path / "words").touch()
    assert suite.make_suite({"plugins": "gap", "words": str(file)}).words == (str(file),)


def test_a_file_with_a_comma_in_its_name_is_one_data_set(tmp_path):
    (tmp_path / "a,b.csv").touch()
    name = f"manifest:{tmp_path / 'a,b.csv'}"
    assert suite.make_suite({"plugins": "gap,gmp", "datasets": name}).datasets == (name,)
    plain = f"manifest:{tmp_path}"
    both = {"plugins": "gap", "datasets": f"synthetic,{plain}"}
    assert suite.make_suite(both).datasets == ("synthetic", plain), "a file that exists, in a list"


def test_every_combination_is_made_once():
    specs = expand(
        plugins=("gap", "gmp", "gap"), losses=("bce", "asl"), seeds=(0, 1, 2), track="controlled"
    )
    assert len({spec.run_id for spec in specs}) == 12
    assert {spec.dataset for spec in specs} == {"synthetic"}, "the default data set"


def test_a_spec_names_what_the_suite_says_of_data_start_and_precision():
    drawn = {"labels": ("a",), "holdout": 0.2, "holdout_fold": 1}
    fields = {**drawn, "init": "sha256:ab", "precision": "bf16"}
    (spec,) = expand(plugins=("gap",), track="published", **fields)
    assert spec.model_dump(include=fields.keys()) == fields and spec.settings.weights == "none"


def test_controlled_gives_all_methods_the_same_budget(acme):
    acme()  # tunes nothing
    one, other = expand(plugins=("gap", "ssgrl"))
    same = {"backbone", "image_size", "epochs", "batch_size", "loss", "schedule", "augmentation"}
    assert one.settings.model_dump(include=same) == other.settings.model_dump(include=same)
    assert one.settings.backbone == "resnet18" and one.settings.head != other.settings.head
    card = CARD.model_copy(update={"budget": BUDGET | {"loss": "focal", "ema_decay": 0.9}})
    found = [settle(track, "acme", "synthetic", card) for track in ("controlled", "probe")]
    used = [(s.loss, s.epochs, s.optimizer.lr, s.ema_warmup) for s in found]
    assert used == [("focal", 3, 1e-4, True), ("asl", 4, 2e-3, True)]
    assert not one.settings.ema_warmup, "nothing is averaged"


def test_an_alias_plans_the_same_runs():
    recipe = {"plugins": ("gap",), "track": "published"}
    by_axis = (expand(**recipe, losses=(name,)) for name in ("bce", "soft_margin"))
    by_setting = expand(**recipe, settings={"loss": "soft_margin"})
    (plain, alias), both = by_axis, expand(**recipe, losses=("soft_margin", "bce"))
    assert plain == alias == by_setting == both
    assert plain[0].settings.loss == "bce"


def test_published_takes_the_authors_options_of_the_data_set():
    for track, difficult in (("published", "negative"), ("controlled", "unknown")):
        (spec,) = expand(plugins=("ssgrl", "voc2007"), track=track)
        assert spec.dataset_options["difficult_train"] == difficult
    asked = {"voc2007": {"difficult_train": "positive"}}
    (spec,) = expand(plugins=("ssgrl", "voc2007"), track="published", dataset_options=asked)
    assert spec.dataset_options["difficult_train"] == "positive"


@pytest.fixture
def acme(install):
    """Install a recipe of this name, with some fields."""

    def make(settings="", **fields):
        plain = f"title='t', bibtex='b', summary='s', settings=Settings(head='gap', {settings})"
        source = f"from mlbench.types import *\nRECIPE = Recipe({plain}, **{fields})"
        install("acme", source, "[mlbench.recipes]\nacme = acme:RECIPE")

    return make


def test_published_finds_what_a_recipe_says_of_a_family(acme):
    acme(
        per_dataset={"coco": {"epochs": 7}, "coco2014": {"epochs": 8}, "voc2007": {"epochs": 9}},
        dataset_options={"coco": {"unlabelled": True}, "voc2007": {"difficult_train": "positive"}},
    )
    names = ("coco", "coco2014", "coco2017", "voc2007", "voc2012", "synthetic")
    options = ("unlabelled", "difficult_train")
    found = {
        spec.dataset: (spec.settings.epochs, *map(spec.dataset_options.get, options))
        for spec in expand(methods=("acme",), datasets=names, track="published")
    }
    assert found == {
        "coco": (7, True, None),
        "coco2014": (8, True, None),
        "voc2007": (9, None, "positive"),
        "voc2012": (9, None, "positive"),
        "synthetic": (20, None, None),
    }


def test_the_model_of_a_recipe_is_taken_where_nothing_is_trained(acme):
    model = "backbone='resnet50', image_size=96, head_options={'prior_bias': True}"
    acme(f"{model}, preprocessing=Preprocessing(interpolation='bicubic')")
    (spec,) = expand(methods=("acme",), track="zero_shot", seeds=(3,))
    used, (controlled,) = spec.settings, expand(methods=("acme",))
    assert (used.backbone, used.image_size) == ("resnet50", 96)
    assert used.preprocessing.interpolation == "bicubic"
    assert used.head_options["prior_bias"] and controlled.settings.head_options["prior_bias"]
    assert (used.epochs, used.frozen_stages, spec.seed) == (0, -1, 0), "nothing is drawn"


def test_sizes_in_pixels_follow_the_image_size():
    (spec,) = expand(plugins=("ssgrl",), track="published", settings={"image_size": 260})
    assert spec.settings.preprocessing.resize == 289
    scaled = {"resize": 289, "sizes": [289, 260, 231, 173, 144]}
    assert spec.settings.augmentation[0].options == scaled
    (spec,) = expand(plugins=("ssgrl",), track="published")
    assert (spec.settings.image_size, spec.settings.preprocessing.resize) == (576, 640)
    steps = spec.settings.augmentation
    for resize in (300, 640):  # a size that was given is not changed, whatever the recipe has
        own = {"image_size": 288, "preprocessing": {"resize": resize}, "augmentation": steps}
        (spec,) = expand(plugins=("ssgrl",), track="published", settings=own)
        assert (spec.settings.preprocessing.resize, spec.settings.augmentation) == (resize, steps)


def test_probe_freezes_the_backbone_and_augments_nothing():
    (spec,) = expand(plugins=("gap",), track="probe", settings={"epochs": 7})
    assert spec.settings.frozen_stages == -1 and spec.settings.augmentation == ()
    assert spec.settings.epochs == 7 and spec.settings.backbone == "resnet18"


def test_overrides_are_laid_on_top_in_order():
    one, other = expand(
        plugins=("gap", "bce"),
        settings={"optimizer": {"lr": 0.5, "weight_decay": 0.25}},
        per_method={"gap": {"optimizer": {"lr": 0.125}, "loss": "asl", "epochs": 8}},
        grid={"epochs": [7]},
        vary={"epochs": [6]},
    )
    assert (one.settings.optimizer.lr, one.settings.optimizer.weight_decay) == (0.125, 0.25)
    assert (one.settings.loss, one.settings.epochs, other.settings.epochs) == ("asl", 7, 6)


def test_a_number_in_a_file_is_the_one_that_is_written(tmp_path):
    """To YAML 1.1, 1e-1 is a text, 010 is 8, and 1:30 is 90."""
    (tmp_path / "s.yaml").write_text(
        "grid: {head_options.w: [1e-1, -2E5, 1.5e3, '1e-1', 12e, 0x10, 1_00, 00.5, 010, 1:30]}\n"
        "plugins: gap\nepochs: 010\nlabels: [007, 2024-01-02]"
    )
    read = suite_file.read_suite(tmp_path / "s.yaml")
    assert read.pop("grid") == {
        "head_options.w": [0.1, -2e5, 1500.0, "1e-1", "12e", 16, 100, 0.5, "010", "1:30"]
    }
    (spec,) = expand(**suite_file.apply_overrides(read, ["schedule.warmup=02"]))
    assert (spec.settings.epochs, spec.settings.schedule.warmup) == (10, 2)
    assert spec.labels == ("007", "2024-01-02")


def test_sizes_and_times_have_units():
    made = {"plugins": "gap", "budget": None}
    for size, number in (("50GB", 50 * 10**9), ("1.5 gib", 3 * 2**29), ("2k", 2000), (7, 7)):
        assert suite.make_suite(made | {"cache_limit": size}).cache_limit == number
    for time, seconds in (("90s", 90), ("10m", 600), ("2h", 7200), (5, 5)):
        assert suite.make_suite(made | {"stall": time}).stall == seconds
    for wrong in ("50 gigs", "-1", "GB", "1.2.3GB"):
        with pytest.raises(SuiteError, match=r"cache_limit = .* a size is a number and a unit"):
            suite.make_suite(made | {"cache_limit": wrong})


def test_paths_and_words_of_a_file_are_relative_to_it(tmp_path, monkeypatch):
    here, home = str(tmp_path), str(tmp_path / "home")
    monkeypatch.setenv("HOME", home)
    for name in ("a.csv", "home/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (file := tmp_path / "s.yaml").write_text(
        "plugins: [gap, 'timm:a.csv', 'manifest:~/a.csv']\ndata: d\nresults: ~/r\ncache: c\n"
        "init: i\n<<: {weights: w, data: not this}\nwords: 'random, w.txt, sha256:ab'\n"
        "vary.optimizer.lr: 1\nepochs: 3\nsettings: {epochs: 4}\n"
        "per_method: {gap: &gap {<<: {epochs: 1}, epochs: 2}, gmp: {<<: *gap}}"
    )
    folders = {"data": "d", "cache": "c", "init": "i", "weights": "w"}
    assert suite_file.read_suite(file) == {name: f"{here}/{at}" for name, at in folders.items()} | {
        "plugins": ["gap", "timm:a.csv", f"manifest:{home}/a.csv"],
        "results": f"{home}/r",
        "words": ["random", f"{here}/w.txt", "sha256:ab"],
        "vary": {"optimizer.lr": 1},
        "settings": {"epochs": 4},
        "per_method": {name: {"epochs": 2} for name in ("gap", "gmp")},
    }
    for name in ("default", "none"):
        file.write_text(f"weights: {name}")
        assert suite_file.read_suite(file) == {"weights": name}


def test_a_file_may_name_settings_as_set_does(tmp_path):
    (file := tmp_path / "s.yaml").write_text(
        "epochs: 3\nsettings: {optimizer: {weight_decay: 0}, image_size: 96}\n"
        "optimizer: {lr: 0.5}\nhead_options.time_steps: 2\nselection: validation\nplugins: ssgrl"
    )
    (spec,) = expand(**suite_file.apply_overrides(suite_file.read_suite(file), ["epochs=4"]))
    used, rate = spec.settings, spec.settings.optimizer
    assert (used.epochs, used.image_size, used.selection) == (4, 96, "validation")
    assert (rate.lr, rate.weight_decay, used.head_options["time_steps"]) == (0.5, 0, 2)
    wrong = {"epoch: 3": "did you mean epochs", "3: 4": "option 3 in .*s.yaml; known"}
    for text, said in wrong.items():
        file.write_text(text)
        with pytest.raises(SuiteError, match=said):
            suite_file.read_suite(file)


def test_a_grid_is_an_axis():
    specs = expand(plugins=("gap",), grid={"optimizer.lr": (1, 2), "epochs": (3, 4)})
    found = {(s.settings.optimizer.lr, s.settings.epochs) for s in specs}
    assert found == {(1, 3), (1, 4), (2, 3), (2, 4)}
    (spec,) = expand(plugins=("gap",), grid={"optimizer.lr": 0.5, "schedule": {"name": "constant"}})
    assert (spec.settings.optimizer.lr, spec.settings.schedule.name) == (0.5, "constant")
    mixings = {"settings": {"mixing": {"name": "mixup"}}, "grid": {"mixing": [None]}}
    assert expand(plugins=("gap",), **mixings)[0].settings.mixing is None


def test_settings_may_vary_one_at_a_time():
    vary = {"batch_size": (8, 16), "preprocessing.interpolation": ("bicubic",)}
    specs = expand(plugins=("gap", "ssgrl"), seeds=(0, 1), vary=vary)
    base = specs[0].settings
    found = [(s.settings.batch_size, s.settings.preprocessing.interpolation) for s in specs]
    one = [(base.batch_size, "bilinear"), (8, "bilinear"), (16, "bilinear")]
    assert sorted(found) == sorted([*one, (base.batch_size, "bicubic")] * 4)


def test_a_run_id_names_what_changes_numbers_and_nothing_else():
    (spec,) = expand(plugins=("gap",))
    assert spec.run_id == spec.model_copy(update={"seed": 0}).run_id
    others = {"seed": 1, "data": "other", "track": "probe"}
    others["settings"] = spec.settings.model_copy(update={"epochs": 9})
    changed = [spec.model_copy(update={name: other}) for name, other in others.items()]
    assert len({s.run_id for s in [spec, *changed]}) == 5


def test_a_field_added_later_does_not_rename_old_evidence(monkeypatch):
    (spec,) = expand(plugins=("gap",))
    stored = spec.model_dump(mode="json")
    del stored["settings"]["schedule"]["cycle_momentum"], stored["precision"]
    before = {"settings.schedule.cycle_momentum": True, "precision": "bf16"}
    monkeypatch.setattr(runs, "ADDED", before)
    old = RunSpec.model_validate(stored)
    assert (old.precision, old.settings.schedule.cycle_momentum) == ("bf16", True)
    assert old.canonical() == stored, "the id of the days before"
    assert {"precision"} | stored.keys() == spec.canonical().keys(), "another value is in the id"


def test_a_default_that_changes_is_another_run(monkeypatch):
    (spec,) = expand(plugins=("gap",))
    with monkeypatch.context() as patch:
        patch.setattr(Settings.model_fields["schedule"], "default", Schedule(pct_start=0.4))
        Settings.model_rebuild(force=True)
        (changed,) = expand(plugins=("gap",))
    Settings.model_rebuild(force=True)
    assert changed.settings.schedule.pct_start == 0.4 and changed.run_id != spec.run_id


def test_a_spec_names_the_defaults_of_plugins_and_augmentation_steps():
    (spec,) = expand(plugins=("ssgrl", "asl"), settings={"augmentation": [{"name": "flip"}]})
    assert spec.settings.head_options["time_steps"] == 3
    assert spec.settings.loss_options["gamma_neg"] == 4
    assert spec.settings.augmentation[0].options == {"p": 0.5}
    wrong = [{"name": "flip", "options": {"q": 1}}]
    (spec,), said = expand(plugins="gap", settings={"augmentation": wrong}), "refused later, alone"
    assert spec.settings.augmentation[0].options == {"q": 1}, said
    assert spec.dataset_options["train_images"] == 1200


@pytest.mark.parametrize(
    "chosen",
    [{"plugins": ("gap", "asl")}, {"grid": {"loss": ["asl"]}}, {"vary": {"loss": ["asl"]}}],
)
def test_an_option_of_a_loss_lasts_wherever_the_loss_is_chosen(chosen):
    options = {"settings": {"loss_options": {"gamma_neg": 2}}}
    options |= {"per_method": {"gap": {"loss_options": {"gamma_pos": 1}}}}
    used = expand(**{"plugins": ("gap",), **options, **chosen})[-1].settings
    gammas = [used.loss_options[name] for name in ("gamma_neg", "gamma_pos")]
    assert (used.loss, gammas) == ("asl", [2, 1])


def test_options_go_with_the_head_or_loss_that_they_were_given_for(acme):
    acme("head_options={'prior_bias': True}")
    own = {"loss": "asl", "loss_options": {"gamma_neg": 2}}
    axes = {"methods": ("acme",), "grid": {"loss": ["asl", "bce"]}, "vary": {"head": ["gmp"]}}
    used = [spec.settings for spec in expand(**axes, settings=own)]
    assert [s.loss_options.get("gamma_neg") for s in used] == [2, 2, None, None]
    assert [s.head_options["prior_bias"] for s in used] == 2 * [True, False]


@pytest.mark.parametrize(
    "asked",
    [
        {"per_method": {"ssgrl": {"head_options": {"time_steps": 3}}}},
        {"settings": {"loss": "asl", "loss_options": {"gamma_neg": 4, "gamma_pos": 0}}},
        {"dataset_options": {"synthetic": {"size": 96}}},
    ],
)
def test_an_option_at_its_default_is_the_same_run_however_it_was_written(asked):
    (plain,) = expand(plugins=("ssgrl", "asl"))
    (named,) = expand(**{"plugins": ("ssgrl", "asl"), **asked})
    assert plain == named and plain.run_id == named.run_id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plugins": ("asl",)}, "no method to run"),
        ({"track": "probing"}, "track = 'probing'"),
        ({"per_method": {"gpa": {}}}, "unknown head 'gpa'"),
        ({"settings": {"epochs": 0}}, "epochs = 0 trains nothing; give at least 1"),
        ({"settings": {"epoch": 3}}, "unknown option 'epoch'; did you mean epochs"),
        ({"settings": {"optimizer": {"rate": 3}}}, "unknown option 'optimizer.rate'"),
        ({"settings": {"optimizer": {"momentum": 1.5}}}, "optimizer.momentum = 1.5"),
        ({"settings": {"augmentation": [{"nam": "flip"}]}}, "augmentation.0.nam"),
        ({"settings": {"preprocessing": {"std": [0, 1, 1]}}}, "preprocessing.std.0 = 0"),
        ({"settings": {"schedule": {"warmup": float("inf")}}}, "schedule.warmup = inf"),
        ({"datasets": "coc"}, "unknown dataset 'coc'; did you mean coco"),
        ({"backbones": "resnet5"}, "unknown backbone 'resnet5'; did you mean resnet50"),
        ({"grid": {"graph": ["identiy"]}}, "did you mean identity"),
        ({"holdout": 1}, "holdout = 1"),
        ({"stall": "0s"}, "stall = '0s': a time is a number above 0"),
        ({"cache_limit": "5X"}, "cache_limit = '5X': a size is a number and a unit"),
        ({"seeds": []}, "seeds = .*at least 1"),
        ({"seeds": ""}, "seeds = .*at least 1"),
        ({"graph": []}, "graph = .*at least 1"),
        ({"words": ""}, "words is empty"),
        ({"grid": {"epochs": []}}, "grid.epochs = .*at least 1"),
        ({"grid": {"label_noise": []}}, "grid.label_noise = .*at least 1"),
        ({"vary": {"epochs": ()}}, "vary.epochs = .*at least 1"),
        ({"seeds": 10**20}, "seeds.0 = 1.*less than"),
        ({"seeds": 0.5}, "seeds.0 = 0.5: .*integer"),
        ({"seeds": "0-2"}, "seeds.0 = '0-2': give whole numbers, such as 0,1,2"),
        ({"seeds": True}, "seeds = True: give a number"),
        ({"seeds": [0, True]}, r"seeds = \[0, True\]: give a number"),
        ({"losses": "asl", "grid": {"loss": ["bce"]}}, "losses and grid.loss both name every loss"),
        ({"settings": {"epochs": True}}, "epochs = True: give a number"),
        ({"per_method": {"gap": {"optimizer": {"lr": True}}}}, "optimizer.lr = True: give"),
        ({"dataset_options": {"cooc": {"year": 1}}}, r"cooc is not among .* \(synthetic\)"),
        ({"per_method": {"ssgrl": {"epochs": 3}}}, r"ssgrl is not among the methods \(gap\)"),
        ({"backbones": "resnet50", "settings": {"backbone": "resnet18"}}, "backbones=resnet50;"),
        ({"plugins": "gap, bce", "settings": {"loss": "asl"}}, "loss=asl has no effect, as .*bce"),
        ({"executor_options": {"x": 1}}, "executor_options.x is for other executors"),
        ({"settings": {"mixing": {"alpha": 1}}}, "mixing.name: Field required.*'mixing.alpha'"),
        ({"settings": {"mixing": {"name": "mixup", "no": 1}}}, "'mixing.no'; known: name, options"),
        ({"settings": {"loss_options": None}}, "loss_options = None: .*valid dictionary"),
        ({"settings": {"head_options": [1]}}, r"head_options = \[1\]: .*valid dictionary"),
        ({"settings": {"head_options": {1: 2}}}, "head_options.1"),
        ({"settings": {"mixing": "mixup"}}, "mixing = 'mixup': give a mapping of name, options"),
        ({"settings": {"augmentation": "flip"}}, r"augmentation = 'flip'.*, such as \[flip\]"),
        ({"settings": {"augmentation": ["flip"]}}, "augmentation.0 = 'flip': .* of name, options"),
        ({"grid": {"label_noise": [0.3]}}, "grid.label_noise: 0.3: give a mapping of keep, "),
        ({"known_labels": "a"}, "known_labels = 'a': give a mapping of share, seed"),
        ({"datasets": "manifest:\udcff.csv"}, r"datasets = 'manifest:\\udcff.csv': .* not UTF-8"),
        ({"results": Path("\udcff")}, "results = .* not UTF-8; rename that file or folder"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises((SuiteError, PluginError), match=message):
        expand(**{"plugins": ("gap",), **fields})


def test_a_file_keeps_options_for_what_the_command_line_leaves_out():
    options = {"coco": {"year": 2014}, "synthetic": {"size": 64}}
    file = {"methods": ["gap", "gmp"], "losses": ["asl"], "per_method": {"gmp": {"epochs": 2}}}
    file |= {"datasets": ["coco", "synthetic"], "dataset_options": options}
    file |= {"executor": "ray", "executor_options": {"x": 1}}
    flags = {"methods": ["gap"], "datasets": ["synthetic"], "losses": ["bce"], "executor": "local"}
    assert suite.make_suite(file).executor_options == {"x": 1}
    (spec,) = expand_suite(suite.make_suite(file | flags, "s.yaml", flags), splits_of)[0]
    assert (spec.method, spec.dataset_options["size"]) == ("gap", 64)
    file["settings"] = {"loss": "asl"}
    (spec,) = expand_suite(suite.make_suite(file | flags, "s.yaml", flags), splits_of)[0]
    assert spec.settings.loss == "bce"
    for more in ({"per_method": {"gmp": {"epochs": 3}}}, {"dataset_options": options}):
        with pytest.raises(SuiteError, match="not among the"):
            suite.make_suite(file | flags | more, "s.yaml", flags | more)
    with pytest.raises(SuiteError, match=r"^the command line: holdout = 2"):
        suite.make_suite(file | {"holdout": 2}, "s.yaml", flags | {"holdout": 2})
    with pytest.raises(SuiteError, match="loss=asl has no effect, as losses=bce"):
        suite.make_suite(file | flags, "s.yaml", flags | {"settings": {"loss": "asl"}})


@pytest.mark.parametrize("text", ["optimizer.lr=1e-3,1e-2", "epochs=[2, 3]"])
def test_several_values_for_one_setting_are_answered_with_a_grid(text):
    fields = {"methods": ("gap",)}
    with pytest.raises(SuiteError) as refused:
        expand(**suite_file.apply_overrides(fields, [text]))
    _, _, remedy = str(refused.value).partition("--set ")
    assert len(expand(**suite_file.apply_overrides(fields, [remedy]))) == 2


@pytest.mark.parametrize("tuned", [{"epochs": 99}, {"optimizer": {"lr": 1, "momentum": 0.5}}])
def test_only_head_options_and_rates_may_be_tuned_per_method(tuned, acme):
    acme(tuned={"probe": tuned})
    made = suite.make_suite({"plugins": ("acme",), "track": "probe"})
    _, refused = expand_suite(made, splits_of)
    assert re.search("tunes (epochs|momentum) for the probe track", refused[0].reason)


def test_a_loss_with_a_recipe_is_a_loss_and_its_recipe_is_for_the_published_track():
    asked = {"plugins": ["gap", "hill"], "track": "probe"}
    made = suite.make_suite(asked)
    assert (made.methods, made.losses) == (("gap",), ("hill",))
    with pytest.raises(SuiteError, match=r"'hill' is a loss.*--plugins gap,hill"):
        suite.make_suite({"methods": ["hill"], "track": "probe"})
    with pytest.raises(PluginError, match="--losses hill or --set methods=hill"):
        suite.make_suite(asked | {"track": "published"})
    assert suite.make_suite({"methods": ["hill"], "track": "published"}).methods == ("hill",)


def test_a_mixing_names_its_options_and_the_probe_track_refuses_it():
    fields = {"methods": ["gap"], "settings": {"mixing": {"name": "mixup"}}}
    (spec,) = expand(**fields)
    assert spec.settings.mixing.options == {"p": 1.0, "alpha": 1.0, "labels": "linear"}
    for own in (fields, {"methods": ["gap"], "settings": {"augmentation": [{"name": "flip"}]}}):
        with pytest.raises(SuiteError, match="augmentation and mixing cannot be set"):
            expand(**own, track="probe")


def test_label_noise_varies_like_a_setting():
    keep, one = {"keep": 0.4}, {"single_positive": True}
    specs = expand(methods=["gap"], losses=["bce", "an"], grid={"label_noise": [keep, one]})
    noises = [spec.label_noise for spec in specs]
    assert noises == 2 * [LabelNoise(keep=0.4), LabelNoise(single_positive=True)]
    assert len({spec.data for spec in specs}) == 2
    (alone,) = expand(methods=["gap"], losses=["bce"], label_noise=keep)
    assert alone.run_id == specs[0].run_id
    plain, noisy = expand(methods=["gap"], losses=["bce"], vary={"label_noise": [keep]})
    assert plain.label_noise == LabelNoise() and noisy.run_id == alone.run_id
    told = expand(methods=["gap"], grid={"known_labels": [0, 0.25, {"share": 0.25, "seed": 1}]})
    assert [spec.known_labels.share for spec in told] == [0, 0.25, 0.25]
    assert len({spec.run_id for spec in told}) == 3 and told[0].run_id == plain.run_id
    with pytest.raises(SuiteError, match=r"grid.known_labels: share = 1.5"):
        expand(methods=["gap"], grid={"known_labels": [1.5]})
    with pytest.raises(SuiteError, match=r"grid.label_noise: .*'kep'.*did you mean keep"):
        expand(methods=["gap"], grid={"label_noise": [{"kep": 0.4}]})


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ({"vary": {"label_noise.keep": [0.5]}}, [(1, 0.1), (0.5, 0.1)]),
        ({"grid": {"label_noise.keep": [0.5, 0.25]}}, [(0.5, 0.1), (0.25, 0.1)]),
        ({"grid": {"label_noise.assume_negative": [True], "label_noise.keep": 0.5}}, [(0.5, 0.1)]),
        ({"grid": {"label_noise": [{}]}, "vary": {"label_noise.keep": 0.5}}, [(1, 0), (0.5, 0)]),
    ],
)
def test_a_part_of_label_noise_varies_and_leaves_the_rest(asked, drawn):
    specs = expand(methods=["gap"], label_noise={"flip": 0.1}, **asked)
    assert [(spec.label_noise.keep, spec.label_noise.flip) for spec in specs] == drawn
    with pytest.raises(SuiteError, match=r"vary.label_noise: .*'kep'.*did you mean keep"):
        expand(methods=["gap"], vary={"label_noise.kep": [0.5]})
