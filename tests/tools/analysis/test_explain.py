import json

import mlbench.store
from mlbench.store import Store
from tests.store.made import made_record


def test_the_causes_of_the_spread_are_printed(cli, tmp_path):
    store = Store(tmp_path / "results")
    for i, head in enumerate(("gap", "gmp")):
        for j, loss in enumerate(("bce", "asl")):
            for seed in (0, 1):
                store.write(
                    made_record(
                        head,
                        50.0 + 5 * i + j + seed / 10,
                        settings={"loss": loss},
                        spec={"seed": seed},
                    )
                )
    ended = cli("explain")
    assert ended.code == 0, ended.err
    lines = {line.split()[0]: line for line in ended.out.splitlines() if line.strip()}
    assert "96.1 %" in lines["head"] and "3.8 %" in lines["loss"] and "unknown" in lines["backbone"]
    assert "one only" in ended.out and "coco-mini, probe track: 8 runs" in ended.out
    (found,) = json.loads(cli("explain", tmp_path / "results", "--json").out)
    assert [part["name"] for part in found["parts"]][:3] == ["backbone", "head", "loss"]


def test_shares_with_the_noise_of_seeds_in_them_are_called_so(cli, tmp_path):
    store = Store(tmp_path / "results")
    for i, head in enumerate(("gap", "gmp", "csra")):
        store.write(made_record(head, 50.0 + i))
    ended = cli("explain")
    assert ended.code == 0 and "share, noise of seeds within" in ended.out
    assert "an unknown part of each is noise" in ended.out
    for i, head in enumerate(("gap", "gmp", "csra")):
        store.write(made_record(head, 50.01 + i, spec={"seed": 1}))
    ended = cli("explain")
    assert "noise of seeds within" not in ended.out and " < 0.001" in ended.out


def test_every_record_is_read_once(cli, tmp_path, monkeypatch):
    place = Store(tmp_path / "results").write(made_record())
    place.with_name("broken.json").write_text("{")
    seen, read = [], mlbench.store._read
    monkeypatch.setattr("mlbench.store._read", lambda file: seen.append(file) or read(file))
    ended = cli("explain")
    assert ended.code == 0 and "left out: " in ended.err and len(seen) == 2


def test_an_empty_store_is_an_error(cli):
    ended = cli("explain", "nowhere")
    assert ended.code == 2 and "no record with a score in nowhere" in ended.err


def test_one_run_explains_nothing_and_says_so(cli, tmp_path):
    Store(tmp_path / "results").write(made_record())
    ended = cli("explain")
    assert ended.code == 0 and "probe track: 1 run\n" in ended.out
    assert "there is only one run with a score" in ended.out
