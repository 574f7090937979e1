"""Commands are plugins: listed in groups, loaded alone, and broken ones hurt no other."""

import pytest

from mlbench.cli.console import console, plain_table
from mlbench.cli.run import OTHERWISE
from mlbench.registry import plugins
from mlbench.suite import COMMAND_LINE, make_suite
from mlbench.suite_file import apply_overrides

COMMANDS = "[mlbench.commands]\n"


def test_the_help_lists_every_command_with_a_line_below_its_group(cli):
    said = cli("--help").out
    listed = {line.split()[1] for line in said.splitlines() if line.startswith("\u2502 ")}
    assert {plugin.name for plugin in plugins("command")} < listed
    for group in ("The benchmark", "Data sets", "Authors' checkpoints", "Sharing results"):
        assert f" {group} " in said


def test_a_command_of_another_distribution_stands_below_its_name_and_runs(cli, install):
    source = """
import typer
def greet(name: str = typer.Argument(help="Whom.")) -> None:
    "Say hello."
    print("hello", name)
"""
    install("acme", source, COMMANDS + "greet = acme:greet")
    said = cli("--help").out
    assert " acme " in said and "Say hello." in said
    assert cli("greet", "you").out == "hello you\n"
    assert "Whom." in cli("greet", "--help").out


UNREADABLE = "def greet(n: typing.Annotated[int, typer.Option()] = typer.Option(1)): ..."


@pytest.mark.parametrize(
    ("source", "entry", "reason"),
    [
        ("import does_not_exist", "greet", "No module named"),
        ("import sys; sys.exit(0)", "greet", "SystemExit"),
        ("other = 1", "greet", "has no attribute"),
        ("def greet(name: Nobody): ...", "greet", "Nobody"),
        ("def greet(): ...", "run", "claimed by"),
        (f"import typer, typing\n{UNREADABLE}", "greet", "acme 1.0 cannot be built: Mixed"),
    ],
)
def test_a_broken_command_is_named_with_its_reason_and_hurts_no_other(
    cli, install, source, entry, reason
):
    install("acme", source, COMMANDS + f"{entry} = acme:greet")
    said = " ".join(cli("--help").out.replace("\u2502", "").split())
    assert " Broken " in said and reason in said and "acme 1.0" in said
    cli("list", "--kind", "loss").ok()
    for words in ((), ("--plugins", "gap")):
        cli(entry, *words).failed(reason)


def test_names_without_a_card_are_told_what_they_are_and_help_names_extras(cli):
    for command in ("check", "show"):
        ended = cli(command, "leaderboard").failed()
        assert "leaderboard: plugins of kind command have neither card nor checks" in ended.err
    assert "mlbench-mlic[clip]" in cli("data", "texts", "--help").out
    assert "under an equal budget" not in cli("--help").out, "the heading is cut"


def test_a_card_has_settings_scores_deviations_citation_and_options(cli):
    shown = ("optimizer: {name: sgd, lr: 0.1, weight_decay: 0.0001}", "value: 94.7")
    shown += ("released: [CSRA (code", "- With a CutMix backbone", "@inproceedings{zhu2021csra")
    said = cli("show", "csra").ok(*shown).out
    assert "  heads = 1" in said and "[official, alphabetical]" in cli("show", "coco").out
    shown = ("lr: ", "weight_decay: ", "image_size: 448", "epochs: ", "schedule: {name: one_cy")
    cli("show", "hill").ok(*shown)  # rates and size also where they are defaults


def test_the_shell_completes_commands(cli, monkeypatch):
    monkeypatch.setenv("_MLBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mlbench lead")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert cli().out.split() == ["leaderboard"]


def test_the_help_of_run_has_few_options_and_ends_with_examples(cli):
    said = cli("run", "--help").out
    options = {word.strip(",") for word in said.split() if word[:2] == "--"} - {"--help"}
    assert len({option for option in options if not option.startswith("--no-")}) <= 28
    examples = said[said.index("Examples:") :]
    assert examples.count("mlbench run") == 3 and "\u2502" not in examples


