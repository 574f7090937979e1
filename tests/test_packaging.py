"""The distribution as others get it: built, installed beside a third party's, and used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the third party's distribution, built and installed there."""
    pytest.importorskip("hatchling")
    source = tmp_path_factory.mktemp("source") / "third_party"
    shutil.copytree(ROOT / "tests" / "third_party", source)
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "-q", "--target", str(folder), str(source)]
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, *options]
    else:
        command = [sys.executable, "-m", "pip", "install", *options]
    subprocess.run(command, check=True)
    return folder


def mlbench(site, folder, cache, *arguments):
    environment = os.environ | {"PYTHONPATH": str(site), "MLBENCH_CACHE": str(cache)}
    command = [sys.executable, "-m", "mlbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_third_partys_head_is_listed_shown_checked_and_run(site, tmp_path, cache):
    listed = json.loads(mlbench(site, tmp_path, cache, "list", "--json").stdout)
    rows = {row["kind"]: row for row in listed if row["distribution"] == "mlbench-max-mean"}
    names = {kind: (row["name"], row["problem"]) for kind, row in rows.items()}
    assert names == {"head": ("max_mean", None), "command": ("max_mean_size", None)}
    assert "dropout = 0.0" in mlbench(site, tmp_path, cache, "show", "max_mean").stdout
    checked = mlbench(site, tmp_path, cache, "check", "max_mean")
    assert checked.returncode == 0, checked.stdout
    (tmp_path / "s.yaml").write_text(
        "dataset_options: {synthetic: {train_images: 64, test_images: 31, size: 32}}\n"
        "settings: {image_size: 32, epochs: 1}\nseeds: [0]\n"
    )
    ended = mlbench(site, tmp_path, cache, "run", "--plugins", "max_mean", "--suite", "s.yaml")
    assert ended.returncode == 0, ended.stderr
    (record,) = [json.loads(f.read_text()) for f in tmp_path.glob("results/records/*/*/*.json")]
    assert record["environment"]["plugins"]["head max_mean"] == "mlbench-max-mean 0.1.0"


def test_a_third_partys_command_is_offered_and_run(site, tmp_path, cache):
    assert "max_mean_size" in mlbench(site, tmp_path, cache, "--help").stdout
    ended = mlbench(site, tmp_path, cache, "max_mean_size", "10", "3")
    assert (ended.returncode, ended.stdout.strip()) == (0, "63"), ended.stderr


def test_the_wheel_holds_both_packages_their_data_and_no_tests(tmp_path):
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    import zipfile

    (wheel,) = tmp_path.glob("mlbench_mlic-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"mlbench", "mlbench_plugins"} < tops
    assert all(top.startswith(("mlbench", "mlbench_plugins", "mlbench_mlic-")) for top in tops)
    cards = ROOT.glob("plugins/mlbench_plugins/datasets/*.yaml")
    assert {f"mlbench_plugins/datasets/{file.name}" for file in cards} < set(names)
    assert not [name for name in names if "test" in name and not name.endswith(".yaml")]
