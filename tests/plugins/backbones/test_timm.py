"""Backbones from timm: levels, stages, weights from files, and what is refused."""

import json
import shlex

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mlbench.types import PluginError, WeightsError
from mlbench_plugins.backbones import timm as plugin
from mlbench_plugins.backbones.timm import timm_backbone
from mlbench_plugins.layers import timm_models
from mlbench_plugins.layers.pretrained import WeightFile
from mlbench_plugins.layers.pretraining import of_file, of_tag
from tests.given import path_of

SMALL = "mobilenetv2_035"
SLIM = {"depth": 3, "embed_dim": 64, "num_heads": 4}
SLIM_SWIN = {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)}
"""Arguments of timm for transformers of few weights."""


def built(name, **options):
    return timm_backbone(name, weights="none", **options).eval()


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("resnet18", ((128, 8), (256, 16), (512, 32))),
        ("mobilenetv2_100", ((32, 8), (96, 16), (1280, 32))),
        ("efficientnetv2_s", ((64, 8), (160, 16), (1280, 32))),
        ("convnext_tiny", ((192, 8), (384, 16), (768, 32))),
        ("resnet101", ((512, 8), (1024, 16), (2048, 32))),
        ("tresnet_l", ((152, 8), (1216, 16), (2432, 32))),
        ("tresnet_v2_l", ((512, 8), (1024, 16), (2048, 32))),
        ("swin_large_384", ((384, 8), (768, 16), (1536, 32))),
        ("vit_base_384", ((768, 16), (768, 16), (768, 16))),
        ("eva02_base_448", ((768, 14), (768, 14), (768, 14))),
        ("siglip2_base", ((768, 16), (768, 16), (768, 16))),
        ("dinov3_base", ((768, 16), (768, 16), (768, 16))),
        ("clip_base", ((768, 16), (768, 16), (768, 16))),
        ("convnextv2_base", ((256, 8), (512, 16), (1024, 32))),
        ("tresnet_xl", ((166, 8), (1328, 16), (2656, 32))),
        ("efficientnet_lite2", ((48, 8), (120, 16), (1280, 32))),
    ],
)
def test_curated_names_have_the_levels_of_their_papers(name, levels):
    with torch.device("meta"):
        backbone = getattr(plugin, name)(weights="none", image_size=448)
    assert backbone.spec == levels
    maps = backbone(torch.zeros(1, 3, 448, 448, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [(d, 448 // s, 448 // s) for d, s in levels]


@pytest.mark.parametrize(
    ("name", "slim"),
    [
        ("resnet18", {}),
        (SMALL, {}),
        ("vit_tiny_patch16_224", SLIM),
        ("swin_tiny_patch4_window7_224", SLIM_SWIN),
        ("convnext_atto", {}),
        ("mobilenetv3_small_050", {}),
        ("skresnet18", {}),
    ],
)
def test_the_deepest_map_is_what_the_models_own_classifier_pools(name, slim):
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=7, **slim).eval()
    backbone = built(name, timm_kwargs=slim)
    state = whole.state_dict()
    backbone.model.load_state_dict({k: state[k] for k in backbone.model.state_dict()})
    transformer = name.startswith(("vit", "swin"))
    images = torch.randn(1, 3, *((224, 224) if transformer else (64, 96)))
    with torch.no_grad():
        deepest = backbone(images)[-1]
        features = whole.forward_features(images)
        if name.startswith("vit"):
            features = features[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
        elif name.startswith("swin"):
            features = features.permute(0, 3, 1, 2)
        torch.testing.assert_close(deepest, features)
        if not transformer:
            torch.testing.assert_close(whole.forward_head(deepest), whole(images))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("eva02_tiny_patch14_224", 1),
        ("vit_tiny_patch16_dinov3_qkvb", 5),
        ("vit_base_patch32_siglip_256", 0),
        ("vit_xsmall_patch16_clip_224", 1),
    ],
)
def test_class_and_register_tokens_are_no_places_of_the_map(name, prefix):
    """At a size that no position was made for, each place is the token of its patch."""
    torch.manual_seed(0)
    backbone = built(name, image_size=224, timm_kwargs=SLIM)
    side = backbone.spec[-1].stride
    images = torch.randn(2, 3, 5 * side, 3 * side)
    with torch.no_grad():
        tokens_BND = backbone.model.forward_features(images)
        deepest_BDHW = backbone(images)[-1]
    assert tokens_BND.shape[1] == prefix + 5 * 3
    for row, column in ((0, 0), (1, 2), (4, 1)):
        token = tokens_BND[:, prefix + 3 * row + column]
        torch.testing.assert_close(deepest_BDHW[:, :, row, column], token)


@pytest.mark.parametrize(
    ("name", "data", "labels"),
    [
        ("resnet101.tv_in1k", "ImageNet-1k", "one class an image"),
        ("vit_base_patch16_siglip_256.v2_webli", "WebLI", "captions"),
        ("vit_small_patch16_dinov3.lvd1689m", "LVD-1689M", "none (self-supervised)"),
        (
            "vit_base_patch16_clip_224.openai_ft_in12k_in1k",
            "OpenAI's image-text pairs, then ImageNet-12k, then ImageNet-1k",
            "captions, then one class an image",
        ),
        (
            "convnextv2_tiny.fcmae_ft_in22k_in1k",
            "ImageNet-1k, then ImageNet-22k, then ImageNet-1k",
            "none (self-supervised), then one class an image",
        ),
        ("vit_base_patch16_224.dino", "unknown: dino names no data set", ""),
    ],
)
def test_timms_tags_say_what_the_weights_were_trained_on(name, data, labels):
    config = timm.get_pretrained_cfg(name)
    found = of_tag(config.tag, config.license)
    assert (found.data, found.labels, found.licence) == (data, labels, config.license)


def test_a_files_header_or_else_its_name_says_what_it_was_trained_on(tmp_path, state):
    said = {"pretraining": "OpenImages, then COCO", "pretraining_saw": "coco", "licence": "mit"}
    path = written(tmp_path / "w.safetensors", state, **said)
    found = timm_backbone(SMALL, weights=str(path)).pretraining
    assert (found.data, found.saw, found.licence) == ("OpenImages, then COCO", ("coco",), "mit")
    named = timm_backbone(SMALL, weights=str(written(tmp_path / "m_coco.safetensors", state)))
    assert (named.pretraining.data, named.pretraining.saw) == ("COCO", ("coco",))
    for words in ("coco coco2014 mscoco", "voc voc2007 voc12", "nuswide nus_wide", "vg500"):
        found = [of_file(WeightFile(tmp_path / f"r_{w}.pth", {})) for w in words.split()]
        assert {f.saw for f in found} == {(words.split()[0],)} and "unknown" not in found[0].data
    mute = timm_backbone(SMALL, weights=str(written(tmp_path / "best.safetensors", state)))
    assert mute.pretraining.data == "unknown: best names no data set"
    assert built(SMALL).pretraining.data == "random"


@pytest.mark.parametrize(
    ("name", "slim"),
    [(SMALL, {}), ("swin_tiny_patch4_window7_224", SLIM_SWIN), ("vit_tiny_patch16_224", SLIM)],
)
def test_images_need_not_be_square_nor_of_the_size_asked_for(name, slim):
    backbone = built(name, image_size=224, timm_kwargs=slim)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 96, 160))
    for level, found in zip(backbone.spec, maps, strict=True):
        assert found.shape == (1, level.channels, 96 // level.stride, 160 // level.stride)


def test_a_resnets_stages_are_its_stem_and_its_four_layers():
    backbone = built("resnet18")
    stages = backbone.stages()
    assert len(stages) == 5
    model = backbone.model
    assert stages[0] == [model.conv1, model.bn1]
    assert stages[1:] == [[model.layer1], [model.layer2], [model.layer3], [model.layer4]]


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return timm.create_model(SMALL, num_classes=5).state_dict()


def written(path, state, **metadata):
    save_file({k: v.contiguous() for k, v in state.items()}, path, metadata=metadata or None)
    return path


def holds(backbone, state):
    return all(torch.equal(v, state[k]) for k, v in backbone.model.state_dict().items())


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("model", ""),
        ("state_dict", "module."),
        ("model_ema", "module.module."),
        ("ema.shadow", "_orig_mod."),
        ("weights", "student.backbone."),
    ],
)
def test_weights_of_a_whole_model_under_a_key_and_a_prefix(tmp_path, state, key, prefix, caplog):
    content = {f"{prefix}{k}": v for k, v in state.items()}
    for part in reversed(key.split(".")):
        content = {part: content}
    torch.save({**content, "best": torch.tensor(0.8)}, tmp_path / "w.pth")
    assert holds(timm_backbone(SMALL, weights=str(tmp_path / "w.pth")), state)
    assert ("names are read without" in caplog.text) == bool(prefix)


