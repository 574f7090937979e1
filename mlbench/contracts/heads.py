"""What every head must do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.contracts.made_up import PYRAMID, SPECS, features, label_context, reordered
from mlbench.contracts.outcome import NotChecked, ensure
from mlbench.types import FeatureSpec, HeadOutput, PluginError

LABELS = 5


@contextmanager
def _made(
    factory: Any, spec: FeatureSpec = PYRAMID, labels: int = LABELS, seed: int = 0
) -> Iterator[Any]:
    """A head made and used with random numbers of its own; a refusal ends the check."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            head = factory(spec, label_context(labels))
        except PluginError as refusal:
            raise NotChecked(f"the head refuses: {refusal}") from refusal
        ensure(isinstance(head, nn.Module), f"the factory gives {type(head)}, not an nn.Module")
        yield head


def gives_finite_logits_for_every_spec(factory: Any) -> None:
    """[B, C] for pyramids, equal levels and a single level, square or not, down to one pixel."""
    refused = []
    for name, spec in SPECS.items():
        for height, width in ((96, 160), (128, 128), (32, 32)):
            try:
                with _made(factory, spec) as head, torch.no_grad():
                    output = head.eval()(features(spec, 2, height, width))
            except NotChecked as refusal:
                refused.append(f"{name}: {refusal}")
                break
            where = f"for {name} of an image of {height} x {width}"
            ensure(
                isinstance(output, HeadOutput), f"{type(output)} instead of a HeadOutput {where}"
            )
            shape = tuple(output.logits.shape)
            ensure(shape == (2, LABELS), f"logits of shape {shape} instead of (2, 5) {where}")
            ensure(output.logits.isfinite().all(), f"logits are not finite {where}")
    if len(refused) == len(SPECS):
        ensure(False, f"every spec is refused: {refused}")


def gives_one_logit_a_label(factory: Any) -> None:
    """For 1, 20 and 500 labels (the last without computing); a refusal must say why."""
    for count, device in ((1, "cpu"), (20, "cpu"), (500, "meta")):
        try:
            with torch.device(device), _made(factory, labels=count) as head, torch.no_grad():
                logits = head.eval()(features(PYRAMID, device=device)).logits
        except NotChecked as refusal:
            ensure(count > 20, f"{count} labels: {refusal}")
            continue
        shape = tuple(logits.shape)
        ensure(shape == (2, count), f"{count} labels give logits of shape {shape}")


def trains_every_parameter(factory: Any) -> None:
    """A gradient, finite, for each trainable parameter and for the deepest map."""
    with _made(factory) as head:
        maps = tuple(m.requires_grad_() for m in features(PYRAMID))
        _loss(head.train()(maps)).backward()
    without = [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None]
    ensure(not without, f"no gradient reaches {without}; freeze or remove what takes no part")
    wrong = [
        n for n, p in head.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
    ]
    ensure(not wrong, f"the gradient of {wrong} is not finite")
    reached = maps[-1].grad is not None and bool(maps[-1].grad.any())
    ensure(reached, "no gradient reaches the deepest map: a backbone could not be trained")


def trains_on_one_image(factory: Any) -> None:
    """A batch of one in training mode gives finite logits."""
    with _made(factory) as head:
        output = head.train()(features(PYRAMID, batch=1))
    ensure(output.logits.isfinite().all(), "logits of a single training image are not finite")


def treats_images_independently(factory: Any) -> None:
    """In evaluation an image's logits do not depend on the others of its batch."""
    maps = features(PYRAMID, batch=3)
    with _made(factory) as head, torch.no_grad():
        together = head.eval()(maps).logits
        alone = torch.cat([head(tuple(m[i : i + 1] for m in maps)).logits for i in range(3)])
    _close(together, alone, "an image's logits depend on the rest of the batch")


def is_deterministic(factory: Any) -> None:
    """Made with one seed and evaluated twice, the logits are the same."""
    with _made(factory) as first, _made(factory) as second, torch.no_grad():
        one, two = first.eval()(features(PYRAMID)), second.eval()(features(PYRAMID))
    ensure(torch.equal(one.logits, two.logits), "the same seed and features give other logits")


def keeps_its_state(factory: Any) -> None:
    """A state dict makes another instance the same, and holds all that differs."""
    with _made(factory) as head, _made(factory, seed=1) as other, torch.no_grad():
        head, other = head.eval(), other.eval()
        other.load_state_dict(copy.deepcopy(head.state_dict()))
        one, two = head(features(PYRAMID)), other(features(PYRAMID))
    ensure(torch.equal(one.logits, two.logits), "a loaded state dict gives other logits")


