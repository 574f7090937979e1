"""What every head must do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlbench.contracts.made_up import PYRAMID, SPECS, features, made_up_context, reordered
from mlbench.contracts.outcome import NotChecked, ensure, ensure_close
from mlbench.types import FeatureSpec, HeadOutput, PluginError

LABELS = 5


def _make(factory: Any, spec: FeatureSpec = PYRAMID, labels: int = LABELS, seed: int = 0) -> Any:
    """A seeded head; one that refuses spec or labels is not checked."""
    torch.manual_seed(seed)
    try:
        head = factory(spec, made_up_context(labels))
    except PluginError as refusal:
        raise NotChecked(f"the head refuses: {refusal}") from refusal
    ensure(isinstance(head, nn.Module), f"the factory gives {type(head)}, not an nn.Module")
    return head


def _evaluate(head: nn.Module, maps: tuple[Tensor, ...] | None = None) -> Tensor:
    """Logits in evaluation mode; without maps, of those of the pyramid."""
    with torch.no_grad():
        output = head.eval()(features(PYRAMID) if maps is None else maps)
    ensure(isinstance(output, HeadOutput), f"{type(output)} instead of a HeadOutput")
    logits: Tensor = output.logits
    return logits


def _train(head: nn.Module, maps: tuple[Tensor, ...]) -> HeadOutput:
    """One forward and backward pass in training mode."""
    output: HeadOutput = head.train()(maps)
    loss = output.logits.float().square().mean() + output.logits.float().mean()
    sum(output.aux.values(), loss).backward()
    return output


def gives_finite_logits_for_every_spec(factory: Any) -> None:
    """[B, C] for pyramids, equal levels and a single level, square or not, down to one pixel."""
    refused = []
    for name, spec in SPECS.items():
        try:
            head = _make(factory, spec)
        except NotChecked as refusal:
            refused.append(f"{name}: {refusal}")
            continue
        for height, width in ((96, 160), (128, 128), (32, 32)):
            logits = _evaluate(head, features(spec, 2, height, width))
            shape, where = tuple(logits.shape), f"for {name} of an image of {height} x {width}"
            ensure(shape == (2, LABELS), f"logits of shape {shape} instead of (2, 5) {where}")
            ensure(logits.isfinite().all(), f"logits are not finite {where}")
    ensure(len(refused) < len(SPECS), f"every spec is refused: {refused}")


def gives_one_logit_a_label(factory: Any) -> None:
    """For 1, 20 and 500 labels (the last without computing); only the last may be refused."""
    for count, device in ((1, "cpu"), (20, "cpu"), (500, "meta")):
        try:
            with torch.device(device):
                logits = _evaluate(_make(factory, labels=count), features(PYRAMID, device=device))
        except NotChecked as refusal:
            ensure(count > 20, f"{count} labels: {refusal}")
            continue
        shape = tuple(logits.shape)
        ensure(shape == (2, count), f"{count} labels give logits of shape {shape}")


def trains_every_parameter(factory: Any) -> None:
    """Each trainable parameter and the deepest map have a finite gradient."""
    head, maps = _make(factory), tuple(m.requires_grad_() for m in features(PYRAMID))
    _train(head, maps)
    trained = {name: p.grad for name, p in head.named_parameters() if p.requires_grad}
    without = [name for name, gradient in trained.items() if gradient is None]
    ensure(not without, f"no gradient reaches {without}; freeze or remove what takes no part")
    wrong = [n for n, g in trained.items() if g is not None and not g.isfinite().all()]
    ensure(not wrong, f"the gradient of {wrong} is not finite")
    reached = maps[-1].grad is not None and bool(maps[-1].grad.any())
    ensure(reached, "no gradient reaches the deepest map, so no backbone could be trained")


def trains_on_one_image(factory: Any) -> None:
    """A batch of one image in training mode gives finite logits."""
    output = _make(factory).train()(features(PYRAMID, batch=1))
    ensure(output.logits.isfinite().all(), "logits of a single training image are not finite")


def treats_images_independently(factory: Any) -> None:
    """In evaluation an image's logits do not depend on the rest of the batch."""
    head, maps = _make(factory), features(PYRAMID, batch=3)
    alone = torch.cat([_evaluate(head, tuple(m[i : i + 1] for m in maps)) for i in range(3)])
    ensure_close(_evaluate(head, maps), alone, "an image's logits depend on the rest of the batch")


def is_deterministic(factory: Any) -> None:
    """Two heads made with one seed give the same logits."""
    first, second = _make(factory), _make(factory)
    same = torch.equal(_evaluate(first), _evaluate(second))
    ensure(same, "the same seed and features give other logits")


