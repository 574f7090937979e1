"""A run file holds all of a run, and `mlbench repeat` makes it again."""

import numpy as np
import pytest
import yaml

from mlbench import run_file
from mlbench.build import identity_of
from mlbench.cli.planning import plan_repetition
from mlbench.evidence import seal, to_json
from mlbench.store import Store
from mlbench.suite import Suite
from mlbench.types import SuiteError
from tests.given import path_of
from tests.store.made import kept, made_record
from tests.tools.submit.parts import RESULTS, made, make, named


def small(cache, settings=(), **fields):
    """A record of small images, which a dry run rehearses in a second."""
    return made(cache, {"image_size": 32, **dict(settings)}, **fields)


@pytest.fixture
def written(tmp_path):
    """Write a run file with some values changed, or removed where they are None."""

    def write(record, **changes):
        plain = yaml.safe_load(run_file.to_yaml(record)) | changes
        kept = {name: value for name, value in plain.items() if value is not None}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(kept))
        return "run.yaml"

    return write


def test_one_run_of_a_matrix_comes_out_the_same(cli, unmeasured, suite, tmp_path, store):
    matrix = suite(
        {"epochs": 2, "selection": "validation"},
        seeds=[0, 3],
        labels=["sun", "moon", "car", "lamp"],
        label_noise={"keep": 0.7, "seed": 2},
    )
    cli("run", "--suite", matrix).ok()
    [record] = [r for r in store.records() if r.spec.seed == 3]
    assert all((store.root / one.checkpoint).exists() for one in store.records()), "keep: all"
    (tmp_path / "run.yaml").write_text(run_file.to_yaml(record))
    cli(*run_file.repeat_command(record, "run.yaml").split()[1:]).ok()
    again = Store(tmp_path / "repeated")
    [repeated] = again.records()
    assert (repeated.run_id, repeated.scores) == (record.run_id, record.scores)
    assert repeated.train_positives == record.train_positives
    before, after = store.predictions(record), again.predictions(repeated)
    assert np.array_equal(before.logits, after.logits) and before.keys == after.keys
    counted = cli("score", record.run_id, "--protocol", "groups", "--json").json
    assert counted["protocols"]["groups"]["values"]["labels_head"] == 0, "fewer than 100 images"


def test_a_run_that_is_in_the_store_is_not_repeated(cli, store, cache, written):
    record, seen = small(cache)
    record = record.model_copy(update={"efficiency": None})  # or its speed is measured
    record = kept(store, record, seen)
    ended = cli("repeat", written(record)).ok("Nothing is missing: 1 run is in results.")
    assert "name another folder with --results" in ended.err
    assert store.records() == [record]


def test_a_run_that_diverged_is_made_again_only_if_that_is_asked_for(
    cli, here, store, cache, written
):
    record, _ = small(cache)
    gone = {"scores": None, "average_precision": (), "efficiency": None, "error": "at step 3"}
    store.write(record.model_copy(update={"status": "diverged", **gone}))
    cli("repeat", written(record)).failed("--retry-diverged", code=1)
    cli("repeat", "run.yaml", "--retry-diverged", "--dry-run").ok("it diverged before")


def test_a_pack_a_record_and_a_bare_spec_are_read_too(cli, here, tmp_path, cache, written):
    record, seen = small(cache, labels=("sun", "moon"), holdout=0.3)
    (tmp_path / "run.ZIP").write_bytes(make(record, seen))
    (tmp_path / "run.JSON").write_bytes(to_json(seal(record, None)))
    written(record, **dict.fromkeys(run_file.METADATA))
    for file in ("run.ZIP", "run.JSON", "run.yaml"):
        cli("repeat", file, "--dry-run").ok(record.run_id)
        assert not (tmp_path / "results").exists()


def test_environment_differences_are_reported(cli, cache, written):
    record, _ = small(cache)
    environment = {**record.environment, "device": "H100", "processes": 8}
    record = record.model_copy(update={"environment": environment, "commit": "2" * 40})
    told = " ".join(cli("repeat", written(record), "--dry-run").err.split())
    assert "made with device H100 (here cpu); processes 8 (here 1); commit 2222" in told


def test_other_data_is_refused(cli, cache, written):
    record, _ = small(cache)
    other = named(record, dataset_options={"train_images": 41, "test_images": 30, "size": 32})
    ended = cli("repeat", written(other), "--dry-run")
    ended.failed(f"the run used {record.identity} (digest", "--data DIR")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7}, "the settings were changed"),
        ({"run_id": None, "method": 3}, "describes no run (method"),
        ({"run_id": None, "checkpoint": "sha256:ab"}, "mlbench rescore"),
        ({"environment": {"plugins": {"head gap": "mlbench-mlic 9"}}}, "install mlbench-mlic 9"),
        ({"environment": {"plugins": {"loss bce": "theirs 1.0"}}}, "loss bce of theirs 1.0"),
        ({"environment": {"plugins": {"head gone": "theirs 1.0"}}}, "none is installed; install"),
    ],
)
def test_run_files_that_cannot_be_repeated(cli, cache, written, changes, message):
    record, _ = small(cache)
    cli("repeat", written(record, **changes), "--dry-run").failed(message)


