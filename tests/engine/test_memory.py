"""What takes less memory makes the same numbers, or another run; what a precision means."""

import copy
from contextlib import nullcontext

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench.data.loader import is_out_of_memory, typed_memory_errors
from mlbench.engine.distributed import World
from mlbench.engine.memory import memory_error, out_of_memory, recompute_activations
from mlbench.engine.model import MultiLabelModel, autocast, matrix_precision, unsupported
from mlbench.engine.train import check_processes
from mlbench.types import BatchMemoryError, SuiteError
from mlbench_plugins.backbones.timm import timm_backbone
from mlbench_plugins.losses.bce import BCE
from mlbench_plugins.methods.pooling import GAP
from tests.engine import tiny
from tests.engine.tiny import fit, flat

LABELS = made_up_context(3)


@pytest.mark.parametrize("loss", [tiny.Bce(), BCE(LABELS, reduction="sum")], ids=["mean", "sum"])
@pytest.mark.parametrize("changes", [{}, {"sam_rho": 0.1, "mutual_weight": 0.5}], ids=str)
def test_micro_batches_make_the_step_of_the_whole_batch(changes, loss):
    """Of 8 images in 3, 3 and 2; the norms are frozen, as they would see other statistics."""
    seen = []

    def fitted(number):
        given = tiny.settings(freeze_bn=True, grad_accumulation=number, grad_clip=0.5, **changes)
        models = [tiny.model(seed) for seed in range(2 if changes else 1)]
        for model in models:
            model.backbone.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
        return fit(tiny.training(given, loss=loss), *models)

    whole = fitted(1)
    assert set(seen) == {8}
    seen.clear()
    parts = fitted(3)
    assert max(seen) == 3 and sum(seen) == 2 * 24 * (4 if changes else 1)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    for ours, theirs in zip(parts.log, whole.log, strict=True):
        assert ours.aux == pytest.approx(theirs.aux, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)
    for ours, theirs in zip(parts.learners, whole.learners, strict=True):
        torch.testing.assert_close(flat(ours.model), flat(theirs.model), rtol=1e-5, atol=1e-6)


def test_trained_batch_norms_see_micro_batches():
    parts = fit(tiny.training(tiny.settings(grad_accumulation=2)))
    assert parts.learners[0].model.backbone.one[1].num_batches_tracked == 12, "of 6 steps"


@pytest.mark.parametrize("sync_bn", [True, False])
def test_activations_that_are_computed_again_change_no_number(sync_bn):
    def fitted(recompute):
        torch.manual_seed(0)
        options = {"timm_kwargs": {"drop_path_rate": 0.2}}
        backbone = timm_backbone("test_resnet", weights="none", **options)
        assert not recompute or recompute_activations(backbone)
        assert backbone.model.grad_checkpointing == recompute
        head = GAP(backbone.spec, LABELS)
        model = MultiLabelModel(backbone, head, backbone.mean, backbone.std)
        given = tiny.settings(epochs=1, ema_decay=0.5, sync_bn=sync_bn)
        state = fit(tiny.training(given, recompute=recompute), model)
        return state.losses, {**model.state_dict(), "average": flat(state.evaluated())}

    (losses, weights), (again, others) = fitted(False), fitted(True)
    assert losses == again
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name


def test_a_backbone_that_cannot_compute_again_says_so():
    assert not recompute_activations(tiny.Backbone())


@pytest.mark.parametrize(
    ("changes", "error", "divisible", "said"),
    [
        ({}, "Tried to allocate 3.00 GiB.", False, "another run, since batch norms"),
        ({"freeze_bn": True}, "Tried to allocate 20.00 MiB.", True, "grad_accumulation=2; or"),
        ({"freeze_bn": True, "grad_accumulation": 8}, "", False, "1 image at 448 pixels needs"),
        ({"freeze_bn": True, "grad_accumulation": 5}, "", True, "grad_accumulation=8; or"),
    ],
)
def test_out_of_memory_says_how_much_a_batch_needs_and_what_helps(changes, error, divisible, said):
    text = f"CUDA out of memory. {error} Of these 70.00 GiB is allocated by PyTorch, and 1 GiB"
    training = tiny.training(tiny.settings(**changes))
    found = out_of_memory(torch.OutOfMemoryError(text), training.start(tiny.model()), training)
    assert found.divisible == divisible
    assert said in str(found) and "activation_checkpointing=true" in str(found)
    needed = {"3": "74,752", "20": "71,700"}.get(error[18:20].strip("."), "71,680")
    assert f"at least {needed} MiB" in str(found)


