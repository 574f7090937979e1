"""Time kernels, heads and training steps on a GPU, beside the plain formulas of the papers.

    python benchmarks/gpu.py                          all sections, some 100 s each
    python benchmarks/gpu.py --only kernels,step      some of them
    python benchmarks/gpu.py --sweep                  tiles of the Triton kernels instead

Calls are timed as CUDA graphs (the step excepted) by events; the median of five rounds counts.
Numbers are of one machine: compare the ratios. Without a GPU, everything runs once in a small size,
the kernels in Triton's interpreter, to show that the script works.
"""

import argparse
import contextlib
import copy
import functools
import os
import time
from math import nan

import torch

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported
DEVICE = "cuda" if CUDA else "cpu"

from gpu_data import data  # noqa: E402
from gpu_tiles import sweep  # noqa: E402
from test_heads import PLAIN, plain_attention, plain_decoupling  # noqa: E402

from mlbench import registry  # noqa: E402
from mlbench.contracts.made_up import made_up_context  # noqa: E402
from mlbench.engine.cost import count  # noqa: E402
from mlbench_plugins.layers import channel_attention, decoupling, numerics  # noqa: E402

LABELS = (80, 500, 20) if CUDA else (3,)
SIDE, BATCH, IMAGE = (14, 16, 448) if CUDA else (2, 2, 64)
BACKBONE, STEP_BATCH = ("resnet101", 32) if CUDA else ("timm:test_resnet", 2)
OPTIONS = {"msrn": {"classifier": "elementwise"}}  # its MLP has 1.6 billion weights for 500 labels
if not CUDA:
    OPTIONS |= {
        "ssgrl": {"hidden_dim": 8, "intermediary_dim": 8, "output_dim": 8},
        "query2label": {"hidden_dim": 8, "feedforward": 8},
        "ml_decoder": {"embedding_dim": 8, "feedforward": 8},
        "ml_gcn": {"width": 8},
        "add_gcn": {"width": 8},
        "csra": {"heads": 2},
    }
ROUNDS = 5
LAST = {"memory_format": torch.channels_last}
KERNELS = decoupling.has_kernels if CUDA else (lambda x: x.dtype != torch.float64)
autocast = functools.partial(torch.autocast, DEVICE, dtype=torch.bfloat16)


