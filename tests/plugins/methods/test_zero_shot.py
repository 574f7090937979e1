"""Zero-shot scores from label vectors, and C-Tran from label masks, each to boards of its own."""

import json
import re
import sys
import types

import numpy as np
import pytest
import torch

from mlbench.boards.rows import tables
from mlbench.contracts.made_up import PYRAMID, features, known_context, made_up_context
from mlbench.types import Level, PluginError
from mlbench_plugins.backbones.towers import timm_tower
from mlbench_plugins.methods.c_tran import CTran
from mlbench_plugins.methods.zero_shot import ZeroShot

TOWER = "vit_xsmall_patch16_clip_224"
SIZES = {"train_images": 24, "test_images": 40, "size": 32}


@pytest.mark.parametrize("scores", ["cosine", "softmax"])
def test_scores_are_cosines_or_their_softmax(scores):
    rng = np.random.default_rng(0)
    text_CE, images_BE = rng.normal(size=(3, 8)), rng.normal(size=(5, 8))
    head = ZeroShot((Level(8, 0),), known_context(np.eye(3), text_CE), scores=scores)
    maps_BEHW = torch.from_numpy(images_BE)[:, :, None, None].float()
    logits_BC = head((maps_BEHW,)).logits.numpy()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images_BE, text_CE)]
    expected_BC = 100 * unit[0] @ unit[1].T
    if scores == "softmax":
        expected_BC -= np.log(np.exp(expected_BC).sum(1, keepdims=True))
    np.testing.assert_allclose(logits_BC, expected_BC, rtol=1e-4, atol=1e-4)


def test_vectors_of_another_model_are_refused():
    with pytest.raises(PluginError, match=r"embeddings of 8 numbers and the label vectors have 5"):
        ZeroShot((Level(8, 0),), known_context(np.eye(3), np.ones((3, 5))))


def test_a_tower_gives_the_embedding_of_timms_model_at_any_size():
    torch.manual_seed(0)
    tower = timm_tower(TOWER, weights="none", image_size=64).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        (map_BEHW,) = tower(images)
        expected_BE = tower.model(images)
    assert tower.spec == (Level(512, 0),) and map_BEHW.shape == (2, 512, 1, 1)
    torch.testing.assert_close(map_BEHW[:, :, 0, 0], expected_BE)


@pytest.fixture
def texts(cli, tmp_path, monkeypatch):
    """Make label vectors with an open_clip whose text of n letters points to axis n."""

    class Text(torch.nn.Module):
        def encode_text(self, tokens):
            return 3 * torch.nn.functional.one_hot(tokens, 512).float()

    clip = types.ModuleType("open_clip")
    clip.list_models = lambda: ["ViT-B-16"]
    clip.create_model = lambda name, pretrained: Text()
    clip.get_tokenizer = lambda name: lambda texts: torch.tensor([len(text) for text in texts])
    monkeypatch.setitem(sys.modules, "open_clip", clip)
    sizes = [part for name, size in SIZES.items() for part in ("--option", f"{name}={size}")]

    def make(*arguments):
        return cli("data", "texts", "synthetic", *sizes, "--model", "ViT-B-16", *arguments)

    return make


def test_a_vector_is_the_mean_over_the_templates(texts, tmp_path):
    texts("--template", "a {}", "--template", "two {}s", "--spelling", "apple=fruit").ok()
    with np.load(tmp_path / "texts.npz") as file:
        arrays = dict(file)
    row = arrays["names"].tolist().index("apple")
    expected_E = np.zeros(512)
    expected_E[[len("a fruit"), len("two fruits")]] = 0.5**0.5
    np.testing.assert_allclose(arrays["vectors"][row], expected_E, rtol=1e-6)
    assert str(arrays["about"]) == (
        "ViT-B-16 openai; templates: a {} | two {}s; spelled: apple as fruit"
    )
    assert "did you mean ViT-B-16" in texts("--model", "ViT-B-61").err
    assert "put {} once" in texts("--template", "a photo").err


