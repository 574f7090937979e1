"""The settings of a run as YAML that a person can read, and back."""

from __future__ import annotations

import yaml
from pydantic import ValidationError

from mlbench.types import PackError, RunRecord, RunSpec

LONGEST = 1 << 20
"""Characters; the YAML of a run on 9,605 labels, each named, has a third of that."""


def text(record: RunRecord) -> str:
    """The whole spec, defaults too, under a line that says what it gave and how to repeat it."""
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    head = [
        f"{record.spec.method} on {record.identity}, {record.spec.track} track: {score}",
        f"run {record.run_id} of commit {record.commit or 'unknown'}, made by: {record.command}",
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in head)
    plain = record.spec.model_dump(mode="json")
    return comment + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def spec(described: str) -> RunSpec:
    """The spec that a text describes.

    Raises:
        PackError: it is no YAML, or describes no spec; to be read behind the name of the member.
    """
    if len(described) > LONGEST:
        raise PackError(f"is longer than {LONGEST:,} characters")
    try:
        return RunSpec.model_validate(yaml.load(described, _WithoutAliases))
    except yaml.YAMLError as error:
        raise PackError(f"is no YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PackError(f"describes no run ({where}: {first['msg']})") from error
    except RecursionError as error:
        raise PackError("is nested too deeply") from error


class _WithoutAliases(yaml.SafeLoader):
    """Aliases of aliases grow without bound; ``text`` never writes one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)
