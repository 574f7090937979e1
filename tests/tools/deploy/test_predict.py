"""``mlbench predict``: inputs, outputs, resuming and sorting."""

import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

import mlbench
from mlbench.engine.checkpoint import Checkpoint, load
from mlbench_tools.deploy.predict import folder_names


@pytest.fixture
def renamed(trained, tmp_path):
    """Give a model some labels of other names; its file."""

    def call(*names):
        model = load(trained / "checkpoint.safetensors")
        names = (*names, *model.info.label_names[len(names) :])
        file = tmp_path / "renamed" / "checkpoint.safetensors"
        file.parent.mkdir()
        Checkpoint(model.weights, model.info.model_copy(update={"label_names": names})).save(file)
        return file

    return call


def rows(file):
    """The rows of an output in one form: image name -> (labels, whether it has an error)."""
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as stream:
            found = list(csv.DictReader(stream))
        labels = [row["labels"].split(";") if row["labels"] else [] for row in found]
    elif file.suffix == ".jsonl":
        found = [json.loads(line) for line in file.read_text().splitlines()]
        labels = [row["labels"] for row in found]
    else:
        found = pd.read_parquet(file).to_dict("records")
        labels = [list(row["labels"]) for row in found]
    names = [row["image"].rpartition("/")[2] for row in found]
    assert len(set(names)) == len(names), "a picture occurs twice"
    errors = [row["error"] not in (None, "") and pd.notna(row["error"]) for row in found]
    return dict(zip(names, zip(labels, errors, strict=True), strict=True))


