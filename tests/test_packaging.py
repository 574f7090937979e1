"""The distribution as others get it: built, installed beside a third party's, and used."""

import shutil
import subprocess
import sys
import zipfile
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


@pytest.fixture
def mlbench(site, cli, monkeypatch):
    """Run ``mlbench`` where the third party's distribution is installed, too."""
    monkeypatch.setenv("PYTHONPATH", str(site))  # for ``apart``
    monkeypatch.syspath_prepend(str(site))
    return cli


def test_a_third_partys_head_is_listed_shown_checked_and_run_and_its_command_too(
    mlbench, apart, store
):
    listed = apart("list", "--json").json
    rows = {row["kind"]: row for row in listed if row["distribution"] == "mlbench-max-mean"}
    names = {kind: (row["name"], row["problem"]) for kind, row in rows.items()}
    assert names == {"head": ("max_mean", None), "command": ("max_mean_size", None)}
    assert "dropout = 0.0" in mlbench("show", "max_mean").out
    mlbench("check", "max_mean").ok()
    few = ("--set", "dataset_options={train_images: 64, test_images: 31, size: 32}")
    few += ("--set", "measure=false", "--image-size", 32, "--epochs", 1)
    mlbench("run", "--plugins", "max_mean", *few).ok()
    (record,) = store.records()
    assert record.environment["plugins"]["head max_mean"] == "mlbench-max-mean 0.1.0"
    mlbench("--help").ok("max_mean_size")
    assert mlbench("max_mean_size", "10", "3").ok().out.strip() == "63"


def test_the_wheel_holds_both_packages_their_data_and_no_tests(tmp_path):
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("mlbench_mlic-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"mlbench", "mlbench_plugins"} < tops
    assert all(top.startswith(("mlbench", "mlbench_plugins", "mlbench_mlic-")) for top in tops)
    data = [*(ROOT / "plugins").rglob("*.yaml"), *(ROOT / "plugins/mlbench_tools").rglob("*.html")]
    assert {file.relative_to(ROOT / "plugins").as_posix() for file in data} < set(names)
    assert "mlbench_tools/page/published/voc2007.yaml" in names
    assert not [name for name in names if "test" in name and not name.endswith(".yaml")]
