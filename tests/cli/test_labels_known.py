"""Label graphs, words, noise and options of data sets from the command line to the board."""

import json

import numpy as np
import pytest

from mlbench.store import Store
from mlbench.suite import apply_overrides, make_suite, named_values
from mlbench.types import LabelNoise, SuiteError

SMALL = """
plugins: [gap]
seeds: [0]
dataset_options: {synthetic: {train_images: 64, test_images: 31, size: 32}}
settings: {image_size: 32, epochs: 1, batch_size: 16, freeze_bn: true}
per_method:
  ssgrl: {head_options: {hidden_dim: 8, output_dim: 8, intermediary_dim: 8}}
"""


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def found(tmp_path):
    return Store(tmp_path / "results").records()


# ---------------------------------------------------------------------------------- graph and words
def planned(cli, *arguments):
    ended = cli("run", *arguments, "--dry-run")
    assert ended.code == 0, ended.err
    return [line for line in ended.out.splitlines() if "would run" in line]


def test_what_uses_no_graph_is_planned_once(cli, small):
    arguments = ("--suite", small, "--plugins", "gap,ssgrl")
    lines = planned(cli, *arguments, "--set", "graph=identity,random,cooccurrence")
    assert len(lines) == 4
    assert sum("graph=identity" in line for line in lines) == 1
    assert not any("graph=" in line for line in lines if line.split()[1] == "gap")
    (alone,) = planned(cli, "--suite", small, "--set", "graph=identity")
    (plain,) = planned(cli, "--suite", small)
    assert alone.split()[0] == plain.split()[0], "the same run"


def test_what_uses_no_words_is_planned_once(cli, small, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("sun 1 0\nmoon 0 1\n")
    arguments = ("--suite", small, "--plugins", "gap,ml_decoder,ssgrl")
    lines = planned(cli, *arguments, "--words", f"random,{words}")
    assert [line.split()[1] for line in lines].count("ssgrl") == 2
    assert len(lines) == 4 and sum("words=random" in line for line in lines) == 1


def test_priors_are_no_graph(cli, small):
    with small.open("a") as file:
        file.write("  gap: {head_options: {prior_bias: true}, loss: weighted_bce}\n")
    assert len(planned(cli, "--suite", small, "--set", "graph=cooccurrence,identity")) == 1


def test_a_suite_varies_the_graph_one_at_a_time(cli, small):
    with small.open("a") as file:
        file.write("vary: {graph: [identity, random], words: [random], epochs: [2]}\n")
    assert len(planned(cli, "--suite", small, "--plugins", "ssgrl")) == 5
    small.write_text(SMALL + "vary: {graph: [identiy]}\n")
    ended = cli("run", "--suite", small)
    assert ended.code == 2 and "did you mean identity" in ended.err


def test_ablations_stand_on_one_board_as_variants(cli, small, tmp_path):
    ended = cli(
        "run", "--suite", small, "--plugins", "ssgrl", "--set", "graph=random", "--words", "random"
    )
    assert ended.code == 0, ended.err
    assert "graph=random" in ended.out, "though no other row differs"
    (record,) = (r for r in found(tmp_path) if r.spec.method == "ssgrl")
    assert (record.spec.graph, record.spec.words) == ("random", "random")
    assert any("label graph: random" in note for note in record.notes)
    assert any("drawn at random" in note for note in record.notes)


# ---------------------------------------------------------------------------------- partial labels
@pytest.mark.parametrize(
    ("noise", "edition"),
    [
        (("keep=0.4",), "labels-40"),
        pytest.param(
            ("single_positive=true", "seed=2"), "single-positive-seed-2", marks=pytest.mark.slow
        ),
        pytest.param(
            ("flip=0.1", "flip_which=present"), "flipped-10-present", marks=pytest.mark.slow
        ),
    ],
)
def test_runs_on_noisy_labels_have_a_board_of_their_own(cli, small, tmp_path, noise, edition):
    flags = [part for text in noise for part in ("--set", f"label_noise.{text}")]
    assert cli("run", "--suite", small).code == 0
    ended = cli("run", "--suite", small, "--losses", "asl,bce", *flags)
    assert ended.code == 0, ended.err
    (clean,) = (r for r in found(tmp_path) if r.spec.label_noise == LabelNoise())
    one, other = (r for r in found(tmp_path) if r.spec.label_noise != LabelNoise())
    assert one.spec.data == other.spec.data != clean.spec.data, "both losses see the same labels"
    store = Store(tmp_path / "results")
    for noisy in (one, other):
        assert noisy.status == "ok"
        assert noisy.identity == f"{clean.identity}-{edition}"
        assert any("label noise in train" in note for note in noisy.notes)
        targets = (store.predictions(record).targets for record in (clean, noisy))
        assert np.array_equal(*targets), "the test split is as it was"
    boards = tmp_path / "results" / "leaderboards"
    assert len(list(boards.glob(f"*{edition}*.md"))) == 1
    assert len(planned(cli, "--suite", small, "--losses", "asl,bce", *flags)) == 0


def test_flags_add_to_the_noise_of_a_suite(cli, small):
    (plain,) = planned(cli, "--suite", small)
    with small.open("a") as file:
        file.write("label_noise: {keep: 0.5}\n")
    (half,) = planned(cli, "--suite", small)
    (other,) = planned(cli, "--suite", small, "--set", "label_noise.seed=1")
    assert len({line.split()[0] for line in (plain, half, other)}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "label_noise.keep=40"), "label_noise.keep = 40"),
        (("--set", "label_noise.keep"), "--set optimizer.lr=3e-4"),
        (("--set", "label_noise.kep=0.4"), "did you mean keep"),
        (("--set", "label_noise.keep=0.4", "--set", "label_noise.single_positive=true"), "exclude"),
        (("--set", "label_noise.flip=0.1", "--set", "label_noise.flip_which=some"), "flip_which"),
        (("--set", "graph=identiy"), "did you mean identity"),
        (("--words", "randm"), "did you mean random"),
        (("--words", "a.npz,b.npz"), "are 2 files"),
        (("--set", "dataset_options.train_image=5"), "did you mean train_images"),
        (("--set", "dataset_options.voc2007.year=5"), "data set 'voc2007'"),
        (("--set", "dataset_options.size"), "--set optimizer.lr=3e-4"),
    ],
)
def test_wrong_use_ends_with_code_2_and_says_why(cli, small, arguments, message):
    ended = cli("run", "--suite", small, *arguments)
    assert ended.code == 2
    assert message in " ".join((ended.err + ended.out).split())