def keeps_its_state(factory: Any) -> None:
    """A head that loads another's state dict gives the other's logits."""
    head, other = _make(factory), _make(factory, seed=1).eval()
    other.load_state_dict(head.eval().state_dict())
    same = torch.equal(_evaluate(head), _evaluate(other))
    ensure(same, "a loaded state dict gives other logits")


def builds_without_memory(factory: Any) -> None:
    """The head can be made, and run, on the meta device."""
    with torch.device("meta"):
        head = _make(factory)
        shape = tuple(_evaluate(head, features(PYRAMID, device="meta")).shape)
    tensors = [*head.named_parameters(), *head.named_buffers()]
    stray = [name for name, tensor in tensors if not tensor.is_meta]
    ensure(not stray, f"made on the meta device, yet {stray} are elsewhere")
    ensure(shape == (2, LABELS), f"on the meta device the logits have shape {shape}")


def works_in_half_precision(factory: Any) -> None:
    """Under autocast to bfloat16 and float16, logits are near float32's and gradients finite."""
    for half in (torch.bfloat16, torch.float16):
        name, head = str(half).removeprefix("torch."), _make(factory)
        exact = _evaluate(head)
        with torch.autocast("cpu", half):
            given = _evaluate(head)
            _train(head, features(PYRAMID))
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        finite = given.isfinite().all() and all(g.isfinite().all() for g in gradients)
        ensure(finite, f"logits or gradients under {name} autocast are not finite")
        error = float((given.float() - exact).abs().max())
        limit = 0.1 * float(exact.abs().max()) + 0.02
        ensure(error <= limit, f"{name} autocast moves the logits by {error:.3g}")


def gives_scalar_extra_losses(factory: Any) -> None:
    """The values of ``aux`` are finite scalars, with the same keys in training and evaluation."""
    head = _make(factory)
    training, evaluation = (head.train(mode)(features(PYRAMID)).aux for mode in (True, False))
    ensure(training.keys() == evaluation.keys(), "aux differs in training and evaluation")
    for name, value in [*training.items(), *evaluation.items()]:
        scalar = isinstance(value, Tensor) and value.ndim == 0 and bool(value.isfinite())
        ensure(scalar, f"aux[{name!r}] is not a finite scalar tensor")


def leaves_its_features_alone(factory: Any) -> None:
    """The head does not write to the maps that it is given."""
    maps = features(PYRAMID)
    _make(factory).train()(maps)
    same = all(torch.equal(a, b) for a, b in zip(maps, features(PYRAMID), strict=True))
    ensure(same, "the head writes to its features, which other heads share")


def follows_the_order_of_its_labels(factory: Any) -> None:
    """Reordered labels, with the weights that belong to them, give logits in that order.

    An axis of a tensor belongs to labels if it grows with their number. Where it grows by more
    than one per label, labels share weights by their place and the architecture promises no order.
    """
    order = [3, 0, 4, 1, 2]
    head, wider = _make(factory), _make(factory, labels=LABELS + 1).state_dict()
    other = factory(PYRAMID, reordered(made_up_context(LABELS), order))
    state = head.state_dict().items()
    other.load_state_dict({n: _reorder(n, t, wider[n], order) for n, t in state})
    ensure_close(
        _evaluate(other),
        _evaluate(head)[:, order],
        "labels in another order with their weights give other logits",
    )


def _reorder(name: str, tensor: Tensor, wider: Tensor, order: list[int]) -> Tensor:
    for axis, sizes in enumerate(zip(tensor.shape, wider.shape, strict=True)):
        if sizes == (LABELS, LABELS + 1):
            tensor = tensor.index_select(axis, torch.tensor(order))
        elif sizes[0] != sizes[1]:
            raise NotChecked(f"{name} has an axis of {sizes[0]} for {LABELS} labels: no order")
    return tensor


def can_be_exported(factory: Any) -> None:
    """``torch.export`` gives a program with the same logits, for batches of any size.

    ``len(x)`` of a tensor fixes the size of the batch; ``x.shape[0]`` does not.
    """
    head, maps = _make(factory).eval(), features(PYRAMID)
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = (tuple({0: batch} for _ in maps),)
    with torch.no_grad():
        program = torch.export.export(head, (maps,), dynamic_shapes=shapes).module()
        for images in (1, 5):
            others = features(PYRAMID, images)
            what = f"the exported program gives other logits for a batch of {images}"
            ensure_close(program(others).logits, _evaluate(head, others), what)
