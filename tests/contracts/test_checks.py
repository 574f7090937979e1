"""Each check finds the fault that it is there for, and only that."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlbench import contracts, registry
from mlbench.contracts import backbones, datasets, heads, losses, recipes
from mlbench.contracts.outcome import ContractError, NotChecked
from mlbench.registry import Plugin
from mlbench.types import (
    Angles,
    DataError,
    DatasetCard,
    HeadOutput,
    Index,
    Level,
    PluginError,
    Recipe,
    Reported,
    Settings,
)

CARD = DatasetCard(title="t", bibtex="@misc{a}", licence="CC0", home="https://example.org")


# ------------------------------------------------------------------------------------------ heads
class Good(nn.Module):
    """A head without a fault; the faulty ones change one thing."""

    def __init__(self, spec, labels):
        super().__init__()
        self.fc = nn.Linear(spec[-1].channels, len(labels))

    def pool(self, features):
        return features[-1].mean((2, 3))

    def aux(self, logits):
        return {"size": 0.1 * logits.square().mean()}

    def forward(self, features):
        logits = self.fc(self.pool(features))
        return HeadOutput(logits, self.aux(logits))


class BareTensor(Good):
    def forward(self, features):
        return self.fc(self.pool(features))


class OneTooMany(Good):
    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.fc = nn.Linear(spec[-1].channels, len(labels) + 1)


class NotForOneLabel(Good):
    def __init__(self, spec, labels):
        if len(labels) == 1:
            raise PluginError("two labels at least")
        super().__init__(spec, labels)


class IdleWeight(Good):
    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.idle = nn.Parameter(torch.zeros(3))


class Detached(Good):
    def pool(self, features):
        return super().pool(features).detach()


class BatchNormed(Good):
    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.norm = nn.BatchNorm1d(spec[-1].channels)

    def pool(self, features):
        return self.norm(super().pool(features))


class LooksAtItsNeighbours(Good):
    def pool(self, features):
        x = super().pool(features)
        return x - x.mean(0, keepdim=True)


class DropsInEvaluation(Good):
    def pool(self, features):
        return nn.functional.dropout(super().pool(features), training=True)


class SecretState(Good):
    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.register_buffer("secret", torch.rand(()), persistent=False)

    def pool(self, features):
        return super().pool(features) * (1 + self.secret)


class OnTheCpu(Good):
    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.register_buffer("scale", torch.ones((), device="cpu"))


class Overflows(Good):
    def pool(self, features):
        return super().pool(features) + (self.fc(super().pool(features)).dtype == torch.bfloat16)


class VectorAux(Good):
    def aux(self, logits):
        return {"size": logits.mean(0)}


class Writes(Good):
    def pool(self, features):
        with torch.no_grad():
            features[-1].mul_(2)
        return super().pool(features)


class KnowsPlaces(Good):
    def forward(self, features):
        logits, aux = super().forward(features)
        return HeadOutput(logits + torch.arange(logits.shape[1]), aux)


class AsksItsValues(Good):
    def pool(self, features):
        x = super().pool(features)
        return x if float(x.detach().sum()) > 1e9 else 2 * x


@pytest.mark.parametrize("check", heads.CHECKS, ids=lambda c: c.__name__)
def test_a_good_head_passes(check):
    check(Good)


@pytest.mark.parametrize(
    ("head", "check", "said"),
    [
        (BareTensor, heads.gives_finite_logits_for_every_spec, "instead of a HeadOutput"),
        (OneTooMany, heads.gives_one_logit_a_label, r"1 labels give logits of shape \(2, 2\)"),
        (NotForOneLabel, heads.gives_one_logit_a_label, "two labels at least"),
        (IdleWeight, heads.trains_every_parameter, "no gradient reaches .'idle'"),
        (Detached, heads.trains_every_parameter, "deepest map"),
        (BatchNormed, heads.trains_on_one_image, "more than 1 value per channel"),
        (LooksAtItsNeighbours, heads.treats_images_independently, "rest of the batch"),
        (DropsInEvaluation, heads.is_deterministic, "other logits"),
        (SecretState, heads.keeps_its_state, "loaded state dict"),
        (OnTheCpu, heads.builds_without_memory, "'scale'"),
        (Overflows, heads.works_in_half_precision, "moves the logits"),
        (VectorAux, heads.gives_scalar_extra_losses, "not a finite scalar"),
        (Writes, heads.leaves_its_features_alone, "writes to its features"),
        (KnowsPlaces, heads.follows_the_order_of_its_labels, "in another order"),
        (AsksItsValues, heads.can_be_exported, "data-dependent|float"),
    ],
)
def test_a_faulty_head_is_found_out(head, check, said):
    with pytest.raises(Exception, match=said) as caught:
        check(head)
    assert not isinstance(caught.value, NotChecked)


def test_a_refusal_is_no_fault_but_says_so():
    def refuses(spec, labels):
        raise PluginError("needs four levels")

    with pytest.raises(NotChecked, match="needs four levels"):
        heads.is_deterministic(refuses)
    with pytest.raises(ContractError, match="every spec is refused"):
        heads.gives_finite_logits_for_every_spec(refuses)


# ----------------------------------------------------------------------------------------- losses
def loss_of(function):
    return lambda labels: function


def soft(logits, targets):
    """Cross entropy a label in float32, without a reduction."""
    return nn.functional.binary_cross_entropy_with_logits(
        logits.float(), (targets == 1).float(), reduction="none"
    )


def good(logits, targets):
    known = targets >= 0
    return (soft(logits, targets) * known).sum() / targets.numel()


def naive(logits, targets):
    p = logits.sigmoid()
    known = (targets >= 0) / targets.numel()
    terms = torch.where(targets == 1, p.log(), (1 - p).log())
    return -(terms * known).sum()


def counts_unknown(logits, targets):
    return soft(logits, targets).mean()


def summed(logits, targets):
    return (soft(logits, targets) * (targets >= 0)).sum()


class SummedAndSaysSo:
    """A sum over images without a fault."""

    reduction = "sum"

    def __init__(self, labels):
        pass

    def __call__(self, logits, targets):
        return summed(logits, targets)


class SaysSum(SummedAndSaysSo):
    def __call__(self, logits, targets):
        return good(logits, targets)


def over_known(logits, targets):
    """A mean over what is known in the batch: halves with unequal numbers of it disagree."""
    return summed(logits, targets) / (targets >= 0).sum().clamp(min=1)


def upside_down(logits, targets):
    return good(-logits, targets)


def writes(logits, targets):
    targets.clamp_(min=0)
    return good(logits, targets)


def multiplies(logits, targets):
    """A product of matrices, which autocast makes in bfloat16."""
    known = (targets >= 0).float()
    return torch.einsum("bc,bc->", soft(logits, targets), known) / targets.numel()


def rounds(logits, targets):
    return multiplies(logits, targets).float()


class OnAngles:
    """A loss on angles without a fault; the faulty ones take it over a cosine's edge."""

    angles = Angles(scale=80)

    def __init__(self, labels):
        pass

    def __call__(self, logits, targets):
        return good(logits, targets) / self.angles.scale