def builds_without_memory(factory: Any) -> None:
    """It can be made, and run, on the meta device."""
    with torch.device("meta"), _made(factory) as head:
        stray = [n for n, t in _tensors(head) if t.device.type != "meta"]
        shape = tuple(head.eval()(features(PYRAMID, device="meta")).logits.shape)
    ensure(not stray, f"made on the meta device, yet {stray} are elsewhere")
    ensure(shape == (2, LABELS), f"on the meta device the logits have shape {shape}")


def works_in_half_precision(factory: Any) -> None:
    """Under autocast to bfloat16 and float16: logits near those in float32, finite gradients."""
    for half in (torch.bfloat16, torch.float16):
        name = str(half).removeprefix("torch.")
        with _made(factory) as head:
            maps = features(PYRAMID)
            with torch.no_grad():
                exact = head.eval()(maps).logits
                with torch.autocast("cpu", half):
                    given = head(maps).logits
            with torch.autocast("cpu", half):
                output = head.train()(maps)
            _loss(output).backward()
        finite = given.isfinite().all() and all(
            p.grad.isfinite().all() for p in head.parameters() if p.grad is not None
        )
        ensure(finite, f"logits or gradients under {name} autocast are not finite")
        error = float((given.float() - exact).abs().max())
        limit = 0.1 * float(exact.abs().max()) + 0.02
        ensure(error <= limit, f"{name} autocast moves the logits by {error:.3g}")


def gives_scalar_extra_losses(factory: Any) -> None:
    """What ``aux`` holds are finite scalars, in training and evaluation alike."""
    with _made(factory) as head:
        outputs = {mode: head.train(mode)(features(PYRAMID)).aux for mode in (True, False)}
    ensure(outputs[True].keys() == outputs[False].keys(), "aux differs in training and evaluation")
    for aux in outputs.values():
        for name, value in aux.items():
            scalar = isinstance(value, Tensor) and value.ndim == 0 and bool(value.isfinite())
            ensure(scalar, f"aux[{name!r}] is not a finite scalar tensor")


def leaves_its_features_alone(factory: Any) -> None:
    """The maps that come in are not written to."""
    maps = features(PYRAMID)
    before = [m.clone() for m in maps]
    with _made(factory) as head:
        head.train()(maps)
    same = all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))
    ensure(same, "the head writes to its features; other heads share them")


def follows_the_order_of_its_labels(factory: Any) -> None:
    """Labels in another order, with the weights that belong to them, give logits in that order.

    An axis of a tensor belongs to labels if it grows with their number. Where it grows by more
    than one a label, labels share weights by their place and the architecture promises no order.
    """
    order = [3, 0, 4, 1, 2]
    maps = features(PYRAMID)
    with _made(factory) as head, _made(factory, labels=LABELS + 1) as larger, torch.no_grad():
        wider = larger.state_dict()
        state = {n: _reordered(n, t, wider[n], order) for n, t in head.state_dict().items()}
        other = factory(PYRAMID, reordered(label_context(LABELS), order))
        other.load_state_dict(state)
        expected = head.eval()(maps).logits[:, order]
        given = other.eval()(maps).logits
    _close(given, expected, "labels in another order with their weights give other logits")


def _reordered(name: str, tensor: Tensor, wider: Tensor, order: list[int]) -> Tensor:
    for axis, sizes in enumerate(zip(tensor.shape, wider.shape, strict=True)):
        if sizes == (LABELS, LABELS + 1):
            tensor = tensor.index_select(axis, torch.tensor(order))
        elif sizes[0] != sizes[1]:
            raise NotChecked(f"{name} has an axis of {sizes[0]} for {LABELS} labels: no order")
    return tensor


def can_be_exported(factory: Any) -> None:
    """``torch.export`` gives a program with the same logits."""
    maps = features(PYRAMID)
    with _made(factory) as head, torch.no_grad():
        expected = head.eval()(maps).logits
        program = torch.export.export(head, (maps,))
        exported = program.module()(maps).logits
    _close(exported, expected, "the exported program gives other logits")


def _loss(output: HeadOutput) -> Tensor:
    loss = output.logits.float().square().mean() + output.logits.float().mean()
    for extra in output.aux.values():
        loss = loss + extra
    return loss


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _close(one: Tensor, two: Tensor, what: str) -> None:
    error = float((one - two).abs().max())
    ensure(error <= 1e-4 * max(1.0, float(two.abs().max())), f"{what}: by {error:.3g}")


CHECKS: tuple[Callable[[Any], None], ...] = (
    gives_finite_logits_for_every_spec,
    gives_one_logit_a_label,
    trains_every_parameter,
    trains_on_one_image,
    treats_images_independently,
    is_deterministic,
    keeps_its_state,
    builds_without_memory,
    works_in_half_precision,
    gives_scalar_extra_losses,
    leaves_its_features_alone,
    follows_the_order_of_its_labels,
    can_be_exported,
)
