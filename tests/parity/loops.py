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
