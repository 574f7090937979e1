"""``mlbench import``: label order, what is asked for, and what is refused."""

import random

import numpy as np
import pytest
import torch

from mlbench.build import restore
from mlbench.engine.checkpoint import load
from mlbench_plugins.datasets.synthetic import NAMES
from tests.tools.weights.released import released_model

SHUFFLED = random.Random(0).sample(NAMES, len(NAMES))
BACKBONE = ("--backbone", "timm:test_resnet")


@pytest.fixture
def file(tmp_path):
    torch.save({"state_dict": released_model()[1], "epoch": 1}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


@pytest.fixture
def bring(cli, file, tmp_path):
    """Import the small model with more flags; how it ended, and the checkpoint."""

    def call(*flags, dataset="synthetic", method="transformer_head"):
        out = tmp_path / "ours"
        done = cli(*("import", method, file, "--dataset", dataset, "--out", out, *BACKBONE, *flags))
        return done, load(out / "checkpoint.safetensors") if done.code == 0 else None

    return call


def logits(model):
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images.to(torch.uint8)).logits


def test_the_imported_model_gives_the_same_logits(bring):
    done, checkpoint = bring()
    assert done.code == 0 and "12 labels" in done.out and "every name" in done.out
    spec = checkpoint.info.spec
    assert spec.method == "transformer_head" and spec.settings.weights == "none"
    assert spec.settings.head_options["feedforward"] == 24
    assert checkpoint.info.preprocessing.mean == pytest.approx((0.5, 0.5, 0.5))
    theirs = released_model()[0]
    theirs.mean.fill_(127.5)
    theirs.std.fill_(127.5)
    torch.testing.assert_close(logits(restore(checkpoint)), logits(theirs))


@pytest.mark.parametrize("how", ["known", "asked", "listed", "told"])
def test_labels_get_the_order_of_the_data_set(bring, file, tmp_path, how):
    """The file's labels are alphabetical, as NAMES are; the data set's are shuffled."""
    (tmp_path / "names.txt").write_text("\n".join(SHUFFLED))
    (tmp_path / "order.txt").write_text("\n".join(NAMES) + "\n")
    flags = {"asked": ["--order", "alphabetical"], "listed": ["--order", tmp_path / "order.txt"]}
    if how == "told":
        classes = {str(i): name for i, name in enumerate(NAMES)}
        torch.save({"model": released_model()[1], "idx_to_class": classes}, file)
    _, checkpoint = bring("--labels", tmp_path / "names.txt", *flags.get(how, []))
    assert checkpoint.info.label_names == tuple(SHUFFLED)
    _, straight = bring()
    order = [NAMES.index(name) for name in SHUFFLED]
    moved, plain = logits(restore(checkpoint)), logits(restore(straight))
    torch.testing.assert_close(moved, plain[:, order])
    assert not torch.allclose(moved, plain)
    if how != "known":
        return
    _, official = bring("--labels", tmp_path / "names.txt", "--order", "official")
    torch.testing.assert_close(logits(restore(official)), plain)


def test_options_of_the_head_reach_it(bring):
    done, checkpoint = bring("--option", "heads=4", "--option", "dropout=0.3")
    assert checkpoint.info.spec.settings.head_options["heads"] == 4, done.err
    done, _ = bring("--option", "head=4")
    assert done.code == 2 and "did you mean heads" in done.err


def test_a_file_for_another_number_of_labels_is_refused(bring):
    done, _ = bring(dataset="voc2007")
    assert done.code == 2
    assert "is for 12 labels (classifier.bias [12]), but voc2007 has 20" in done.err


def test_what_a_file_lacks_is_asked_for(cli, tmp_path):
    """A file of SSGRL's names: the graph first, then the words, then their shapes."""
    state = {
        "resnet_101.conv1.weight": torch.zeros(64, 3, 7, 7),
        "word_semantic.fc_1.weight": torch.zeros(8, 2048),
        "fc_output.bias": torch.zeros(5),
        "classifiers.weight": torch.zeros(12, 5),
        "classifiers.bias": torch.zeros(12),
    }
    torch.save(state, tmp_path / "ssgrl.pth")
    np.save(tmp_path / "graph.npy", np.zeros((12, 12)))
    np.save(tmp_path / "words.npy", np.zeros((3, 300)))

    def call(*flags):
        place = ("--dataset", "synthetic", "--out", tmp_path)
        done = cli("import", "ssgrl", tmp_path / "ssgrl.pth", *place, *flags)
        assert done.code == 2
        return " ".join(done.err.split())

    assert "no label graph; give the authors' own with --graph FILE" in call()
    graph = ("--graph", tmp_path / "graph.npy")
    assert "no word vectors; give the authors' own with --words FILE" in call(*graph)
    assert "finite numbers of [12, any]" in call(*graph, "--words", tmp_path / "words.npy")