# ------------------------------------------------------------------------------------ measurements
def milliseconds(call, graph=True):
    """The median time of a call; warm-up and compilation are left out."""
    if not CUDA:
        began = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - began)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            call()
        call = captured.replay
    repeats = max(2, min(50, int(20 / _events(call, 2))))
    return sorted(_events(call, repeats) for _ in range(ROUNDS))[ROUNDS // 2]


def _events(call, repeats):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def peak_mib(call):
    """The most memory that a call adds to what is allocated before it."""
    if not CUDA:
        call()
        return nan
    call()  # on this stream the first one also takes workspaces
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def forward(function, inputs):
    with torch.no_grad(), autocast():
        return function(*inputs)


def both(function, inputs, weights):
    """Values, and the gradients of the inputs."""
    with autocast():
        found = function(*inputs)
    return found, *torch.autograd.grad((found * weights).sum(), inputs)


def special_function_ms(results):
    """The time of so many hyperbolic tangents or exponentials at 16 a clock and multiprocessor."""
    if not CUDA:
        return nan
    chip = torch.cuda.get_device_properties(0)
    clock = getattr(chip, "clock_rate", 1_980_000) * 1000
    return 1000 * results / (16 * chip.multi_processor_count * clock)


# ------------------------------------------------------------------------------------- the kernels
def plain_scores(pixels_MK, words_CK, weight_K):
    """SSGRL, eq. 2 and 3, folded: all M x C x K numbers at once."""
    return (torch.tanh(pixels_MK * words_CK[:, None]) * weight_K).sum(dim=-1)


def pieces(labels):
    """Name, plain form, fast form, inputs and number of special functions of a forward pass."""
    width, channels, maps = (1024, 2048, 512) if CUDA else (8, 16, 8)
    make = functools.partial(torch.randn, device=DEVICE, dtype=torch.bfloat16)
    rows = BATCH * SIDE**2
    layer = decoupling.SemanticDecoupling(channels, width).to(DEVICE)
    plain = functools.partial(plain_decoupling, layer)
    words, weight = make(labels, width), make(width) / width**0.5
    inputs = [make(rows, width), words, weight]
    yield "scores", plain_scores, decoupling.tanh_scores, inputs, rows * labels * width
    inputs = [make(BATCH, channels, SIDE, SIDE).contiguous(**LAST), words]
    yield "decoupling", plain, layer, inputs, rows * labels * width
    inputs = [make(BATCH, maps, SIDE, SIDE).contiguous(**LAST), make(labels, maps).float()]
    fast = channel_attention.channel_attention
    yield "attention", plain_attention, fast, inputs, rows * labels * maps


def kernels(in_time):
    """The layers with kernels: plain, compiled, eager in chunks, and as they are used."""
    print("piece       labels  form      fwd ms  f+b ms  peak MiB  x plain    error  of the roof")
    for labels in LABELS:
        for name, plain, fast, inputs, results in pieces(labels):
            inputs = [x.requires_grad_() for x in inputs]
            weights = torch.randn_like(forward(plain, inputs))
            compiled = torch.compile(plain, dynamic=False)
            forms = {"plain": plain, "compiled": compiled, "chunks": fast, "used": fast}
            first = None
            for form, function in forms.items():
                if form == "compiled" and not (CUDA and in_time()):
                    continue
                chosen = (lambda _: False) if form == "chunks" else KERNELS
                with layers_choose(chosen), reported(f"{name} {labels} {form}"):
                    ahead = milliseconds(functools.partial(forward, function, inputs))
                    call = functools.partial(both, function, inputs, weights)
                    back, memory = milliseconds(call), peak_mib(call)
                    first = first or back
                    off = nan if form == "compiled" else difference(plain, function, inputs)
                    share = special_function_ms(results) / ahead
                    print(
                        f"{name:11} {labels:6}  {form:8} {ahead:7.3f} {back:7.3f} {memory:9.0f} "
                        f"{first / back:8.1f}  {off:7.1e} {share:8.0%}",
                        flush=True,
                    )
            torch.compiler.reset()


@contextlib.contextmanager
def layers_choose(has_kernels):
    """Tell the layers which tensors the kernels take."""
    before = decoupling.has_kernels
    decoupling.has_kernels = channel_attention.has_kernels = has_kernels
    yield
    decoupling.has_kernels = channel_attention.has_kernels = before


@contextlib.contextmanager
def reported(what):
    """Print an error and go on: the other rows are worth their time."""
    try:
        yield
    except Exception as problem:
        print(f"{what}: {type(problem).__name__}: {f'{problem} '.splitlines()[0]}", flush=True)


def difference(plain, function, inputs):
    """The error of one image, or of 40 pixels, against float64, values and gradients."""
    few = [inputs[0][: 40 if inputs[0].ndim == 2 else 1], *inputs[1:]]
    few = [x.detach().requires_grad_() for x in few]
    exact = [x.detach().double().requires_grad_() for x in few]
    if isinstance(plain, functools.partial):
        plain = functools.partial(plain.func, copy.deepcopy(plain.args[0]).double())
    weights = torch.randn_like(forward(function, few).float())
    want = plain(*exact)
    want = want, *torch.autograd.grad((want * weights).sum(), exact)
    pairs = zip(both(function, few, weights), want, strict=True)
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in pairs)


# ------------------------------------------------------------------------------- heads and the step
def each_head(spec, in_time, row, last=()):
    """Print a row of numbers for each form of each head, while there is time."""
    names = sorted(plugin.name for plugin in registry.plugins("head") if plugin.name != "gap")
    names = ["gap", *(name for name in names if CUDA or name in OPTIONS), *last]
    for labels in LABELS:
        for name in names:
            if not in_time():
                return
            given = (spec, made_up_context(labels, words=300))
            with reported(f"{name} {labels}"):
                head = registry.make("head", name, given, OPTIONS.get(name, {})).to(DEVICE)
                for form, function in forms(name, head, labels, in_time):
                    with reported(f"{name} {labels} {form}"):
                        numbers = row(name, head.eval(), labels, form, function)
                        print(f"{name:18} {labels:5} {form:8} {numbers}", flush=True)
            torch.compiler.reset()


