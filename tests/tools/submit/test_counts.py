"""Forged parameters and multiply-accumulates are found, and honest ones of any kind are not."""

import json

import pytest

from mlbench.registry import plugins
from mlbench.types import Settings
from mlbench_tools.submit import archive, counts
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.counts import OURS, Question
from tests.tools.submit.parts import committed, named


@pytest.fixture(scope="module")
def ssgrl():
    return committed("coco-mini", "ssgrl")[0]


def said(record):
    """What the check says of a record, whatever its predictions."""
    manifest = archive.Manifest(format=1, mlbench="", run_id=record.run_id, sha256={})
    case = Case(archive.Pack("a.zip", manifest, {}, record, None, None))
    return [(one.kind, one.text, one.expected, one.found) for one in counts.counts(case)]


def counted(record, width):
    settings = record.spec.settings
    options = json.dumps(settings.head_options, sort_keys=True)
    trunk = settings.backbone, settings.image_size
    return counts._count(Question(*trunk, settings.head, options, record.label_names), width)


def with_cost(record, **fields):
    return record.model_copy(update={"efficiency": record.efficiency.model_copy(update=fields)})


def with_plugins(record, **whose):
    told = {**record.environment["plugins"], **{f"{k} {n}": v for k, (n, v) in whose.items()}}
    return record.model_copy(update={"environment": {**record.environment, "plugins": told}})


def of_width(record, width, **cost):
    """What the run would have said if its file had label vectors of this width."""
    found = counted(record, width)
    fields = {"parameters_head": found.parameters, "gmacs_head": found.gmacs, **cost}
    return with_cost(record, **fields)


def test_a_head_that_uses_label_vectors_is_counted(ssgrl):
    assert said(ssgrl) == []
    true = ssgrl.efficiency.parameters_head
    parameters, gmacs = said(with_cost(ssgrl, parameters_head=1000, gmacs_head=1.0))
    text = "parameters_head is not what ssgrl with 80 labels has"
    assert parameters == ("finding", text, str(true), "1000")
    assert gmacs[0] == "finding" and gmacs[3] == "1.0"


def test_another_width_of_label_vectors_is_for_a_person_to_judge(ssgrl):
    [(kind, text, *_)] = said(of_width(ssgrl, 50))
    assert kind == "warning" and "of width 50, not 300" in text
    for width in (0, -1, 100_000):
        step = counted(ssgrl, 301).parameters - counted(ssgrl, 300).parameters
        parameters = ssgrl.efficiency.parameters_head + step * (width - 300)
        assert {kind for kind, *_ in said(with_cost(ssgrl, parameters_head=parameters))} == {
            "finding"
        }


def test_a_width_explains_both_numbers_or_none(ssgrl):
    for forged in ({"gmacs_head": 0.01}, {"parameters_head": 2_000_001}):
        kinds = [kind for kind, *_ in said(of_width(ssgrl, 50, **forged))]
        assert kinds == ["finding", "finding"]


@pytest.mark.parametrize("words", ["cooccurrence", "random"])
def test_vectors_that_came_from_no_file_have_one_width(words, ssgrl):
    own = named(of_width(ssgrl, 50), words=words)
    assert [kind for kind, *_ in said(own)] == ["finding", "finding"]
    # Weights of its authors bring theirs.
    authors = named(own, checkpoint="sha256:0123")
    assert [kind for kind, *_ in said(authors)] == ["warning"]


def test_gmacs_may_differ_by_a_minor_operation(ssgrl):
    true = ssgrl.efficiency.gmacs_head
    assert said(with_cost(ssgrl, gmacs_head=1.0005 * true)) == []
    assert len(said(with_cost(ssgrl, gmacs_head=0.99 * true))) == 1


@pytest.mark.parametrize("method", ["ml_gcn", "grl"])
def test_older_versions_counted_what_no_image_changes(method):
    record, _ = committed("coco-mini", method)
    settings = record.spec.settings
    asked = (settings.backbone, settings.image_size, settings.head)
    options = json.dumps(settings.head_options, sort_keys=True)
    question = Question(*asked, options, record.label_names)
    least, most = (counts._count(question, 300, training).gmacs for training in (False, True))
    assert least < most
    for gmacs, kinds in (
        (least, []),
        (0.9 * least, ["finding"]),
        ((least + most) / 2, ["warning"]),
        (most, ["warning"]),
        (1.1 * most, ["finding"]),
    ):
        assert [kind for kind, *_ in said(with_cost(record, gmacs_head=gmacs))] == kinds


@pytest.mark.parametrize(
    ("whose", "kind", "text"),
    [
        ("mlbench-mlic 99.0", "warning", "which is not the run's: 1163985 here, 1000 there"),
        ("their-package 2.0", "not checked", "is of mlbench-mlic here, and was of their-package"),
        (None, "not checked", "was of None"),
    ],
)
def test_a_head_of_another_version_is_not_held_against_the_run(whose, kind, text, ssgrl):
    other = with_plugins(ssgrl, head=("ssgrl", whose))
    [(found, told, *_)] = said(with_cost(other, parameters_head=1000))
    assert found == kind and text in told


@pytest.mark.parametrize("backbone", ["timm:hf-hub:some/one", "timm:no_such_model"])
def test_a_backbone_that_cannot_be_made_here_is_told(backbone, ssgrl):
    strange = named(ssgrl, settings={**ssgrl.spec.settings.model_dump(), "backbone": backbone})
    strange = with_plugins(strange, backbone=("timm", ssgrl.environment["plugins"]["head ssgrl"]))
    [(kind, text, *_)] = said(strange)
    assert kind == "not checked" and backbone.partition(":")[2] in text
    assert ("nothing is fetched" in text) == ("hf-hub" in backbone)


@pytest.mark.parametrize("head", [p.name for p in plugins("head") if p.distribution == OURS])
def test_parameters_of_every_head_are_linear_in_the_width_of_label_vectors(head, ssgrl):
    settings = Settings(backbone="mobilenetv2_100", head=head, epochs=1)
    one = named(ssgrl, settings=settings.model_dump())
    widths = (50, 300, 301, 302, 550)
    short, usual, longer, longest, wide = (counted(one, width).parameters for width in widths)
    assert longest - longer == longer - usual
    assert wide - usual == usual - short == 250 * (longer - usual)