@pytest.mark.parametrize(
    ("fields", "flags", "message"),
    [
        ({"settings": {"weights": "sha256:abc"}}, (), "used weights sha256:abc; give the file"),
        ({"words": "sha256:abc"}, (), "used words sha256:abc; give the file"),
        ({"words": "sha256:abc"}, ("--words", "file"), "used words sha256:abc, not sha256:"),
        ({"words": "random"}, ("--words", "file"), "omit --words"),
        ({"settings": {"weights": "none"}}, ("--weights", "file"), "omit --weights"),
    ],
)
def test_flags_that_do_not_fit_the_run(cli, cache, written, tmp_path, fields, flags, message):
    (tmp_path / "file").write_text("another")
    cli("repeat", written(small(cache, **fields)[0]), "--dry-run", *flags).failed(message)


def test_files_that_describe_no_run(cli, tmp_path):
    for name in ("bad.json", "bad.zip"):
        (tmp_path / name).write_text("{}")
    for file, said in {
        "none.yaml": " cannot be read",
        "bad.json": ": not a record of this mlbench",
        "bad.zip": " is not a run file (.yaml), record (.json) or pack (.zip)",
    }.items():
        cli("repeat", file).failed(f"{file}{said}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("identity", "folder"), [("voc2007-mini", "."), ("coco-mini", "coco-mini")]
)
def test_committed_runs_are_planned_under_their_ids(identity, folder, real_data, cache, tmp_path):
    files = {identity_of(one): str(one) for one in path_of("WEIGHTS", "folder").iterdir()}
    where = {"data": real_data / folder, "results": tmp_path / "results", "cache": cache}
    methods = {r.spec.method: r for r in Store(RESULTS).records() if r.identity == identity}
    assert len(methods) > 10
    for record in methods.values():
        (tmp_path / "run.yaml").write_text(run_file.to_yaml(record))
        given = record.spec.settings.weights, record.spec.words
        weights, words = (files.get(one, one) for one in given)
        suite = Suite(weights=weights, words=(words,), device="cpu", **where)
        planned = plan_repetition(tmp_path / "run.yaml", suite, lambda _: None).plan
        assert [spec.run_id for spec in planned.missing] == [record.run_id], planned.refused


@pytest.fixture(scope="module")
def records():
    return Store(RESULTS).records()


def test_every_committed_run_is_written_without_loss(records):
    assert len(records) > 50
    for record in records:
        run = run_file.from_yaml(run_file.to_yaml(record))
        assert run == run_file.from_record(record)
        assert run.run_id == record.run_id == run.spec.run_id


def test_a_name_that_yaml_has_a_meaning_for_stays_a_name():
    names = ("yes", "1e3", "null", "# é", "a: b", "010", "08", "1:30", "2024-01-02")
    odd = {"spec": {"labels": names, "words": "random"}}
    settings = {"head_options": {"width": 1e-5, "which": "off"}}
    for fields in ({"command": "mlbench run\nmore: 3"}, {"status": "diverged", "scores": None}):
        record = made_record(**odd, settings=settings, **fields)
        assert run_file.from_yaml(run_file.to_yaml(record)) == run_file.from_record(record)


def test_what_may_change_digits_is_said_where_it_was_recorded():
    environment = {"versions": {"torch": "1"}, "device": "cpu", "threads": 4, "python": "3.9"}
    run = run_file.from_record(made_record(environment=environment, commit="c" * 40))
    here = environment | {"versions": {"torch": "2"}, "threads": 8, "python": "3", "processes": 2}
    assert run_file.environment_differences(run, here, None) == (
        'the run was made with versions {"torch": "1"} (here {"torch": "2"}); threads 4 (here 8); '
        f"commit {'c' * 40} (here unknown): its numbers may differ"
    )
    bare = run.model_copy(update={"environment": None, "commit": None})
    assert run_file.environment_differences(bare, here, "d" * 40) == ""


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"command": "mlbench run --plugins gap --data=x"}, "--data DIR"),
        ({"command": "mlbench run --plugins gap --datasets x"}, ""),
        ({"settings": {"weights": "sha256:ab"}}, "--weights FILE"),
        ({"spec": {"words": "sha256:ab"}}, "--words FILE"),
        ({"spec": {"init": "sha256:ab"}}, "--init FILE"),
        ({"spec": {"processes": 2}}, "--processes 2"),
    ],
)
def test_the_command_asks_for_what_the_run_had(fields, more):
    command = run_file.repeat_command(made_record(**fields), "mine.yaml")
    assert command == f"mlbench repeat mine.yaml --results repeated {more}".strip()


def test_a_checkpoint_that_was_scored_is_scored_again_by_its_own_command():
    record = made_record(spec={"checkpoint": "sha256:ab"}, command="mlbench evaluate x")
    assert run_file.repeat_command(record) == "mlbench evaluate x"


def test_a_spec_alone_is_a_run_file(records):
    plain = records[0].spec.model_dump(mode="json", exclude_defaults=True)
    run = run_file.from_yaml(yaml.safe_dump(plain))
    assert run.spec == records[0].spec and run.run_id is None and run.environment is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {", "is not YAML"),
        ("method: gap", "describes no run"),
        ("- gap", "describes no run (it is not a mapping of names to values)"),
        ("[" * 1000, "is not YAML (maximum recursion depth exceeded"),
        ("settings: &a [*a]", "is not YAML (found unconstructable recursive node"),
        ("method: " + "9" * 5000, "describes no run (dataset"),
    ],
)
def test_texts_that_describe_no_run(text, message):
    with pytest.raises(SuiteError) as raised:
        run_file.from_yaml(text)
    assert message in str(raised.value)
