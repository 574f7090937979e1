"""Label graphs, words, noise, counts of instances and options of data sets, up to the board."""

from functools import partial

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


def test_priors_are_no_graph_and_a_suite_varies_the_graph_one_at_a_time(planned, suite):
    priors = suite({"head_options": {"prior_bias": True}, "loss": "weighted_bce"})
    assert len(planned("--suite", priors, "--set", "graph=cooccurrence,identity")) == 1
    vary = {"graph": ["identity", "random"], "words": ["random"], "epochs": [2]}
    assert len(planned("--suite", suite(vary=vary), "--plugins", "ssgrl")) == 5


def test_ablations_stand_on_one_board_as_variants(cli, small, store):
    drawn = ("--set", "graph=random", "--words", "random")
    ended = cli("run", "--suite", small, "--plugins", "ssgrl", *drawn)
    ended.ok("graph=random")  # though no other row differs
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
        *((text, True) for text in ("true", "True")),
        *((text, None) for text in ("null", "None")),
        ("[a, b]", ["a", "b"]),
        ("(1, 2)", (1, 2)),
        ("'1'", "1"),
        ("[010, 1:30]", ["010", "1:30"]),
        *((text, text) for text in ("negative", "a: b: c", "2014-01-02", "010", "", "x=y")),
        *((text, text) for text in ("&a [*a]", "9" * 5000)),
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


HEAD = {"label_pooling": "avg", "hidden_dim": 8}


@pytest.fixture
def counting(suite):
    """Write a suite of probe runs of the graph branch, one for each way of counting."""
    return partial(
        suite,
        {"weights": "none", "batch_size": 64, "head_options": HEAD},
        plugins=["graph_branch", "timm:test_resnet"],
        track="probe",
        grid={"head_options.counts": ["images", "objects"]},
    )


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["coco", "voc2007"])
def test_both_ways_of_counting_run_on_real_pictures(cli, counting, real_data, store, dataset):
    data = real_data / "coco-mini" if dataset == "coco" else real_data
    cli("run", "--suite", counting(datasets=[dataset], dataset_options={}), "--data", data).ok()
    records = {record.spec.settings.head_options["counts"]: record for record in store.records()}
    assert {record.status for record in records.values()} == {"ok"}
    assert records["images"].identity == records["objects"].identity == f"{dataset}-mini"
    found = [store.predictions(records[counts]).logits for counts in ("images", "objects")]
    # the json of coco-mini holds one object of a label an image
    assert (found[0] == found[1]).all() == (dataset == "coco")


def test_where_objects_are_not_known_only_these_runs_are_refused(cli, counting, store):
    ended = cli("run", "--suite", counting())
    assert "refused" in ended.err and "synthetic does not tell how many objects" in ended.err
    assert "use counts 'images'" in ended.err
    (record,) = store.records()
    assert record.spec.settings.head_options["counts"] == "images"


def test_missing_annotations_refuse_a_run_when_it_is_planned(
    cli, counting, real_data, tmp_path, store
):
    whole = real_data / "VOCdevkit" / "VOC2007"
    part = tmp_path / "data" / "VOC2007"
    lists = part / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (part / "JPEGImages").symlink_to(whole / "JPEGImages")
    for file in (whole / "ImageSets" / "Main").iterdir():
        (lists / file.name).write_text("\n".join(file.read_text().splitlines()[:200]))
    file = counting(datasets=["voc2007"], dataset_options={})
    ended = cli("run", "--suite", file, "--data", tmp_path / "data")
    assert "refused" in ended.err and "000005.xml is missing" in ended.err.replace("\n", "")
    assert len(store.records()) == 1
