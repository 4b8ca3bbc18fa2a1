"""How good a mask or a class is: figures per image and per set, with intervals and paired tests (floor 1).

What the masks' figures are worth when a mask is empty:

=============  =============  ==============  ===========  ==========  ======================
prediction     truth          Dice, Jaccard   sensitivity  precision   distances
=============  =============  ==============  ===========  ==========  ======================
empty          empty          1               1            1           0
empty          not empty      0               0            0           diagonal of the image
not empty      empty          0               0            0           diagonal of the image
not empty      not empty      as defined      as defined   as defined  as defined
=============  =============  ==============  ===========  ==========  ======================

So a missed lung always counts against a model, and no figure is ever left out of a mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr_tutorial.errors import InputError

Mask = NDArray[np.bool_]


class Surface(NamedTuple):
    """Distances between two outlines, in the unit of the spacing."""

    hd: float
    hd95: float
    assd: float


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    r"""Dice score of two masks, $\frac{2\,TP}{2\,TP+FP+FN}$.

    >>> dice([[True, True, False]], [[True, False, False]])
    0.6666666666666666
    """
    tp, fp, fn = _counts(prediction, truth)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def jaccard(prediction: ArrayLike, truth: ArrayLike) -> float:
    r"""Jaccard index of two masks, $\frac{TP}{TP+FP+FN}$; from Dice D it is $D/(2-D)$.

    >>> jaccard([[True, True, False]], [[True, False, False]])
    0.5
    """
    tp, fp, fn = _counts(prediction, truth)
    return _ratio(tp, tp + fp + fn)


def sensitivity(prediction: ArrayLike, truth: ArrayLike) -> float:
    r"""The part of the true mask that was found, $\frac{TP}{TP+FN}$.

    >>> sensitivity([[True, True, False]], [[True, False, False]])
    1.0
    """
    tp, fp, fn = _counts(prediction, truth)
    return _ratio(tp, tp + fn) if tp + fn else float(fp == 0)


def precision(prediction: ArrayLike, truth: ArrayLike) -> float:
    r"""The part of the predicted mask that is true, $\frac{TP}{TP+FP}$.

    >>> precision([[True, True, False]], [[True, False, False]])
    0.5
    """
    tp, fp, fn = _counts(prediction, truth)
    return _ratio(tp, tp + fp) if tp + fp else float(fn == 0)


def surface_distances(prediction: ArrayLike, truth: ArrayLike, spacing: tuple[float, float] = (1.0, 1.0)) -> Surface:
    r"""Distances between the outlines of two masks.

    For every edge pixel of one mask take the distance to the nearest edge pixel of the other: $d_{PG}$ one
    way, $d_{GP}$ the other.

    $$HD=\max(\max d_{PG},\max d_{GP}),\quad HD_{95}=\max(q_{95}\,d_{PG},q_{95}\,d_{GP}),\quad
    ASSD=\frac{\sum d_{PG}+\sum d_{GP}}{|d_{PG}|+|d_{GP}|}$$

    Parameters
    ----------
    prediction, truth : (H, W) masks.
    spacing : (row, column) size of a pixel, in millimetres or any unit; the distances come in the same.

    Returns
    -------
    `hd`, `hd95` and `assd`; 0 if both masks are empty, the image's diagonal if one is.

    Notes
    -----
    The distances are MONAI's. Introduced in chapter 1.

    >>> a, b = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    >>> a[2:5, 2:5], b[2:5, 4:7] = True, True
    >>> surface_distances(a, b, spacing=(1.0, 0.5)).hd
    1.0
    """
    p, g = _masks(prediction, truth)
    if np.shape(spacing) != (2,) or not all(0 < step < np.inf for step in spacing):
        raise InputError(f"spacing is {spacing}: expected the row and column size of a pixel, two numbers above 0")
    if not p.any() or not g.any():
        missed = float(np.hypot(p.shape[0] * spacing[0], p.shape[1] * spacing[1])) if p.any() != g.any() else 0.0
        return Surface(missed, missed, missed)
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about its own arguments
        found: Any = get_edge_surface_distance(
            torch.from_numpy(p), torch.from_numpy(g), spacing=list(spacing), symmetric=True
        )
    to_truth, to_prediction = found[1]
    both = torch.cat([to_truth, to_prediction])
    q95 = max(float(torch.quantile(d.double(), 0.95)) for d in (to_truth, to_prediction))
    return Surface(float(both.max()), q95, float(both.mean()))


def segmentation_metrics(
    prediction: ArrayLike, truth: ArrayLike, spacing: tuple[float, float] = (1.0, 1.0)
) -> dict[str, float]:
    """Every figure of a predicted mask: dice, jaccard, sensitivity, precision, hd, hd95, assd.

    >>> list(segmentation_metrics([[True]], [[True]]))
    ['dice', 'jaccard', 'sensitivity', 'precision', 'hd', 'hd95', 'assd']
    """
    overlap = {f.__name__: f(prediction, truth) for f in (dice, jaccard, sensitivity, precision)}
    return overlap | surface_distances(prediction, truth, spacing)._asdict()


def auc(labels: Sequence[int], scores: ArrayLike) -> float:
    r"""Area under the ROC curve: the chance that a picture with a finding scores above one without; a tie is half.

    $$AUC = \frac{R_1 - n_1(n_1+1)/2}{n_0\,n_1}$$

    with $R_1$ the sum of the ranks of the $n_1$ scores with a finding (Mann and Whitney's $U$). NaN if only one class
    is there, because then no such pair exists.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    from scipy.stats import rankdata

    z, s = _classes(labels, scores)
    ill, well = int(np.sum(z == 1)), int(np.sum(z == 0))
    above = rankdata(s)[z == 1].sum() - ill * (ill + 1) / 2
    return float(above / (ill * well)) if ill and well else float("nan")


def balanced_accuracy(labels: Sequence[int], scores: ArrayLike, threshold: float = 0.5) -> float:
    """Mean of sensitivity and specificity at a fixed threshold; .5 is chance whatever the classes' shares.

    NaN if only one class is there, because then one of the two is not defined.

    >>> balanced_accuracy([0, 0, 0, 1], [0.1, 0.2, 0.9, 0.8])
    0.8333333333333333
    """
    z, s = _classes(labels, scores)
    called = s >= threshold
    if len(np.unique(z)) < 2:
        return float("nan")
    return float(np.mean([np.mean(called[z == k] == bool(k)) for k in (0, 1)]))


def calibration_error(labels: Sequence[int], probabilities: ArrayLike, bins: int = 10) -> float:
    r"""Expected calibration error, $\sum_b \frac{n_b}{n}\,|\bar z_b-\bar p_b|$ over equal bins of $p$.

    >>> round(calibration_error([1, 1, 0, 0], [0.9, 0.9, 0.1, 0.1]), 3)
    0.1
    """
    z, p = _classes(labels, probabilities)
    if bins < 1 or p.min() < 0 or p.max() > 1:
        raise InputError(
            f"calibration needs probabilities in [0, 1] and bins >= 1, got {p.min()} ... {p.max()}, {bins}"
        )
    place = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs(z[place == b].mean() - p[place == b].mean()) * np.mean(place == b) for b in np.unique(place)))


