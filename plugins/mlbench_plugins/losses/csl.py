"""Partial asymmetric loss, whose selective mode chooses which unknown labels are negatives.

Emanuel Ben-Baruch, Tal Ridnik, Itamar Friedman, Avi Ben-Cohen, Nadav Zamir, Asaf Noy,
Lihi Zelnik-Manor, "Multi-label Classification with Partial Annotations using Class-aware Selective
Loss", CVPR 2022, arXiv 2110.10955.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import LabelContext, PluginError, Recipe, Reported, Settings
from mlbench_plugins.layers.loss_terms import (
    REDUCTIONS,
    UNOBSERVED,
    is_unobserved,
    raised,
    reduce_terms,
)
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range
from mlbench_plugins.layers.training_protocols import ASYMMETRIC, KEEPS_BETTER

MODES = ("selective", "negative", "ignore", "ignore_normalize_classes")
LOG_FLOOR = math.log(1e-8)


class CSL(nn.Module):
    """Asymmetric cross entropy with a third focus and weight, for unobserved labels.

    With p = sigmoid(x) and q = min(1 - p + clip, 1), the term of a positive is
    alpha_pos (1 - p)^gamma_pos * -log p, that of a negative alpha_neg (1 - q)^gamma_neg * -log q,
    and that of an unobserved label alpha_unknown (1 - q)^gamma_unknown * -log q. Focusing weights
    are constants in the gradient.

    ``mode`` decides what unobserved labels weigh: ``negative`` 1; ``ignore`` 0;
    ``ignore_normalize_classes`` 0, while the k known labels of an image weigh 1 + 1 / (1 + k);
    ``selective`` 1, but 0 for labels whose prior is above ``prior_threshold``, and for the
    B x ``likelihood_topk`` likeliest labels of a batch of B images.

    Pitfalls: ``selective`` ranks the labels of a whole batch, so that batches of another size give
    other values, and labels that the prior excludes still count among the likeliest. The prior is
    the mean probability of a model that was trained with ``mode=ignore``; counts of known labels
    do not replace it, as they say how many labels were kept.

    Args:
        labels: only their number is used.
        mode: see above.
        likelihood_topk: likeliest labels an image, on average, that weigh 0; 0 disables this.
        prior_threshold: 0 ignores the prior; above 0, ``prior`` is needed.
        prior: probability of each label.
        clip: the margin of q.
        gamma_pos, gamma_neg, gamma_unknown: focusing exponents.
        alpha_pos, alpha_neg, alpha_unknown: weights.
        unobserved: ``"-1"`` for unknown labels, or ``"0"`` for all but positives.
        reduction: ``mean`` (over images and their labels; the known ones if others are ignored),
            ``image_sum`` or ``sum`` (the published loss).
    """

    def __init__(
        self,
        labels: LabelContext,
        *,
        mode: str = "selective",
        likelihood_topk: int = 5,
        prior_threshold: float = 0.0,
        prior: Sequence[float] | None = None,
        clip: float = 0.0,
        gamma_pos: float = 0.0,
        gamma_neg: float = 1.0,
        gamma_unknown: float = 2.0,
        alpha_pos: float = 1.0,
        alpha_neg: float = 1.0,
        alpha_unknown: float = 1.0,
        unobserved: str = "-1",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.mode = check_choice("mode", mode, MODES)
        check_range("csl", "[0, 1)", clip=clip, prior_threshold=prior_threshold)
        check_range("csl", "[0, inf)", likelihood_topk=likelihood_topk)
        check_range("csl", "[0, inf)", gamma_pos=gamma_pos, alpha_pos=alpha_pos)
        check_range("csl", "[0, inf)", gamma_neg=gamma_neg, alpha_neg=alpha_neg)
        check_range("csl", "[0, inf)", gamma_unknown=gamma_unknown, alpha_unknown=alpha_unknown)
        self.clip, self.topk = clip, likelihood_topk
        self.gammas = (gamma_pos, gamma_neg, gamma_unknown)
        self.alphas = (alpha_pos, alpha_neg, alpha_unknown)
        self.unobserved = check_choice("unobserved", unobserved, UNOBSERVED)
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)
        self.ignores = mode.startswith("ignore")
        self.uses_unknown = not self.ignores
        self.separable = mode != "selective" or not likelihood_topk
        frequent = [False] * len(labels)
        if mode == "selective" and prior_threshold:
            if prior is None or len(prior) != len(labels):
                raise PluginError(
                    f"csl: prior_threshold={prior_threshold} needs prior, {len(labels)} numbers: "
                    "the mean probability of each label by a model that was trained with "
                    "mode=ignore; give prior, or prior_threshold=0"
                )
            check_range("csl", "[0, 1]", **{f"prior[{c}]": p for c, p in enumerate(prior)})
            frequent = [value > prior_threshold for value in prior]
        self.frequent: Tensor
        self.register_buffer("frequent", torch.tensor(frequent))

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unobserved} to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        positive_BC = targets_BC == 1
        unknown_BC = is_unobserved(targets_BC, self.unobserved)
        log_BC = functional.logsigmoid(x_BC.where(positive_BC, -x_BC))
        if self.clip:
            log_BC = log_BC.where(positive_BC, raised(log_BC, self.clip))
        kinds = (positive_BC, ~positive_BC & ~unknown_BC, unknown_BC)
        truth_BC = log_BC.detach().exp()
        weight_BC = torch.zeros_like(x_BC)
        for kind_BC, alpha, gamma in zip(kinds, self.alphas, self.gammas, strict=True):
            weight_BC = weight_BC.where(~kind_BC, alpha * (1 - truth_BC).pow(gamma))
        terms_BC = -weight_BC * log_BC.clamp(min=LOG_FLOOR)
        known_B = (~unknown_BC).sum(dim=1)
        if self.ignores:
            terms_BC = terms_BC.where(~unknown_BC, 0)
            if self.mode == "ignore_normalize_classes":
                terms_BC = terms_BC * (1 + 1 / (1 + known_B[:, None].to(x_BC.dtype)))
            return reduce_terms(terms_BC, self.reduction, known_B.clamp(min=1))
        if self.mode == "selective":
            terms_BC = terms_BC.masked_fill(self._likely(truth_BC, unknown_BC), 0)
        return reduce_terms(terms_BC, self.reduction)

    def _likely(self, truth_BC: Tensor, unknown_BC: Tensor) -> Tensor:
        """True for unobserved labels that are likely present: of a frequent class or smallest q."""
        likely_BC = unknown_BC & self.frequent
        places = min(self.topk * len(truth_BC), truth_BC.numel())
        q_N = truth_BC.masked_fill(~unknown_BC, torch.inf).flatten()
        smallest_N = torch.zeros_like(q_N, dtype=torch.bool)
        smallest_N[q_N.topk(places, largest=False).indices] = True
        return likely_BC | (smallest_N.view_as(unknown_BC) & unknown_BC)


RECIPE = Recipe(
    title="Multi-label Classification with Partial Annotations using Class-aware Selective Loss",
    bibtex="""@inproceedings{benbaruch2022csl,
  title     = {Multi-label Classification with Partial Annotations using Class-aware
               Selective Loss},
  author    = {Ben-Baruch, Emanuel and Ridnik, Tal and Friedman, Itamar and Ben-Cohen, Avi and
               Zamir, Nadav and Noy, Asaf and Zelnik-Manor, Lihi},
  booktitle = {CVPR},
  year      = {2022}
}""",
    summary="Unknown labels are weak negatives with a focus of their own, except those that are "
    "likely to be present.",
    settings=Settings(
        **ASYMMETRIC,
        backbone="timm:tresnet_m",
        head="gap",
        loss="csl",
        loss_options={"reduction": "sum"},
        epochs=40,
        batch_size=64,
    ),
    per_dataset={"coco": {"loss_options": {"gamma_unknown": 4.0}}},
    reported=Reported.table(
        "value note",
        (85.21, "TResNet-M, 448, COCO 2014, half of the labels kept at random"),
        (83.44, "TResNet-M, 448, COCO 2014, 1,000 labels of either kind kept a class"),
        dataset="coco",
        metric="mAP",
        source="README of Alibaba-MIIL/PartialLabelingCSL, commit 534f3ce",
        status="verified",
    ),
    deviations=(
        "The authors strike out classes by the prior of a temporary model (threshold 0.5 on COCO); "
        "here that step is left out unless `prior` is given.",
        "Augmentation, epochs, batch size and rate are those of ASL, by the same group; they were "
        "not checked against the commands for this loss.",
        "With 1,000 labels kept a class the authors have gamma_neg 3.",
        KEEPS_BETTER,
    ),
)
