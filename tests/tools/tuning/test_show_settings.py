"""``mlbench settings`` says of every field and setting what it is."""

from mlbench.suite import Suite
from mlbench.types import Settings
from mlbench_tools.tuning.show_settings import fields_of


def test_every_setting_and_field_of_a_suite_is_shown_with_default_and_meaning(cli):
    out = cli("settings").ok().out
    lines = out.splitlines()
    for field, default, meaning in (*fields_of(Settings), *fields_of(Suite)):
        assert meaning, field
        assert any(
            line.startswith(f"{field} ") and default in line and meaning[:20] in line
            for line in lines
        )
    said = " ".join(out.split())
    assert "optimizer.lr 0.0001 learning rate" in said and "mixing: cutmix" in said
    assert "sha256:... of a file head" in said and "(SSGRL, sec. 4.1) resize" in said
    assert "augmentation: rand_augment Apply a few" in said and "num_ops 2 number of oper" in said
