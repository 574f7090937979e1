"""One run as a YAML file that a person can read and ``mlbench repeat`` repeats exactly."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlbench.text import first_error
from mlbench.types import PluginError, RunRecord, RunSpec, SuiteError, Value, WeightsError

MATTERS = ("versions", "device", "threads", "processes")
"""Entries of the environment that may move the last digits of a score."""
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""A site of 2,000 runs has as many recipes: in C they take seconds."""


class Told(Value):
    """What a recipe says.

    Attributes:
        spec: everything that changes the run's numbers.
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
    """The recipe of a record."""
    return Told(spec=record.spec, **{name: getattr(record, name) for name in BESIDE})


def text(record: RunRecord) -> str:
    """The whole spec, defaults too, below lines that give the score and how to repeat the run."""
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
    """The command that repeats this run in a store of its own.

    ``DIR`` and ``FILE`` are the reader's. A checkpoint that was scored is scored again by the
    command that did it.

    Args:
        record: the run.
        file: the name that its recipe is saved under.
    """
    if record.spec.checkpoint:
        return record.command
    words = ["mlbench repeat", file, "--results repeated"]
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
    """Parse the text of a recipe.

    Raises:
        SuiteError: it is no YAML, or describes no run; the message continues the file's name.
    """
    try:
        plain = yaml.safe_load(described)
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


def read_file(file: Path) -> Told:
    """Read a recipe (.yaml), a record (.json) or a pack (.zip) of a run.

    Raises:
        SuiteError: it cannot be read, describes no run, describes another run than its settings
            are of, or one that training cannot repeat.
    """
    try:
        if file.suffix.lower() == ".zip":
            with zipfile.ZipFile(file) as pack:
                told = of(RunRecord.model_validate_json(pack.read("record.json")))
        elif file.suffix.lower() == ".json":
            told = of(RunRecord.model_validate_json(file.read_bytes()))
        else:
            told = read(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{file} cannot be read ({error.strerror})") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
        raise SuiteError(
            f"{file}: no recipe (.yaml), record (.json) or pack (.zip) of a run"
        ) from error
    except SuiteError as error:
        raise SuiteError(f"{file} {error}") from error
    spec = told.spec
    if spec.checkpoint:
        raise SuiteError(
            f"{file}: weights of {spec.method}'s authors ({spec.checkpoint}) that were scored, not "
            "trained; `mlbench import` and `mlbench rescore` score them again"
        )
    if told.run_id not in (None, spec.run_id):
        raise SuiteError(
            f"{file}: says that it is run {told.run_id}, but its settings are those of run "
            f"{spec.run_id}: they were changed. Without the line run_id it is run as it stands"
        )
    return told


def refuse_other_plugins(file: Path, told: Told, here: Mapping[str, Any]) -> None:
    """Compare the plugins of the recorded environment with those here.

    Raises:
        PluginError: a plugin is of another distribution or version.
    """
    had = (told.environment or {}).get("plugins")
    for name, version in here["plugins"].items():
        was = had.get(name) if isinstance(had, Mapping) else None
        if was is not None and was != version:
            raise PluginError(
                f"{file}: the run was made with {name} of {was}, and here it is of {version}; "
                f"install {was}, or take the line out of the recipe to run it with what is here"
            )


def refuse_other_files(spec: RunSpec, weights: str | None, words: tuple[str, ...]) -> None:
    """Compare the weights and label vectors that the user names with those of the run.

    Args:
        spec: the run.
        weights: identity, as ``mlbench.plan.identify`` gives it.
        words: identities of the label vectors.

    Raises:
        WeightsError: they differ.
    """
    had = {"weights": spec.settings.weights, "words": spec.words}
    named = {"weights": (weights,) if weights else (), "words": words}
    for flag, was in had.items():
        found = ", ".join(named[flag])
        if named[flag] == (was,) or not (named[flag] or was.startswith("sha256:")):
            continue
        if was.startswith("sha256:"):
            remedy = f"give the file of this digest with --{flag} FILE"
        else:
            remedy = f"leave out --{flag}"
        got = f", not {found}" if found else ""
        raise WeightsError(f"the run was made with {flag} {was}{got}; {remedy}")


def differences(told: Told, here: Mapping[str, Any], commit: str | None) -> Iterator[str]:
    """What differs that is no setting: a score may move in its last digits."""
    had = told.environment or {}
    parts = [
        f"{name} {_plain(had[name])} (here {_plain(here[name])})"
        for name in MATTERS
        if name in had and had[name] != here[name]
    ]
    if told.commit is not None and told.commit != commit:
        parts.append(f"commit {told.commit} (here {commit or 'unknown'})")
    if parts:
        yield f"the run was made with {'; '.join(parts)}: its numbers may come out otherwise"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
