"""What a plan says of the store: done, missing and why, or refused and what to do."""

import re

import pytest
import torch

from mlbench import numbers, plan, preflight
from mlbench.build import identity_of
from mlbench.store import Store
from mlbench.suite import make_suite
from mlbench.types import Places, SuiteError
from mlbench_plugins.methods.pooling import GAP
from tests.store.made import made_record
from tests.test_build import SPLITS, matrix


def planned(specs, folder, **places):
    where = Places(results=folder, cache=folder, **places)
    return plan.compare_with_store(specs, lambda _: SPLITS, where, retry_diverged=False)


def record_of(spec, folder, **fields):
    """A store that has this run."""
    made = {"spec": spec, "run_id": spec.run_id, "numbers": numbers.numbers_of(spec), **fields}
    Store(folder).write(made_record("gap").model_copy(update=made))
    return spec


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        ({"schedule": {"pct_start": 0.4}}, {}, "settings.schedule.pct_start: 0.4, asked 0.2"),
        ({"augmentation": []}, {"augmentation": [{"name": "flip", "options": {"p": 0.25}}]},
         "settings.augmentation: [], asked none, "
         "settings.augmentation.0.name: not recorded, asked flip, "
         "settings.augmentation.0.options.p: not recorded, asked 0.25"),
        ({"loss": "asl"}, {"loss": "asl", "loss_options": {"clip": 0.25}},
         "settings.loss_options.clip: 0.05, asked 0.25"),
    ],
)  # fmt: skip
def test_a_missing_run_names_what_the_nearest_record_has_instead(made, asked, said, tmp_path):
    for changes in (made, made | {"epochs": 77}):
        record_of(*matrix(changes), tmp_path)
    (spec,), (near,) = matrix(asked), matrix(made)
    for other in ({"method": "gmp"}, {"track": "probe"}):  # not compared with, though nearer
        record_of(spec.model_copy(update=other), tmp_path)
    found = planned([spec], tmp_path)
    assert found.why == {spec.run_id: f"no record; nearest {near.run_id[:8]} differs in {said}"}


def test_each_stored_spec_is_flattened_once_for_all_missing_runs(tmp_path, monkeypatch):
    made = [record_of(*matrix({"epochs": epochs}), tmp_path).run_id for epochs in (10, 20, 30)]
    asked = [*matrix({"epochs": 11}, seeds=(0, 1)), *matrix({"epochs": 21, "loss": "asl"})]
    seen, flatten = [], plan.flatten
    monkeypatch.setattr(plan, "flatten", lambda fields: seen.append(fields) or flatten(fields))
    assert len(planned(asked, tmp_path).missing) == 3
    assert len(seen) == len(made) + len(asked)


def test_a_default_of_a_plugin_that_was_flipped_is_named(tmp_path, monkeypatch):
    record_of(*matrix(), tmp_path)
    defaults = GAP.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "prior_bias", not defaults["prior_bias"])
    (why,) = planned(matrix(), tmp_path).why.values()
    assert why.endswith("settings.head_options.prior_bias: False, asked True")


def test_runs_of_one_data_set_share_a_label_context_in_planning(tmp_path):
    preflight._latest_context.cache_clear()
    assert len(planned(matrix(losses=("bce", "asl")), tmp_path).missing) == 2
    assert preflight._latest_context.cache_info().misses == 1


def test_a_file_that_does_not_fit_is_read_once_for_all_runs(tmp_path, monkeypatch):
    torch.save({"conv.weight": torch.ones(3)}, file := tmp_path / "other.pth")
    specs = matrix({"weights": identity_of(file)}, losses=("bce", "asl"))
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **how: read.append(a) or load(*a, **how))
    found = planned(specs, tmp_path, weights=file)
    assert all(str(file) in one.reason and "conv.weight" in one.reason for one in found.refused)
    assert (len(found.refused), len(read)) == (2, 1)


