"""Whole released models: files in the authors' layout go through ``mlbench import``.

The weights are made by rule, so that nothing need be downloaded; see checkpoints.json. Two models
by default, the others are slow.
"""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mlbench.build import restore
from mlbench.engine.checkpoint import load
from mlbench_plugins.datasets.voc import VOC2007
from mlbench_tools.weights.conversion import releases
from mlbench_tools.weights.fixtures import read_fixtures
from mlbench_tools.weights.proving import authors_state, prove

FIXTURES = {one.name: one for one in read_fixtures(Path(__file__).with_name("checkpoints.json"))}
QUICK = ("csra_full", "asl_tresnet_l_full")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FIXTURES]


def in_authors_layout(fixture, file):
    """What their training script would have saved: single precision, some behind ``module.``."""
    state = {key: value.float() for key, value in authors_state(fixture).items()}
    extra = {"epoch": 7, "arch": "resnet101", "best_mAP": np.float64(80.0)}
    match fixture.fields["method"]:
        case "csra":
            content = {f"module.{key}": value for key, value in state.items()}
        case "gap":
            classes = {i: str(i) for i in range(fixture.fields["classes"])}
            content = {"model": state, "num_classes": len(classes), "idx_to_class": classes}
        case "ml_decoder":
            content = {"model": state}
        case "query2label":
            state = {f"module.{key}": value for key, value in state.items()}
            content = {"state_dict": state, **extra}
        case _:
            content = {"state_dict": state, **extra}
    torch.save(content, file)


def beside_the_file(fixture, folder):
    """Flags for what the authors keep in other files."""
    inputs, flags = fixture.inputs(), []
    if "word_features" in inputs:
        np.save(folder / "words.npy", inputs["word_features"])
        flags += ["--words", folder / "words.npy"]
    if "adjacency" in inputs:
        np.save(folder / "graph.npy", inputs["adjacency"])
        flags += ["--graph", folder / "graph.npy"]
    elif "cooccurrence_counts" in inputs:
        counts = {"adj": inputs["cooccurrence_counts"], "nums": inputs["label_counts"]}
        (folder / "graph.pkl").write_bytes(pickle.dumps(counts, protocol=2))
        flags += ["--graph", folder / "graph.pkl"]
    if "lam" in fixture.fields:
        flags += ["--option", f"lam={fixture.fields['lam']}"]
    return flags


@pytest.mark.parametrize("name", NAMES)
def test_an_imported_file_gives_the_expected_logits(name, cli, tmp_path):
    fixture = FIXTURES[name]
    in_authors_layout(fixture, tmp_path / "released.pth")
    done = cli(
        *("import", fixture.method, tmp_path / "released.pth"),
        *("--dataset", "voc2007", "--out", tmp_path / "ours", *beside_the_file(fixture, tmp_path)),
    ).ok()
    checkpoint = load(tmp_path / "ours" / "checkpoint.safetensors")
    assert checkpoint.info.label_names == VOC2007.names
    model = restore(checkpoint)
    image = fixture.inputs().tensor("image").float()
    with torch.no_grad():
        logits = model.head(model.backbone(image)).logits.double()
    expected = torch.from_numpy(fixture.expected["logits"])
    # Single precision, through a hundred layers.
    assert (logits - expected).abs().max() <= 2e-4 * expected.abs().max()
    # What was not used is named, and is what the authors' code does not use.
    listed = [line.strip() for line in done.out.splitlines() if line.startswith("  ")]
    patterns = [pattern for released in releases(fixture.method) for pattern in released.unused]
    assert all(any(re.search(pattern, key) for pattern in patterns) for key in listed)
    assert {"msrn_full": 4, "add_gcn_full": 1, "query2label_full": 1}.get(name, 0) == len(listed)


@pytest.mark.parametrize("name", NAMES)
def test_parity_in_double_precision(name):
    result = prove(FIXTURES[name])
    assert result.passed, result
