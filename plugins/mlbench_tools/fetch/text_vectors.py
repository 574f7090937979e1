"""Vectors of texts about labels, made by the text tower of an image-text model (open_clip)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import Data
from mlbench.files import atomic_write
from mlbench.text import unknown
from mlbench.types import PluginError, SuiteError, WeightsError
from mlbench_tools.fetch.terminal import Name, Options, open_dataset, output_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of many {}.",
    "a cropped photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of a {} in the scene.",
)
"""Texts around a label unless others are given."""


def texts(
    name: Name,
    model: Annotated[str, typer.Option(help="Model of open_clip.")] = "ViT-B-16-quickgelu",
    pretrained: Annotated[
        str, typer.Option(help="Weights of the model: a name of open_clip, a file, or none.")
    ] = "openai",
    template: Annotated[
        list[str] | None,
        typer.Option(help="Text with {} for the label. May be repeated; their mean counts."),
    ] = None,
    spelling: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=TEXT: what a label is called in the texts. May be repeated."),
    ] = None,
    data: Data = None,
    option: Options = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("texts.npz"),
) -> None:
    r"""Make label vectors of texts, for zero-shot scores: `mlbench run --words FILE`.

    Each text is embedded and scaled to length 1; a label's vector is the mean over the templates.
    Underscores in names become spaces. Needs `pip install 'mlbench-mlic\[clip]'`.
    """
    import numpy as np

    forms = tuple(template or TEMPLATES)
    if wrong := [form for form in forms if form.count("{}") != 1]:
        raise SuiteError(f"--template {wrong[0]!r}: put {{}} once where the label belongs")
    labels = open_dataset(name, data, option).names
    called = _spelled(labels, spelling or ())
    vectors_CE = _embed(model, pretrained, [[f.format(text) for f in forms] for text in called])
    pairs = zip(labels, called, strict=True)
    changed = ", ".join(f"{label} as {text}" for label, text in pairs if label != text)
    about = f"{model} {pretrained}; templates: {' | '.join(forms)}"
    about += f"; spelled: {changed}" if changed else ""
    with output_file(out), atomic_write(out) as part, part.open("wb") as stream:
        np.savez(stream, names=np.array(labels), vectors=vectors_CE, about=np.array(about))


def _spelled(labels: Sequence[str], given: Sequence[str]) -> list[str]:
    """The name of each label in texts."""
    pairs = dict(one.partition("=")[::2] for one in given)
    for label in pairs:
        if label not in labels:
            raise SuiteError(unknown(f"label {label!r} of --spelling", label, labels))
    return [pairs.get(label, label.replace("_", " ")) for label in labels]


def _embed(model: str, pretrained: str, texts_CT: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """The normalised mean of the normalised embeddings of each label's texts: [C, E]."""
    try:
        import open_clip
    except ImportError as error:
        raise PluginError(
            "text vectors need open_clip; `pip install 'mlbench-mlic[clip]'`, or give --words an "
            ".npz with the arrays names [C] and vectors [C, E]"
        ) from error
    import torch
    from torch.nn.functional import normalize

    if model not in open_clip.list_models():
        raise SuiteError(unknown(f"model {model!r} of open_clip", model, open_clip.list_models()))
    weights = None if pretrained == "none" else pretrained
    try:
        tower = open_clip.create_model(model, pretrained=weights).eval()
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # of hub, files and torch
        raise WeightsError(
            f"the weights {pretrained} of {model} cannot be had ({type(error).__name__}: {error}); "
            "give a file of them by --pretrained FILE"
        ) from error

    def embed(texts: Sequence[str]) -> Tensor:
        each_TE = normalize(tower.encode_text(tokenizer(list(texts))), dim=1)
        return normalize(each_TE.mean(0), dim=0)

    with torch.inference_mode():
        return torch.stack([embed(texts) for texts in texts_CT]).numpy()