class ArcCosine(OnAngles):
    """Its gradient is infinite at cosines of 1 and -1, and beyond them there is none."""

    angles = Angles(scale=5)

    def __call__(self, logits, targets):
        angles = torch.acos(logits.float() / self.angles.scale)
        return good(self.angles.scale * angles.cos(), targets)


class Overflows(OnAngles):
    """Finite for logits up to 40, and not at its own scale."""

    def __call__(self, logits, targets):
        huge = (logits.double().abs() - 79).clamp(min=0) * 1e300
        return good(logits, targets) + (huge.float() * (targets >= 0)).sum()


FOR_ANY_LOSS = [check for check in losses.CHECKS if check is not losses.is_finite_for_any_cosine]


@pytest.mark.parametrize("check", FOR_ANY_LOSS, ids=lambda c: c.__name__)
def test_a_good_loss_passes(check):
    check(loss_of(good))


@pytest.mark.parametrize("check", losses.CHECKS, ids=lambda c: c.__name__)
def test_a_good_loss_on_angles_passes(check):
    check(OnAngles)


@pytest.mark.parametrize("check", FOR_ANY_LOSS, ids=lambda c: c.__name__)
def test_a_good_loss_that_adds_up_over_images_passes(check):
    check(SummedAndSaysSo)


def test_a_mean_that_calls_itself_a_sum_is_found_out():
    with pytest.raises(ContractError, match="does not double"):
        losses.averages_or_adds_up_over_images(SaysSum)