# ---------------------------------------------------------------------------- options of data sets
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
    with pytest.raises(SuiteError, match="did you mean coco"):
        make_suite(apply_overrides(fields, ["dataset_options.coc.year=2014"]))


def test_options_of_data_sets_on_the_command_line(cli, small, tmp_path):
    few = ("dataset_options.train_images=40", "dataset_options.synthetic.test_images=9")
    few = [word for text in few for word in ("--set", text)]
    assert cli("run", "--suite", small, *few).code == 0
    (record,) = found(tmp_path)
    assert (record.train_images, record.test_images) == (40, 9)
    for flag in ("--option", "--dataset-option"):
        few = (flag, "train_images=40", flag, "test_images=9", flag, "size=32")
        counted = json.loads(cli("data", "stats", "synthetic", *few, "--json").out)
        assert counted["splits"]["train"]["images"] == 40


def test_progress_says_which_variant_runs(cli, small):
    done = cli("run", "--suite", small, "--plugins", "ssgrl", "--set", "graph=identity,random")
    begun = [line for line in done.err.splitlines() if line.startswith("[")]
    assert [line.rpartition(" ")[2] for line in begun] == ["graph=identity", "graph=random"]


def test_a_wrong_flag_is_not_blamed_on_the_suite_file(cli, small):
    done = cli("run", "--suite", small, "--plugins", "gap", "--set", "label_noise.keep=1.5")
    assert done.code == 2 and "the command line: label_noise.keep = 1.5" in done.err
    done = cli(
        "run", "--suite", small, "--plugins", "gap", "--set", "label_noise.flip_which=present"
    )
    assert done.code == 2 and "flip_which needs flip" in done.err and "Value error" not in done.err
    small.write_text(small.read_text() + "holdout: 1.5\n")
    done = cli("run", "--suite", small, "--plugins", "gap")
    assert done.code == 2 and f"{small}: holdout = 1.5" in done.err