def test_numbers_alone_make_a_record_stale(tmp_path, monkeypatch):
    spec = record_of(*matrix(), tmp_path, commit="f" * 40, sources="acme 01, mlbench 23")
    found = planned([spec], tmp_path)
    assert found.done == (spec,) and found.edited == ("acme",)
    monkeypatch.setattr(numbers, "NUMBERS", numbers.NUMBERS + 1)
    found = planned([spec], tmp_path)
    assert found.missing == (spec,)
    now = numbers.NUMBERS
    assert found.why == {spec.run_id: f"core numbers {now - 1}, now {now}"}


def test_a_digest_of_words_without_the_file_is_refused_with_the_remedy(tmp_path):
    found = planned(matrix(words=("sha256:0123456789abcdef",)), tmp_path)
    assert "give the file with this digest by --words FILE" in found.refused[0].reason


@pytest.mark.parametrize("flag", ["weights", "words"])
def test_a_digest_is_compared_with_the_file_that_is_given(flag, tmp_path):
    file = tmp_path / "file.npz"
    file.write_bytes(b"not what the digest is of")
    dead = {"weights": "sha256:dead"} if flag == "weights" else {}
    specs = matrix(dead, words=("sha256:dead" if flag == "words" else "cooccurrence",))
    (refused,) = planned(specs, tmp_path, **{flag: file}).refused
    said = rf"--{flag} {file} is {identity_of(file)}, but the run names sha256:dead; give the file"
    assert re.search(said, refused.reason)


@pytest.mark.parametrize(
    ("label_axes", "asked"), [({}, 1), ({"graph": ("random",)}, 3), ({"words": ("random",)}, 3)]
)
def test_seeds_are_refused_together_unless_they_draw_what_heads_see(
    label_axes, asked, monkeypatch, tmp_path
):
    seen = []
    monkeypatch.setattr(plan, "refusal", lambda spec, *_: seen.append(spec.seed) or "no memory")
    found = planned(matrix(seeds=(0, 1, 2), **label_axes), tmp_path)
    assert len(seen) == asked and len(found.refused) == 3 and found.all_refused


@pytest.fixture
def made(tmp_path, cache):
    """Plan a matrix of a tiny backbone on the synthetic set."""
    few = {"synthetic": {"train_images": 40, "test_images": 20, "size": 32}}
    tiny = {"backbone": "timm:test_resnet", "image_size": 32}
    fields = {"methods": ["gap"], "settings": tiny, "weights": "none", "dataset_options": few}

    def call(veto=lambda _: None, **more):
        places = Places(results=tmp_path, cache=cache)
        return plan.make_plan(make_suite(fields | more), places, veto)

    return call


def test_the_store_and_the_veto_decide_what_becomes_of_a_run(made, tmp_path):
    asked = {"grid": {"epochs": [1, 2, 3, 4, 5]}}
    done, stale, diverged, damaged, deadly = made(**asked).missing
    for spec, fields in (
        (done, {}),
        (stale, {"numbers": {"core": 0}}),
        (diverged, {"status": "diverged", "scores": None, "error": "lost"}),
        (damaged, {}),
    ):
        record_of(spec, tmp_path, **fields)
    (file,) = tmp_path.glob(f"records/*/*/{damaged.run_id}.json")
    file.write_text("{")
    digests = {record.run_id: record.digest for record in Store(tmp_path).records()}
    kill = {deadly.run_id: "it kills"}
    for again in (False, True):
        found = made(lambda spec: kill.get(spec.run_id), **asked, retry_diverged=again)
        assert found.done == (done,)
        assert found.missing == ((stale, diverged) if again else (stale,))
        assert found.diverged == (() if again else ((diverged, "lost"),))
        assert found.replaces == {spec.run_id: digests[spec.run_id] for spec in found.missing}
        assert [one.label for one in found.refused] == [damaged.title, deadly.title]
        bad, killing = (one.reason for one in found.refused)
        assert f"{file}: not a record of this mlbench" in bad and killing == "it kills"
    asked = []
    made(lambda spec: asked.append(spec.graph) or "it kills", graph="random")
    assert asked == ["random"], "before its head is made to tell what it reads"


