"""Two losses for missing labels: Hill plays down likely false negatives, SPLC corrects them.

Youcai Zhang, Yuhao Cheng, Xinyu Huang, Fei Wen, Rui Feng, Yaqian Li, Yandong Guo, "Simple and
Robust Loss Design for Multi-Label Learning with Missing Labels", arXiv 2112.07368.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mlbench.types import LabelContext, LossContext, Recipe, Settings
from mlbench_plugins.layers.loss_terms import REDUCTIONS, focal, reduce_terms
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range
from mlbench_plugins.layers.training_protocols import ASYMMETRIC, KEEPS_BETTER


class Hill(nn.Module):
    """(lam - p) p^2 of every label that is not positive, and a focal term with margin of positives.

    With z = x - margin, a positive's term is sigmoid(-z)^gamma * -log sigmoid(z). A negative's
    gradient, 3 p^2 (1 - p)^2 at the published lam, is a hill with its top at p = 0.5: a negative of
    high probability is probably a label that is missing, and is left alone.

    Pitfalls: labels that are confirmed to be absent are treated like unobserved ones, so that a
    confident mistake on them is not corrected either. The published reduction is ``sum``, and the
    published learning rate suits only that.

    Args:
        labels: not used.
        lam: constant of the negatives' term.
        margin, gamma: margin and exponent of the positives' term.
        reduction: ``mean`` (over images and all labels), ``image_sum`` or ``sum``.
    """

    uses_unknown = True
    fixture_names: ClassVar = {"lamb": "lam"}

    def __init__(
        self,
        labels: LabelContext,
        *,
        lam: float = 1.5,
        margin: float = 1.0,
        gamma: float = 2.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("hill", "[0, inf)", lam=lam, margin=margin, gamma=gamma)
        self.lam, self.margin, self.gamma = lam, margin, gamma
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unobserved} to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        p_BC = x_BC.sigmoid()
        hill_BC = (self.lam - p_BC) * p_BC.square()
        focal_BC = focal(x_BC - self.margin, self.gamma)
        return reduce_terms(focal_BC.where(targets_BC == 1, hill_BC), self.reduction)


class SPLC(nn.Module):
    """A focal loss with margin that takes a confident negative as a positive, from epoch 2 on.

    z is x - margin of given positives and x of all others. From ``first_epoch`` on, a label of
    sigmoid(z) > tau is a positive, without a margin, for this batch alone. Then positives have
    sigmoid(-z)^gamma * -log sigmoid(z), and the others sigmoid(z)^gamma * -log sigmoid(-z).

    Pitfalls: labels that are confirmed to be absent may be corrected, too. Epochs count from 1; the
    authors' code counts from 0. The published reduction is ``sum``.

    Args:
        labels: not used.
        tau: probability above which a label is corrected; 0.65 where most labels are kept.
        first_epoch: first epoch in which labels are corrected, counted from 1.
        margin, gamma: margin and exponent of the focal loss.
        reduction: ``mean`` (over images and all labels), ``image_sum`` or ``sum``.
    """

    uses_unknown = True
    needs = frozenset({"epoch"})

    def __init__(
        self,
        labels: LabelContext,
        *,
        tau: float = 0.6,
        first_epoch: int = 2,
        margin: float = 1.0,
        gamma: float = 2.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("splc", "[0, 1]", tau=tau)
        check_range("splc", "[0, inf)", margin=margin, gamma=gamma)
        check_range("splc", "[1, inf)", first_epoch=first_epoch)
        self.tau, self.first_epoch, self.margin, self.gamma = tau, first_epoch, margin, gamma
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor, context: LossContext) -> Tensor:
        """Logits, targets in {1, 0, -1 unobserved} and the epoch to a scalar in float32."""
        x_BC, positive_BC = at_least_float32(logits_BC), targets_BC == 1
        z_BC = x_BC - self.margin * positive_BC
        if context.epoch >= self.first_epoch:
            positive_BC = positive_BC | (z_BC.sigmoid() > self.tau)
        terms_BC = focal(z_BC.where(positive_BC, -z_BC), self.gamma)
        return reduce_terms(terms_BC, self.reduction)


SETTINGS = Settings(
    **ASYMMETRIC,
    backbone="resnet50",
    head="gap",
    loss="hill",
    loss_options={"reduction": "sum"},
    epochs=31,
    batch_size=128,
)
HILL_RECIPE = Recipe(
    title="Simple and Robust Loss Design for Multi-Label Learning with Missing Labels",
    bibtex="""@article{zhang2021simple,
  title   = {Simple and Robust Loss Design for Multi-Label Learning with Missing Labels},
  author  = {Zhang, Youcai and Cheng, Yuhao and Huang, Xinyu and Wen, Fei and Feng, Rui and
             Li, Yaqian and Guo, Yandong},
  journal = {arXiv:2112.07368},
  year    = {2021}
}""",
    summary="A negative's gradient falls again where it is predicted confidently, since such a "
    "label is probably missing, not absent.",
    settings=SETTINGS,
    deviations=(
        "The authors stop a schedule of 80 epochs after 31; here it is as long as the training.",
        KEEPS_BETTER,
        "A file that is missing is a black image without labels in their code; here it is an "
        "error.",
        "Labels are dropped by our hash (`--set label_noise.keep=0.4` or "
        "`label_noise.single_positive=true`), not by the authors' lists.",
    ),
)

SPLC_RECIPE = HILL_RECIPE.model_copy(
    update={
        "summary": "From the second epoch on, a label that is predicted confidently although it is "
        "not given counts as positive.",
        "settings": SETTINGS.model_copy(update={"loss": "splc"}),
    }
)
