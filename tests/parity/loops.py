"""Methods in the loops of their own tests, with the authors' tensors in place of our layers."""

from functools import partial
from types import SimpleNamespace as Parts

import torch
from torch.nn.functional import conv2d, linear

from tests.plugins.methods import test_msrn, test_pooling, test_ssgrl


def layer(w, name):
    """A linear layer, or a convolution of 1 x 1."""
    weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
    return partial(linear if weight.dim() == 2 else conv2d, weight=weight, bias=bias)


def ssgrl(w, features, words, adjacency, steps, own_gate):
    """Logits [B, C]; ``own_gate`` gives the reset gate its own recurrent matrix."""
    gates = ((3, "update"), (4, "reset"), (5, "candidate"))
    net = {f"{gate}_{of}": layer(w, f"graph_net.fc_eq{i}_{of}") for i, gate in gates for of in "wu"}
    semantic = {i: layer(w, f"word_semantic.fc_{i}") for i in "123a"}
    head = Parts(
        words=Parts(vectors=words, project=semantic["2"]),
        decoupling=Parts(visual=semantic["1"], mix=semantic["3"], score=semantic["a"]),
        ggnn=Parts(time_steps=steps, reset_uses_update_weights=not own_gate, **net),
        adjacency=adjacency,
        output=layer(w, "fc_output"),
        classifier=Parts(weight=w["classifiers.weight"], bias=w["classifiers.bias"]),
    )
    return test_ssgrl.by_loops(head, features)


def msrn(w, levels, words, edges):
    """Logits [B, C] of three maps [B, D, H, W] each, as they leave the trunk."""

    def attention(name):
        return Parts(W=w[f"{name}.W"], a=w[f"{name}.a"], residual=True)

    branch = Parts(
        words=words,
        edges=edges,
        fc_label=layer(w, "fc_label"),
        label_embed=[attention(f"label_embed.layers.{i}") for i in range(2)],
        group_embed=attention("group_embed.layers.0.embed"),
        group_assign=attention("group_embed.layers.0.assign_mat"),
    )
    head = Parts(
        branch=branch,
        buffer_convs=[layer(w, f"resnet_101.conv_buffer{i}") for i in (1, 2)],
        project=[layer(w, f"ProjectM.{i}") for i in range(3)],
        classifier=Parts(fc1=layer(w, "fc1"), fc2=layer(w, "fc2")),
    )
    return test_msrn.by_loops(head, levels, ceil_mode=False)[0]


def csra(w, features, temperatures, lam):
    """Logits [B, C]; a temperature may be infinite."""
    heads = [w[f"multi_head.{i}.head.weight"][..., 0, 0] for i in range(len(temperatures))]
    head = Parts(weight=torch.stack(heads), temperatures=temperatures, lam=lam)
    return test_pooling.by_loops(head, features)