def test_every_edition_of_the_data_is_opened_once(made, install, monkeypatch):
    recipe = "title='t', bibtex='b', summary='s', settings=Settings(head='gap')"
    options = "dataset_options={'synthetic': {'seed': 7}}"
    source = f"from mlbench.types import *\nRECIPE = Recipe({recipe}, {options})"
    install("acme", source, "[mlbench.recipes]\nacme = acme:RECIPE")
    opened, real = [], plan.open_run
    monkeypatch.setattr(plan, "open_run", lambda *a: opened.append(real(*a).digest) or real(*a))
    drawn = {"known_labels": [0.25], "label_noise": [{"flip": 0.1}]}
    found = made(methods=["gap", "acme"], track="published", vary=drawn, seeds=[0, 1])
    assert len(found.missing) == 12
    assert len(opened) == len({spec.data for spec in found.missing}) == 6
    assert {spec.data for spec in found.missing} == set(opened)


def test_a_file_of_weights_fits_one_backbone_and_a_digest_needs_no_file():
    fields = {"plugins": "gap", "backbones": "resnet18,resnet50"}
    with pytest.raises(SuiteError, match="fits one backbone only"):
        plan.identify_files(make_suite(fields | {"weights": __file__}))
    named, files = plan.identify_files(make_suite(fields | {"weights": "sha256:ab"}))
    assert (named.weights, files) == ("sha256:ab", {})


FAULTY = """
from mlbench.types import Index
from mlbench_plugins.datasets.synthetic import Synthetic

class Faulty(Synthetic):
    def __init__(self, root, cache, *, change=""):
        super().__init__(root, cache, train_images=40, test_images=20, size=32)
        self.change = change
    def index(self, split):
        return Index(*eval(self.change, vars(super().index(split))))
    def train_groups(self):
        return {}["group"]
    @staticmethod
    def recorded_as(name, options):
        return name, {} if "rule" in options["change"] and {}["rule"] else options
"""


@pytest.mark.parametrize(
    ("part", "instead", "reason"),
    [
        ("keys", "1 / 0", r"ZeroDivisionError: division by zero \(.*acme.py:10\)"),
        ("files", "list(map(str, files))", "AttributeError: 'str' object"),
        ("targets", "targets.tolist()", "TypeError: list indices"),
        ("targets", "targets.astype('f4') * 0.7", "such as 0.69.* of label '.*' in image 'train"),
        ("targets", "targets + float('nan')", "480 targets of the train split .*, such as nan of"),
        ("targets", "2 * targets", "such as 2 of"),
        ("targets", "targets.astype('f4')", "KeyError: 'group'"),
        ("files", "rule", r"recorded_as of dataset faulty failed: KeyError: 'rule' \(.*acme.py:15"),
    ],
)
def test_a_faulty_data_set_is_refused_alone(part, instead, reason, install, tmp_path, cache):
    install("acme", FAULTY, "[mlbench.datasets]\nfaulty = acme:Faulty")
    change = {"faulty.change": "files, keys, targets".replace(part, instead)}
    fields = {
        "plugins": ["gap", "gmp", "faulty", "synthetic"],
        "dataset_options": {**change, "synthetic.train_images": 40, "synthetic.test_images": 20},
        "settings": {"backbone": "timm:test_resnet", "selection": "validation"},
        "weights": "none",
    }
    found = plan.make_plan(make_suite(fields), Places(results=tmp_path, cache=cache))
    assert [spec.dataset for spec in found.missing] == ["synthetic"] * 2
    for one, method in zip(found.refused, ("gap", "gmp"), strict=True):
        assert one.label.startswith(f"{method} on faulty") and re.search(reason, one.reason), one
