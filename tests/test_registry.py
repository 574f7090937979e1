import pytest

from mlbench import registry
from mlbench.types import PluginError

HEADS = "[mlbench.heads]\n"


def test_builtins_are_found_and_loaded():
    plugin = registry.find("head", "gap")
    assert plugin.distribution == "mlbench-mlic" and plugin.load().__name__ == "GAP"
    assert plugin.value == "mlbench_plugins.methods.pooling:GAP"
    assert registry.kinds_of("ssgrl") == ["head", "recipe"]


def test_a_file_in_place_of_the_plugin_that_reads_it(tmp_path):
    table = tmp_path / "photos.csv"
    table.write_text("file,labels\n")
    with pytest.raises(PluginError, match=rf"not a dataset; write manifest:{table}"):
        registry.find("dataset", str(table))


def test_an_argument_is_bound_first(install):
    install("acme", "def made(name, size=3): return name, size", HEADS + "acme = acme:made")
    plugin = registry.find("head", "acme:thing:1")
    assert plugin.label == "acme:thing:1"
    assert plugin.load()(size=4) == ("thing:1", 4)
    assert registry.options(plugin.load()) == {"size": 3}
    with pytest.raises(PluginError, match="ends in a colon"):
        registry.find("head", "acme:")


@pytest.mark.parametrize(
    ("kind", "passed"), [("head", "spec, labels"), ("loss", "labels"), ("dataset", "root, cache")]
)
def test_what_a_kind_is_not_passed_is_an_option_of_it(kind, passed, install):
    every = {"spec", "labels", "root", "cache", "weights", "image_size"}
    own = dict.fromkeys(every - set(passed.split(", ")), 1.5)
    source = f"def made({passed}, *, {', '.join(f'{name}=1.5' for name in own)}): ..."
    install("acme", source, f"[mlbench.{registry.PLURALS[kind]}]\nacme = acme:made")
    assert registry.with_defaults(kind, "acme", {}) == own


def test_an_option_takes_values_like_its_default(install):
    install("acme", "def made(spec, labels, f=0.5, t='a', n=None): ...", HEADS + "acme = acme:made")
    for fine in ({"f": 2, "t": "b", "n": 1}, {"f": None, "n": "a"}, {"n": [1]}):
        assert fine.items() <= registry.with_defaults("head", "acme", fine).items()
    for odd in ({"f": "1"}, {"f": True}, {"t": 1}, {"t": {}}, {"f": (1, 2)}):
        with pytest.raises(PluginError, match=r"options.\w of acme is .* its default") as error:
            registry.with_defaults("head", "acme", odd)
    assert str(error.value).endswith("--set grid.head_options.f=1,2")


def test_a_plugin_may_change_its_lists(install):
    source = "def made(spec, labels, sizes=()):\n    sizes.sort()\n    return sizes"
    install("acme", source, HEADS + "acme = acme:made")
    chosen = {"sizes": [2, 1]}
    assert registry.make("head", "acme", (0, 0), chosen) == [1, 2] != chosen["sizes"]


def test_a_clash_names_both_distributions(install, cli):
    install("acme", "class Head: ...", HEADS + "gap = acme:Head")
    with pytest.raises(
        PluginError, match=r"by acme 1\.0 .* and mlbench-mlic .*; rename the entry point in acme"
    ):
        registry.find("head", "gap")
    assert registry.find("head", "gmp"), "other names are not touched"
    listed = cli("list", "--json").json
    clashing = {row["distribution"] for row in listed if "claimed by" in (row["problem"] or "")}
    assert clashing == {"acme", "mlbench-mlic"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import does_not_exist", "No module named 'does_not_exist'"),
        ("x = (", "SyntaxError"),
        ("Other = 1", "has no attribute 'Head'"),
        ("import json as Head", "a module is no class; write module:Class"),
    ],
)
def test_a_plugin_that_fails_to_import_is_named_with_the_reason(install, source, reason):
    install("acme", source, HEADS + "acme = acme:Head")
    ((plugin, said),) = registry.problems(registry.plugins("head")).items()
    assert plugin.name == "acme" and reason in said and "acme 1.0" in said
    with pytest.raises(PluginError, match="cannot be imported"):
        plugin.load()


def test_a_broken_plugin_stops_only_what_needs_it(install, cli):
    install("acme", "import does_not_exist", HEADS + "acme = acme:Head")
    listed = {row["name"]: row["problem"] for row in cli("list", "--json").json}
    assert "does_not_exist" in listed["acme"] and listed["ssgrl"] is None
    cli("run", "--plugins", "acme", "--dry-run").failed("does_not_exist")


def test_an_entry_point_that_nobody_can_name_is_said_to_be(install, cli):
    entries = "[mlbench.head]\nlost = acme:Head\n" + HEADS + "a:b = acme:Head"
    install("acme", "class Head: ...", entries)
    with pytest.raises(PluginError, match=r"entry point lost of acme 1.0; did you mean mlbench.h"):
        registry.find("head", "lost")
    with pytest.raises(PluginError, match="'a:b' has a colon in its name"):
        registry.find("head", "a:b")
    listed = cli("list")
    assert "ssgrl" not in cli("list", "--kind", "loss").ok("asl").out
    assert "entry point lost" in listed.err and "rename the entry" in " ".join(listed.out.split())
