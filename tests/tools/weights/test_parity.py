"""``mlbench parity``: what it prints, and how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest

GIVEN = Path(__file__).parents[2] / "parity" / "parity.json"
MORE = GIVEN.with_name("parity2.json")


def part_of(folder, *names, **fields):
    """A fixture file of some of the given fixtures, with other fields."""
    written = json.loads(GIVEN.read_text())
    written["fixtures"] = {name: written["fixtures"][name] | fields for name in names}
    file = folder / "part.json"
    file.write_text(json.dumps(written))
    with np.load(GIVEN.with_suffix(".npz")) as arrays:
        kept = {k: arrays[k] for k in arrays.files if k.startswith(tuple(f"{n}/" for n in names))}
    np.savez(file.with_suffix(".npz"), **kept)
    return file


def test_every_given_fixture_agrees(cli):
    done = cli("parity", GIVEN, "--json")
    found = done.json
    failed = [one for one in found["fixtures"] if not one["passed"]]
    assert done.code == 0 and found["passed"], failed
    written = json.loads(GIVEN.read_text())
    assert [one["name"] for one in found["fixtures"]] == list(written["fixtures"])
    for one in found["fixtures"]:
        assert 0 <= max([array["relative"] for array in one["arrays"]]) <= one["tolerance"] <= 1e-6
    with np.load(GIVEN.with_suffix(".npz")) as arrays:
        compared = {
            f"{one['name']}/{a['array']}" for one in found["fixtures"] for a in one["arrays"]
        }
        assert compared == set(arrays.files)


def test_what_is_not_here_is_named_and_does_not_fail(cli, tmp_path):
    done = cli("parity", MORE, "--json")
    found = {one["name"]: one for one in done.json["fixtures"]}
    failed = [one for one in found.values() if not (one["passed"] or one["left_out"])]
    assert done.code == 0 and not failed
    left_out = {one["method"]: one["left_out"] for one in found.values() if one["left_out"]}
    assert {"role", "em_apl", "epr", "gr", "tdrg", "tagclip"} < left_out.keys()
    assert {one["array"] for one in found["ctran_c6"]["arrays"]} == {"logits", "logits_known"}
    assert left_out["gr"] == "gr is not here" and "state of each image" in left_out["large_loss"]
    for method in ("an", "an_ls", "wan", "em", "hill", "splc", "csl", "two_way", "zlpr"):
        assert method not in left_out and any(one["method"] == method for one in found.values())
    assert found["large_loss_correct_5_2"]["passed"] and found["splicemix_images"]["passed"]
    text = cli("parity", MORE, "--only", "zlpr", "--only", "gr").out
    assert "gr_0 is left out" in text and "3 of 3 fixtures agree; 3 are of methods" in text
    assert cli("parity", MORE, "--only", "gr").code == 1  # nothing agrees


def test_a_difference_is_shown_and_ends_in_1(cli, tmp_path):
    file = part_of(tmp_path, "csra_h1_c6", "asl_0")
    cli("parity", file).ok()
    with np.load(file.with_suffix(".npz")) as arrays:
        changed = {k: arrays[k] + 1e-6 * (k == "asl_0/loss") for k in arrays.files}
    np.savez(file.with_suffix(".npz"), **changed)
    done = cli("parity", file)
    assert done.code == 1 and "1 of 2 fixtures agree" in done.out
    lines = {tuple(line.split()[::6]) for line in done.out.splitlines() if "asl_0" in line}
    assert lines == {("asl_0", "FAIL"), ("asl_0", "ok")}
    assert cli("parity", file, "--json").json["passed"] is False


def test_only_some(cli):
    for only, wanted in (("csra_h4_c6", ["csra_h4_c6"]), ("csra", ["csra_h1_c6", "csra_h4_c6"])):
        found = cli("parity", GIVEN, "--only", only, "--json").ok().json["fixtures"]
        assert [one["name"] for one in found] == wanted
    cli("parity", GIVEN, "--only", "csar").failed("has no csar")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "gmp"}, "no published files of gmp are known"),
        ({"kind": "song"}, "unknown kind 'song'"),
        ({"inputs": {}}, "no input 'features'"),
        ({"keys": [["multi_head.0.head.weight", [6, 31, 1, 1]]]}, "[1, 6, 31] instead of"),
        ({"keys": [["multi_head.0.head.weight", [6, 32, 1, 1]], ["x", [2]]]}, "no place in CSRA"),
    ],
)
def test_a_fixture_that_cannot_be_computed_fails_and_says_why(cli, tmp_path, fields, said):
    file = part_of(tmp_path, "csra_h1_c6", **fields)
    assert "0 of 1 fixtures agree" in cli("parity", file).failed(said, code=1).out
