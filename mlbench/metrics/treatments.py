"""How the literature differs on entries that are unknown and on classes that never occur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from mlbench.metrics.measurement import Absent, Case, Labelled, Treatment
from mlbench.types import Targets


def _settle(case: Case, value: int) -> Case:
    """The case with every unknown entry known, in validation likewise."""

    def known(targets: Targets) -> Targets:
        return np.where(targets < 0, value, targets).astype(np.int8)

    pair = case.validation
    return replace(
        case,
        targets=known(case.targets),
        validation=None if pair is None else Labelled(pair.logits, known(pair.targets)),
    )


def _absent(case: Case, rule: Absent) -> Case:
    return replace(case, absent=rule)


ALL = (
    Treatment(
        "difficult-negative",
        "difficult",
        "Unknown entries (VOC's difficult objects) count as absent.",
        "SSGRL, C-Tran (all numbers); ML-GCN, MSRN, ADD-GCN (P/R/F1)",
        lambda case: _settle(case, 0),
    ),
    Treatment(
        "difficult-positive",
        "difficult",
        "Unknown entries (VOC's difficult objects) count as present.",
        "Prokofiev and Sovrasov (arXiv 2209.06585), whose VOC labels hold them so",
        lambda case: _settle(case, 1),
    ),
    Treatment(
        "absent-zero",
        "absent",
        "Classes without a positive are not left out but count as 0 in means over classes.",
        "ASL, Prokofiev and Sovrasov (AP)",
        lambda case: _absent(case, "zero"),
        ("AP", "P/R/F1"),
    ),
    Treatment(
        "absent-refused",
        "absent",
        "Not defined where some class has no positive.",
        "ML-GCN, CSRA and SSGRL (AP), whose code divides by zero there",
        lambda case: _absent(case, "refused"),
        ("AP", "P/R/F1"),
    ),
)
"""Every treatment; the default is to let unknown entries count nowhere and to leave out classes."""

USERS: Mapping[str, str] = MappingProxyType(
    {
        "ap+difficult-negative": "C-Tran (CVPR 2021), where every class has a positive",
        "ap+difficult-positive": "Prokofiev and Sovrasov (arXiv 2209.06585), where every class has "
        "a positive",
        "ap+absent-zero": "ASL (ICCV 2021), where nothing is unknown",
        "ap+difficult-positive+absent-zero": "Prokofiev and Sovrasov (arXiv 2209.06585)",
        "ap+absent-refused": "ML-GCN (CVPR 2019), CSRA (ICCV 2021)",
        "ap-interpolated+difficult-negative": "SSGRL (ICCV 2019), where every class has a positive",
        "ap-interpolated+difficult-negative+absent-refused": "SSGRL (ICCV 2019)",
        "prf-0.5+difficult-negative": "ML-GCN (CVPR 2019), ADD-GCN (ECCV 2020), SSGRL (ICCV 2019), "
        "C-Tran (CVPR 2021)",
        "prf-top3+difficult-negative": "ML-GCN (CVPR 2019)",
        "prf-oracle+difficult-negative": "MSRN (arXiv 2106.11596)",
        "prf-by-image+difficult-positive": "Prokofiev and Sovrasov (arXiv 2209.06585)",
    }
)
"""Protocol with its treatments, difficult before absent -> whose code takes exactly these."""
