"""Methods written out in loops over numpy, from the authors' tensors: slow and independent."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def pixels(image):
    return [image[:, i, j] for i in range(image.shape[1]) for j in range(image.shape[2])]


def ssgrl(w, features, words, adjacency, steps, own_gate):
    """Logits [B, C]; ``own_gate`` gives the reset gate its own recurrent matrix."""

    def layer(name, x):
        return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0)

    def net(kind, x):
        return layer(f"graph_net.fc_{kind}", x)

    logits = []
    for image in features:
        first = []
        for word in words:
            scores = []
            for f in pixels(image):
                h = np.tanh(layer("word_semantic.fc_1", f) * layer("word_semantic.fc_2", word))
                scores.append(layer("word_semantic.fc_a", layer("word_semantic.fc_3", h))[0])
            alpha = softmax(np.array(scores))
            first.append(sum(a * f for a, f in zip(alpha, pixels(image), strict=True)))
        states = first
        for _ in range(steps):
            new = []
            for c, h in enumerate(states):
                sent = sum(adjacency[c, k] * s for k, s in enumerate(states))
                received = sum(adjacency[k, c] * s for k, s in enumerate(states))
                a = np.concatenate((sent, received))
                z = sigmoid(net("eq3_w", a) + net("eq3_u", h))
                r = sigmoid(net("eq4_w", a) + net("eq4_u" if own_gate else "eq3_u", h))
                candidate = np.tanh(net("eq5_w", a) + net("eq5_u", r * h))
                new.append((1 - z) * h + z * candidate)
            states = new
        row = []
        for c, (h, x) in enumerate(zip(states, first, strict=True)):
            o = np.tanh(layer("fc_output", np.concatenate((h, x))))
            row.append(w["classifiers.weight"][c] @ o + w["classifiers.bias"][c])
        logits.append(row)
    return np.array(logits)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


def halved(image, reduce):
    """Windows of 2 x 2 [D, H // 2, W // 2]: a last row or column without a partner is dropped."""
    size = image.shape[1] // 2, image.shape[2] // 2
    found = np.empty((len(image), *size))
    for i, j in np.ndindex(size):
        found[:, i, j] = reduce(image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(1, 2))
    return found


def msrn(w, levels, words, edges):
    """Logits [B, C] of three maps [B, D, H, W] each, as they leave the trunk."""

    def affine(name, x):
        return w[f"{name}.weight"].reshape(len(w[f"{name}.bias"]), -1) @ x + w[f"{name}.bias"]

    def attend(name, nodes):
        made = [node @ w[f"{name}.W"] for node in nodes]
        first, second = np.split(w[f"{name}.a"][:, 0], 2)
        found = []
        for i, own in enumerate(made):
            others = [j for j in range(len(made)) if edges[i, j]]
            alpha = softmax(leaky(np.array([first @ own + second @ made[j] for j in others]), 0.2))
            found.append(elu(own + sum(a * made[j] for a, j in zip(alpha, others, strict=True))))
        return found

    labels = [affine("fc_label", word) for word in words]
    for layer in range(2):
        labels = attend(f"label_embed.layers.{layer}", labels)
    nodes = [np.maximum(label, 0) for label in labels]
    members = attend("group_embed.layers.0.embed", nodes)
    assigned = [softmax(s) for s in attend("group_embed.layers.0.assign_mat", nodes)]
    rows = labels + [
        sum(s[g] * z for s, z in zip(assigned, members, strict=True))
        for g in range(len(assigned[0]))
    ]
    logits = []
    for maps in zip(*levels, strict=True):
        scales = []
        for i, image in enumerate(maps):
            if i < 2:
                buffered = [affine(f"resnet_101.conv_buffer{i + 1}", f) for f in pixels(image)]
                image = np.stack(buffered, 1).reshape(image.shape)
            projected = [affine(f"ProjectM.{i}", f) for f in pixels(halved(image, np.max))]
            scales.append([attended(projected, row) for row in rows])
        v = [np.tanh(np.concatenate(parts)) for parts in zip(*scales, strict=True)]
        logits.append(affine("fc2", leaky(affine("fc1", np.concatenate(v)), 0.01)))
    return np.array(logits)


def attended(projected, row):
    """Each channel's mean over positions, weighted by the softmax of its products with a row's."""
    found = []
    for d, number in enumerate(row):
        channel = np.array([p[d] for p in projected])
        found.append(softmax(channel * number) @ channel)
    return np.array(found)


def csra(w, features, temperatures, lam):
    """Logits [B, C]."""
    logits = []
    for image in features:
        row = []
        for c in range(len(w["multi_head.0.head.weight"])):
            total = 0.0
            for i, temperature in enumerate(temperatures):
                weight = w[f"multi_head.{i}.head.weight"][c, :, 0, 0]
                scores = np.array([weight @ f / np.sqrt((weight**2).sum()) for f in pixels(image)])
                attended = (
                    scores.max()
                    if temperature is None
                    else (softmax(temperature * scores) * scores).sum()
                )
                total += scores.mean() + lam * attended
            row.append(total)
        logits.append(row)
    return np.array(logits)


def asl(x, y, gamma_neg, gamma_pos, clip):
    """The sum over images and labels, focusing weights not detached."""
    total = 0.0
    for logit, present in zip(x.ravel(), y.ravel(), strict=True):
        p = sigmoid(logit)
        if present:
            total -= (1 - p) ** gamma_pos * np.log(p)
        else:
            miss = min(1 - p + clip, 1)
            total -= (1 - miss) ** gamma_neg * np.log(miss)
    return total