@pytest.mark.parametrize(("loss", "said"), [(ArcCosine, "of -5 with"), (Overflows, "of -80 with")])
def test_a_loss_that_breaks_at_some_cosine_is_found_out(loss, said):
    with pytest.raises(ContractError, match=f"not finite for torch.float32 logits {said}"):
        losses.is_finite_for_any_cosine(loss)


def test_a_loss_that_is_not_on_angles_is_not_checked_for_cosines():
    with pytest.raises(NotChecked, match="does not work on angles"):
        losses.is_finite_for_any_cosine(loss_of(good))


@pytest.mark.parametrize(
    ("loss", "check", "said"),
    [
        (naive, losses.is_finite_for_extreme_logits, "not finite for torch"),
        (counts_unknown, losses.gives_unknown_labels_no_weight, "unknown labels have a gradient"),
        (summed, losses.averages_or_adds_up_over_images, "changes where the batch is there twice"),
        (over_known, losses.averages_or_adds_up_over_images, "two halves"),
        (upside_down, losses.pushes_logits_towards_their_targets, "away from their target"),
        (writes, losses.leaves_its_inputs_alone, "writes to its inputs"),
        (soft, losses.is_finite_for_extreme_logits, "no scalar"),
        (multiplies, losses.is_float32_inside_autocast, "the value is torch.bfloat16"),
        (rounds, losses.is_float32_inside_autocast, "logits is not float32's: by"),
    ],
)
def test_a_faulty_loss_is_found_out(loss, check, said):
    with pytest.raises(ContractError, match=said):
        check(loss_of(loss))


# -------------------------------------------------------------------------------------- backbones
class Tiny(nn.Module):
    """A backbone without a fault."""

    spec = (Level(4, 8), Level(6, 16))
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, weights="default", image_size=None):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 8, 8)
        self.two = nn.Sequential(nn.Conv2d(4, 6, 2, 2), nn.BatchNorm2d(6))

    def stages(self):
        return [[self.one], [self.two]]

    def forward(self, images):
        first = self.one(images)
        return first, self.two(first)


class WrongStride(Tiny):
    spec = (Level(4, 8), Level(6, 32))


class DeepestFirst(Tiny):
    spec = (Level(6, 16), Level(4, 8))


class NoStd(Tiny):
    std = (0.0, 0.0, 0.0)


class Twice(Tiny):
    def stages(self):
        return [[self.one], [self.one, self.two]]


class Forgotten(Tiny):
    def stages(self):
        return [[self.one.weight], [self.two]]


class WithClassifier(Tiny):
    def __init__(self, **options):
        super().__init__()
        self.two.append(nn.Identity())
        self.fc = nn.Linear(6, 1000)


class Mixes(Tiny):
    def forward(self, images):
        return super().forward(images - images.mean(0, keepdim=True))


@pytest.mark.parametrize("check", backbones.CHECKS, ids=lambda c: c.__name__)
def test_a_good_backbone_passes(check):
    check(Tiny)


@pytest.mark.parametrize(
    ("backbone", "check", "said"),
    [
        (WrongStride, backbones.keeps_its_spec, "the spec says"),
        (DeepestFirst, backbones.keeps_its_spec, "shallow to deep"),
        (NoStd, backbones.says_how_to_normalise, "std is"),
        (Twice, backbones.divides_into_stages, "one.weight belongs to 2 stages"),
        (Forgotten, backbones.divides_into_stages, "one.bias belongs to 0 stages"),
        (WithClassifier, backbones.trains_every_parameter, "'fc.weight', 'fc.bias'"),
        (Mixes, backbones.treats_images_independently, "depends on the other images"),
    ],
)
def test_a_faulty_backbone_is_found_out(backbone, check, said):
    with pytest.raises(ContractError, match=said):
        check(backbone)


