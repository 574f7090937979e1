"""One run as YAML that a person can read, and that ``mlbench run --repeat`` repeats exactly."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from mlbench.text import first_error
from mlbench.types import RunRecord, RunSpec, SuiteError, Value

LONGEST = 1 << 20
"""Characters; the YAML of a run on 9,605 labels, each named, has a third of that."""
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""A site of 2,000 runs has as many recipes: in C they take seconds."""


class Told(Value):
    """What a recipe says.

    Attributes:
        spec: all that changes the run's numbers.
        run_id, identity, commit, environment: of the run's record; None where the recipe is silent.
    """

    spec: RunSpec
    run_id: str | None = None
    identity: str | None = None
    commit: str | None = None
    environment: dict[str, Any] | None = None


BESIDE = tuple(name for name in Told.model_fields if name != "spec")
"""What stands beside the fields of the spec."""


def of(record: RunRecord) -> Told:
    """What the recipe of a record says."""
    return Told(spec=record.spec, **{name: getattr(record, name) for name in BESIDE})


def text(record: RunRecord) -> str:
    """The whole spec, defaults too, under lines that say what it gave and how to repeat it."""
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    head = [
        f"{record.spec.method} on {record.identity}, {record.spec.track} track: {score}",
        f"made by: {record.command}",
        f"repeat it with: {command(record)}",
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in head)
    plain = of(record).model_dump(mode="json")
    plain = {"run_id": plain.pop("run_id"), **plain.pop("spec"), **plain}
    return comment + yaml.dump(plain, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)


def command(record: RunRecord, file: str = "RECIPE.yaml") -> str:
    """What repeats this run alone, in a store of its own; ``DIR`` and ``FILE`` are the reader's.

    Scoring a checkpoint was one command, and is repeated by it.

    Args:
        record: the run.
        file: the name that its recipe is saved under.
    """
    if record.spec.checkpoint:
        return record.command
    words = ["mlbench run --repeat", file, "--results repeated"]
    if any(word.partition("=")[0] == "--data" for word in record.command.split()):
        words.append("--data DIR")
    if record.spec.settings.weights.startswith("sha256:"):
        words.append("--weights FILE")
    if record.spec.words.startswith("sha256:"):
        words.append("--words FILE")
    processes = record.environment.get("processes", 1)
    if isinstance(processes, int) and processes > 1:
        words.append(f"--gpus {processes}")
    return " ".join(words)


def read(described: str) -> Told:
    """What a text says.

    Raises:
        SuiteError: it is no YAML, or describes no run; to be read behind the name of the file.
    """
    if len(described) > LONGEST:
        raise SuiteError(f"is longer than {LONGEST:,} characters")
    try:
        plain = yaml.load(described, _WithoutAliases)
        if not isinstance(plain, dict):
            raise SuiteError("describes no run (it is no mapping of names to values)")
        beside = {name: plain.pop(name) for name in BESIDE if name in plain}
        return Told(spec=RunSpec.model_validate(plain), **beside)
    except yaml.YAMLError as error:
        raise SuiteError(f"is no YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise SuiteError(f"describes no run ({first_error(error)})") from error
    except RecursionError as error:
        raise SuiteError("is nested too deeply") from error


class _WithoutAliases(yaml.SafeLoader):
    """Aliases of aliases grow without bound; ``text`` never writes one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)
