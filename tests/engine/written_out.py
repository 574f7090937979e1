"""Training by SAM and mutual learning as a plain loop: SGD with momentum, one process."""

import torch

from mlbench.data.loader import training_order


def fit(models, training):
    """Train models in place; returns the losses of the first."""
    settings = training.settings
    rho, adaptive, weight = settings.sam_rho, settings.sam_adaptive, settings.mutual_weight
    velocity = {p: torch.zeros_like(p) for model in models for p in model.parameters()}
    losses = []
    for epoch in range(settings.epochs):
        for positions in training_order(len(training.index), settings.batch_size, 0, epoch):
            images = training.source(positions, epoch)
            targets = torch.from_numpy(training.index.targets[positions])
            outputs = [model.train()(images) for model in models]
            said = [output.logits.detach().sigmoid() for output in outputs]
            for i, model in enumerate(models):
                peers = said[:i] + said[i + 1 :]

                def objective(output, peers=peers, targets=targets):
                    value = training.loss(output.logits, targets) + output.aux["small"]
                    q = output.logits.sigmoid()
                    for p in peers:
                        kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
                        value = value + weight * kl.mean() / len(peers)
                    return value

                parameters = list(model.parameters())
                loss = objective(outputs[i])
                gradients = torch.autograd.grad(loss, parameters)
                if rho:
                    before = [p.detach().clone() for p in parameters]
                    sizes = [p.abs() if adaptive else torch.ones_like(p) for p in before]
                    pairs = list(zip(sizes, gradients, strict=True))
                    norm = torch.sqrt(sum((size * g).square().sum() for size, g in pairs))
                    for p, (size, g) in zip(parameters, pairs, strict=True):
                        p.data = p.data + rho * size**2 * g / norm
                    gradients = torch.autograd.grad(objective(model(images)), parameters)
                    for p, w in zip(parameters, before, strict=True):
                        p.data = w
                for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                    velocity[p] = 0.9 * velocity[p] + g
                    scale = settings.backbone_lr_scale if name.startswith("backbone") else 1.0
                    p.data = p.data - settings.optimizer.lr * scale * velocity[p]
                losses += [loss.item()] if i == 0 else []
    return losses
