"""Runs that share batches end as they do alone, to the bit, whatever becomes of the others."""

import json

import pytest

from mlbench import plan, suite
from mlbench.engine.distributed import World
from mlbench.executors import make_jobs, teams, worker
from mlbench.executors.side_by_side import carry_out_together
from mlbench.preflight import RunInputs
from mlbench.store import Store
from mlbench.types import Places
from tests.cli.manifests import TINY
from tests.engine import tiny
from tests.executors.test_local import FEW

HEADS = """
import os
from torch import nn
from mlbench.types import HeadOutput

class Plain(nn.Module):
    made = 0

    def __init__(self, spec, labels):
        super().__init__()
        self.classifier = nn.Linear(spec[-2].channels, len(labels))
        self.steps = 0
        Plain.made += self.classifier.weight.device.type == "cpu"

    def forward(self, features):
        self.steps += self.training and features[-2].device.type == "cpu"
        if self.steps == 3:
            self.fault()
        return HeadOutput(self.classifier(features[-2].mean((2, 3))))

    def fault(self):
        pass

class Fails(Plain):
    def fault(self):
        raise ArithmeticError("in the third step")

class Alone(Plain):
    def fault(self):
        assert self.made == 1, "there are others"

class Dies(Plain):
    def fault(self):
        self.made > 1 and os._exit(3)
"""
SMALL = {"image_size": 32, "epochs": 2, "batch_size": 6}
NARROW = {"head_options": {"embedding_dim": 32, "feedforward": 32}}
OPTIONS = {"gap": {"sam_rho": 0.1}, "ml_decoder": NARROW, "plain": {"ema_decay": 0.9}}


@pytest.fixture
def heads(install):
    lines = [f"{name.lower()} = beside:{name}" for name in ("Plain", "Fails", "Alone", "Dies")]
    install("beside", HEADS, "\n".join(["[mlbench.heads]", *lines]))


@pytest.fixture
def jobs(heads, tmp_path, cache):
    """The jobs of a matrix that is planned into a folder."""

    def call(where, methods=("gap", "ml_decoder", "fails", "plain"), **fields):
        fields = {
            "methods": methods,
            "losses": ("asl", "bce"),
            "backbones": ("timm:test_resnet",),
            "dataset_options": {"synthetic": {"train_images": 24, "test_images": 20, "size": 32}},
            "settings": SMALL,
            "weights": "none",
            "per_method": {name: OPTIONS[name] for name in methods if name in OPTIONS},
        } | fields
        located = Places(results=tmp_path / where, cache=cache, workers=1)
        planned = plan.make_plan(suite.make_suite(fields), located)
        assert not planned.refused, planned.refused[0].reason
        return make_jobs(planned.missing, located, "-")

    return call


def numbers(store):
    """All that two runs of one spec must have in common."""
    found = {}
    for record in store.records():
        losses = (store.run_folder(record.run_id) / "losses.csv").read_text()
        epochs = [(e.loss, e.aux, e.grad_norm, e.lr) for e in record.epochs]
        found[record.run_id] = losses, epochs, record.scores, record.predictions_sha256
    return found


CROPS = [{"name": "flip"}, {"name": "random_resized_crop"}]
OWN = OPTIONS | {"plain": {"ema_decay": 0.9, "loss": "asl"}}
TWO_TEAMS = {"grid": {"augmentation": ([], CROPS)}, "losses": (), "per_method": OWN}


@pytest.mark.parametrize(
    ("track", "fields"),
    [("controlled", TWO_TEAMS), ("probe", {})],
    ids=["controlled", "probe"],
)
def test_runs_side_by_side_are_those_of_a_process_each(jobs, tmp_path, track, fields):
    for job in jobs("apart", track=track, **fields):
        worker.carry_out(job, World(), tiny.Quiet())
    expected = numbers(Store(tmp_path / "apart"))
    found = teams(jobs("together", track=track, **fields), 1)
    assert [len(team) for team in found] == ([4, 4] if fields else [8])
    for team in found:
        for end in carry_out_together([job for _, job in team], [tiny.Quiet()] * len(team)):
            if end.spec.method == "fails":
                assert end.failure.reason.startswith("ArithmeticError: in the third step (")
            else:
                others = f"with {len(team) - 1} other runs (share_data)"
                assert others in "".join(end.record.notes)
    assert numbers(Store(tmp_path / "together")) == expected
    assert len(expected) == 6


def test_teams_are_divided_among_what_can_be_under_way(jobs):
    four = jobs("planned", methods=("gap", "plain"))
    assert [[n for n, _ in team] for team in teams(four, 3)] == [[0, 3], [1], [2]]
    two = four[0].model_copy(update={"spec": four[0].spec.trained_by(2)})
    assert len(teams([four[0], two], 1)) == 2, "processes see parts of a batch"


def test_an_error_of_the_stream_reaches_every_run(jobs, monkeypatch):
    make = RunInputs.source

    def torn(*args):
        source = make(*args)

        def read(positions, epoch):
            if epoch == 1 and 7 in positions:
                raise OSError("the disk is gone")
            return source(positions, epoch)

        return read

    monkeypatch.setattr(RunInputs, "source", torn)
    ends = carry_out_together(jobs("torn", methods=("gap", "plain")), [tiny.Quiet()] * 4)
    assert [end.failure.reason for end in ends] == ["OSError: the disk is gone"] * 4


def test_what_fails_beside_others_is_repeated_alone(heads, cli, tmp_path):
    flags = list(TINY)
    for one in (FEW, "share_data=true", "batch_size=8", "profile=true"):
        flags += ["--set", one]

    def run(where, *heads):
        ended = cli("run", *flags, "--plugins", ",".join(heads), "--results", where)
        store = Store(tmp_path / where)
        found = {r.spec.method: r.notes for r in store.records()}
        return ended, store, {name: "(share_data)" in "".join(n) for name, n in found.items()}

    ended, store, beside = run("living", "plain", "fails", "alone")
    assert ended.code == 1 and "[3/3] alone on synthetic" in ended.err
    assert beside == {"plain": True, "alone": False}
    for record in store.records():
        folder = store.run_folder(record.run_id)
        assert json.loads((folder / "profile.json").read_text())["steps"] == 3
        assert (folder / "log.txt").read_text().count("provenance: evaluation") == 1
    ended, _, beside = run("dead", "plain", "dies")
    assert ended.code == 0, ended.err
    assert beside == {"plain": False, "dies": False}
