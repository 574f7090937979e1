"""What every head must do."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.contracts.made_up import PYRAMID, SPECS, features, made_up_context, reordered
from mlbench.contracts.outcome import (
    NotChecked,
    NotFinite,
    Remarked,
    ensure,
    ensure_close,
    ensure_finite,
)
from mlbench.engine.model import unregistered
from mlbench.types import FeatureSpec, HeadOutput, PluginError

LABELS = 5
RANDOM = "a second call gives other logits in evaluation; be random if self.training alone"


def _make(factory: Any, spec: FeatureSpec = PYRAMID, labels: int = LABELS, seed: int = 0) -> Any:
    """A seeded head; one that refuses spec or labels is not checked."""
    torch.manual_seed(seed)
    try:
        head = factory(spec, made_up_context(labels))
    except PluginError as refusal:
        raise NotChecked(f"the head refuses: {refusal}") from refusal
    ensure(isinstance(head, nn.Module), f"a {type(head).__name__}, which is no nn.Module")
    attribute, reason = unregistered(head)
    ensure(not reason, reason, attribute)
    for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
        if not tensor.is_meta and tensor.isnan().any():  # a mask may be infinite
            raise NotFinite(f"NaN in the weights {name} of a new head", name)
    return head


def _call(head: nn.Module, maps: tuple[Tensor, ...], labels: int = LABELS) -> HeadOutput:
    """The output of a head, after checks of its type, its shape and its values."""
    versions = [m._version for m in maps]
    output: HeadOutput = head(maps)
    what = f"forward returns {type(output).__name__}, not HeadOutput"
    ensure(isinstance(output, HeadOutput), f"{what}; write return HeadOutput(logits)")
    found = f"logits are a {type(output.logits).__name__}, not a tensor"
    ensure(isinstance(output.logits, Tensor), f"{found}; write torch.stack(logits, dim=1)")
    wanted, shape = [len(maps[0]), labels], list(output.logits.shape)
    what = f"logits of shape {shape} instead of {wanted} for {wanted[0]} images"
    ensure(shape == wanted, f"{what} and {labels} labels; their number is len(labels)")
    dtype, given = output.logits.dtype, maps[-1].dtype
    same = dtype == given or torch.is_autocast_enabled("cpu")
    ensure(same, f"logits are {dtype} for features of {given}; write logits.float()")
    for m, version in zip(maps, versions, strict=True):
        what = f"writes in place to the features {list(m.shape)}, which other heads share"
        ensure(m._version == version, f"{what}; make a new tensor instead")
    ensure_finite(output.logits, "the logits")
    return output


def _evaluate(
    head: nn.Module, maps: tuple[Tensor, ...] | None = None, labels: int = LABELS
) -> Tensor:
    """Logits in evaluation mode, by default for the maps of the pyramid."""
    maps = features(PYRAMID) if maps is None else maps
    with torch.no_grad():
        one, two = (_call(head.eval(), maps, labels).logits for _ in range(2))
    ensure(one.is_meta or torch.equal(one, two), RANDOM)
    return one


def _train(head: nn.Module, maps: tuple[Tensor, ...]) -> HeadOutput:
    """One forward and backward pass in training mode."""
    output = _call(head.train(), maps)
    loss = output.logits.float().square().mean() + output.logits.float().mean()
    sum(output.aux.values(), loss).backward()
    return output


def gives_finite_logits_for_every_spec(factory: Any) -> None:
    """Logits are finite and [B, C] for every spec, for square and other maps, down to one pixel."""
    refused = []
    for name, spec in SPECS.items():
        try:
            head = _make(factory, spec)
        except NotChecked as refusal:
            refused.append(f"{name}: {refusal}")
            continue
        for height, width in ((96, 160), (128, 128), (32, 32)):
            _evaluate(head, features(spec, 2, height, width))
    ensure(len(refused) < len(SPECS), f"every spec is refused: {refused}")


def gives_one_logit_a_label(factory: Any) -> None:
    """1, 20 and 500 labels give as many logits (500 on ``meta``); only 500 may be refused."""
    for count, device in ((1, "cpu"), (20, "cpu"), (500, "meta")):
        try:
            with torch.device(device):
                head, maps = _make(factory, labels=count), features(PYRAMID, device=device)
                _evaluate(head, maps, count)
        except NotChecked as refusal:
            ensure(count > 20, f"{count} labels: {refusal}")


def trains_every_parameter(factory: Any) -> None:
    """Each trainable parameter and the deepest map have a finite gradient."""
    given = [m.requires_grad_() for m in features(PYRAMID)]
    head = _make(factory)
    _train(head, tuple(m.clone() for m in given))  # a leaf could not be written to
    trained = {name: p.grad for name, p in head.named_parameters() if p.requires_grad}
    without = [name for name, gradient in trained.items() if gradient is None]
    what = f"no gradient reaches {without}; freeze or remove what takes no part"
    ensure(not without, what, without[0] if without else "")
    for name, gradient in {**trained, "the deepest map": given[-1].grad}.items():
        if gradient is not None:
            ensure_finite(gradient, f"the gradient of {name}: one step would spoil the weights")
    reached = given[-1].grad is not None and bool(given[-1].grad.any())
    ensure(reached, "no gradient reaches the deepest map, so no backbone could be trained")


def trains_on_one_image(factory: Any) -> None:
    """A batch of one image in training mode gives finite logits."""
    _call(_make(factory).train(), features(PYRAMID, batch=1))


def treats_images_independently(factory: Any) -> None:
    """In evaluation an image's logits do not depend on the rest of the batch."""
    head, maps = _make(factory), features(PYRAMID, batch=3)
    alone = torch.cat([_evaluate(head, tuple(m[i : i + 1] for m in maps)) for i in range(3)])
    ensure_close(_evaluate(head, maps), alone, "an image's logits depend on the rest of the batch")


