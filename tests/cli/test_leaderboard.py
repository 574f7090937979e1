import re
import shlex
import shutil
from pathlib import Path

import pytest

from mlbench.boards import render
from mlbench.boards.rows import tables
from mlbench.cli import show_boards
from mlbench.store import Store
from mlbench.types import Pretraining, StoreError
from tests.boards.scored import write


def test_ranks_are_those_of_paired_differences(cli, store):
    for i, method in enumerate(("gap", "gmp", "msrn")):
        write(store, method, 0.1 if method == "msrn" else 1.5, noise=i)
    ended = cli("leaderboard").ok()
    words = [line.split()[:3] for line in ended.out.splitlines()]
    ranks = {word[2]: word[:2] for word in words if word[2:] and word[2] in ("gap", "gmp", "msrn")}
    assert ranks == {"gap": ["1", "1"], "gmp": ["1", "1"], "msrn": ["3", "-"]}
    assert "msrn" in (store.root / "leaderboards" / "coco-mini-probe.md").read_text()


def test_options_that_no_column_shows_stand_below(cli, store):
    write(store, "gap", settings={"head_options": {"prior_bias": True}})
    write(store, "gap", noise=2, settings={"loss": "asl"})
    assert "gap: prior_bias=True (bce)" in cli("leaderboard").out


def test_commands_for_whole_boards_name_the_folder_of_the_results(cli, tmp_path, capsys):
    store = Store(tmp_path / "my results")
    shown = write(store, "gap"), write(store, "gmp", noise=2)
    boards = tables(store.records())
    show_boards.show(boards, store.root, {shown[0].run_id})
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 rows shown" in said
    _, *command = shlex.split(re.search("`(.+)`", said)[1])
    cli(*command).ok("gmp")
    with pytest.raises(StoreError, match="run `mlbench leaderboard --results /dev/null`"):
        render.write(boards, Path("/dev/null/leaderboards"))


def test_boards_are_printed_in_other_formats(cli, store):
    for method, identity in (("gap", "coco-mini"), ("gmp", "voc2007")):
        write(store, method, identity=identity, spec={"data": method * 8})
    csv = cli("leaderboard", "--csv").out.splitlines()
    assert csv[0].startswith("data_set,track,rank") and len(csv) == 3
    assert cli("leaderboard", "--markdown").out.count("| # |") == 2
    assert cli("leaderboard", "--latex").out.count(r"\toprule") == 2
    chosen = cli("leaderboard", "--columns", "map,of1", "--dataset", "coco-mini")
    assert chosen.out.splitlines()[1].split() == ["mAP", "OF1", "run"]
    wrong = cli("leaderboard", "--columns", "map,params,loses")
    assert not wrong.failed("'loses' is not one of #, method").out


def test_a_manifest_is_found_by_the_name_that_runs_have(cli, store):
    names = ("photos-a1d7e06a", "photos-2-a1d7e06b", "photos-a1d7e06c-incomplete-0")
    for name in names:
        spec = {"dataset": "manifest:photos.csv", "data": name[-16:]}
        write(store, "gap", identity=name, spec=spec)
    text = cli("leaderboard", "--dataset", "manifest:other/photos.csv", "--csv").out
    assert [line.partition(",")[0] for line in text.splitlines()[1:]] == [names[0], names[2]]
    assert cli("leaderboard", "--dataset", "manifest:photo.csv").code == 2


def test_boards_that_are_no_more_are_deleted_and_other_files_stay(cli, store):
    write(store, "gap", identity="voc2007")
    folder = store.root / "leaderboards"
    assert not cli("leaderboard", "--dataset", "cocoo").failed("matches").out
    assert not folder.exists(), "of a data set without a board"
    cli("leaderboard").ok()
    (folder / "mine.csv").write_text("a,b\n")
    shutil.rmtree(store.root / "records")
    write(store, "gap", identity="voc2012")
    cli("leaderboard").ok()
    names = {file.name for file in folder.iterdir()}
    assert names == {"README.md", "mine.csv", "voc2012-probe.csv", "voc2012-probe.md"}


def test_boards_and_comparisons_take_data_sets_by_the_same_names(cli, store):
    """`voc2007` is the edition where there is one, though voc2007-mini begins so, too."""
    for n, identity in enumerate(("voc2007", "voc2007-mini")):
        for method, noise in (("gap", 1), ("gmp", 2)):
            write(store, method, noise=noise, identity=identity, spec={"data": f"{n}" * 16})
    cli("compare", "gap", "gmp", "--dataset", "voc2007").ok()
    cli("compare", "gap", "gmp", "--dataset", "voc").failed("several boards")


def test_a_run_prints_its_own_boards_alone(cli, small, store):
    """Not those of the same data whose initial weights saw its labels."""
    cli("run", "--suite", small).ok()
    (record,) = store.records()
    spec = record.spec.model_copy(update={"seed": 1})
    saw = Pretraining(data="COCO", saw=("coco",))
    other = {"spec": spec, "run_id": spec.run_id, "pretraining": saw}
    store.write(record.model_copy(update=other), store.predictions(record))
    again = cli("run", "--suite", small)
    assert "Nothing is missing" in again.out and "saw labels" not in again.out
    assert "saw labels of coco" in cli("leaderboard").out
