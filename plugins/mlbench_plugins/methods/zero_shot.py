"""Zero-shot scores: the cosine between an image and a text about each label.

Alec Radford, Jong Wook Kim, Chris Hallacy, et al., "Learning Transferable Visual Models From
Natural Language Supervision", ICML 2021, section 3.1.4.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from mlbench.types import (
    FeatureSpec,
    HeadOutput,
    LabelContext,
    PluginError,
    Preprocessing,
    Recipe,
    Settings,
)
from mlbench_plugins.layers.options import check_choice, check_range


@final
class ZeroShot(nn.Module):
    """Compare the mean of the deepest map with one text vector a label; nothing is trained.

    ``cosine`` scores each label by ``scale`` times the cosine. ``softmax`` scores it by the
    logarithm of the softmax of these over the labels: it ranks images by how much better a label
    fits than the others, and gives another AP.

    Args:
        spec: levels of the backbone; the last is used.
        labels: their ``embeddings`` [C, E] are text vectors by the backbone's own model.
        scores: ``cosine`` or ``softmax``.
        scale: multiplies the cosines; CLIP's is 100.

    Raises:
        PluginError: the vectors are not as wide as the images' embeddings, or an option is wrong.
    """

    text_CE: Tensor  # noqa: N815

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        scores: Literal["cosine", "softmax"] = "cosine",
        scale: float = 100.0,
    ) -> None:
        super().__init__()
        check_choice("scores", scores, ("cosine", "softmax"))
        check_range("zero_shot", "(0, inf)", scale=scale)
        wide, width = spec[-1].channels, labels.embeddings.shape[1]
        if wide != width:
            raise PluginError(
                f"images have embeddings of {wide} numbers and the label vectors have {width}; "
                "make vectors of this backbone's texts with `mlbench data texts` and give them by "
                "--words FILE"
            )
        self.scores = scores
        self.scale = scale
        text_CE = torch.tensor(labels.embeddings)
        self.register_buffer("text_CE", normalize(text_CE, dim=1))

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, E, H, W] to logits [B, C]."""
        image_BE = normalize(features[-1].mean(dim=(2, 3)).to(self.text_CE.dtype), dim=1)
        logits_BC = self.scale * image_BE @ self.text_CE.T
        return HeadOutput(log_softmax(logits_BC, 1) if self.scores == "softmax" else logits_BC)


RECIPE = Recipe(
    title="Learning Transferable Visual Models From Natural Language Supervision",
    bibtex="""@inproceedings{radford2021clip,
  author = {Alec Radford and Jong Wook Kim and Chris Hallacy and Aditya Ramesh and Gabriel Goh and
    Sandhini Agarwal and Girish Sastry and Amanda Askell and Pamela Mishkin and Jack Clark and
    Gretchen Krueger and Ilya Sutskever},
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  booktitle = {International Conference on Machine Learning},
  year = {2021}
}""",
    summary="Scores a label by the cosine between the embeddings of the image and of a text that "
    "names the label. Nothing is trained.",
    settings=Settings(
        backbone="clip_base_tower",
        head="zero_shot",
        image_size=224,
        preprocessing=Preprocessing(interpolation="bicubic"),
    ),
    deviations=(
        "Precision, recall and F1 mean nothing: cosines have no natural threshold.",
        "Spelling matters: label names go into the texts as they are, unless the file of vectors "
        "was made with others.",
    ),
)
