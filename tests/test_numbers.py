"""What decides whether a record still counts: the numbers of core and plugins, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mlbench import numbers, plan, registry, suite
from mlbench.cli.progress import RunLines
from mlbench.contracts.made_up import PYRAMID, features, made_up_context, targets
from mlbench.engine.distributed import World
from mlbench.engine.train import finish
from mlbench.metrics.bootstrap import score
from mlbench.one_run import run
from mlbench.text import flatten
from mlbench.types import LossContext, Places, evaluate_loss
from tests.store.made import made_record


def record(**fields):
    made = made_record("gap", spec={"dataset": "synthetic"})
    return made.model_copy(update={"numbers": numbers.numbers_of(made.spec), **fields})


def test_numbers_name_the_core_and_each_plugin_of_a_run():
    plugins = {"backbone resnet18": 1, "head gap": 1, "loss bce": 1, "dataset synthetic": 2}
    assert record().numbers == {"core": numbers.NUMBERS} | plugins
    assert numbers.outdated(record().numbers) == ""


@pytest.mark.parametrize(
    ("declared", "number"),
    [("", 1), ("NUMBERS: int = 7", 7), ("x = 'NUMBERS'; OLD_NUMBERS = 7", 1)],
)
def test_a_plugin_declares_its_number_in_its_module_without_being_imported(
    declared, number, install
):
    install("acme", f"{declared}\nraise ImportError\n", "[mlbench.heads]\nnew = acme:New")
    made = made_record("new", spec={"dataset": "synthetic"})
    assert numbers.numbers_of(made.spec)["head new"] == number
    old = made.model_copy(update={"numbers": {"core": numbers.NUMBERS, "head new": 9}})
    assert numbers.outdated(old.numbers) == f"head new numbers 9, now {number}"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("acme:New", 9),
        ("acme.again:New", 9),
        ("acme.heads:Old.make", 7),
        ("acme.heads:made", 7),
        ("acme.broken.heads:New", 1),
    ],
)
@pytest.mark.parametrize("handed_on", ["from acme.heads import Old as New", "from .heads import *"])
def test_a_module_that_imports_a_plugin_adds_up_the_raises_of_its_package(
    handed_on, value, number, install
):
    package = install("acme", "", f"[mlbench.heads]\nnew = {value}").with_name("acme")
    (package / "broken").mkdir(parents=True)
    for name, text in {
        "__init__": f"New_ = 1\nif True:\n    {handed_on}\n",
        "again": f"New_ = 1\nif True:\n    {handed_on}\n",
        "heads": "NUMBERS = 7\nclass Old: ...\nNew = Old\ndef made(): ...\n",
        "other": "NUMBERS = 3\n",
        "broken/__init__": "1 / 0\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert numbers.numbers_of(made_record("new").spec)["head new"] == number


def test_a_plugin_that_is_not_installed_is_not_counted_against_a_record():
    assert numbers.outdated(record(numbers={"core": numbers.NUMBERS, "head gone": 3}).numbers) == ""


def test_the_digest_of_the_sources_covers_core_and_plugins(install):
    module = install("acme", "", "[mlbench.heads]\nnew = acme:New")
    of_gap = numbers.sources_of(record().spec)
    spec = made_record("new", spec={"dataset": "synthetic"}).spec
    before = numbers.sources_of(spec)
    named = [part.split()[0] for part in before.split(", ")]
    assert named == ["acme", "mlbench", "mlbench_plugins"]
    then = (of_gap, before, "0" * 16, "mlbench 01, mlbench_plugins 23")
    records = [record(sources=sources) for sources in then]
    assert numbers.edited(records) == ()
    module.write_text("# changed\n")
    assert len({of_gap, before, numbers.sources_of(spec)}) == 3
    assert numbers.sources_of(record().spec) == of_gap
    assert numbers.edited(records) == ("acme",), "ours raise their numbers"


FILE = Path(__file__).with_name("numbers.json")
STORED = json.loads(FILE.read_text())
LABELS = made_up_context(7, words=12)
WIDE = made_up_context(7, words=PYRAMID[-1].channels)
"""Labels for heads whose vectors must be as wide as the maps."""


def parts(kind):
    return [p for p in registry.plugins(kind) if p.distribution == "mlbench-mlic"]


def head_value(plugin):
    """The loss of a head after some steps on random maps, without dropout, whose draws differ.

    In float64 it is the same on every processor, and another formula, start or gradient changes it.
    Sums in another order do not: in float32 they move a run's scores as another processor does.
    """
    factory, told = plugin.load(), targets(3, 7)
    options = {"dropout": 0.0} if "dropout" in registry.options(factory) else {}
    torch.manual_seed(0)
    head = factory(PYRAMID, WIDE if plugin.name == "zero_shot" else LABELS, **options).double()
    trained = [p for p in head.parameters() if p.requires_grad]
    known = (told,) if "known" in getattr(head, "needs", ()) else ()
    inputs = (features(PYRAMID, 3, 64, 96), *known)
    for _ in range(4):
        output = head(*inputs)
        loss = binary_cross_entropy_with_logits(output.logits, (told == 1).double())
        loss = loss + sum(output.aux.values())
        gradients = torch.autograd.grad(loss, trained, materialize_grads=True) if trained else ()
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.data -= 0.05 * gradient
    return loss.item()


def loss_value(plugin):
    """A loss on random logits, and the length of its gradient."""
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = evaluate_loss(plugin.load()(LABELS), logits, targets(6, 7), LossContext(2, 2))
    return (loss + torch.autograd.grad(loss, logits)[0].norm()).item()


def found(name, folder):
    """The number and the value of ``core`` or of a plugin, ``head gap``."""
    if name == "core":
        return numbers.NUMBERS, trained(folder)
    kind, _, plain = name.partition(" ")
    plugin = registry.find(kind, plain)
    torch.set_default_dtype(torch.float64)
    try:
        return numbers._declared(plugin), {"head": head_value, "loss": loss_value}[kind](plugin)
    finally:
        torch.set_default_dtype(torch.float32)


def trained(folder):
    """What a short run that augments and averages comes to: last loss, logits and a score.

    The run's own score is not compared, as it jumps where rounding swaps two images.
    """
    fields = {
        "methods": ("ssgrl",),
        "losses": ("asl",),
        "dataset_options": {"synthetic": {"train_images": 48, "test_images": 64, "size": 32}},
        "settings": {
            "image_size": 32,
            "epochs": 3,
            "batch_size": 16,
            "ema_decay": 0.75,
            "augmentation": [{"name": "random_resized_crop"}, {"name": "flip"}],
        },
    }
    places = Places(results=folder, cache=folder, keep="none")
    (spec,) = plan.make_plan(suite.make_suite(fields), places).missing
    record, seen = finish(run(spec, places, World(), RunLines("", 0, print), ""))
    known = np.random.default_rng(0).random(seen.targets.shape, np.float32)
    scores, _ = score(known, seen.targets, resamples=100)
    of_metrics = scores.mAP + scores.mAP_low + scores.CF1
    return float(record.epochs[-1].loss + seen.logits.std() + of_metrics / 100)


NAMES = ("core", *(f"{kind} {p.name}" for kind in ("head", "loss") for p in parts(kind)))


def test_what_the_file_holds_are_all_parts():
    assert STORED["values"].keys() == set(NAMES), f"write what changed to {FILE.name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_part_that_gives_other_values_has_another_number(name, tmp_path):
    number, value = found(name, tmp_path)
    before, known = STORED["values"][name]
    same = pytest.approx(known, rel=1e-3 if name == "core" else 1e-6)
    if value != same:
        assert number > before, f"{name} gives {value}, not {known}: raise its NUMBERS"
    assert (number, value) == (before, same), (
        f"write to {FILE.name}: {json.dumps({name: [number, value]})}"
    )


def test_a_field_that_is_added_to_a_spec_keeps_the_ids_of_older_runs():
    assert sorted(flatten(made_record("gap").spec.canonical())) == STORED["fields"], (
        "name a new field in `mlbench.types.runs.ADDED`, with the value that stood for it before"
    )