def test_memory_that_other_processes_use_is_named():
    text = "Process 47 has 71.00 GiB memory in use. Process 9 has 512.00 MiB memory in use."
    remedy = "give fewer --jobs, as other processes use 73,216 MiB; or --set grad_accumulation=2"
    training = tiny.training(tiny.settings())
    found = out_of_memory(torch.OutOfMemoryError(text), training.start(tiny.model()), training)
    assert remedy in str(found) and "8 images at 448 pixels; give" in str(found)


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.AcceleratorError("CUDA error: out of memory\nSearch for ..."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_a_context_that_does_not_fit_lacks_memory_as_a_batch_does(error, lacks):
    assert is_out_of_memory(error) is lacks
    expected = BatchMemoryError if lacks else RuntimeError
    with pytest.raises(expected), typed_memory_errors(lambda one: memory_error(one, "cpu")):
        raise error


@pytest.mark.parametrize(("images", "most"), [(24, 4), (6, 3), (2, 1)])
def test_more_micro_batches_or_processes_than_images_are_refused(images, most):
    check_processes(tiny.settings(grad_accumulation=most), images, World(0, 2, 0))
    with pytest.raises(SuiteError, match=f"give at most --set grad_accumulation={most}"):
        check_processes(tiny.settings(grad_accumulation=most + 1), images, World(0, 2, 0))
    with pytest.raises(SuiteError, match=f"give at most --processes {min(images, 8)}"):
        check_processes(tiny.settings(), images, World(0, 9, 0))


CPU = torch.device("cpu")


def switches():
    backends = torch.backends
    return [part.fp32_precision for part in (backends.cuda.matmul, backends.cudnn.conv)]


def test_fp32_is_exact_and_tf32_is_asked_for_by_name():
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    with autocast(CPU, "fp32"):
        assert switches() == ["ieee", "ieee"] and not torch.backends.cudnn.allow_tf32
        with autocast(CPU, "tf32"):
            assert switches() == ["tf32", "tf32"] and torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.allow_tf32 and not torch.is_autocast_enabled("cpu")
        assert switches() == ["ieee", "ieee"] and not torch.backends.cuda.matmul.allow_tf32
    assert switches() == ["ieee", "tf32"], "as before"


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_backward_passes_are_in_the_precision_of_the_run(precision):
    seen = []

    class Watched(tiny.Bce):
        def forward(self, logits, targets):
            logits.register_hook(lambda _: seen.append(switches()))
            return super().forward(logits, targets)

    fit(tiny.training(loss=Watched(), precision=precision))
    assert len(seen) == 6 and {s for pair in seen for s in pair} == {
        "ieee" if precision == "fp32" else "tf32"
    }


def test_a_precision_that_the_device_lacks_is_refused_when_planned(cli):
    few = "dataset_options={train_images: 40, test_images: 20, size: 32}"
    asked = ("--plugins", "gap", "--backbones", "timm:test_resnet", "--set", few, "--dry-run")
    for precision in ("tf32", "fp16"):
        ended = cli("run", *asked, "--device", "cpu", "--set", f"precision={precision}")
        ended.failed(f"cpu cannot compute in {precision}; use --set precision=fp32")
    cli("run", *asked, "--set", "precision=fp32").ok()


def test_an_older_gpu_is_not_given_bf16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: False)
    device = torch.device("cuda")
    for precision in ("bf16", "tf32"):
        assert unsupported(precision, device).startswith(f"Tesla T4 cannot compute in {precision}")
    assert unsupported("fp16", device) is None and unsupported("fp32", device) is None


@pytest.mark.gpu
def test_fp32_on_a_gpu_is_float32_and_tf32_is_not():
    device = torch.device("cuda")
    model, images = tiny.model().to(device).eval(), tiny.training().source.images.to(device)
    exact = copy.deepcopy(model).double()(images).logits
    errors = {}
    with torch.no_grad():
        for precision in ("fp32", "tf32"):
            with autocast(device, precision):
                errors[precision] = (model(images).logits - exact).abs().max().item()
        x = torch.randn(8, 64, 32, 32, device=device)
        kernel = torch.randn(64, 64, 3, 3, device=device)
        right = torch.nn.functional.conv2d(x.double(), kernel.double())
        for precision, limit in (("fp32", 1e-6), ("tf32", 1e-3)):
            with matrix_precision(precision):
                wrong = torch.nn.functional.conv2d(x, kernel) - right
                product = x[0, 0] @ x[0, 1] - (x[0, 0].double() @ x[0, 1].double())
            error = (wrong.std() / right.std()).item()
            assert error < limit and (precision == "fp32" or error > 1e-5)
            assert product.abs().max() < (1e-4 if precision == "fp32" else 1e-1)
    assert errors["fp32"] < 1e-5
