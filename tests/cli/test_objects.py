"""Graphs of instance counts, from the command line to the record."""

from functools import partial

import pytest

HEAD = {"label_pooling": "avg", "hidden_dim": 8}


@pytest.fixture
def counting(suite):
    """Write a suite of probe runs of the graph branch, one for each way of counting."""
    return partial(
        suite,
        {"weights": "none", "batch_size": 64, "head_options": HEAD},
        plugins=["graph_branch", "timm:test_resnet"],
        track="probe",
        grid={"head_options.counts": ["images", "objects"]},
    )


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["coco", "voc2007"])
def test_both_ways_of_counting_run_on_real_pictures(cli, counting, real_data, store, dataset):
    data = real_data / "coco-mini" if dataset == "coco" else real_data
    cli("run", "--suite", counting(datasets=[dataset], dataset_options={}), "--data", data).ok()
    records = {record.spec.settings.head_options["counts"]: record for record in store.records()}
    assert {record.status for record in records.values()} == {"ok"}
    assert records["images"].identity == records["objects"].identity == f"{dataset}-mini"
    found = [store.predictions(records[counts]).logits for counts in ("images", "objects")]
    # the json of coco-mini holds one object of a label an image
    assert (found[0] == found[1]).all() == (dataset == "coco")


def test_where_objects_are_not_known_only_these_runs_are_refused(cli, counting, store):
    ended = cli("run", "--suite", counting())
    assert "refused" in ended.err and "synthetic does not tell how many objects" in ended.err
    assert "use counts 'images'" in ended.err
    (record,) = store.records()
    assert record.spec.settings.head_options["counts"] == "images"


def test_missing_annotations_refuse_a_run_when_it_is_planned(
    cli, counting, real_data, tmp_path, store
):
    whole = real_data / "VOCdevkit" / "VOC2007"
    part = tmp_path / "data" / "VOC2007"
    lists = part / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (part / "JPEGImages").symlink_to(whole / "JPEGImages")
    for file in (whole / "ImageSets" / "Main").iterdir():
        (lists / file.name).write_text("\n".join(file.read_text().splitlines()[:200]))
    file = counting(datasets=["voc2007"], dataset_options={})
    ended = cli("run", "--suite", file, "--data", tmp_path / "data")
    assert "refused" in ended.err and "000005.xml is missing" in ended.err.replace("\n", "")
    assert len(store.records()) == 1