def is_deterministic(factory: Any) -> None:
    """Two heads made with one seed give the same logits."""
    first, second = _make(factory, seed=7), _make(factory, seed=7)
    same = torch.equal(_evaluate(first), _evaluate(second))
    ensure(same, "the same seed and features give other logits")
    if torch.initial_seed() != 7:
        raise Remarked("it seeds torch, so that runs of other seeds draw the same numbers")


def keeps_its_state(factory: Any) -> None:
    """A head that loads the state dict of a head in training gives the same logits."""
    maps, head, other = features(PYRAMID), _make(factory), _make(factory, seed=1)
    for _ in range(3):
        _call(head.train(), maps)
    other.load_state_dict(head.state_dict())
    for training in (False, True):
        logits = []
        for one in (head, other):
            torch.manual_seed(0)
            logits.append(_call(one.train(training), maps).logits)
        what = "a loaded state dict gives other logits; keep state in buffers, draw from torch"
        ensure(torch.equal(*logits), what)


def builds_without_memory(factory: Any) -> None:
    """The head can be made, and run, on the meta device."""
    with torch.device("meta"):
        head = _make(factory)
        _evaluate(head, features(PYRAMID, device="meta"))
    tensors = [*head.named_parameters(), *head.named_buffers()]
    stray = [name for name, tensor in tensors if not tensor.is_meta]
    what = f"made on the meta device, yet {stray} are elsewhere"
    ensure(not stray, what, stray[0] if stray else "")


def works_in_half_precision(factory: Any) -> None:
    """Under autocast to bfloat16 and float16, logits are near float32's and gradients finite."""
    for half in (torch.bfloat16, torch.float16):
        name, head = str(half).removeprefix("torch."), _make(factory)
        exact = _evaluate(head)
        with torch.autocast("cpu", half):
            given = _evaluate(head)
            _train(head, tuple(m.requires_grad_() for m in features(PYRAMID)))
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        for gradient in gradients:
            ensure_finite(gradient, f"the gradients of the weights under {name} autocast")
        error = float((given.float() - exact).abs().max())
        limit = 0.1 * float(exact.abs().max()) + 0.02
        ensure(error <= limit, f"{name} autocast moves the logits by {error:.3g}")


