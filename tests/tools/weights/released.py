"""A small model as another group's code would have saved it, for a data set that is drawn."""

import random

import torch

from mlbench.build import build
from mlbench.contracts.made_up import made_up_context
from mlbench.engine.checkpoint import Checkpoint, load
from mlbench.types import Places, Settings
from mlbench_plugins.datasets.synthetic import NAMES
from mlbench_plugins.layers.decoder import AUTHORS

LABELS = len(NAMES)
FEW = {"train_images": 60, "test_images": 40}
SHUFFLED = random.Random(0).sample(NAMES, len(NAMES))
SETTINGS = Settings(
    backbone="timm:test_resnet",
    weights="none",
    head="transformer_head",
    head_options={"embedding_dim": 16, "feedforward": 24},
    image_size=64,
)


def authors_names(head):
    """Our transformer head's state under the names of deep-object-reid."""
    theirs = {ours: name for name, ours in AUTHORS.items()}
    found = {}
    for key, value in head.state_dict().items():
        ours = max((o for o in theirs if key == o or key.startswith(f"{o}.")), key=len)
        found[f"decoder.{theirs[ours]}{key.removeprefix(ours)}"] = value
    return found


def released_model(count=LABELS):
    """A model of that many labels, and its state dict as the group saved it."""
    torch.manual_seed(3)
    places = Places(results=".", cache=".")
    model, _ = build(SETTINGS, made_up_context(count), places)
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
    model.eval()
    state = {
        f"backbone.model.{name}": value for name, value in model.backbone.model.state_dict().items()
    }
    return model, {f"module.{k}": v for k, v in (state | authors_names(model.head)).items()}


def imported(cli, folder):
    """The small model's checkpoint, imported with its labels in another order than the data's."""
    torch.save(released_model()[1], folder / "theirs.pth")
    (folder / "names.txt").write_text("\n".join(SHUFFLED))
    cli(
        *("import", "transformer_head", folder / "theirs.pth", "--dataset", "synthetic"),
        *("--labels", folder / "names.txt", "--backbone", "timm:test_resnet"),
        *("--out", folder / "ours"),
    ).ok()
    file = folder / "ours" / "checkpoint.safetensors"
    settings = load(file).info.spec.settings.model_copy(update={"image_size": 48})
    change(file, settings=settings, dataset_options=FEW)
    return file


def change(file, weights=None, names=None, **spec):
    """Give a checkpoint other weights, other names of labels, or other fields of its spec."""
    kept = load(file)
    update = {"spec": kept.info.spec.model_copy(update=spec)}
    update |= {"label_names": tuple(names)} if names else {}
    Checkpoint(weights or kept.weights, kept.info.model_copy(update=update)).save(file)