def test_one_of_several_state_dicts_is_saved_alone_as_the_error_says(tmp_path, state):
    path = tmp_path / "both.pth"
    broken = {**state, "bn1.weight": torch.full_like(state["bn1.weight"], torch.nan)}
    torch.save({"ema": {"shadow": state}, "model": broken}, path)
    said = fails(path)
    assert "holds 2 state dicts: ema.shadow (" in said
    exec(shlex.split(said.partition("give that: ")[2])[2], {})  # of python -c
    assert holds(timm_backbone(SMALL, weights=tmp_path / "both-ema.shadow.pth"), state)
    torch.save(broken, path)
    assert "bn1.weight has values that are NaN or infinite" in fails(path)


def test_half_precision_files_are_cast(tmp_path, state):
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    backbone = timm_backbone(SMALL, weights=written(tmp_path / "w.safetensors", half))
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    assert holds(backbone, {k: v.float() for k, v in half.items()})


def test_the_header_of_a_file_is_obeyed(tmp_path, state):
    header = {"architecture": SMALL, "timm_kwargs": "pad_type=same", "mean": "0.5,0.5,0.5"}
    path = written(tmp_path / "w.safetensors", state, **header, std="0.25,0.5,0.75")
    backbone = timm_backbone(SMALL, weights=path)
    assert (backbone.mean, backbone.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.75))
    assert type(backbone.model.conv_stem).__name__ == "Conv2dSame"
    assert built(SMALL).mean == (0.485, 0.456, 0.406)