def gives_scalar_extra_losses(factory: Any) -> None:
    """The values of ``aux`` are finite scalars, with the same keys in training and evaluation."""
    head = _make(factory)
    training, evaluation = (_call(head.train(on), features(PYRAMID)).aux for on in (True, False))
    ensure(training.keys() == evaluation.keys(), "aux differs in training and evaluation")
    for name, value in [*training.items(), *evaluation.items()]:
        scalar = isinstance(value, Tensor) and value.ndim == 0
        ensure(scalar, f"aux[{name!r}] is not a scalar tensor")
        ensure_finite(value, f"the extra loss aux[{name!r}]")


def uses_known_labels_if_it_says_so(factory: Any) -> None:
    """With ``needs = {"known"}``, known labels change the logits of their own image alone."""
    head, maps = _make(factory), features(PYRAMID)
    needs, most = getattr(head, "needs", ()), getattr(head, "most_known", 0)
    ensure(set(needs) <= {"known"}, f"needs is {needs}; known: {{'known'}}", "needs")
    if not needs:
        ensure(not most, f"most_known is {most}, and needs does not name known", "most_known")
        raise NotChecked("it takes no known labels")
    ensure(0 <= most < 1, f"most_known is {most}, not a share in [0, 1)", "most_known")
    plain_BC, known_BC = _evaluate(head), torch.full((2, LABELS), -1, dtype=torch.int8)
    with torch.no_grad():
        ensure_close(head(maps, known_BC).logits, plain_BC, "unknown labels change the logits")
        for state in (0, 1):
            known_BC[0, 0] = state
            told_BC = head(maps, known_BC).logits
            ensure_finite(told_BC, "the logits where a label is known")
            changed = not torch.equal(told_BC[0], plain_BC[0])
            ensure(changed, f"a label that is known to be {state} changes no logit of its image")
            ensure_close(told_BC[1], plain_BC[1], "known labels change another image's logits")


def leaves_its_features_alone(factory: Any) -> None:
    """The head does not write to the maps that it is given."""
    maps = features(PYRAMID)
    _call(_make(factory).train(), maps)
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


def keeps_up_with_pooling(factory: Any) -> None:
    """Remark on a head that takes 20 times as long as average pooling and a linear layer."""
    maps = features(PYRAMID, 4, 224, 224)
    head, pooling = _make(factory, labels=20).eval(), nn.Linear(PYRAMID[-1].channels, 20)
    seconds = _least_time(lambda: head(maps))
    times = seconds / _least_time(lambda: pooling(maps[-1].mean((2, 3))))
    if times > 20:
        what = f"{1000 * seconds:,.1f} ms for 4 images of 224 x 224 and 20 labels"
        raise Remarked(f"{what}, {times:,.0f} times as long as average pooling on this machine")


def _least_time(run: Callable[[], object], repeats: int = 3) -> float:
    with torch.no_grad():
        return min(timeit.repeat(run, number=1, repeat=repeats))


def can_be_exported(factory: Any) -> None:
    """``torch.export`` gives a program with the same logits, for batches of any size.

    ``len(x)`` of a tensor fixes the size of the batch; ``x.shape[0]`` does not.
    """
    head, maps = _make(factory), features(PYRAMID)
    _evaluate(head, maps)
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = (tuple({0: batch} for _ in maps),)
    with torch.no_grad():
        # Inside another module, as in a model: `graph` is an attribute of programs, too.
        program = torch.export.export(nn.Sequential(head), (maps,), dynamic_shapes=shapes).module()
        for images in (1, 5):
            others = features(PYRAMID, images)
            what = f"the exported program gives other logits for a batch of {images}"
            ensure_close(program(others).logits, _evaluate(head, others), what)