# --------------------------------------------------------------------------------------- datasets
class Drawn:
    """A data set without a fault that draws its files into the cache."""

    card = CARD
    names = ("a", "b")
    keys = {"train": ("1", "2"), "test": ("3",)}
    dtype = np.int8

    def __init__(self, root, cache):
        self.cache = cache

    def index(self, split):
        files = [self.cache / f"{key}.png" for key in self.keys[split]]
        for file in files:
            file.touch()
        targets = np.array([[1, 0], [-1, 1], [1, 1]], self.dtype)
        return Index(files, self.keys[split], targets[: len(files)])

    def objects(self, keys):
        return np.array([{"1": (3, 0), "2": (5, 1)}[key] for key in keys])


class Uncited(Drawn):
    card = CARD.model_copy(update={"bibtex": " "})


class SameName(Drawn):
    names = ("a", "a")


class Leaks(Drawn):
    keys = {"train": ("1", "2"), "test": ("2",)}


class LeaksAFile(Drawn):
    def index(self, split):
        index = super().index(split)
        return Index([self.cache / "1.png"] * len(index), index.keys, index.targets)


class SharesForAReason(LeaksAFile):
    card = CARD.model_copy(update={"shared_images": "its makers score some of them"})
    keys = Leaks.keys


class Floats(Drawn):
    dtype = np.float32


class NoFiles(Drawn):
    def index(self, split):
        index = super().index(split)
        return Index([Path("absent.png")] * len(index), index.keys, index.targets)


class Shuffles(Drawn):
    def __init__(self, root, cache):
        super().__init__(root, cache)
        self.calls = 0

    def index(self, split):
        self.calls += 1
        index = super().index(split)
        return index[:: 1 if self.calls % 2 else -1]


class CountsNothing(Drawn):
    def objects(self, keys):
        return None


class CountsImages(Drawn):
    def objects(self, keys):
        return super().objects(keys).sum(axis=0)


class CountsShares(Drawn):
    def objects(self, keys):
        return super().objects(keys) / 2


class CountsTooFew(Drawn):
    def objects(self, keys):
        return super().objects(keys) - np.array([[0, 0], [0, 1]])


class CountsTooMany(Drawn):
    def objects(self, keys):
        return super().objects(keys) + np.array([[0, 2], [0, 0]])


class CountsInItsOwnOrder(Drawn):
    def objects(self, keys):
        return super().objects(sorted(keys))


class Needs(Drawn):
    """Needs files, and takes any folder for one that has them."""

    def __init__(self, root, cache):
        if root is None:
            raise DataError("no folder was given")
        super().__init__(root, cache)


class NeedsSilently(Needs):
    def __init__(self, root, cache):
        super().__init__(root, cache)
        raise DataError("something is missing")


@pytest.mark.parametrize(
    "check",
    [check for check in datasets.CHECKS if check is not datasets.refuses_a_folder_without_it],
    ids=lambda c: c.__name__,
)
def test_a_good_dataset_passes(check):
    check(Drawn)


def test_a_data_set_need_not_count_objects():
    datasets.counts_its_objects(CountsNothing)


def test_a_card_may_allow_shared_images():
    datasets.indexes_its_splits(SharesForAReason)


