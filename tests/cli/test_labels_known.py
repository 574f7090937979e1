"""Label graphs, words, noise and options of data sets from the command line to the board."""

import numpy as np
import pytest

from mlbench.suite import make_suite
from mlbench.suite_file import apply_overrides
from mlbench.text import named_values
from mlbench.types import LabelNoise, SuiteError


@pytest.fixture
def planned(cli, here):
    """Plan a matrix; returns the lines of the runs that are missing."""

    def call(*arguments):
        ended = cli("run", *arguments, "--dry-run").ok()
        return [line for line in ended.out.splitlines() if "would run" in line]

    return call


def test_what_uses_no_graph_is_planned_once(planned, small):
    arguments = ("--suite", small, "--plugins", "gap,ssgrl")
    lines = planned(*arguments, "--set", "graph=identity,random,cooccurrence")
    assert len(lines) == 4
    assert sum("graph=identity" in line for line in lines) == 1
    assert not any("graph=" in line for line in lines if line.split()[1] == "gap")
    (alone,) = planned("--suite", small, "--set", "graph=identity")
    (plain,) = planned("--suite", small)
    assert alone.split()[0] == plain.split()[0], "the same run"


def test_what_uses_no_words_is_planned_once(planned, small, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("sun 1 0\nmoon 0 1\n")
    arguments = ("--suite", small, "--plugins", "gap,ml_decoder,ssgrl")
    lines = planned(*arguments, "--words", f"random,{words}")
    assert [line.split()[1] for line in lines].count("ssgrl") == 2
    assert len(lines) == 4 and sum("words=random" in line for line in lines) == 1


def test_priors_are_no_graph(planned, suite):
    priors = suite({"head_options": {"prior_bias": True}, "loss": "weighted_bce"})
    assert len(planned("--suite", priors, "--set", "graph=cooccurrence,identity")) == 1


def test_a_suite_varies_the_graph_one_at_a_time(planned, suite):
    vary = {"graph": ["identity", "random"], "words": ["random"], "epochs": [2]}
    assert len(planned("--suite", suite(vary=vary), "--plugins", "ssgrl")) == 5


def test_ablations_stand_on_one_board_as_variants(cli, small, store):
    ended = cli(
        "run", "--suite", small, "--plugins", "ssgrl", "--set", "graph=random", "--words", "random"
    ).ok()
    assert "graph=random" in ended.out, "though no other row differs"
    assert "graph=random" in ended.err, "the progress names the variant"
    (record,) = (r for r in store.records() if r.spec.method == "ssgrl")
    assert (record.spec.graph, record.spec.words) == ("random", "random")
    assert any("label graph: random" in note for note in record.notes)
    assert any("drawn at random" in note for note in record.notes)


def test_runs_on_noisy_labels_have_a_board_of_their_own(cli, planned, small, tmp_path, store):
    flags = ("--set", "label_noise.keep=0.4")
    cli("run", "--suite", small).ok()
    cli("run", "--suite", small, "--losses", "asl,bce", *flags).ok()
    (clean,) = (r for r in store.records() if r.spec.label_noise == LabelNoise())
    one, other = (r for r in store.records() if r.spec.label_noise != LabelNoise())
    assert one.spec.data == other.spec.data != clean.spec.data, "both losses see the same labels"
    for noisy in (one, other):
        assert noisy.status == "ok"
        assert noisy.identity == f"{clean.identity}-labels-40"
        assert any("label noise in train" in note for note in noisy.notes)
        targets = (store.predictions(record).targets for record in (clean, noisy))
        assert np.array_equal(*targets), "the test split is as it was"
    assert len(list((tmp_path / "results" / "leaderboards").glob("*labels-40*.md"))) == 1
    assert len(planned("--suite", small, "--losses", "asl,bce", *flags)) == 0


def test_flags_add_to_the_noise_of_a_suite(planned, suite):
    (plain,) = planned("--suite", suite())
    noisy = suite(label_noise={"keep": 0.5})
    (half,) = planned("--suite", noisy)
    (other,) = planned("--suite", noisy, "--set", "label_noise.seed=1")
    assert len({line.split()[0] for line in (plain, half, other)}) == 3
    for line in planned("--suite", suite(grid={"label_noise": [{"keep": 0.4}, {"keep": 0.6}]})):
        assert "label_noise.keep=" in line and "data=" not in line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.4", 0.4),
        ("1e-3", 1e-3),
        ("2014", 2014),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("[a, b]", ["a", "b"]),
        ("(1, 2)", (1, 2)),
        ("negative", "negative"),
        ("'1'", "1"),
        ("a: b: c", "a: b: c"),
        ("2014-01-02", "2014-01-02"),
        ("010", "010"),
        ("[010, 1:30]", ["010", "1:30"]),
        ("&a [*a]", "&a [*a]"),
        ("9" * 5000, "9" * 5000),
        ("", ""),
        ("x=y", "x=y"),
    ],
)
def test_values_are_what_suites_would_read(text, value):
    (read,) = named_values([f"name={text}"]).values()
    assert read == value and type(read) is type(value)


def test_options_are_for_every_data_set_or_for_one():
    fields = {
        "plugins": ("gap",),
        "datasets": ("coco", "manifest:my.csv"),
        "dataset_options": {"coco": {"year": 2014, "a": 1}},
    }
    given = ("manifest:my.csv.test=0.5", "coco.a=2", "b=3")
    over = apply_overrides(fields, [f"dataset_options.{text}" for text in given])
    assert make_suite(over).dataset_options == {
        "coco": {"year": 2014, "a": 2, "b": 3},
        "manifest:my.csv": {"test": 0.5, "b": 3},
    }
    for options, found in (({"year": 5}, {"year": 5}), ({"coco": 5}, {"coco": 5})):
        named = make_suite({"plugins": "gap,coco", "dataset_options": options})
        assert named.dataset_options == {"coco": found}, "unknown ones are refused later"
    assert make_suite(apply_overrides(fields, ["labels=cat, dog"])).labels == ("cat", "dog")
    with pytest.raises(SuiteError, match="did you mean coco"):
        make_suite(apply_overrides(fields, ["dataset_options.coc.year=2014"]))