@pytest.mark.parametrize("option", [*OTHERWISE, "--batch-size", "--decoder"])
def test_an_option_that_is_a_field_is_answered_with_a_set_that_works(cli, option):
    refused = cli("run", "--plugins", "gap", option).failed(option)
    wanted = refused.err.partition("give --set ")[2].strip()
    assert make_suite(apply_overrides({"plugins": "gap"}, [wanted]), COMMAND_LINE)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--batch-size", "4"), "batch_size=4"),
        (("--lr=1e-2",), "optimizer.lr=1e-2"),
        (("--profile",), "profile=true"),
        (("--cache", "my cache"), "'cache=my cache'"),
        (("--dataset-option", "year=2017"), "dataset_options.year=2017"),
        (("--label-noise", "single_positive=true"), "label_noise.single_positive=true"),
        (("--allow-missing", "--plugins", "gap"), "allow_missing=true"),
    ],
)
def test_the_answer_has_the_users_own_value(cli, flags, wanted):
    assert f"give --set {wanted}\n" in cli("run", *flags).err


def test_set_and_a_suite_say_what_flags_do(cli, tmp_path):
    """Paths of a suite are relative to its file; flags and --set are laid over it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "suite.yaml").write_text(
        "plugins: gap, ssgrl\nresults: found\nseeds: 1\nsettings: {epochs: 3}\n"
        "dataset_options: {train_images: 40, test_images: 20, size: 32}\n"
        "words: [cooccurrence, words.npz]\n"
    )
    asked = ("run", "--suite", folder / "suite.yaml", "--dry-run")
    cli(*asked).failed(str(folder / "words.npz"))
    plan = (*asked, "--words", "random", "--set", "optimizer.lr=[0.1", "--seeds", "0,1")
    assert "optimizer.lr" in cli(*plan).err
    planned = cli(*asked, "--words", "random", "--set", "head_options.dropout=0.5").failed()
    assert planned.err.count("unknown option 'dropout'") == 2
    few = (*asked[:-1], "--words", "random", "--plugins", "gap", "--set", "epochs=1")
    cli(*few, "--image-size", 32, "--set", "keep=none", "--set", "measure=false").ok()
    assert len(list((folder / "found" / "records").rglob("*.json"))) == 1
    assert not list((folder / "found").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plugins: [gap]\nlabels: [caf\xe9]", "is not YAML in UTF-8: 'utf-8' codec"),
        (b"plugins: " + b"[" * 1000, "maximum recursion depth exceeded"),
        (b"- a\n- b", "must be a mapping"),
        (b"plugins: [gap\n", "is not YAML"),
        (b"plugins: [gap]\nlabels: &a [*a]", "found unconstructable recursive node"),
        (b"plugins: [gap]\nepochs: " + b"9" * 5000, "epochs = '9999"),
        (b"plugins: [gap]\nepochs: 1:30", "epochs = '1:30': Input should be a valid integer"),
        (b"settings: {epochs: 1}\nsettings: {lr: 1}", "'settings' occurs twice in"),
        (b"plugin: [gap]", "option 'plugin' in suite.yaml; did you mean plugins"),
        (b"plugins: [gap]\ndataset_options: {train_images: 1000000000000}", "train_images"),
    ],
)
def test_a_suite_that_cannot_be_read_is_named(cli, tmp_path, content, message):
    (tmp_path / "suite.yaml").write_bytes(content)
    cli("run", "--suite", "suite.yaml", "--dry-run").failed(message)


def test_square_brackets_in_a_table_are_text(capsys):
    table = plain_table(["[red]name"])
    table.add_row("no [/closing] tag")
    console.print(table)
    assert capsys.readouterr().out.split() == ["[red]name", "no", "[/closing]", "tag"]