def bootstrap_ci(
    values: ArrayLike, *, level: float = 0.95, seed: int = 0, n_resamples: int = 2000
) -> tuple[float, float]:
    """Interval of the mean, by resampling the values (percentile bootstrap); the same for the same seed.

    >>> low, high = bootstrap_ci([0.9, 0.95, 0.97, 0.98])
    >>> bool(0.9 <= low < 0.95 < high <= 0.98)
    True
    """
    v = np.asarray(values, dtype=float).ravel()
    if not len(v) or not 0 < level < 1 or not np.isfinite(v).all():
        raise InputError(
            f"a bootstrap interval needs finite values and a level in (0, 1), got {len(v)} values, {level}"
        )
    draws = np.random.default_rng(seed).integers(0, len(v), (n_resamples, len(v)))
    low, high = np.quantile(v[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Result of `paired_wilcoxon`: p-value, median of a - b, number of pairs."""

    p: float
    median_difference: float
    n: int


def paired_wilcoxon(a: ArrayLike, b: ArrayLike) -> PairedTest:
    """Wilcoxon's signed-rank test of paired figures, such as two models' Dice on the same pictures.

    Pairs that are all equal give p = 1.

    >>> paired_wilcoxon([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]).p
    1.0
    """
    from scipy.stats import wilcoxon

    x, y = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    if x.shape != y.shape or not len(x) or not np.isfinite(x - y).all():
        raise InputError(f"a paired test needs equally many finite figures, got {len(x)} and {len(y)}")
    p = float(wilcoxon(x, y).pvalue) if (x != y).any() else 1.0
    return PairedTest(p, float(np.median(x - y)), len(x))


def _masks(prediction: ArrayLike, truth: ArrayLike) -> tuple[Mask, Mask]:
    p, g = np.asarray(prediction), np.asarray(truth)
    if p.dtype != bool or g.dtype != bool or p.ndim != 2 or p.shape != g.shape:
        raise InputError(
            f"expected two bool masks (H, W) of one size, got {p.dtype} {p.shape} and {g.dtype} {g.shape}: cut "
            "probabilities with `> 0.5`, logits with `> 0`, and give one picture and one mask of it at a time"
        )
    return np.ascontiguousarray(p), np.ascontiguousarray(g)


def _counts(prediction: ArrayLike, truth: ArrayLike) -> tuple[int, int, int]:
    p, g = _masks(prediction, truth)
    return int((p & g).sum()), int((p & ~g).sum()), int((~p & g).sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 1.0


def _classes(labels: Sequence[int], scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    z, s = np.asarray(labels), np.asarray(scores, dtype=float)
    if z.shape != s.shape or z.ndim != 1 or not len(z) or not np.isin(z, (0, 1)).all() or not np.isfinite(s).all():
        raise InputError(f"expected equally many labels (0 or 1) and finite scores, got {z.shape} and {s.shape}")
    return z.astype(np.int64), s