def fails(path, name=SMALL):
    with pytest.raises(WeightsError) as caught:
        timm_backbone(name, weights=path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_weights_of_another_architecture_are_refused(tmp_path, state):
    said = fails(written(tmp_path / "w.safetensors", state, architecture="mobilenetv1_100"))
    assert "mobilenetv1_100" in said
    assert SMALL in said
    said = fails(written(tmp_path / "plain.safetensors", state), "resnet18")
    assert "96 missing keys: " in said
    assert "unexpected keys: " in said


def test_a_file_is_held_against_a_model_without_memory(tmp_path, state):
    good = written(tmp_path / "good.safetensors", state)
    wrong = {**state, "conv_stem.weight": torch.zeros(3, 3, 3, 3)}
    bad = written(tmp_path / "bad.safetensors", wrong)
    with torch.device("meta"):
        assert all(p.is_meta for p in timm_backbone(SMALL, weights=good).parameters())
        said = fails(bad)
    assert "1 other shapes: conv_stem.weight (3, 3, 3, 3) instead of (16, 3, 3, 3)" in said


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_files_that_cannot_be_read_are_refused(tmp_path, state, capsys):
    assert "no such weights file" in fails(tmp_path / "absent.pth")
    torch.save(state, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in fails(tmp_path / "cut.pth")
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    assert "weights_only" in fails(tmp_path / "evil.pth")
    assert "unpickled" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds no state dict" in fails(tmp_path / "list.pth")


def test_a_header_may_not_set_what_is_not_the_architectures(tmp_path, state):
    path = written(tmp_path / "w.safetensors", state, timm_kwargs="checkpoint_path=/etc/passwd")
    assert "must not set ['checkpoint_path']" in fails(path)
    path = written(tmp_path / "v.safetensors", state, mean="a,b")
    assert "three numbers" in fails(path)


def test_without_a_network_it_says_which_file_to_give(monkeypatch):
    class Offline:
        def head(self, *_, **__):
            raise OSError("no route to host")

    monkeypatch.setattr(timm_models, "get_session", Offline)
    monkeypatch.setattr(timm_models, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(
        WeightsError, match=r"resnet18\.tv_in1k.*no route.*--weights FILE.*--weights none"
    ):
        plugin.resnet18()


def test_unknown_models_are_refused():
    with pytest.raises(PluginError, match=r"resnet19.*resnet18"):
        built("resnet19")


@pytest.mark.slow
def test_real_weights_recognise_real_pictures(real_data):
    """Through the file's own 1000-class classifier, by its five first guesses."""
    file = path_of("WEIGHTS", "folder of weights") / "mobilenetv2_100_in1k.safetensors"
    backbone, state = plugin.mobilenetv2_100(weights=str(file)).eval(), load_file(file)
    hits = pictures = 0
    for label, classes in IMAGENET.items():
        for file in pictures_of(label, real_data / "coco-mini"):
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB").resize((224, 224)), np.float32) / 255
            images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            with torch.no_grad():
                pooled = backbone((images - 0.5) / 0.5)[-1].mean((2, 3))
            logits = pooled @ state["classifier.weight"].float().T
            guesses = (logits + state["classifier.bias"].float()).topk(5).indices
            hits += bool(classes & set(guesses.flatten().tolist()))
            pictures += 1
    assert pictures >= 10
    assert hits / pictures > 0.7


IMAGENET = {"zebra": {340}, "elephant": {101, 385, 386}, "airplane": {404, 895, 908}}
"""COCO's name -> what ImageNet calls it."""


def pictures_of(label, folder):
    coco = json.loads((folder / "annotations/instances_val2017.json").read_text())
    category = next(c["id"] for c in coco["categories"] if c["name"] == label)
    wanted = {a["image_id"] for a in coco["annotations"] if a["category_id"] == category}
    files = [image["file_name"] for image in coco["images"] if image["id"] in wanted]
    return [folder / "val2017" / file for file in files[:8]]
