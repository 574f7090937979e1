"""Label noise: training labels that are missing or wrong on purpose, the same for every method.

A hash of the seed, the image's key and the label's name decides whether a label is kept or flipped.
Other images and labels and their order have no effect, and a label kept at 40 % is also kept at
60 %. A share is a probability per label: of n labels, share * n are kept, within about sqrt(n).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlbench.types import Index, KnownLabels, LabelNoise, Splits, Targets, unknown_objects

_CELLS = 1 << 22
"""Number of labels that are drawn at once: 32 MiB per copy."""

Draws = NDArray[np.float64]


def with_label_noise(splits: Splits, noise: LabelNoise) -> Splits:
    """Add noise to the labels of TRAIN; the other splits do not change.

    The name of the edition describes the noise (``coco-mini-labels-40``), so that boards keep such
    runs apart. The digest is derived from the digest of the true labels, so that it does not depend
    on the validation part. Objects are no longer counted.
    """
    if noise == LabelNoise():
        return splits
    made = hashlib.sha256(f"{splits.digest} {noise.model_dump_json()}".encode())
    return replace(
        splits,
        train=replace(splits.train, targets=noisy_targets(splits.train, splits.names, noise)),
        before_noise=splits.train.targets,
        digest=made.hexdigest()[:16],
        identity=f"{splits.identity}-{edition(noise)}",
        objects=unknown_objects,
    )


def edition(noise: LabelNoise) -> str:
    """The suffix of the edition's name: ``labels-40``, ``flipped-10-present-seed-1``."""
    parts = (
        f"flipped-{100 * noise.flip:g}" if noise.flip else "",
        noise.flip_which if noise.flip and noise.flip_which != "any" else "",
        "single-positive" if noise.single_positive else "",
        f"labels-{100 * noise.keep:g}" if noise.keep < 1 else "",
        "rest-negative" if noise.assume_negative else "",
        f"seed-{noise.seed}" if noise.seed else "",
    )
    return "-".join(filter(None, parts))


def with_known_labels(splits: Splits, known: KnownLabels) -> Splits:
    """Reveal some labels of each scored image to the head; these are not scored.

    Lanchantin et al., "General Multi-label Image Classification with Transformers", CVPR 2021.
    They are in ``known`` of the test split and the validation part, and unknown in the targets. The
    edition names the protocol (``coco-mini-known-25``).
    """
    if not known.share:
        return splits

    def tell(index: Index) -> Index:
        told_NC = _draws("known", index.keys, splits.names, known.seed) < known.share
        return replace(
            index,
            known=np.where(told_NC, index.targets, -1).astype(np.int8),
            targets=np.where(told_NC, -1, index.targets).astype(np.int8),
        )

    made = hashlib.sha256(f"{splits.digest} {known.model_dump_json()}".encode())
    seed = f"-seed-{known.seed}" if known.seed else ""
    return replace(
        splits,
        test=tell(splits.test),
        validation=None if splits.validation is None else tell(splits.validation),
        digest=made.hexdigest()[:16],
        identity=f"{splits.identity}-known-{100 * known.share:g}{seed}",
    )


def noisy_targets(index: Index, names: Sequence[str], noise: LabelNoise) -> Targets:
    """Make the noisy targets int8 [N, C]: labels are first flipped, then some are removed.

    ``flip`` inverts each known label of the kind ``flip_which`` with this probability. Beware of
    ``any``: where 3 of 80 labels are present, flipping 10 % keeps 2.7 and adds 7.7 wrong ones.

    ``keep`` keeps each label known with this probability, positives and negatives alike, as Durand,
    Mehrasa, Mori do ("Learning a Deep ConvNet for Multi-label Classification with Partial Labels",
    CVPR 2019). ``single_positive`` keeps one of an image's positives, drawn uniformly,
    and nothing else: Cole et al., "Multi-Label Learning from Single Positive Labels", CVPR 2021,
    section 3; with ``assume_negative`` it is their L_AN, section 4. An image without a positive
    then has no known label. Unknown labels stay unknown.
    """
    targets_NC = np.empty_like(index.targets)
    size = max(1, _CELLS // max(len(names), 1))
    for rows in (slice(start, start + size) for start in range(0, len(index), size)):
        before_BC, keys = index.targets[rows], index.keys[rows]
        after_BC = before_BC.copy()
        if noise.flip:
            kinds = {"any": before_BC >= 0, "present": before_BC == 1, "absent": before_BC == 0}
            draws_BC = _draws("flip", keys, names, noise.seed)
            np.subtract(
                1, before_BC, out=after_BC, where=kinds[noise.flip_which] & (draws_BC < noise.flip)
            )
        if noise.keep < 1 or noise.single_positive:
            draws_BC = _draws("keep", keys, names, noise.seed)
            kept_BC = draws_BC < noise.keep
            if noise.single_positive:  # the positive with the lowest draw, if there is one
                lowest_B = np.where(after_BC == 1, draws_BC, np.inf).argmin(axis=1)
                kept_BC = (np.arange(len(names)) == lowest_B[:, None]) & (after_BC == 1)
            after_BC[~kept_BC & (before_BC >= 0)] = 0 if noise.assume_negative else -1
        targets_NC[rows] = after_BC
    return targets_NC


def _draws(purpose: str, keys: Sequence[str], names: Sequence[str], seed: int) -> Draws:
    """Numbers in [0, 1), float64 [B, C], from purpose, seed, key and name alone.

    The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) mixes the hashes of key and name.
    """
    keys_B = _hashes(f"{purpose} {seed} image", keys)
    names_C = _hashes(f"{purpose} {seed} label", names)
    x_BC = keys_B[:, None] ^ names_C
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x_BC ^= x_BC >> np.uint64(shift)
        x_BC *= np.uint64(factor)
    x_BC ^= x_BC >> np.uint64(31)
    return (x_BC >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hashes(prefix: str, texts: Sequence[str]) -> NDArray[np.uint64]:
    hashed = b"".join(hashlib.sha256(f"{prefix} {text}".encode()).digest()[:8] for text in texts)
    return np.frombuffer(hashed, dtype="<u8").astype(np.uint64)
