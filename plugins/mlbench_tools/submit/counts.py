"""Parameters and multiply-accumulates, counted again from the settings alone.

Backbone and head are made on the ``meta`` device, without weights or data. Of the label context
only the width of the vectors matters, and that is known unless they came from a file.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlbench import registry
from mlbench.data.labels import WIDTH
from mlbench.types import LabelContext, MeasureError, PluginError
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.remarks import Remark, finding, not_checked, softened, warning

if TYPE_CHECKING:
    from mlbench_tools.costs.profiling import Trunk

TOLERANCE = 1e-3
"""Of GMACs, relative: versions of torch may or may not count a minor operation."""
WIDEST = 1 << 13
"""Numbers that a label vector may have; text encoders give up to a few thousand."""
OURS = "mlbench-mlic"
"""The distribution whose heads, where they refuse some settings, cannot have run with them."""


class Counted(NamedTuple):
    """Of a backbone or a head; GMACs are 1e9 multiply-accumulates an image."""

    parameters: int
    gmacs: float

    def fits(self, other: Counted) -> bool:
        """Whether both may be of one model."""
        return self.parameters == other.parameters and _close(self.gmacs, other.gmacs)


class Question(NamedTuple):
    """All that a head's count depends on, but for the width of the label vectors.

    Attributes:
        options: of the head, as JSON.
    """

    backbone: str
    image_size: int
    head: str
    options: str
    labels: tuple[str, ...]


def counts(case: Case) -> Iterator[Remark]:
    """Parameters and GMACs are those of this backbone, and of this head with these labels."""
    cost, settings = case.record.efficiency, case.spec.settings
    if cost is None:
        return
    try:
        known = [_known(case, "backbone", settings.backbone), _known(case, "head", settings.head)]
        trunk = _trunk(settings.backbone, settings.image_size)
    except Exception as error:  # whatever a plugin raises on settings that nobody vouches for
        yield not_checked(f"parameters and GMACs: {_said(error)}")
        return
    expected = Counted(trunk.cost.parameters, trunk.cost.gmacs)
    said = Counted(cost.parameters_backbone, cost.gmacs_backbone)
    remarks = list(_differences("backbone", settings.backbone, expected, said))
    remarks += _head(case, Counted(cost.parameters_head, cost.gmacs_head))
    yield from remarks if all(known) else map(softened, remarks)


def _known(case: Case, kind: registry.Kind, name: str) -> bool:
    """Whether the plugin is here in the version that took part in the run.

    Raises:
        PluginError: it is not here, another distribution's took part, or it would fetch something.
    """
    plugin, told = registry.find(kind, name), case.record.environment.get("plugins")
    said = told.get(f"{kind} {plugin.name}") if isinstance(told, Mapping) else None
    if str(said).rpartition(" ")[0] != plugin.distribution:
        raise PluginError(f"{kind} {name!r} is of {plugin.distribution} here, and was of {said}")
    if plugin.argument is not None and ":" in plugin.argument:  # timm:hf-hub:someone/something
        raise PluginError(f"{kind} {name!r} is of another place, and nothing is fetched from there")
    return bool(said == f"{plugin.distribution} {plugin.version}")


def _head(case: Case, said: Counted) -> Iterator[Remark]:
    settings, labels = case.spec.settings, case.record.label_names
    options = json.dumps(settings.head_options, sort_keys=True)
    asked = Question(settings.backbone, settings.image_size, settings.head, options, labels)
    # Authors' weights bring vectors of their own, whatever the spec says of words.
    of_a_file = case.spec.words.startswith("sha256:") or bool(case.spec.checkpoint)
    try:
        width = _width(functools.partial(_count, asked), said) if of_a_file else WIDTH
        expected = _count(asked, width)
    except Exception as error:
        ours = registry.find("head", settings.head).distribution == OURS
        if ours and not isinstance(error, MeasureError):
            text = f"{settings.head} cannot be made as the settings say"
            yield finding(text, "a head that has run", _said(error))
        else:
            yield not_checked(f"parameters and GMACs of {settings.head}: {_said(error)}")
        return
    name = f"{settings.head} with {len(labels)} labels"
    if said.parameters == expected.parameters and _with_constants(asked, width, said.gmacs):
        yield warning(
            f"gmacs_head of {name} counts what no image changes, as older versions of mlbench did: "
            f"{said.gmacs} and not {expected.gmacs}"
        )
    else:
        yield from _differences("head", name, expected, said)
    if width != WIDTH:
        yield warning(
            f"parameters and GMACs of {name} are those of label vectors of width {width}, not "
            f"{WIDTH}: whether the file had such vectors is not to be seen"
        )


def _with_constants(asked: Question, width: int, said: float) -> bool:
    """Whether GMACs are more than now, and no more than in training, where nothing is constant."""
    least = _count(asked, width).gmacs
    if said <= least or _close(least, said):
        return False
    try:
        most = _count(asked, width, training=True).gmacs
    except Exception:  # a head need not bear training without data
        return False
    return said <= most or _close(most, said)


def _width(count: Callable[[int], Counted], said: Counted) -> int:
    """The width of label vectors that explains both numbers; the usual one if none does.

    Parameters grow by a constant number with each entry of a vector, as the first layer that sees
    it is linear.

    Raises:
        MeasureError: they do not.
    """
    usual, next_one, third = (count(WIDTH + i) for i in range(3))
    step = next_one.parameters - usual.parameters
    if third.parameters - next_one.parameters != step:
        raise MeasureError("its parameters are no linear function of the label vectors' width")
    if step == 0:
        return WIDTH
    more, rest = divmod(said.parameters - usual.parameters, step)
    fitting = WIDTH + more
    possible = rest == 0 and 0 < fitting <= WIDEST
    return fitting if possible and count(fitting).fits(said) else WIDTH


def _differences(part: str, name: str, expected: Counted, said: Counted) -> Iterator[Remark]:
    if expected.parameters != said.parameters:
        text = f"parameters_{part} is not what {name} has"
        yield finding(text, expected.parameters, said.parameters)
    if not _close(expected.gmacs, said.gmacs):
        yield finding(f"gmacs_{part} is not what {name} takes", expected.gmacs, said.gmacs)


@functools.lru_cache(maxsize=64)
def _trunk(backbone: str, image_size: int) -> Trunk:
    from mlbench_tools.costs.profiling import Trunk

    return Trunk(backbone, image_size)


@functools.lru_cache(maxsize=1024)
def _count(asked: Question, width: int, training: bool = False) -> Counted:
    """What a head has and takes, with label vectors of this width, in evaluation or training."""
    import torch

    from mlbench.engine.flops import count
    from mlbench_tools.costs.profiling import BATCH

    trunk = _trunk(asked.backbone, asked.image_size)
    options, number = json.loads(asked.options), len(asked.labels)
    factory = registry.find("head", asked.head).load()
    one = np.ones((), np.float32)
    together, words = (np.broadcast_to(one, (number, n)) for n in (number, width))
    with torch.device("meta"):
        objects = np.ones(number, np.int64)
        context = LabelContext(asked.labels, together, words, number + 1, lambda: objects)
        head = factory(trunk.spec, context, **options).train(training)
        macs = count(head, lambda: head(trunk.maps), trunk.maps, asked.head)
    return Counted(sum(p.numel() for p in head.parameters()), macs / BATCH / 1e9)


def _close(expected: float, found: float) -> bool:
    return math.isclose(expected, found, rel_tol=TOLERANCE)


def _said(error: Exception) -> str:
    text = str(error)
    return (
        text if isinstance(error, PluginError | MeasureError) else f"{type(error).__name__}: {text}"
    )
