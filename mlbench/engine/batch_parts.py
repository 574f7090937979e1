"""Divide a batch into parts, one or more per process: their losses and synchronized batch norms.

A part sees the same pixels whatever the number of parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.parallel import DistributedDataParallel

from mlbench.data.loader import Mixed, part_sizes
from mlbench.engine.model import autocast
from mlbench.types import HeadOutput, LossContext, evaluate_loss

if TYPE_CHECKING:
    from mlbench.engine.optim import Learner
    from mlbench.engine.train import Training

# -------------------------------------------------------------------------------------- batch norms
BATCH_NORM = nn.modules.batchnorm._BatchNorm
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
FUSED = ("BatchNormAct2d", "SyncBatchNormAct")  # timm's, with dropout and activation


def _sum(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _channel_sums(x: Tensor) -> Tensor:
    """Sums [C] of [B, C, ...], within each image and then over images in double precision."""
    sums_BC = x.flatten(2).sum(2) if x.ndim > 2 else x
    return sums_BC.double().sum(0)


class _Normalize(torch.autograd.Function):
    """Normalize [B, C, ...] by the statistics of all parts, which may differ in size.

    Sums are taken within each image, then over images in double precision, so that they do not
    depend on where parts begin. The variance is a mean of squared differences to the
    mean, since a difference of two large sums would lose its digits.
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normalized values, and the mean, variance and number of values in double."""
        dtype, axes = weight.dtype, (-1, *[1] * (x.ndim - 2))
        wide = x.to(dtype)
        sums = _channel_sums(wide)
        sums = _sum(torch.cat((sums, sums.new_tensor([x.numel() // x.shape[1]]))))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = wide - mean.to(dtype).view(axes)
        variance = _sum(_channel_sums(centred.square())) / count
        scale = (variance + eps).rsqrt().to(dtype)
        context.save_for_backward(centred, weight, scale, count)
        context.mark_non_differentiable(mean, variance, count)
        y = torch.addcmul(bias.view(axes), centred, (scale * weight).view(axes))
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(context: Any, dy: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients; weight and bias get those of this process's part alone."""
        centred, weight, scale, count = context.saved_tensors
        dtype, axes = weight.dtype, (-1, *[1] * (dy.ndim - 2))
        wide, normed = dy.to(dtype), centred * scale.view(axes)
        sums = torch.stack((_channel_sums(wide), _channel_sums(wide * normed)))
        d_bias, d_weight = sums.to(dtype)
        level, slope = (_sum(sums) / count).to(dtype)
        dx = (wide - level.view(axes)).sub_(normed.mul_(slope.view(axes)))
        return dx.mul_((scale * weight).view(axes)).to(dy.dtype), d_weight, d_bias, None