def test_the_lines_of_the_readme_run(trained, pictures, tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parents[3] / "plugins/mlbench_tools/README.md").read_text()
    (code,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "results" / "runs").mkdir(parents=True)
    (tmp_path / "results" / "runs" / "cc19c684b4bd3f59").symlink_to(trained)
    for i, name in enumerate("ab"):
        (tmp_path / f"{name}.jpg").write_bytes((pictures / f"{i}.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:2]] == ["a.jpg", "b.jpg"]
    assert len(said) == 3 and "5.jpg" in said[2]


def test_bad_pictures_are_listed_and_the_others_labelled(cli, trained, pictures):
    done = cli("predict", trained, pictures, "--threshold", "0").failed(code=1)
    assert "2 of 7 pictures cannot be read" in done.err and "5.jpg" in done.err
    assert "4.png" in done.out and "6.png" not in done.out


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_command_that_was_killed_goes_on(cli, trained, pictures, tmp_path, form):
    """Half of the pictures first, and the last line cut; then all; then nothing is left."""
    whole, resumed = tmp_path / f"whole.{form}", tmp_path / f"resumed.{form}"
    flags = ("--top", "2", "--batch-size", "1")
    every = ("predict", trained, pictures, "--out", resumed)
    cli("predict", trained, pictures, "--out", whole, *flags)
    cli("predict", trained, pictures / "[0-2].jpg", "--out", resumed, *flags).ok()
    if form != "parquet":
        with resumed.open("a") as stream:
            stream.write('"cut off in the mid')
    cli(*every, *flags).failed("3 of 7 pictures are in", code=1)
    assert rows(resumed) == rows(whole)
    assert [error for _, error in rows(whole).values()] == [False] * 5 + [True] * 2
    assert all(len(labels) == 2 for labels, error in rows(whole).values() if not error)
    before = resumed.read_bytes()
    cli(*every, *flags).failed("2 of 2 pictures cannot be read", code=1)
    if form != "parquet":
        assert resumed.read_bytes() == before
    assert rows(resumed) == rows(whole) and not list(tmp_path.glob("*.part.jsonl"))
    (pictures / "5.jpg").write_bytes((pictures / "0.jpg").read_bytes())
    cli("predict", trained, pictures / "5.jpg", "--out", resumed, *flags)
    found = rows(resumed)
    assert found["5.jpg"] == (rows(whole)["0.jpg"][0], False) and found["6.png"][1]
    before = resumed.read_bytes()
    for other in (("--top", "1"), ("--threshold", "0.1"), ()):
        cli(*every, *other).failed("--threshold", "give another --out")
    assert resumed.read_bytes() == before and not list(tmp_path.glob("*.part.jsonl"))


def test_labels_that_are_called_as_columns_are_scored_beside_them(cli, renamed, pictures, tmp_path):
    labels = ["image", "labels", "scores", "error", "model", "choice"]
    flags = ("predict", renamed(*labels), pictures, "--all-scores", "--out", tmp_path / "a.csv")
    for known in ("", "5 of 7 pictures are in"):
        cli(*flags).failed(known, "2 of ", code=1)
        assert len(rows(tmp_path / "a.csv")) == 7
    columns = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    assert columns[:6] == labels and columns[6:12] == [f"score:{name}" for name in labels]
    assert len({*columns}) == 18 and not any(name.startswith("score:") for name in columns[12:])


def test_scores_are_those_of_the_python_function(cli, trained, pictures, tmp_path):
    cli("predict", trained, pictures, "--out", tmp_path / "a.jsonl", "--all-scores")
    model = mlbench.load(trained, device="cpu")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    found = {row["image"]: row["scores"] for row in map(json.loads, lines) if not row["error"]}
    expected = [one for batch in model.batches(pictures) for one in batch if not one.error]
    assert found == {str(one.image): one.scores for one in expected}


def test_an_output_of_something_else_is_not_touched(cli, trained, pictures, tmp_path):
    other = {"image": "x.jpg", "labels": [], "scores": {}, "error": None, "model": "another"}
    cases = {
        "a.jsonl": json.dumps(other) + "\n",
        "b.jsonl": "nonsense\n",
        "c.csv": "image,labels\nx.jpg,a;b\ny.jpg,c",
        "one.csv": "image,labels",
        "one.jsonl": '{"image": "x.jpg"}',
        "d.csv": "image,labels,scores,error,model,choice\nx.jpg,,,,another,\n",
        "e.parquet": "PAR1 nonsense",
    }
    for name, text in cases.items():
        file = tmp_path / name
        file.write_text(text)
        cli("predict", trained, pictures, "--out", file).failed(f"--out {file}", f"delete {file}")
        assert file.read_text() == text
    cli("predict", trained, pictures, "--out", tmp_path / "x.txt").failed(".csv")
    unwritable = cli("predict", trained, pictures, "--out", "/dev/null/x.csv")
    unwritable.failed("cannot be written (File exists); make room", "or name another file")


def test_sorting_copies_each_picture_to_its_labels(cli, trained, pictures, tmp_path):
    (pictures / "below").mkdir()
    (pictures / "below" / "0.jpg").write_bytes((pictures / "1.jpg").read_bytes())
    flags = ("--copy-to", tmp_path / "sorted", "--top", "1", "--out", tmp_path / "o.jsonl")
    assert cli("predict", trained, pictures, *flags).code == 1
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    chosen = [(row["image"], row["labels"]) for row in map(json.loads, lines) if row["labels"]]
    copies = [file for file in (tmp_path / "sorted").rglob("*") if file.is_file()]
    assert len(copies) == len(chosen) == 6
    assert {file.parent.name for file in copies} == {labels[0] for _, labels in chosen}
    shutil.rmtree(tmp_path / "sorted" / copies[0].parent.name)
    for flag in (flags, flags[:4]):
        cli("predict", trained, pictures, *flag)
        assert sorted(copies) == sorted(f for f in (tmp_path / "sorted").rglob("*") if f.is_file())
    done = cli("predict", trained, pictures, "--copy-to", copies[0], "--out", tmp_path / "a.csv")
    done.failed(f"--copy-to {copies[0]}", ".jpg")


def test_pictures_of_one_long_name_are_all_copied(cli, trained, pictures, tmp_path):
    for i in range(2):
        (tmp_path / f"{i}").mkdir()
        shutil.copy(pictures / f"{i}.jpg", tmp_path / f"{i}" / f"{'и' * 125}.jpg")
    flags = ("--threshold", "0", "--copy-to", tmp_path / "sorted")
    said = cli("predict", trained, tmp_path / "0", tmp_path / "1", *flags).ok().err
    assert "24 copied" in said and len([*(tmp_path / "sorted").glob("*/*.jpg")]) == 24


def test_folders_of_labels_in_any_script_are_readable(cli, renamed, pictures, tmp_path):
    labels = ["кот", "и" * 150, "и" * 151, "../猫", "e\u0301", "\u00e9", "Cat", "cat", "nul.a", "."]
    flags = ("--threshold", "0", "--copy-to", tmp_path / "s")
    cli("predict", renamed(*labels), pictures, *flags).failed("60 copied", code=1)
    found = {folder.name for folder in (tmp_path / "s").iterdir()}
    assert len(found) == 12 and {"кот", "%2E.%2F猫", "%2E"} <= found
    for start in ("и" * 93, "e\u0301", "\u00e9", "Cat", "cat", "nul.a"):
        assert any(re.fullmatch(f"{start}~[0-9a-f]{{12}}", name) for name in found), start


def test_no_two_labels_share_a_folder():
    labels = ["a", "A", "a.", "a ", "%", "", "~", "a~", "%25", "ﬁ", "fi", "\0", "\u202e", "x" * 300]
    names = folder_names(labels)
    assert len({name.casefold() for name in names.values()}) == len(labels)
    assert all(name.isprintable() and len(name.encode()) <= 200 for name in names.values())
    assert folder_names(["C# & co.", "C's $1"]) == {"C# & co.": "C# & co%2E", "C's $1": "C's $1"}


def test_names_in_other_encodings_are_written(cli, trained, pictures, tmp_path):
    (pictures / os.fsdecode(b"M\xe4nner.jpg")).write_bytes((pictures / "0.jpg").read_bytes())
    (pictures / os.fsdecode(b"M\xe4nner.png")).write_bytes(b"nothing")
    for form in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"a.{form}"
        flags = ("--threshold", "0", "--out", out, "--copy-to", tmp_path / form)
        for known in ("", "6 of 9 pictures are in"):
            cli("predict", trained, pictures, *flags).failed(known, r"M\udce4nner.png: ", code=1)
        labels, _ = rows(out)[r"M\udce4nner.jpg"]
        assert len(labels) == len([*(tmp_path / form).iterdir()]) == 12
    assert r"M\udce4nner.jpg" in cli("predict", trained, pictures, "--top", "1").out
    cli("data", "look", f"manifest:{pictures}").failed(f"{pictures}: the name M", "rename")


def test_standard_input_is_a_list_or_a_picture(cli, trained, pictures, monkeypatch):
    listed = "\n".join(str(pictures / f"{i}.jpg") for i in range(2))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode() + b"\n\xe4.jpg")))
    done = cli("predict", trained, "--top", "1")
    assert done.out.count(".jpg") == 2 and r"\udce4.jpg: the file is missing" in done.err
    image = io.TextIOWrapper(io.BytesIO((pictures / "0.jpg").read_bytes()))
    monkeypatch.setattr(sys, "stdin", image)
    assert cli("predict", trained, "-", "--top", "1").ok().out.splitlines()[-1].startswith("- ")


def test_what_is_not_there_is_named(cli, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    for paths, text in {("missing.jpg",): "missing.jpg", ("empty",): "no picture is in it"}.items():
        done = cli("predict", trained, *paths)
        assert done.code in (1, 2) and text in done.err
    cli("predict", tmp_path / "nothing", "missing.jpg").failed("cannot be read as a checkpoint")
    for file in ("", "checkpoint.safetensors"):
        assert cli("predict", trained.parent / trained.name[:8] / file, "missing.jpg").code == 1
