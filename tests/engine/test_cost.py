import platform

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import register_flop_formula

from mlbench.engine.cost import count, keep_freed_memory, measure, status_bytes
from mlbench.types import Efficiency, MeasureError
from tests.engine import tiny

B, C, D = 2, 5, 16
CPU = torch.device("cpu")


def macs(module, *inputs):
    module.eval()
    return count(module, lambda: module(*inputs), inputs, "head")


class PerClass(nn.Module):
    """A weight [C, D] that meets activations [B, C, D] in the way that a function says."""

    def __init__(self, way):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, D))
        self.way = way

    def forward(self, x_BCD):
        return self.way(self.weight, x_BCD)


UNCOUNTED = {
    "sum": lambda w, x: (w * x).sum(-1),
    "sum of everything": lambda w, x: (w * x).sum(),
    "normalised copy": lambda w, x: (functional.normalize(w, dim=-1) * x).sum(-1),
    "cast copy": lambda w, x: (w.half().float() * x).sum(-1),
    "made by a product": lambda w, x: ((w @ w.T @ w) * x).sum(-1),
    "in place": lambda w, x: x.clone().mul_(w).sum(-1),
    "with a bias between": lambda w, x: (w * x + 1).sum(-1),
    "through a view": lambda w, x: (w * x).reshape(B * C, D).sum(1),
    "pooled": lambda w, x: functional.adaptive_avg_pool1d(w * x, 1),
    "distance": lambda w, x: torch.cdist(x, w),
}


@pytest.mark.parametrize("way", UNCOUNTED.values(), ids=UNCOUNTED)
def test_work_that_the_counter_does_not_see_is_an_error(way):
    with pytest.raises(MeasureError, match=r"head\.weight \(PerClass\).*einsum"):
        macs(PerClass(way), torch.randn(B, C, D))


COUNTED = {
    "einsum": (lambda w, x: torch.einsum("bcd,cd->bc", x, w), B * C * D),
    "matmul": (lambda w, x: x @ w.T, B * C * C * D),
    "normalised": (lambda w, x: x @ functional.normalize(w, dim=-1).T, B * C * C * D),
    "a vector": (lambda w, x: x @ w[0], B * C * D),
    "a label branch": (lambda w, x: x @ (w @ w.T @ w).T, B * C * C * D + 2 * C * C * D),
    "position code": (lambda w, x: x + w, 0),
    "scale": (lambda w, x: x * w, 0),
    "scale, then a counted product": (lambda w, x: (x * w) @ w.T, B * C * C * D),
    "a factor inside tanh": (lambda w, x: torch.tanh(w * x) @ w[0], B * C * D),
    "sum over another axis": (lambda w, x: (w * x).sum(0), 0),
    "lookup": (lambda w, x: functional.embedding(x.argmax(-1) % C, w), 0),
}


@pytest.mark.parametrize(("way", "expected"), COUNTED.values(), ids=COUNTED)
def test_work_that_is_counted_is_counted_exactly(way, expected):
    assert macs(PerClass(way), torch.randn(B, C, D)) == expected


def test_linear_and_convolution():
    assert macs(nn.Linear(D, C), torch.randn(B, D)) == B * D * C
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    assert macs(conv, torch.randn(B, 4, 8, 8)) == B * 8 * 8 * 6 * 2 * 9
    assert macs(weight_norm(nn.Linear(D, C)), torch.randn(B, D)) == B * D * C


def test_attention_off_its_fast_path_and_the_path_restored():
    layer = nn.TransformerEncoderLayer(D, 4, 32, batch_first=True)
    n = 7
    expected = B * (3 * n * D * D + 2 * n * n * D + n * D * D + 2 * n * D * 32)
    assert torch.backends.mha.get_fastpath_enabled()
    assert macs(layer, torch.randn(B, n, D)) == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_recurrent_layer_is_an_error_that_names_it():
    with pytest.raises(MeasureError, match=r"rnn.* of LSTM"):
        macs(nn.LSTM(D, 8, batch_first=True), torch.randn(B, C, D))