def forms(name, head, labels, in_time):
    """A head as it is, its plain form, and torch.compile of that: functions of maps to logits."""
    yield "used", lambda maps: head(maps).logits
    if name in PLAIN:
        plain = functools.partial(PLAIN[name], head)
        yield "plain", plain
        if CUDA and labels == LABELS[0] and in_time():
            yield "compiled", torch.compile(plain, dynamic=False)


def heads(in_time):
    """Each head alone on random maps: inference in evaluation mode, then training."""
    spec = registry.find("backbone", BACKBONE).load()(weights="none", image_size=IMAGE).spec
    maps = [torch.randn(BATCH, v.channels, IMAGE // v.stride, IMAGE // v.stride) for v in spec]
    maps = tuple(x.to(DEVICE, torch.bfloat16, **LAST) for x in maps)

    def row(name, head, labels, form, function):
        trained = [p for p in head.parameters() if p.requires_grad]

        def train():
            with autocast():
                found = function(maps)
            return torch.autograd.grad(found.float().mean(), trained, allow_unused=True)

        ahead = milliseconds(functools.partial(forward, lambda *_: function(maps), [maps]))
        head.train()
        return f"{ahead:7.3f} {milliseconds(train):7.3f} {peak_mib(train):9.0f}"

    print("head              labels form      fwd ms  f+b ms  peak MiB")
    each_head(spec, in_time, row)


def step(in_time):
    """Training steps, batches on the device: what a head adds to the backbone with ``gap``."""
    backbone = registry.find("backbone", BACKBONE).load()(weights="none", image_size=IMAGE)
    backbone.to(DEVICE, **LAST).eval()
    images = torch.randn(STEP_BATCH, 3, IMAGE, IMAGE).to(DEVICE, **LAST)
    with torch.no_grad():
        maps = backbone(images[:1])
    macs = count(backbone, lambda: backbone(images[:1]), [images], "backbone")
    backbone.requires_grad_(True).train()
    bare: list[float] = []

    def row(name, head, labels, form, function):
        trained = [p for p in head.parameters() if p.requires_grad]
        share = ""
        if form == "used":
            share = f"{count(head, lambda: head(maps), maps, 'head') / macs:9.1%}"
            for parameter in trained:
                parameter.requires_grad_(True)
        ms = step_ms(backbone, head.train(), function, images, labels)
        bare.append(ms)
        return f"{ms:9.2f} {1000 * STEP_BATCH / ms:9.0f} {ms / bare[0]:9.3f} {share}"

    print(
        "head              labels form        ms/step  images/s  x of gap  GMACs of the backbone's"
    )
    each_head(backbone.spec, in_time, row, last=["gap"])


def step_ms(backbone, head, function, images, labels):
    """Forward, backward and fused AdamW in bf16."""
    model = torch.nn.ModuleList([backbone, head])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    targets = torch.randint(2, (len(images), labels), device=images.device).float()

    def once():
        with autocast():
            logits = function(backbone(images))
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return milliseconds(once, graph=False)


SECTIONS = {
    "kernels": kernels,
    "heads": heads,
    "step": step,
    "data": functools.partial(data, reported),
}
"""Sections take a function that tells whether there is time for another row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, between commas")
    parser.add_argument(
        "--seconds", type=float, default=100 if CUDA else 20, help="limit of a section"
    )
    parser.add_argument("--sweep", action="store_true", help="try tiles of the kernels instead")
    chosen = parser.parse_args()
    if chosen.sweep:
        for labels in LABELS[:2]:
            print(f"\n{labels} labels, {SIDE} x {SIDE}, batches of {BATCH}")
            sweep(milliseconds, reported, pieces(labels))
        return
    device = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    kernels_run = "run" if numerics.TRITON_RUNS else "do not run (no C compiler, or no Python.h)"
    print(f"{device}, torch {torch.__version__}; Triton's kernels {kernels_run}")
    for name in chosen.only.split(","):
        began = time.perf_counter()
        print(f"\n{name}")
        ends = began + chosen.seconds
        with reported(name):
            SECTIONS[name](lambda ends=ends: time.perf_counter() < ends)
        print(f"({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