class CpuSyncBatchNorm(BATCH_NORM):
    """``nn.SyncBatchNorm`` for the CPU.

    It also serves a single process: torch's kernels add up thousands of pixels in single precision,
    an error that changes the result of training. A batch with one value per channel has no variance
    and is normalized by the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The normalized values [B, C, ...], with timm's fused dropout and activation if any."""
        single = x.numel() == x.shape[1] and not dist.is_initialized()
        if self.training and not single:
            normed = self._by_batch(x)
        else:
            normed = functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if hasattr(self, "act"):
            normed = self.act(self.drop(normed))  # type: ignore[operator]
        return normed

    def _by_batch(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if not self.affine:
            weight = torch.ones(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
            bias = torch.zeros_like(weight)
        normed: Tensor
        normed, mean, variance, count = _Normalize.apply(x, weight, bias, self.eps)
        average, spread, seen = self.buffers(recurse=False)  # in torch's order
        seen.add_(1)
        # Without a momentum, the mean over all batches.
        momentum = 1 / seen.item() if self.momentum is None else self.momentum
        unbiased = variance * count / (count - 1)
        average.lerp_(mean.to(average.dtype), momentum)
        spread.lerp_(unbiased.to(spread.dtype), momentum)
        return normed


def synchronize(model: nn.Module, device: torch.device) -> None:
    """Synchronize the batch norms of torch and timm in a model, in place.

    Other batch norms may compute something else; they stay and see their process's part. A class
    with the attribute ``synchronizable`` differs for a batch of one image alone, which several
    processes never share. Modules change their class but not their identity, so that parameters,
    buffers and references to them (as in a backbone's stages) remain valid.
    """
    for module in model.modules():
        kind = type(module)
        fused = kind.__name__ in FUSED and kind.__module__.startswith("timm.layers.")
        plain = kind in PLAIN or (dist.is_initialized() and getattr(kind, "synchronizable", False))
        if not (fused or plain) or not module.track_running_stats:
            continue
        if device.type == "cuda":
            from timm.layers import SyncBatchNormAct  # takes seconds to import

            module.__class__ = SyncBatchNormAct if fused else nn.SyncBatchNorm
            module.process_group = None  # type: ignore[assignment]
        else:
            module.__class__ = CpuSyncBatchNorm


@contextmanager
def batch_statistics_frozen(model: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Restore the running statistics of batch norms at the end of the block.

    In training they normalize by the batch, so nothing else changes. Does nothing if ``frozen`` is
    False.
    """
    norms = [m for m in model.modules() if frozen and isinstance(m, BATCH_NORM) and m.training]
    with restored([buffer for norm in norms for buffer in norm.buffers()]):
        yield


@contextmanager
def restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the values of tensors exactly at the end of the block."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            if before:
                torch._foreach_copy_(list(tensors), before)


# ------------------------------------------------------------------------------------------- losses
@dataclass(frozen=True)
class Part:
    """One micro-batch of one process, and its weighted loss.

    DDP averages gradients over processes with equal weight. Weighting by the part's share of the
    global batch makes the average exact for parts of any size. A loss that sums over images is
    weighted so that the average is the global sum. One that is not separable is computed on the
    gathered batch by every process.

    Attributes:
        total: rows of the global batch.
        first: its gradients replace those of the step before.
        last: processes exchange gradients after it.
    """

    training: Training
    context: LossContext
    batch: Mixed
    total: int
    first: bool
    last: bool

    @property
    def share(self) -> float:
        """The part's size relative to the global batch."""
        return len(self.batch.targets) / self.total

    @contextmanager
    def accumulating(self, networks: Sequence[object]) -> Iterator[None]:
        """Skip gradient synchronization except after the last part."""
        with ExitStack() as stack:
            for network in networks:
                if isinstance(network, DistributedDataParallel) and not self.last:
                    stack.enter_context(network.no_sync())
            yield

    def forward(self, network: Callable[..., HeadOutput]) -> HeadOutput:
        """The network's output, in the run's precision."""
        with autocast(self.training.device, self.training.precision):
            told = () if self.batch.known is None else (self.batch.known,)
            return network(self.batch.inputs, *told)

    def backward(
        self, learner: Learner, output: HeadOutput, peers: Sequence[Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Add this part's gradients; return its loss and the named losses that it includes.

        Summed over parts and averaged over processes, they are those of the global batch.
        """
        clock = self.training.clock
        loss, extra = self.objective(output, peers)
        clock.lap("loss")
        with batch_statistics_frozen(learner.model, self.training.recompute):
            learner.backward(loss, add=not self.first)
        if self.training.settings.compile == "graphs" and self.first and not self.last:
            learner.keep_gradients()
        clock.lap("backward")
        return loss.detach(), {name: value.detach() for name, value in extra.items()}

    def objective(
        self, output: HeadOutput, peers: Sequence[Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss, and the named losses that it includes."""
        training = self.training
        part = self.share * training.world.size
        extra = {name: value * part for name, value in output.aux.items()}
        with autocast(training.device, training.precision):
            if peers:
                divergence = mutual_divergence(output.logits, peers)
                extra["mutual"] = training.settings.mutual_weight * divergence * part
            loss, batch = self._loss(output.logits, self.batch.targets), self.batch
            if batch.others is not None:
                other = self._loss(output.logits, batch.others)
                loss = batch.weight * loss + (1 - batch.weight) * other
            for value in extra.values():
                loss = loss + value
        return loss, extra

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss, world = self.training.loss, self.training.world
        if world.size > 1 and not getattr(loss, "separable", True):
            sizes = part_sizes(self.total, world.size)
            whole: Tensor = _Gather.apply(logits.float(), sizes, world.rank)
            targets = _Gather.apply(targets, sizes, world.rank)
            return evaluate_loss(loss, whole, targets, self.context)
        sums = getattr(loss, "reduction", "mean") == "sum"
        weight = world.size if sums else self.share * world.size
        return evaluate_loss(loss, logits, targets, self.context) * weight


def mutual_divergence(logits_BC: Tensor, peers: Sequence[Tensor]) -> Tensor:
    """The divergence of a model's predictions from its peers' predictions; 0 if they agree.

    Zhang et al., Deep Mutual Learning, CVPR 2018 (arXiv:1706.00384), for many labels as in
    Prokofiev and Sovrasov (arXiv:2209.06585): every label is a Bernoulli variable of its own.
    KL(Bernoulli(p_j) || Bernoulli(p)), p = sigmoid(logits), is averaged over images, labels and
    peers j. Unknown labels count too: peers predict them. The peers' logits get no gradient.
    """
    logits = logits_BC.float()
    divergences = []
    for peer in peers:
        target = peer.detach().float()
        p = target.sigmoid()
        # KL is the cross entropy less the entropy, which is the cross entropy with itself.
        divergences.append(cross_entropy(logits, p) - cross_entropy(target, p))
    return torch.stack(divergences).mean()


class _Gather(torch.autograd.Function):
    """Gather the rows of all processes; multiply the gradient by the number of processes.

    Every process computes the loss on all rows, and DDP divides by the number of processes.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, sizes: Sequence[int], rank: int) -> Tensor:
        """Gather rows [n, C]; ``sizes`` are the values of n on all processes."""
        context.start, context.rows, context.processes = sum(sizes[:rank]), len(rows), len(sizes)
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of this process's rows, times the number of processes."""
        mine = gradient[context.start : context.start + context.rows]
        return mine * context.processes, None, None
