"""The Triton kernels against float64: in Triton's interpreter, and on a GPU where there is one.

Triton decides when it is imported; tests/conftest.py asks for the interpreter.
"""

import os
import runpy
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mlbench import registry
from mlbench.contracts.made_up import PYRAMID, features, made_up_context
from mlbench.engine.model import autocast
from mlbench_plugins.layers import channel_attention, decoupling, numerics
from mlbench_plugins.layers.channel_attention import channel_attention as attend
from mlbench_plugins.layers.decoupling import tanh_scores

pytest.importorskip("triton", reason="torch without CUDA comes without Triton")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 1e-2}
"""Of the largest number: half precision rounds gradients, and its tanh is approximate on a GPU."""


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Send all but float64 to the kernels, on the CPU too."""
    for module in (decoupling, channel_attention):
        monkeypatch.setattr(module, "has_kernels", lambda x: x.dtype != torch.float64)


def assert_near_float64(function, inputs):
    """Values and gradients are those of the eager form in float64, of the same rounded inputs."""
    tolerance = max(TOLERANCE[x.dtype] for x in inputs)
    exact = [x.double().cpu().requires_grad_() for x in inputs]
    inputs = [x.requires_grad_() for x in inputs]
    want, found = function(*exact), function(*inputs)
    weights = torch.randn_like(want)
    pairs = [(found, want)]
    pairs += zip(
        torch.autograd.grad((found * weights.to(found)).sum(), inputs),
        torch.autograd.grad((want * weights).sum(), exact),
        strict=True,
    )
    for x, y in pairs:
        bound = tolerance * y.abs().max().item()
        torch.testing.assert_close(x.double().cpu(), y, rtol=0, atol=bound)
    with torch.no_grad():
        assert torch.equal(function(*inputs), found), "differs without gradients"
    assert [x.dtype for x, _ in pairs[1:]] == [x.dtype for x in inputs]


def cases(*shapes):
    """All on a GPU; the interpreter takes half precision in the second shape alone."""
    gpu = {"cpu": (), "cuda": pytest.mark.gpu}
    return [
        pytest.param(device, dtype, *shape, marks=mark)
        for device, mark in gpu.items()
        for dtype in DTYPES
        for shape in (shapes if mark or dtype == torch.float32 else shapes[1:2])
    ]


@pytest.mark.parametrize(
    ("device", "dtype", "pixels", "labels", "channels"),
    # One of each; multiples of no tile, the sums of a tile by one program and by several.
    cases((1, 1, 1), (17, 3, 70), (2, 33, 5), (33, 18, 40)),
)
def test_scores_and_their_gradients(device, dtype, pixels, labels, channels):
    torch.manual_seed(pixels)
    shapes = (pixels, channels), (labels, channels), (channels,)
    assert_near_float64(tanh_scores, [torch.randn(s).to(device, dtype) for s in shapes])


@pytest.mark.parametrize(("dtype", "scale"), [*zip(DTYPES, (1, 0.1, 0.1), strict=True)])
def test_scores_without_kernels(monkeypatch, dtype, scale):
    """Half precision has no digits left for 2 sigmoid(2x) - 1 near 0."""
    torch.manual_seed(0)
    monkeypatch.setattr(decoupling, "has_kernels", lambda _: False)
    inputs = [(scale * torch.randn(s)).to(dtype) for s in [(5, 40), (3, 40), (40,)]]
    with autocast(torch.device("cpu"), "bf16" if scale < 1 else "fp32"):
        assert_near_float64(tanh_scores, inputs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("device", "dtype", "images", "labels", "channels", "side"),
    cases((1, 1, 1, 1), (2, 3, 70, 3), (1, 34, 5, 7)),
)
def test_attention_and_its_gradients(device, dtype, layout, images, labels, channels, side):
    torch.manual_seed(labels)
    x_BDHW = torch.randn(images, channels, side, side + 1).to(device, dtype)
    labels_CD = torch.randn(labels, channels, device=device)
    assert_near_float64(attend, [x_BDHW.contiguous(memory_format=layout), labels_CD])


def test_flop_counters_see_the_kernels(monkeypatch):
    x_BDHW, words_CK, weight_K = torch.randn(2, 7, 3, 4), torch.randn(5, 7), torch.randn(7)
    counts = []
    for kernels in (True, False):
        for module in (decoupling, channel_attention):
            monkeypatch.setattr(module, "has_kernels", lambda _, kernels=kernels: kernels)
        for _ in range(2):  # the first call loads the kernels
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                tanh_scores(x_BDHW.flatten(2).mT.flatten(0, 1), words_CK, weight_K)
                attend(x_BDHW, words_CK)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 5 * 24 * 7 + 4 * 5 * 24 * 7


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("device", DEVICES)
def test_large_products_saturate_and_large_weights_stay_finite(device):
    """tanh is 1 where exp overflows; a softmax is shifted by its largest exponent."""
    large = torch.tensor([[1e4, -1e4, 0.0]], device=device)
    words, weight = torch.ones(1, 3, device=device), torch.ones(3, device=device)
    assert tanh_scores(large, words, weight).item() == 0
    x_BDHW = torch.tensor([1e4, 0.0, -1e4], device=device).view(1, 1, 1, 3)
    found = attend(x_BDHW, torch.tensor([[50.0], [-50.0]], device=device))
    assert found.flatten().tolist() == pytest.approx([1e4, -1e4], rel=1e-5)


@pytest.mark.parametrize(("compiler", "runs"), [("", False), ("cc", True)])
def test_without_a_c_compiler_the_layers_compute_without_kernels(compiler, runs, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CC", compiler)
    assert runpy.run_path(numerics.__file__)["TRITON_RUNS"] is runs


@pytest.mark.filterwarnings("ignore")  # inductor's
@pytest.mark.gpu
@pytest.mark.parametrize("function", [tanh_scores, attend])
def test_a_graph_and_a_compiled_function_give_the_same(function):
    torch.manual_seed(0)
    shapes = [(40, 64), (5, 64), (64,)] if function is tanh_scores else [(2, 64, 3, 4), (5, 64)]
    inputs = [torch.randn(s, device="cuda", requires_grad=True) for s in shapes]

    def step(function=function):
        result = function(*inputs)
        return result, *torch.autograd.grad(result.square().sum(), inputs)

    want = step()
    for _ in range(2):
        assert all(map(torch.equal, want, step())), "results differ from call to call"
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    assert all(map(torch.equal, want, captured))
    torch.testing.assert_close(want, step(torch.compile(function, fullgraph=True)))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["grl", "msrn", "ssgrl"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_head_with_kernels_is_that_without(name, precision, monkeypatch):
    torch.manual_seed(0)
    head = registry.make("head", name, (PYRAMID, made_up_context(20)), {}).cuda()
    maps = features(PYRAMID, device="cuda")
    found = []
    for kernels in (True, False):
        for module in (decoupling, channel_attention):
            monkeypatch.setattr(module, "has_kernels", lambda _, kernels=kernels: kernels)
        with autocast(maps[0].device, precision):
            output = head(maps)
        loss = sum(output.aux.values(), output.logits.float().square().sum())
        trained = [p for p in head.parameters() if p.requires_grad]
        found.append([output.logits, *torch.autograd.grad(loss, trained)])
    # Biases before a softmax have no gradient but rounding errors: measure by the largest of all.
    logits, *gradients = ([x.float() for x in pair] for pair in zip(*found, strict=True))
    torch.testing.assert_close(*logits, rtol=0, atol=0.05 if precision == "bf16" else 1e-4)
    largest = max(other.abs().max() for _, other in gradients).item()
    for one, other in gradients:
        bound = 0.1 if precision == "bf16" else 1e-4
        torch.testing.assert_close(one, other, rtol=0, atol=bound * largest)


@pytest.mark.gpu
def test_memory_is_that_of_inputs_and_results():
    """Nothing of M x C x K or B x C x D x N numbers, forward and backward."""
    for function, shapes in (
        (tanh_scores, [(256, 512), (100, 512), (512,)]),
        (attend, [(4, 512, 16, 16), (100, 512)]),
    ):
        inputs = [torch.randn(s, device="cuda", requires_grad=True) for s in shapes]
        for warm in (True, False):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function(*inputs).sum().backward()
            peak = torch.cuda.max_memory_allocated() - before
            if not warm:
                assert peak < 4 * 256 * 100 * 512 / 2


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mlbench_plugins.layers import attention_kernels as attention, decoupling_kernels as decoupling

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", int: "i32", float: "fp32"}

def compile_only(kernel, *values, grid, warmup, num_warps, enable_fp_fusion):
    given = list(zip(kernel.params, values, strict=True))
    constants = {(p.num,): value for p, value in given if p.is_constexpr}
    types = {p.name: TYPES[getattr(v, "dtype", type(v))] for p, v in given if not p.is_constexpr}
    types |= {p.name: "constexpr" for p, _ in given if p.is_constexpr}
    source = ASTSource(kernel, types, constants)
    found = triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": num_warps})
    print(kernel.__name__, bool(found.asm["cubin"]), "tanh.approx" in found.asm["ptx"])

triton.JITFunction.run = compile_only
decoupling._is_approximate = lambda x: x.dtype != torch.float32
for dtype in (torch.bfloat16, torch.float32):
    p, q, w, g = (torch.ones(size, dtype=dtype) for size in ((40, 8), (20, 8), (8,), (20, 40)))
    decoupling.scores(p, q, w)
    decoupling.scores_backward(g, p, q, w)
    moments = attention.attend(p[None], q.float())
    attention.attend_backward(g[:, :8][None], p[None], q.float(), moments[0], moments[2])
"""


def test_kernels_compile_for_a_gpu_where_there_is_none(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    names = ["_scores_kernel", *["_gradients_kernel"] * 2, "_forward_kernel", "_backward_kernel"]
    assert [name for name, _, _ in rows] == names * 2
    assert all(cubin == "True" for _, cubin, _ in rows)
    assert [name for name, _, approximate in rows if approximate == "True"] == names[:3]