@pytest.mark.parametrize(
    ("dataset", "check", "said"),
    [
        (Uncited, datasets.has_a_filled_card, "bibtex is empty"),
        (SameName, datasets.has_unique_names, "stands twice"),
        (Leaks, datasets.indexes_its_splits, "in both splits"),
        (LeaksAFile, datasets.indexes_its_splits, "files are in both splits"),
        (Floats, datasets.indexes_its_splits, "float32, not int8"),
        (NoFiles, datasets.indexes_its_splits, "2 files do not exist"),
        (Shuffles, datasets.keeps_its_order, "two orders"),
        (CountsImages, datasets.counts_its_objects, r"objects are \(2,\) instead of \(2, 2\)"),
        (CountsShares, datasets.counts_its_objects, "no whole numbers"),
        (CountsTooFew, datasets.counts_its_objects, "1 labels are present .* is b in 2$"),
        (CountsTooMany, datasets.counts_its_objects, "1 labels are absent .* is b in 1$"),
        (CountsInItsOwnOrder, datasets.counts_its_objects, "order of the keys"),
        (Needs, datasets.refuses_a_folder_without_it, "an empty folder is accepted"),
        (NeedsSilently, datasets.refuses_a_folder_without_it, "does not name the folder"),
    ],
)
def test_a_faulty_dataset_is_found_out(dataset, check, said):
    with pytest.raises(ContractError, match=said):
        check(dataset)


def test_what_needs_files_is_not_checked_further():
    with pytest.raises(NotChecked, match="no folder was given"):
        datasets.has_unique_names(Needs)


# ---------------------------------------------------------------------------------------- recipes
RECIPE = Recipe(title="t", bibtex="@misc{a}", summary="s", settings=Settings(head="gap"))


def changed(**fields):
    return RECIPE.model_copy(update=fields)


@pytest.mark.parametrize("check", recipes.CHECKS, ids=lambda c: c.__name__)
def test_a_good_recipe_passes(check):
    check(RECIPE)


@pytest.mark.parametrize(
    ("recipe", "check", "said"),
    [
        (changed(bibtex="Smith, 2020"), recipes.cites_its_paper, "bibtex"),
        (changed(summary=" "), recipes.cites_its_paper, "summary is empty"),
        (changed(settings=Settings(head="gapp")), recipes.names_plugins_that_exist, "gap"),
        (
            changed(settings=Settings(head="gap", head_options={"width": 3})),
            recipes.names_plugins_that_exist,
            r"head gap has no options \['width'\]; known: \['classifier', 'prior_bias'\]",
        ),
        (changed(per_dataset={"vocc": {}}), recipes.changes_what_exists, "voc"),
        (changed(tuned={"probe": {"lr": 1}}), recipes.changes_what_exists, "lr"),
        (
            changed(tuned={"probe": {"optimizer": {"rate": 1}}}),
            recipes.changes_what_exists,
            "optimizer.rate",
        ),
        (
            changed(
                reported=(
                    Reported(dataset="coco", metric="mAP", value=83, source=" ", status="verified"),
                )
            ),
            recipes.says_where_its_scores_are_from,
            "mAP 83.0 on coco has no source",
        ),
    ],
)
def test_a_faulty_recipe_is_found_out(recipe, check, said):
    with pytest.raises(Exception, match=said):
        check(recipe)


# ---------------------------------------------------------------------------------------- the door
def plugin(value, kind="head", name="mine"):
    return Plugin(kind, name, f"{__name__}:{value}", "mine", "1.0")


def test_results_say_what_failed_and_why():
    results = {r.name: r for r in contracts.check(plugin("IdleWeight"))}
    assert results["loads"].ok
    assert not results["trains_every_parameter"].ok
    assert "'idle'" in results["trains_every_parameter"].reason
    assert sum(not r.ok for r in results.values()) == 1
    with pytest.raises(ContractError, match=r"head mine breaks its contract:\n  trains_every"):
        contracts.require(plugin("IdleWeight"))


def test_a_crash_is_a_failure_with_its_type():
    results = {r.name: r for r in contracts.check(plugin("BatchNormed"))}
    assert results["trains_on_one_image"].reason.startswith("ValueError: ")


def test_what_cannot_be_imported_fails_to_load():
    (result,) = contracts.check(plugin("Absent"))
    assert (result.name, result.ok) == ("loads", False)
    assert "Absent" in result.reason


def test_a_name_that_lacks_its_argument_is_said_to():
    (result,) = contracts.check(registry.find("backbone", "timm"))
    assert result.ok
    assert "timm:SOMETHING" in result.reason


def test_checks_do_not_move_the_random_numbers():
    before = torch.get_rng_state()
    contracts.check(plugin("Good"))
    assert torch.equal(torch.get_rng_state(), before)
