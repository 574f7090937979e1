"""One run as a YAML file, which a person can read and ``mlbench repeat`` repeats exactly."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlbench.evidence import read_record
from mlbench.text import first_error, plain_yaml
from mlbench.types import RunRecord, RunSpec, StoreError, SuiteError, Value

COMPARED = ("versions", "device", "threads", "processes")
"""Entries of the environment that may change the last digits of a score."""
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The C implementation where there is one: a site of 2,000 runs writes as many of these files."""


class RunFile(Value):
    """The contents of a run file.

    Attributes:
        spec: everything that decides the run's numbers.
        run_id, identity, commit, environment: as in the run's record; None if the file omits them.
        numbers: as in the run's record; empty if the file omits them.
    """

    spec: RunSpec
    run_id: str | None = None
    identity: str | None = None
    commit: str | None = None
    environment: dict[str, Any] | None = None
    numbers: dict[str, int] = {}


METADATA = tuple(name for name in RunFile.model_fields if name != "spec")
"""Fields of a run file that are not fields of the spec."""


def from_record(record: RunRecord) -> RunFile:
    """Return the run file of a record."""
    return RunFile(spec=record.spec, **{name: getattr(record, name) for name in METADATA})


def to_yaml(record: RunRecord) -> str:
    """Write the run file of a record, defaults included; comments give its score and commands."""
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    header = [
        f"{record.spec.method} on {record.identity}, {record.spec.track} track: {score}",
        f"made by: {record.command}",
        f"repeat it with: {repeat_command(record)}",
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in header)
    fields = from_record(record).model_dump(mode="json")
    fields = {"run_id": fields.pop("run_id"), **fields.pop("spec"), **fields}
    return comment + yaml.dump(fields, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)


def from_yaml(text: str) -> RunFile:
    """Parse the text of a run file.

    Raises:
        SuiteError: the text is not YAML or describes no run; the message continues a file name.
    """
    try:
        fields = yaml.load(text, plain_yaml())
        if not isinstance(fields, dict):
            raise SuiteError("describes no run (it is not a mapping of names to values)")
        metadata = {name: fields.pop(name) for name in METADATA if name in fields}
        return RunFile(spec=RunSpec.model_validate(fields), **metadata)
    except (yaml.YAMLError, RecursionError) as error:
        raise SuiteError(f"is not YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise SuiteError(f"describes no run ({first_error(error)})") from error


def repeat_command(record: RunRecord, file: str = "RUN.yaml") -> str:
    """Return the command that repeats a run in a separate store from its run file.

    The reader replaces ``DIR`` and ``FILE``. A run that only scored a checkpoint keeps its own
    command.
    """
    spec = record.spec
    if spec.checkpoint:
        return record.command
    words = ["mlbench repeat", file, "--results repeated"]
    if any(word.partition("=")[0] == "--data" for word in record.command.split()):
        words.append("--data DIR")
    named = {"weights": spec.settings.weights, "words": spec.words, "init": spec.init}
    words += [f"--{flag} FILE" for flag, it in named.items() if it.startswith("sha256:")]
    if spec.processes > 1:
        words.append(f"--processes {spec.processes}")
    return " ".join(words)


def read_run(file: Path) -> RunFile:
    """Read a run from a run file (.yaml), a record (.json) or a pack (.zip).

    Raises:
        SuiteError: the file cannot be read, describes no run, does not match its own run id or
            digest, or describes a run that only scored a checkpoint.
    """
    try:
        if file.suffix.lower() == ".zip":
            with zipfile.ZipFile(file) as pack:
                run = from_record(read_record(pack.read("record.json"), file))
        elif file.suffix.lower() == ".json":
            run = from_record(read_record(file.read_bytes(), file))
        else:
            run = from_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "give a run file (.yaml), a record (.json) or a pack (.zip)"
        raise SuiteError(f"{file} cannot be read ({error.strerror}); {remedy}") from error
    except StoreError as error:
        raise SuiteError(str(error)) from error
    except SuiteError as error:
        raise SuiteError(f"{file} {error}") from error
    except Exception as error:  # zipfile and zlib raise many types on damaged bytes
        raise SuiteError(
            f"{file} is not a run file (.yaml), record (.json) or pack (.zip): {error}"
        ) from error
    spec = run.spec
    if spec.checkpoint:
        raise SuiteError(
            f"{file}: this run scored weights of {spec.method}'s authors ({spec.checkpoint}) and "
            "trained nothing; score them again with `mlbench import` and `mlbench rescore`"
        )
    if run.run_id not in (None, spec.run_id):
        raise SuiteError(
            f"{file}: the settings were changed: run_id is {run.run_id}, but these settings make "
            f"run {spec.run_id}; remove the line run_id to run them as they are"
        )
    return run


def environment_differences(
    run: RunFile, environment: Mapping[str, Any], commit: str | None
) -> str:
    """Describe differences other than settings that may change the last digits of a score."""
    recorded = run.environment or {}
    parts = [
        f"{name} {_compact(recorded[name])} (here {_compact(environment[name])})"
        for name in COMPARED
        if name in recorded and recorded[name] != environment[name]
    ]
    if run.commit is not None and run.commit != commit:
        parts.append(f"commit {run.commit} (here {commit or 'unknown'})")
    made = f"the run was made with {'; '.join(parts)}: its numbers may differ"
    return made if parts else ""


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
