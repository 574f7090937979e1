"""The protocols with their definitions; benchmarks/README.md shows the same table."""

from __future__ import annotations

import math
from functools import partial

from mlbench.metrics import measures
from mlbench.metrics.average_precision import (
    average_precision,
    eleven_point_average_precision,
    interpolated_average_precision,
)
from mlbench.metrics.measurement import Protocol
from mlbench.metrics.thresholds import HALF

ASL_THRESHOLD = math.log(0.8 / 0.2)
ML_DECODER_THRESHOLD = math.log(0.75 / 0.25)
"""Logits of probabilities. Their authors count what lies above, we what reaches them; the two only
differ for a logit that is that number to its last bit."""

CATALOGUE = (
    Protocol(
        "canonical",
        "canonical",
        "What boards show: mAP as in ap, P/R/F1 as in prf-0.5 and prf-top3; the record has the "
        "bootstrap interval besides.",
        "mlbench",
        measures.canonical,
    ),
    Protocol(
        "ap",
        "AP",
        "Mean over a class's positives of the precision among all images that score at least as "
        "high; mAP is its mean over the classes (those without a positive left out).",
        "ML-GCN (CVPR 2019), MSRN, ASL (ICCV 2021), ML-Decoder, CSRA (ICCV 2021); "
        "sklearn.metrics.average_precision_score",
        partial(measures.ap, average_precision),
    ),
    Protocol(
        "ap-interpolated",
        "AP",
        "As ap, with the precision at each positive raised to the highest at any lower score "
        "(all-point interpolation).",
        "PASCAL VOC 2010 and later; SSGRL (ICCV 2019), Query2Label",
        partial(measures.ap, interpolated_average_precision),
    ),
    Protocol(
        "ap-11-point",
        "AP",
        "Mean of the highest precision at a recall of at least 0, 0.1, ..., 1; mAP as in ap.",
        "PASCAL VOC 2007 (Everingham et al., IJCV 2010, section 4.2)",
        partial(measures.ap, eleven_point_average_precision),
    ),
    Protocol(
        "prf-0.5",
        "P/R/F1",
        "Precision, recall and F1 of the labels with probability 0.5 or more: CP and CR are means "
        "over classes (those without a positive left out), CF1 the F1 of the two, CF1_mean the "
        "mean of the classes' F1; OP, OR and OF1 are of the counts over all classes.",
        "ML-GCN (CVPR 2019), MSRN, CSRA",
        partial(measures.fixed, HALF, None),
    ),
    Protocol(
        "prf-0.8",
        "P/R/F1",
        "As prf-0.5 at probability 0.8; the CF1 of its source is CF1_mean.",
        "ASL (ICCV 2021)",
        partial(measures.fixed, ASL_THRESHOLD, None),
    ),
    Protocol(
        "prf-0.75",
        "P/R/F1",
        "As prf-0.5 at probability 0.75; the CF1 of its source is CF1_mean.",
        "ML-Decoder (WACV 2023)",
        partial(measures.fixed, ML_DECODER_THRESHOLD, None),
    ),
    Protocol(
        "prf-top3",
        "P/R/F1",
        "As prf-0.5, where at most the three highest labels of an image are predicted; of equal "
        "ones the first.",
        "ML-GCN (CVPR 2019)",
        partial(measures.fixed, HALF, 3),
    ),
    Protocol(
        "prf-top3-any",
        "P/R/F1",
        "As prf-top3 without the threshold: the three highest labels of every image are predicted.",
        "Gong et al. (ICLR 2014), CNN-RNN (CVPR 2016)",
        partial(measures.fixed, -math.inf, 3),
    ),
    Protocol(
        "prf-validation",
        "P/R/F1",
        "As prf-0.5 at the one threshold with the highest OF1 on validation images.",
        "mlbench",
        measures.on_validation,
    ),
    Protocol(
        "prf-validation-by-class",
        "P/R/F1",
        "As prf-0.5 at a threshold per class, with its highest F1 on validation images; 0.5 for "
        "thresholds_not_found classes without a positive there.",
        "mlbench",
        measures.on_validation_by_class,
    ),
    Protocol(
        "prf-oracle",
        "P/R/F1",
        "As prf-0.5 at whichever of the logits -1, -0.9, ..., 0.9 gives the highest CF1 + OF1 on "
        "the scored images themselves; of equal ones the lowest.",
        "MSRN (arXiv 2106.11596)",
        measures.oracle,
        oracle=True,
    ),
    Protocol(
        "auc",
        "AUC",
        "How often a positive scores above a negative, equal scores half: within a class, averaged "
        "over classes that have both (macro), and over all entries together (micro).",
        "Hanley and McNeil (Radiology 1982); sklearn.metrics.roc_auc_score",
        measures.auc,
    ),
    Protocol(
        "prf-by-image",
        "image",
        "Precision and recall at probability 0.5 within an image, averaged over images with a "
        "label (IP, IR); IF1 is the F1 of the two means, IF1_mean the mean of the images' F1.",
        "Prokofiev and Sovrasov (arXiv 2209.06585), whose code prints the three first as CP CR CF1",
        measures.by_image,
    ),
    Protocol(
        "label-ranking",
        "image",
        "Means over images: LRAP, the fraction of present labels among those that score at least "
        "as high as one; coverage_error, how many labels down the ranking the last present one is "
        "(in labels); ranking_loss, the fraction of pairs of a present and an absent label that "
        "are not in order.",
        "Schapire and Singer (2000), Tsoumakas et al. (2010), reported by MSRN; "
        "sklearn.metrics.label_ranking_average_precision_score, coverage_error, label_ranking_loss",
        measures.label_ranking,
    ),
    Protocol(
        "hamming",
        "image",
        "Fraction of all known entries that are wrong at probability 0.5.",
        "Schapire and Singer (2000); sklearn.metrics.hamming_loss",
        measures.hamming,
    ),
    Protocol(
        "calibration",
        "calibration",
        "Expected calibration error: the mean distance of the fraction of positives from the mean "
        "probability over 15 bins of equal width, weighted by entries; per label, averaged over "
        "labels (ECE), and of all entries together (ECE_pooled), with its reliability diagram.",
        "Naeini et al. (AAAI 2015), Guo et al. (ICML 2017)",
        measures.calibration,
    ),
    Protocol(
        "groups",
        "groups",
        "mAP as in ap of the labels with more than 100 (head), 20 to 100 (middle) and fewer than "
        "20 (tail) training positives.",
        "Wu et al. (ECCV 2020)",
        measures.training_groups,
    ),
    Protocol(
        "groups-by-thirds",
        "groups",
        "mAP as in ap of the most frequent third of the labels (head), the next and the rarest, by "
        "positives among the scored images; equally frequent labels share a group.",
        "mlbench",
        measures.thirds,
    ),
    Protocol(
        "partners",
        "partners",
        "AP, AUC, recall and accuracy at 0.5 of a label on images with and without its usual "
        "partner, the label most often present beside it among the scored images; means over "
        "labels that have positives and negatives both with and without.",
        "mlbench, after Singh et al. (CVPR 2020)",
        measures.partners,
    ),
)
"""Every protocol, in the order in which it is shown."""