class LoadedWhenCalled(nn.Module):
    """A product by an operation that the first call registers, as layers load kernels."""

    def forward(self, x):
        if not hasattr(torch.ops.mlbench_test, "double"):
            torch.library.define("mlbench_test::double", "(Tensor x) -> Tensor")
            torch.library.impl("mlbench_test::double", "cpu")(lambda x: 2 * x)
            register_flop_formula(torch.ops.mlbench_test.double)(lambda x, *_, **__: 2 * x.numel())
        return torch.ops.mlbench_test.double(x)


def test_an_operation_that_the_first_call_registers_is_counted():
    module, x = LoadedWhenCalled(), torch.ones(3, 4)
    assert count(module, lambda: module(x), [x], "head") == 12


@pytest.mark.parametrize(
    ("name", "published"),
    # Giga multiply-accumulates of their papers or of torchvision's tables.
    [("resnet18", 1.814), ("mobilenetv2_100", 0.301), ("vit_tiny_patch16_224", 1.25)],
)
def test_published_counts(name, published):
    with torch.device("meta"):  # shapes are enough
        model, images = timm.create_model(name, pretrained=False), torch.zeros(1, 3, 224, 224)
    assert macs(model, images) / 1e9 == pytest.approx(published, rel=0.01)


def test_layer_scale_before_global_pooling_is_no_error():
    # Its last residual branch is scaled, added and pooled with no product in between.
    with torch.device("meta"):
        model = timm.create_model("convnext_atto", pretrained=False)
        images = torch.zeros(1, 3, 64, 64)
    assert macs(model, images) > 0


@pytest.fixture
def model():
    return tiny.model()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_is_measured_part_by_part(model, precision):
    found = measure(model, image_size=32, precision=precision, device=CPU)
    assert found.parameters_backbone == (3 * 4 * 9 + 4) + 2 * 4 + (4 * 6 * 9 + 6) + 2 * 6
    assert found.parameters_head == 6 * 3 + 3
    convolutions = 16 * 16 * 4 * 3 * 9 + 8 * 8 * 6 * 4 * 9
    assert found.gmacs_backbone == pytest.approx(convolutions / 1e9)
    assert found.gmacs_head == pytest.approx(6 * 3 / 1e9)
    assert found.backbone_options == {}
    assert found.device and found.threads == torch.get_num_threads()
    assert {"python", "torch", "timm", "peak_memory"} <= set(found.versions)
    assert Efficiency.model_validate_json(found.model_dump_json()) == found


def test_measuring_changes_no_weight(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, image_size=32, precision="fp32", device=CPU)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_peak_memory_grows_with_what_a_call_holds(model):
    class Wide(tiny.Backbone):
        def forward(self, x):
            x.new_ones(25 * 2**20).mul_(2)  # 100 MiB
            return super().forward(x)

    def peak(backbone):
        made = tiny.model(backbone=backbone)
        found = measure(made, image_size=32, precision="fp32", device=CPU)
        return found.peak_memory_mb, found.versions["peak_memory"]

    small, how = peak(tiny.Backbone)
    if "lower bound" in how:
        pytest.skip("the kernel does not let a process reset its peak")
    large, _ = peak(Wide)
    assert small < 20 and 90 < large < 130


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_or_returned_as_asked():
    def kept(keep):
        keep_freed_memory(keep)
        before = status_bytes("VmRSS")
        torch.ones(100 * 2**20 // 4)
        return (status_bytes("VmRSS") - before) / 2**20

    assert kept(True) > 90
    assert kept(False) < 10


@pytest.mark.gpu
def test_on_cuda(model):
    cuda = torch.device("cuda")
    found = measure(model.to(cuda), image_size=64, precision="fp16", device=cuda)
    assert found.device == torch.cuda.get_device_name() and found.peak_memory_mb > 0
    assert found.versions["peak_memory"] == "cuda allocator"
