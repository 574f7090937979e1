"""``mlbench import``: releases of all methods, label order, what is asked for or refused."""

import re

import numpy as np
import pytest
import torch

from mlbench import registry
from mlbench.build import restore
from mlbench.contracts.made_up import PYRAMID, features, made_up_context, reordered
from mlbench.engine.checkpoint import load
from mlbench.types import PluginError, WeightsError
from mlbench_plugins.datasets.synthetic import NAMES
from mlbench_tools.weights.conversion import (
    convert,
    count_labels,
    fill,
    recognise,
    releases,
    reorder,
)
from mlbench_tools.weights.importing import graph_state
from mlbench_tools.weights.released_labels import released_order
from tests.tools.weights.released import SHUFFLED, released_model

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


PLAIN = {key.removeprefix("module."): value for key, value in released_model()[1].items()}


def behind(prefix, state=PLAIN):
    return {prefix + key: value for key, value in state.items()}


def wrapped(part, wrapper):
    """As a wrapper around one part of the model names its tensors; no prefix is common to all."""
    return {key.replace(f"{part}.", f"{part}.{wrapper}."): v for key, v in PLAIN.items()}


CHECKPOINTS = {
    "lightning": {"state_dict": behind("model."), "optimizer_states": [{"state": {0: {}}}]},
    "compiled": wrapped("decoder", "_orig_mod"),
    "sharded": wrapped("conv1", "_fsdp_wrapped_module"),
    "thrifty": wrapped("layer1", "_checkpoint_wrapped_module"),
    "nested": {"net": behind("module.module.net._orig_mod.")},
    "averaged": {"ema": {**behind("module."), "n_averaged": torch.tensor(3)}, "updates": 9},
    "shadow": {"ema": {"decay": 0.99, "shadow": PLAIN}, "best": torch.tensor(0.8)},
    "unusual": {"teacher_weights": behind("encoder."), "optimizer": {"lr": 0.1}},
    **{
        key: {key: PLAIN, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
        for key in ("model_state_dict", "state_dict_ema", "params", "model_ema", "net")
    },
}


def test_a_checkpoint_of_another_training_code_is_the_same_model(bring, file):
    _, straight = bring()
    told = {"lightning": "of state_dict, without model.", "shadow": "of ema.shadow"}
    for form, checkpoint in CHECKPOINTS.items():
        torch.save(checkpoint, file)
        done, found = bring()
        assert done.code == 0, (form, done.err)
        assert all(torch.equal(v, straight.weights[k]) for k, v in found.weights.items()), form
        assert told.get(form, "read the state dict") in done.out


def test_of_several_state_dicts_one_is_chosen_as_the_error_says(bring, file):
    twice = {key: value * 2 for key, value in PLAIN.items()}
    torch.save({"state_dict": PLAIN, "ema": {"module": twice}, "epoch": 3}, file)
    done, _ = bring("--key", "ema")
    assert "read the state dict of ema.module" in done.out
    torch.save({"state_dict": PLAIN, "state_dict_ema": twice, "epoch": 3}, file)
    done, _ = bring()
    done.failed("holds 2 state dicts: state_dict (109 tensors), state_dict_ema")
    said = " ".join(done.err.split())
    flags = re.search(r"(--key \S+) \(its authors score the moving average\)", said)[1].split()
    done, found = bring(*flags)
    assert "read the state dict of state_dict_ema" in done.out
    _, other = bring("--key", "state_dict")
    name = "head.classifier.bias"
    torch.testing.assert_close(found.weights[name], 2 * other.weights[name])
    done, _ = bring("--key", "ema")
    done.failed("holds no state dict 'ema'; it holds state_dict (109")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(bring, file, value):
    bias = PLAIN["decoder.duplicate_pooling_bias"].clone()
    bias[3] = value
    torch.save({**PLAIN, "decoder.duplicate_pooling_bias": bias}, file)
    done, _ = bring()
    done.failed("classifier.bias has 1 of 12 values that are NaN or infinite")


def test_labels_get_the_order_of_the_data_set(bring, file, tmp_path):
    """The file's labels are alphabetical, as NAMES are; the data set's are shuffled."""
    (tmp_path / "names.txt").write_text("\n".join(SHUFFLED))
    (tmp_path / "order.txt").write_text("\n".join(NAMES) + "\n")
    labels = ("--labels", tmp_path / "names.txt")
    plain = logits(restore(bring()[1]))
    order = [NAMES.index(name) for name in SHUFFLED]
    assert not torch.allclose(plain[:, order], plain)
    classes = {str(i): name for i, name in enumerate(NAMES)}
    orders = {"asked": ["--order", "alphabetical"], "listed": ["--order", tmp_path / "order.txt"]}
    for how in ("known", "asked", "listed", "told"):
        told = {"idx_to_class": classes} if how == "told" else {}
        torch.save({"model": released_model()[1], **told}, file)
        _, checkpoint = bring(*labels, *orders.get(how, []))
        assert checkpoint.info.label_names == tuple(SHUFFLED)
        torch.testing.assert_close(logits(restore(checkpoint)), plain[:, order])
    torch.save({"model": released_model()[1]}, file)
    _, official = bring(*labels, "--order", "official")
    torch.testing.assert_close(logits(restore(official)), plain)


ORDERS = {
    "official": "ssgrl/coco2014 query2label/vg500 csra/voc2012 gap/nuswide ml_decoder/coco "
    "msrn/apparel",
    "alphabetical": "msrn/coco ml_gcn/coco2014 add_gcn/coco graph_branch/nuswide",
    "unknown": "msrn/nuswide msrn/manifest ssgrl/manifest ml_gcn/manifest c_tran/coco",
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_a_release_is_known_or_asked_for(order):
    names = ("red", "dress", "blue")
    for method, dataset in (case.split("/") for case in ORDERS[order].split()):
        given = releases(method)[0], dataset, names, {}
        if order == "unknown":
            with pytest.raises(WeightsError, match=f"{dataset} is not known; give --order off"):
                released_order(*given, None)
        found = released_order(*given, "official" if order == "unknown" else None)
        assert found == (tuple(sorted(names)) if order == "alphabetical" else names)


def test_options_of_the_head_reach_it(bring):
    done, checkpoint = bring("--option", "heads=4", "--option", "dropout=0.3")
    assert checkpoint.info.spec.settings.head_options["heads"] == 4, done.err
    done, _ = bring("--option", "head=4")
    done.failed("did you mean heads")


def test_a_file_for_another_number_of_labels_is_refused(bring, pictures):
    (pictures / "a.csv").write_text("image,labels,split\n0.jpg,a;b,train\n1.jpg,b,test\n")
    for dataset, number in (("voc2007", 20), (f"manifest:{pictures / 'a.csv'}", 2)):
        done, _ = bring("--order", "official", dataset=dataset)
        done.failed(f"is for 12 labels (classifier.bias [12]), but {dataset} has {number}")


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
        place = ("--dataset", "synthetic", "--order", "official", "--out", tmp_path)
        done = cli("import", "ssgrl", tmp_path / "ssgrl.pth", *place, *flags).failed()
        return " ".join(done.err.split())

    assert "no label graph; give the authors' own with --graph FILE" in call()
    graph = ("--graph", tmp_path / "graph.npy")
    assert "no word vectors; give the authors' own with --words FILE" in call(*graph)
    assert "finite numbers of [12, any]" in call(*graph, "--words", tmp_path / "words.npy")


METHODS = sorted(plugin.name for plugin in registry.plugins("recipe") if plugin.load().released)
SMALL = {
    "query2label": {"hidden_dim": 16, "feedforward": 12},
    "ml_decoder": {"embedding_dim": 16, "feedforward": 12},
    "transformer_head": {"embedding_dim": 16, "feedforward": 12},
}


@pytest.mark.parametrize("method", METHODS)
def test_labels_in_another_order_permute_the_logits(method):
    """A head that takes the reordered weights gives the same logits, in the new order."""
    order = [3, 0, 4, 1, 2]
    labels = made_up_context(len(order))
    factory = registry.find("head", registry.find("recipe", method).load().settings.head).load()
    options = SMALL.get(method, {})
    for released in releases(method):
        torch.manual_seed(1)
        head = factory(PYRAMID, labels, **options).eval()
        torch.manual_seed(2)
        other = factory(PYRAMID, reordered(labels, order), **options).eval()
        state = reorder(released, head.state_dict(), order)
        counted, _ = count_labels(released, state, "it")
        assert counted == len(order)
        fill(other, state, "it")
        maps = features(PYRAMID)
        with torch.no_grad():
            ours, theirs = other(maps).logits, head(maps).logits
        assert (theirs - theirs.mean(dim=1, keepdim=True)).abs().max() > 1e-5
        torch.testing.assert_close(ours, theirs[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_needs_are_buffers_that_it_has(method):
    recipe = registry.find("recipe", method).load()
    factory = registry.find("head", recipe.settings.head).load()
    head = factory(PYRAMID, made_up_context(5), **SMALL.get(method, {}))
    buffers = {name for name, _ in head.named_buffers()}
    known = registry.options(factory)
    for released in releases(method):
        assert {name for names in released.needs.values() for name in names} <= buffers
        graph = graph_state(released, torch.rand(5, 5), {**known, **recipe.settings.head_options})
        assert set(graph) == set(released.needs.get("graph", ()))


def test_queries_that_labels_share_stay_where_they_are():
    (released,) = releases("ml_decoder")
    factory = registry.find("head", "ml_decoder").load()
    head = factory(PYRAMID, made_up_context(6), groups=2, **SMALL["ml_decoder"])
    same = reorder(released, head.state_dict(), range(6))
    assert torch.equal(same["classifier.weight"], head.state_dict()["classifier.weight"])
    with pytest.raises(WeightsError, match="6 labels share 2 queries"):
        reorder(released, head.state_dict(), [1, 0, 2, 3, 4, 5])


def csra_state():
    return {
        "conv1.weight": torch.zeros(64, 3, 7, 7),
        "layer4.0.conv1.weight": torch.zeros(1),
        "classifier.multi_head.0.head.weight": torch.zeros(5, 8, 1, 1),
        "classifier.multi_head.1.head.weight": torch.zeros(5, 8, 1, 1),
    }


def test_every_name_is_used_unused_or_refused():
    (released,) = releases("csra")
    state = csra_state() | {"fc.weight": torch.zeros(1)}
    converted = convert(released, state, "x.pth")
    assert converted.unused == ("fc.weight",)
    assert converted.options == {"heads": 2} and converted.head["weight"].shape == (2, 5, 8)
    with pytest.raises(WeightsError, match=r"1 names have no place in .*: strange\.weight"):
        convert(released, state | {"strange.weight": torch.zeros(1)}, "x.pth")


def test_a_file_of_another_method_is_refused_with_that_methods_name():
    assert recognise("csra", csra_state(), "x.pth")[0] is releases("csra")[0]
    with pytest.raises(WeightsError, match=r"x\.pth: is no checkpoint of ssgrl.*one of csra"):
        recognise("ssgrl", csra_state(), "x.pth")
    with pytest.raises(PluginError, match=r"no published files of gmp are known; .* csra"):
        recognise("gmp", csra_state(), "x.pth")


def test_what_does_not_fit_is_named():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = module.state_dict()
    del state["1.num_batches_tracked"]
    fill(module, state, "x.pth")
    del state["0.bias"]
    state |= {"0.weight": torch.zeros(3, 5), "more": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        fill(module, state, "x.pth")
    for said in ("1 missing: 0.bias", "1 unexpected: more", "0.weight [3, 5] instead of [3, 2]"):
        assert said in str(error.value)
