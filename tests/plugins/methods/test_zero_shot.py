"""Zero-shot scores, from label vectors of texts to a board."""

import json
import sys
import types

import numpy as np
import pytest
import torch

from mlbench.boards.rows import tables
from mlbench.contracts.made_up import known_context
from mlbench.types import Level, PluginError
from mlbench_plugins.backbones.towers import timm_tower
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
