"""Each check finds the fault that it is there for, and only that; see ``broken_plugins``, too."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mlbench import contracts, registry
from mlbench.contracts.outcome import ContractError, NotChecked
from mlbench.registry import Plugin
from mlbench.types import (
    Angles,
    DataError,
    HeadOutput,
    Index,
    Level,
    PluginError,
    Recipe,
    Reported,
    Settings,
)
from mlbench_tools.checks import backbone_checks as backbones
from mlbench_tools.checks import dataset_checks as datasets
from mlbench_tools.checks import head_checks as heads
from mlbench_tools.checks import loss_checks as losses
from mlbench_tools.checks import recipe_checks as recipes
from tests.contracts.broken_plugins import Backbone, Data, Head


def changed(parent, after=lambda self, *given: None, **attributes):
    """A subclass with other attributes; ``after`` runs at the end of its constructor."""

    def init(self, *given, **options):
        parent.__init__(self, *given, **options)
        after(self, *given)

    return type("Changed", (parent,), {"__init__": init, **attributes})


def ids(value):
    return getattr(value, "__name__", None)


# ------------------------------------------------------------------------------------------ heads
class Good(Head):
    """A head without a fault; the faulty ones change one thing."""

    def aux(self, logits):
        return {"size": 0.1 * logits.square().mean()}

    def forward(self, features):
        logits = self.fc(self.pool(features))
        return HeadOutput(logits, self.aux(logits))


class Told(Good):
    """A head with known labels, without a fault."""

    needs, most_known = frozenset({"known"}), 0.5

    def forward(self, features, known=None):
        output = super().forward(features)
        if known is None:
            return output
        told = self.told(known.float() * (known >= 0) + 0.5 * (known == 0))
        return output._replace(logits=output.logits + told)

    def told(self, states):
        return states.sum(1, keepdim=True)


def know_places(self, features):
    logits, aux = Good.forward(self, features)
    return HeadOutput(logits + torch.arange(logits.shape[1]), aux)


def overflow(self, features):
    x = Good.pool(self, features)
    return x + (self.fc(x).dtype == torch.bfloat16)


def count_calls(self, features):
    self.calls += self.training
    return Good.pool(self, features) * (1 + 0.01 * self.calls)


IdleWeight = changed(Good, lambda self, *_: setattr(self, "idle", nn.Parameter(torch.zeros(3))))
BatchNormed = changed(
    Good,
    lambda self, spec, labels: setattr(self, "norm", nn.BatchNorm1d(spec[-1].channels)),
    pool=lambda self, features: self.norm(Good.pool(self, features)),
)
SecretState = changed(
    Good,
    lambda self, *_: self.register_buffer("secret", torch.rand(()), persistent=False),
    pool=lambda self, features: Good.pool(self, features) * (1 + self.secret),
)
OnTheCpu = changed(
    Good, lambda self, *_: self.register_buffer("scale", torch.ones((), device="cpu"))
)
Counts = changed(Good, lambda self, *_: setattr(self, "calls", 0), pool=count_calls)
FAULTY_HEADS = {
    heads.gives_one_logit_a_label: {
        r"write logits.float\(\)": changed(
            Good, forward=lambda self, x: HeadOutput(self.fc(Good.pool(self, x)).bfloat16())
        )
    },
    heads.is_deterministic: {"it seeds torch": changed(Good, lambda *_: torch.manual_seed(3))},
    heads.trains_every_parameter: {
        "no gradient reaches .'idle'": IdleWeight,
        "deepest map": changed(Good, pool=lambda self, x: Good.pool(self, x).detach()),
    },
    heads.trains_on_one_image: {"more than 1 value per channel": BatchNormed},
    heads.keeps_its_state: {"loaded state dict": SecretState, "in buffers": Counts},
    heads.builds_without_memory: {"'scale'": OnTheCpu},
    heads.works_in_half_precision: {"moves the logits": changed(Good, pool=overflow)},
    heads.gives_scalar_extra_losses: {
        "not a scalar tensor": changed(Good, aux=lambda self, logits: {"size": logits.mean(0)})
    },
    heads.uses_known_labels_if_it_says_so: {
        "needs is .*images": changed(Good, needs={"images"}),
        "needs does not name known": changed(Good, most_known=0.5),
        r"most_known is 1.0, not a share": changed(Told, most_known=1.0),
        "unknown labels change": changed(Told, told=lambda self, x: x + 1),
        "known to be 0 changes no logit": changed(Told, told=lambda self, x: 0 * x),
        "another image's": changed(Told, told=lambda self, x: x.sum()),
    },
    heads.follows_the_order_of_its_labels: {"in another order": changed(Good, forward=know_places)},
}


# ----------------------------------------------------------------------------------------- losses
def loss_of(function, **attributes):
    """Losses that compute a function."""
    made = {"__init__": lambda self, labels: None, "__call__": staticmethod(function)}
    return type("Loss", (), made | attributes)


def soft(logits, targets):
    """Cross entropy a label in float32, without a reduction."""
    return nn.functional.binary_cross_entropy_with_logits(
        logits.float(), (targets == 1).float(), reduction="none"
    )


def good(logits, targets):
    return (soft(logits, targets) * (targets >= 0)).sum() / targets.numel()


def summed(logits, targets):
    return (soft(logits, targets) * (targets >= 0)).sum()


class Ranked:
    """A loss on the batch, of the epoch and of unknown labels, without a fault."""

    needs, uses_unknown, separable = frozenset({"epoch"}), True, False

    def __init__(self, labels):
        self.epochs = []

    def __call__(self, logits, targets, context):
        terms = soft(logits, targets)
        if context.epoch == 1:
            return terms.mean()
        return terms.where(terms < terms.max(), 0).mean()


def remember(self, logits, targets, context):
    self.epochs.append(context.epoch)
    return soft(logits, targets).mean() * len(self.epochs)


def first_counts_more(self, logits, targets, context):
    return soft(logits, targets)[0].sum() + soft(logits, targets).mean()


def over_known(logits, targets):
    """A mean over what is known in the batch: halves with unequal numbers of it disagree."""
    return summed(logits, targets) / (targets >= 0).sum().clamp(min=1)


def rank_pairs(logits, targets):
    """Positives of each label above its negatives, over the images of a batch."""
    pairs = (targets == 1)[:, None] & (targets == 0)
    margins = logits.float()[:, None] - logits.float()
    return nn.functional.softplus(-margins)[pairs].sum() / pairs.sum().clamp(min=1)


def write_targets(logits, targets):
    targets.clamp_(min=0)
    return good(logits, targets)


def multiply(logits, targets):
    """A product of matrices, which autocast makes in bfloat16."""
    known = (targets >= 0).float()
    return torch.einsum("bc,bc->", soft(logits, targets), known) / targets.numel()


def arc_cosine(logits, targets):
    """Its gradient is infinite at cosines of 1 and -1, and beyond them there is none."""
    return good(5 * torch.acos(logits.float() / 5).cos(), targets)


FAULTY_LOSSES = {
    losses.has_nothing_to_train: {"trains its weight, bias": lambda labels: nn.Linear(1, 1)},
    losses.is_finite_for_extreme_logits: {r"returns shape \[2, 3\], not a scalar": loss_of(soft)},
    losses.gives_unknown_labels_no_weight: {
        "unknown labels have a gradient": loss_of(lambda x, y: soft(x, y).mean())
    },
    losses.averages_or_adds_up_over_images: {
        "changes for a batch that holds": loss_of(summed),
        "two halves": loss_of(over_known),
        "mean over two halves is not": loss_of(rank_pairs),
        "not the value of the whole": changed(Ranked, separable=True),
        "does not double": loss_of(good, reduction="sum"),
    },
    losses.pushes_logits_towards_their_targets: {
        "away from their target": loss_of(lambda x, y: good(-x, y))
    },
    losses.leaves_its_inputs_alone: {
        "writes to its inputs": loss_of(write_targets),
        "another value the second time": changed(Ranked, __call__=remember),
    },
    losses.names_what_it_needs: {
        "needs names images; known: {'epoch'}": changed(Ranked, needs={"epoch", "images"}),
        "needs names epoch": changed(Ranked, needs="epoch"),
    },
    losses.learns_from_unknown_labels_if_it_says_so: {
        "unknown labels have no gradient; leave": loss_of(
            summed, reduction="sum", uses_unknown=True
        )
    },
    losses.does_not_depend_on_the_order_of_images: {
        "depends on the order": changed(Ranked, __call__=first_counts_more)
    },
    losses.is_float32_inside_autocast: {
        "the value is torch.bfloat16": loss_of(multiply),
        "logits is not float32's: by": loss_of(lambda x, y: multiply(x, y).float()),
    },
    losses.is_finite_for_any_cosine: {
        "float32 logits of -5 with": loss_of(arc_cosine, angles=Angles(scale=5))
    },
}


# -------------------------------------------------------------------------------------- backbones
class Tiny(Backbone):
    """A backbone without a fault."""

    def __init__(self, weights="default", image_size=None):
        super().__init__()
        self.two = nn.Sequential(self.two, nn.BatchNorm2d(6))

    def forward(self, images):
        first = self.one(images)
        return first, self.two(first)


def mix_images(self, images):
    return Tiny.forward(self, images - images.mean(0, keepdim=True))


FAULTY_BACKBONES = {
    backbones.keeps_its_spec: {"the spec says": changed(Tiny, spec=(Level(4, 8), Level(6, 32)))},
    backbones.says_how_to_normalise: {"std is": changed(Tiny, std=(0.0, 0.0, 0.0))},
    backbones.divides_into_stages: {
        "one.weight belongs to 2 stages": changed(
            Tiny, stages=lambda self: [[self.one], [self.one, self.two]]
        )
    },
    backbones.trains_every_parameter: {
        "'fc.weight', 'fc.bias'": changed(
            Tiny, lambda self: setattr(self, "fc", nn.Linear(6, 1000))
        )
    },
    backbones.treats_images_independently: {
        "depends on the other images": changed(Tiny, forward=mix_images)
    },
}


# --------------------------------------------------------------------------------------- datasets
class Drawn:
    """A data set without a fault that draws its files into the cache."""

    card, names = Data.card, Data.names
    keys = {"train": ("1", "2"), "test": ("3",)}
    dtype = np.int8

    def __init__(self, root, cache):
        self.cache, self.calls = cache, 0

    def index(self, split):
        files = [self.cache / f"{key}.png" for key in self.keys[split]]
        for file in files:
            self.draw(file)
        targets = np.array([[1, 0], [-1, 1], [1, 1]], self.dtype)
        return Index(files, self.keys[split], targets[: len(files)])

    def draw(self, file):
        Image.new("RGB", (4, 3)).save(file)

    def objects(self, keys):
        return np.array([{"1": (3, 0), "2": (5, 1)}[key] for key in keys])


def shuffled_index(self, split):
    self.calls += 1
    found = Drawn.index(self, split)
    return found.take(np.arange(len(found))[:: 1 if self.calls % 2 else -1])


def counting(change):
    """A data set whose counts of objects are changed."""
    return changed(Drawn, objects=lambda self, keys: change(Drawn.objects(self, keys)))


class Needs(Drawn):
    """Needs files, and takes any folder for one that has them."""

    def __init__(self, root, cache):
        if root is None:
            raise DataError("no folder was given")
        super().__init__(root, cache)


def refuse_silently(self, root, cache):
    raise DataError("something is missing")


LEAKING = {"train": ("1", "2"), "test": ("2",)}
FAULTY_DATASETS = {
    datasets.has_a_filled_card: {
        "bibtex is empty": changed(Drawn, card=Drawn.card.model_copy(update={"bibtex": " "}))
    },
    datasets.has_unique_names: {"stands twice": changed(Drawn, names=("a", "a"))},
    datasets.indexes_its_splits: {
        "in both splits": changed(Drawn, keys=LEAKING),
        "float32, not int8": changed(Drawn, dtype=np.float32),
        r"train: 1 keys stand twice, such as \['1'\]": changed(
            Drawn, keys={"train": ("1", "1"), "test": ("3",)}
        ),
        "train: its first image is none: .*1.png": changed(
            Drawn, draw=lambda self, file: file.write_text("no picture")
        ),
    },
    datasets.keeps_its_order: {"two orders": changed(Drawn, index=shuffled_index)},
    datasets.counts_its_objects: {
        r"objects are \(2,\) instead of \(2, 2\)": counting(lambda n: n.sum(axis=0)),
        "1 labels are present .* is b in 2$": counting(lambda n: n - np.array([[0, 0], [0, 1]])),
        "1 labels are absent .* is b in 1$": counting(lambda n: n + np.array([[0, 2], [0, 0]])),
        "order of the keys": changed(
            Drawn, objects=lambda self, keys: Drawn.objects(self, sorted(keys))
        ),
    },
    datasets.refuses_a_folder_without_it: {
        "an empty folder is accepted": Needs,
        "does not name the folder": changed(Needs, refuse_silently),
    },
}


# ---------------------------------------------------------------------------------------- recipes
RECIPE = Recipe(title="t", bibtex="@misc{a}", summary="s", settings=Settings(head="gap"))
UNSOURCED = Reported(dataset="coco", metric="mAP", value=83, source=" ", status="verified")


def altered(**fields):
    return RECIPE.model_copy(update=fields)


FAULTY_RECIPES = {
    recipes.cites_its_paper: {"bibtex": altered(bibtex="Smith, 2020")},
    recipes.names_plugins_that_exist: {
        "option 'width' of head gap; known: classifier, prior_bias": altered(
            settings=Settings(head="gap", head_options={"width": 3})
        )
    },
    recipes.changes_what_exists: {
        "voc": altered(per_dataset={"vocc": {}}),
        "optimizer.rate": altered(tuned={"probe": {"optimizer": {"rate": 1}}}),
    },
    recipes.says_where_its_scores_are_from: {
        "mAP 83.0 on coco has no source": altered(reported=(UNSOURCED,))
    },
}


# ------------------------------------------------------------------------------------------- all
def refuses(spec, labels):
    raise PluginError("needs four levels")


NOT_CHECKED = [
    (refuses, heads.is_deterministic, "needs four levels"),
    (loss_of(good), losses.is_finite_for_any_cosine, "does not work on angles"),
    (loss_of(good), losses.learns_from_unknown_labels_if_it_says_so, "no weight"),
    (Ranked, losses.gives_unknown_labels_no_weight, "learns from unknown labels"),
    (Ranked, losses.averages_or_adds_up_over_images, "gathered batch"),
    (Needs, datasets.has_unique_names, "no folder was given"),
]


@pytest.mark.parametrize(("plugin", "check", "said"), NOT_CHECKED, ids=ids)
def test_what_a_plugin_refuses_or_does_not_do_is_not_checked(plugin, check, said):
    with pytest.raises(NotChecked, match=said):
        check(plugin)


def test_a_head_that_refuses_every_spec_breaks_its_contract():
    with pytest.raises(ContractError, match="every spec is refused"):
        heads.gives_finite_logits_for_every_spec(refuses)


GRAPH = changed(Good, lambda self, *_: self.register_buffer("graph", torch.ones(3)))
SHARING = Drawn.card.model_copy(update={"shared_images": "its makers score some of them"})
ALLOWED = [
    (GRAPH, heads.can_be_exported),  # an attribute of exported programs has this name
    (loss_of(rank_pairs), losses.pushes_logits_towards_their_targets),
    (loss_of(summed, reduction="sum"), losses.averages_or_adds_up_over_images),
    (Drawn, datasets.counts_its_objects),
    (changed(Drawn, card=SHARING, keys=LEAKING), datasets.indexes_its_splits),
]
"""What plugins may do, and no listed one does; the listed ones have their own test."""


@pytest.mark.parametrize(("plugin", "check"), ALLOWED, ids=ids)
def test_what_is_allowed_passes(plugin, check):
    check(plugin)


FAULTS = [
    (plugin, check, said)
    for kind in (FAULTY_HEADS, FAULTY_LOSSES, FAULTY_BACKBONES, FAULTY_DATASETS, FAULTY_RECIPES)
    for check, plugins in kind.items()
    for said, plugin in plugins.items()
]


@pytest.mark.parametrize(("plugin", "check", "said"), FAULTS, ids=ids)
def test_a_fault_is_found(plugin, check, said):
    with pytest.raises(Exception, match=said) as caught:
        check(plugin)
    assert not isinstance(caught.value, NotChecked)


def plugin(value, kind="head", name="mine"):
    return Plugin(kind, name, f"{__name__}:{value}", "mine", "1.0")


def test_results_say_what_failed_and_why():
    results = {r.name: r for r in contracts.check(plugin("IdleWeight"))}
    assert [name for name, result in results.items() if not result.ok] == ["trains_every_parameter"]
    assert "'idle'" in results["trains_every_parameter"].reason
    with pytest.raises(ContractError, match=r"head mine breaks its contract:\n  trains_every"):
        contracts.require(plugin("IdleWeight"))


def test_a_name_that_lacks_its_argument_is_said_to():
    (result,) = contracts.check(registry.find("backbone", "timm"))
    assert result.ok
    assert "timm:SOMETHING" in result.reason


def test_checks_do_not_move_the_random_numbers():
    before = torch.get_rng_state()
    contracts.check(plugin("Good"))
    assert torch.equal(torch.get_rng_state(), before)
