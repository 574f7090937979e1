"""Tiles of the Triton kernels to try; ``benchmarks/gpu.py --sweep`` times them.

The best belong into the tables of ``layers/decoupling_kernels.py`` and ``attention_kernels.py``.
"""

import torch

from mlbench_plugins.layers import attention_kernels as attention
from mlbench_plugins.layers import decoupling_kernels as scores

TILES = (
    (scores, "SCORES", "16,16,32,4 16,8,64,4 32,8,32,4 32,16,32,8 16,16,64,8 16,8,32,4 32,16,16,4 "
     "8,16,64,4 16,16,32,8 8,8,64,2 16,8,32,2"),
    (scores, "GRADIENTS", "8,256,4,4 8,256,4,2 16,256,4,2 16,128,4,4 16,128,2,2 8,512,4,2 "
     "8,128,2,2 16,64,1,4 8,128,2,4 16,128,4,2 8,64,1,4"),
    (attention, "FORWARD", "32,32,4,4 32,32,2,4 32,64,4,4 16,32,2,4 16,64,4,4 16,32,1,4 32,32,4,8 "
     "32,32,2,2"),
    (attention, "BACKWARD", "64,64,4,2 32,64,2,2 32,128,4,2 64,32,2,2 32,32,1,2 32,32,2,2 "
     "32,32,1,1 64,64,4,1"),
)  # fmt: skip
"""Module, name of its table, and tiles to try."""


def calls(pieces):
    """A call of each kernel."""
    (_, _, _, (p, q, w), _), _, (_, _, _, (x, nodes), _) = pieces
    x, g = x.flatten(2).mT, torch.randn(len(q), len(p), device=p.device)
    mean, _, lse = attention.attend(x, nodes)
    return {
        "SCORES": lambda: scores.scores(p, q, w),
        "GRADIENTS": lambda: scores.scores_backward(g, p, q, w),
        "FORWARD": lambda: attention.attend(x, nodes),
        "BACKWARD": lambda: attention.attend_backward(mean, x, nodes, mean, lse),
    }


def sweep(milliseconds, reported, pieces):
    """Print the times of each kernel by tile, the best first.

    Args:
        milliseconds: times a call.
        reported: a context that prints errors: a tile may need more registers than there are.
        pieces: of ``gpu.pieces``.
    """
    found = calls(list(pieces))
    for module, name, tiles in TILES:
        before, times = getattr(module, name), []
        for tile in tiles.split():
            setattr(module, name, tuple(map(int, tile.split(","))))
            with reported(f"{name} {tile}"):
                times.append((milliseconds(found[name]), tile))
        setattr(module, name, before)
        best = "  ".join(f"{ms:.4f} ({tile})" for ms, tile in sorted(times))
        print(f"{name} (now {before}), ms: {best}", flush=True)