def test_from_texts_to_a_board_without_training(cli, texts, tmp_path, store):
    assert texts().code == 0
    fields = {"dataset_options": {"synthetic": SIZES}, "track": "zero_shot", "measure": False}
    (tmp_path / "suite.json").write_text(json.dumps(fields | {"methods": ["zero_shot"]}))
    command = ("run", "--suite", "suite.json", "--backbones", f"tower:{TOWER}")
    command += ("--image-size", 32, "--weights", "none")
    cli(*command).failed("mlbench data texts")
    assert cli(*command, "--words", "texts.npz", "--epochs", 3).code == 2
    cli(*command, "--words", "texts.npz").ok()
    (record,) = store.records()  # one seed: nothing is drawn
    assert record.spec.settings.epochs == 0 and record.epochs == () and record.spec.seed == 0
    assert any("templates: a photo of a {}." in note for note in record.notes)
    (table,) = tables([record])
    assert table.track == "zero_shot" and not table.untuned
    assert "Nothing is missing" in cli(*command, "--words", "texts.npz").out
    gap = cli(*command, "--words", "texts.npz", "--set", "methods=gap")
    assert "has weights to train" in gap.err


FEW = "dataset_options={train_images: 24, test_images: 40, size: 32}"


def test_a_state_is_added_to_the_vector_of_its_label():
    """Telling a label moves it by the difference of two states, as moving the label itself does."""
    torch.manual_seed(0)
    head, maps = CTran(PYRAMID, made_up_context(3), layers=2).eval(), features(PYRAMID)
    with torch.no_grad():
        told = head(maps, torch.tensor([[-1, 1, 0]] * 2)).logits
        head.labels[1:] += head.states.flip(0) - head.unknown
        torch.testing.assert_close(head(maps).logits, told)
    assert head.unknown.any() and not head.unknown.requires_grad, "random, and never trained"


@pytest.mark.slow
def test_known_labels_have_boards_of_their_own(cli, tmp_path, store):
    command = ("run", "--plugins", "c_tran,gap,timm:mobilenetv2_035", "--track", "probe")
    command += ("--epochs", 1, "--weights", "none", "--image-size", 32, "--set", "measure=false")
    command += ("--set", FEW)
    cli(*command, "--set", "grid.known_labels=[0, 0.5]").ok()
    found = {(r.spec.method, r.spec.known_labels.share): r for r in store.records()}
    assert len(found) == 4 and len({table.name for table in tables(found.values())}) == 2
    plain, known = (found["c_tran", share] for share in (0.0, 0.5))
    assert known.identity == f"{plain.identity}-known-50"
    assert "about 50% of the labels of test images are told" in known.notes[-1]
    seen = {key: store.predictions(record) for key, record in found.items()}
    whole, rest = (seen["c_tran", share].targets for share in (0.0, 0.5))
    assert (rest == np.where(rest < 0, -1, whole)).all()
    assert 0.4 < (rest < 0).mean() < 0.6
    for method, told in (("gap", False), ("c_tran", True)):
        # Training is the same: all that differs is what the head is told.
        logits = [seen[method, share].logits for share in (0.0, 0.5)]
        assert told != np.allclose(*logits, atol=1e-6)
    scored = cli("evaluate", tmp_path / "results" / known.checkpoint, "--dataset", "synthetic")
    again = float(re.search(r"mAP +([\d.]+)", scored.out)[1])
    assert again == pytest.approx(plain.scores.mAP, abs=1), "without known labels as any other"
    command += ("--losses", "an", "--dry-run")
    assert "loss an learns from unknown labels" in cli(*command).err
    taken = cli(*command, "--set", "per_method.c_tran.head_options.most_known=0")
    assert "learns from unknown" not in taken.err + taken.out and "c_tran" in taken.out
