"""`--init`: a run that starts from a model of ours."""

import numpy as np
import pytest
import torch

import mlbench
from mlbench import registry
from mlbench.boards.rows import tables
from mlbench.build import build, feature_identity, start_from
from mlbench.engine.checkpoint import Checkpoint, load
from mlbench.store import Store
from mlbench.tracks import settle
from mlbench.types import LabelContext, ModelInfo, Places, Preprocessing, RunSpec
from mlbench_plugins.datasets.synthetic import NAMES, Synthetic
from tests.cli.conftest import SUITE

OLD, NEW = NAMES[:7], (*NAMES[9:], *NAMES[3:6])
SHARED = [(NEW.index(name), OLD.index(name)) for name in NEW if name in OLD]


@pytest.fixture(scope="module")
def first(tmp_path_factory, cache):
    """The folder of a run on other labels."""
    folder = tmp_path_factory.mktemp("first")
    fields = {k: SUITE[k] for k in ("dataset_options", "settings")}
    table = mlbench.run(["gap"], labels=OLD, results=folder, cache=cache, device="cpu", **fields)
    return folder / "runs" / table["run_id"][0]


@pytest.fixture
def start(cli, suite, first):
    """Run gap on the new labels from that model, without learning anything."""

    def call(*arguments, model=first):
        still = suite({"optimizer": {"lr": 0.0}}, labels=list(NEW))
        return cli("run", "--suite", still, "--init", model, *arguments)

    return call


def test_a_run_starts_from_a_model_of_ours(cli, unmeasured, start, first, tmp_path, store):
    done = start().ok()
    (record,) = store.records()
    before = load(first / "checkpoint.safetensors").weights
    after = load(tmp_path / "results" / record.checkpoint).weights
    assert all(torch.allclose(after[n], t) for n, t in before.items() if "backbone." in n)
    to, source = map(list, zip(*SHARED, strict=True))
    for name in ("head.classifier.weight", "head.classifier.bias"):
        assert torch.allclose(after[name][to], before[name][source])
        rest = [i for i in range(len(NEW)) if i not in to]
        assert len(after[name]) == len(NEW)
        assert not torch.allclose(after[name][rest], before[name][: len(rest)])
    (note,) = [note for note in record.notes if note.startswith("started from gap")]
    assert "2 tensors" in note and f"2 in the rows of {len(SHARED)} of {len(NEW)} labels" in note
    assert record.pretraining.data.startswith("random, then synthetic")
    assert record.spec.init.startswith("sha256:") and record.spec.settings.weights == "none"
    assert f"started from the model {record.spec.init[7:15]}" in done.out
    plain = cli("run", "--suite", tmp_path / "small.yaml")
    assert plain.code == 0 and "started from" not in plain.out, "a board of its own"
    assert len(tables(store.records())) == 2
    assert "Nothing is missing" in start().out
    digest = ("--set", f"init={record.spec.init}")
    missing = cli("run", "--suite", tmp_path / "small.yaml", *digest, "--set", "seeds=5")
    missing.failed("--init FILE")
    json, again = store.file(record), Store(tmp_path / "again")
    cli("repeat", json, "--results", "again", "--init", first).ok()
    (other,) = again.records()
    assert np.array_equal(store.predictions(record).logits, again.predictions(other).logits)
    assert cli("repeat", json, "--results", "more").code == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--weights", "none"], "leave out --weights"),
        (["--backbones", "resnet18"], "give --backbones timm:test_resnet --image-size 32"),
        (["--init", "nothing"], "init: nothing"),
        (["--init", __file__], "cannot be read as a checkpoint"),
    ],
)
def test_what_no_run_can_start_from_is_refused(start, arguments, part):
    start(*arguments, "--dry-run").failed(part)


def context(names):
    """Labels that are known by their names only, with word vectors."""
    counts = np.eye(len(names), dtype=np.float32) * 3 + 1
    vectors = np.random.default_rng(0).standard_normal((len(names), 8)).astype(np.float32)
    return LabelContext(names, counts, vectors, 9, lambda: np.ones(len(names), np.int64))


HEADS = [plugin.name for plugin in registry.plugins("head")]
HEADS.remove("zero_shot")  # has no weights to take over


@pytest.mark.parametrize("head", HEADS)
def test_every_head_takes_over_what_belongs_to_labels_of_equal_names(head):
    over = {"backbone": "timm:test_resnet", "weights": "none", "image_size": 64}
    settings = settle("probe", head, "synthetic", Synthetic.card, [over])
    places = Places(results=".", cache=".")
    spec = RunSpec(method=head, dataset="synthetic", data="d", track="probe", settings=settings)
    torch.manual_seed(0)
    theirs, _ = build(settings, context(OLD), places)
    inputs = theirs.preprocessing(Preprocessing())
    info = ModelInfo(spec=spec, label_names=OLD, preprocessing=inputs, word_width=8)
    init = Checkpoint(theirs.state_dict(), info)
    model, _ = build(settings, context(NEW), places, init)
    fresh = {name: t.clone() for name, t in model.head.state_dict().items()}
    note = start_from(init, model, settings, context(NEW))
    old, new = theirs.head.state_dict(), model.head.state_dict()
    trained = dict(model.head.named_parameters())
    moved = 0
    for name, tensor in new.items():
        if tensor.shape == old[name].shape:
            assert torch.equal(tensor, old[name]), name
        elif name not in trained:
            assert torch.equal(tensor, fresh[name]), f"{name} follows the new data"
        else:
            over = [i for i, size in enumerate(tensor.shape) if size != old[name].shape[i]]
            for to, source in SHARED:
                ours, known = tensor, old[name]
                for axis in reversed(over):
                    ours, known = ours.select(axis, to), known.select(axis, source)
                assert torch.equal(ours, known), name
            rest = torch.tensor([i for i in range(len(NEW)) if i not in dict(SHARED)])
            kept = (one.index_select(over[0], rest) for one in (tensor, fresh[name]))
            assert torch.equal(*kept), name
            moved += 1
    assert f"{moved} in the rows of {len(SHARED)}" in note
    model, _ = build(settings, context(OLD), places, init)
    start_from(init, model, settings, context(OLD))
    parameters = dict(theirs.named_parameters())
    assert all(torch.equal(parameters[n], p) for n, p in model.named_parameters()), "all labels"


def test_feature_maps_of_another_start_are_others(first):
    checkpoint = load(first / "checkpoint.safetensors")
    spec = checkpoint.info.spec
    model, _ = build(spec.settings, context(OLD), Places(results=".", cache="."), checkpoint)
    other = spec.model_copy(update={"init": "sha256:ab"})
    plain, started = (feature_identity(one, model) for one in (spec, other))
    assert plain["weights"] != started["weights"] and started["seed"] is None
