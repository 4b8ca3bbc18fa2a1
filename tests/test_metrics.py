"""The figures against MONAI, scikit-learn, scipy and brute force, and their value where something is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance, compute_iou
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, precision_score, recall_score, roc_auc_score

from cxr_tutorial.errors import InputError
from cxr_tutorial.metrics import (
    auc,
    balanced_accuracy,
    bootstrap_ci,
    calibration_error,
    dice,
    jaccard,
    paired_wilcoxon,
    precision,
    segmentation_metrics,
    sensitivity,
    surface_distances,
)

Mask = NDArray[np.bool_]
EMPTY = np.zeros((30, 40), bool)
FULL = np.ones((30, 40), bool)
DIAGONAL = math.hypot(30 * 0.5, 40 * 0.25)
monai_warnings = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def lungs(height: int = 60, width: int = 80, shift: tuple[int, int] = (0, 0), ragged: float = 0.0) -> Mask:
    rows, columns = np.mgrid[:height, :width]
    y, x = (rows - shift[0]) / height - 0.5, (columns - shift[1]) / width
    mask = np.minimum(y**2 / 0.12 + (x - 0.28) ** 2 / 0.02, y**2 / 0.1 + (x - 0.72) ** 2 / 0.02) < 1
    return mask ^ (np.random.default_rng(0).random(mask.shape) < ragged)


PAIRS = {
    "shifted": (lungs(shift=(3, -2)), lungs()),
    "ragged": (lungs(ragged=0.02), lungs()),
    "apart": (lungs() & (np.arange(80) < 40), lungs() & (np.arange(80) >= 40)),
    "one pixel": (np.arange(4800).reshape(60, 80) == 2000, lungs()),
    "at the border": (lungs(shift=(-20, 30)), lungs(shift=(20, 10))),
    "random": (np.random.default_rng(1).random((60, 80)) < 0.3, np.random.default_rng(2).random((60, 80)) < 0.6),
}
pairs = pytest.mark.parametrize(("prediction", "truth"), PAIRS.values(), ids=PAIRS.keys())


def outline(mask: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """The mask's pixels that touch, by a side, a pixel outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside) * np.array(spacing)


def brute_force(prediction: Mask, truth: Mask, spacing: tuple[float, float]) -> tuple[float, float, float]:
    p, g = outline(prediction, spacing), outline(truth, spacing)
    distances = np.linalg.norm(p[:, None] - g[None], axis=-1)
    to_truth, to_prediction = distances.min(1), distances.min(0)
    both = np.concatenate([to_truth, to_prediction])
    q95 = max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))
    return both.max(), q95, both.mean()


@pairs
def test_overlap_is_that_of_the_peers(prediction, truth):
    p, g = prediction.ravel(), truth.ravel()
    one_hot = [torch.from_numpy(m)[None, None].float() for m in (prediction, truth)]
    assert dice(prediction, truth) == pytest.approx(compute_dice(*one_hot).item(), abs=1e-6)
    assert jaccard(prediction, truth) == pytest.approx(compute_iou(*one_hot).item(), abs=1e-6)
    assert sensitivity(prediction, truth) == pytest.approx(recall_score(g, p))
    assert precision(prediction, truth) == pytest.approx(precision_score(g, p, zero_division=0))


@pairs
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.175, 0.175), (2.0, 0.5)])
def test_surface_distances_are_those_of_brute_force(prediction, truth, spacing):
    assert surface_distances(prediction, truth, spacing) == pytest.approx(brute_force(prediction, truth, spacing))


@monai_warnings
@pairs
def test_surface_distances_are_those_of_monai(prediction, truth):
    spacing = (2.0, 0.5)
    one_hot = [torch.from_numpy(m)[None, None] for m in (prediction, truth)]
    options = {"include_background": True, "spacing": list(spacing)}
    expected = (
        compute_hausdorff_distance(*one_hot, **options).item(),
        compute_hausdorff_distance(*one_hot, percentile=95, **options).item(),
        compute_average_surface_distance(*one_hot, symmetric=True, **options).item(),
    )
    assert surface_distances(prediction, truth, spacing) == pytest.approx(expected, rel=1e-5)  # float32 quantiles


def test_distances_by_hand_in_millimetres():
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[3, 4], b[6, 8] = True, True  # 3 rows and 4 columns apart
    assert surface_distances(a, b) == pytest.approx((5, 5, 5))
    assert surface_distances(a, b, (0.2, 0.1)).hd == pytest.approx(math.hypot(0.6, 0.4))
    assert surface_distances(a, b, (0.1, 0.2)).hd == pytest.approx(math.hypot(0.3, 0.8))


def test_hd95_forgives_a_stray_pixel_and_hd_does_not():
    truth = lungs()
    stray = truth.copy()
    stray[0, 0] = True
    distances = surface_distances(stray, truth)
    assert distances.hd > 10
    assert distances.hd95 == 0


@pytest.mark.parametrize(
    ("prediction", "truth", "share", "distance"),
    [(EMPTY, EMPTY, 1.0, 0.0), (EMPTY, FULL, 0.0, DIAGONAL), (FULL, EMPTY, 0.0, DIAGONAL), (FULL, FULL, 1.0, 0.0)],
    ids=["both empty", "missed", "false alarm", "both full"],
)
def test_the_table_of_empty_masks(prediction, truth, share, distance):
    figures = segmentation_metrics(prediction, truth, (0.5, 0.25))
    assert [figures[name] for name in ("dice", "jaccard", "sensitivity", "precision")] == [share] * 4
    assert [figures[name] for name in ("hd", "hd95", "assd")] == pytest.approx([distance] * 3)


def test_no_distance_is_worse_than_a_miss():
    a, b = EMPTY.copy(), EMPTY.copy()
    a[0, 0], b[-1, -1] = True, True
    assert surface_distances(a, b, (0.5, 0.25)).hd <= DIAGONAL


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_properties_of_every_pair(seed, shape, shares):
    generator = np.random.default_rng(seed)
    p, g = (generator.random(shape) < share for share in shares)
    one, other, same = segmentation_metrics(p, g), segmentation_metrics(g, p), segmentation_metrics(p, p)
    for name in ("dice", "jaccard", "hd", "hd95", "assd"):
        assert one[name] == pytest.approx(other[name], abs=1e-5)
    assert one["sensitivity"] == other["precision"]
    assert one["jaccard"] == pytest.approx(one["dice"] / (2 - one["dice"]))
    assert 0 <= one["jaccard"] <= one["dice"] <= 1
    assert 0 <= one["hd95"] <= one["hd"] <= math.hypot(*shape)
    assert one["assd"] <= one["hd"] + 1e-6
    assert list(same.values()) == [1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("figure", [dice, jaccard, sensitivity, precision, surface_distances, segmentation_metrics])
@pytest.mark.parametrize(
    ("prediction", "truth"),
    [(EMPTY, EMPTY[:-1]), (EMPTY.astype(float), EMPTY), (EMPTY, EMPTY.astype(np.uint8)), (EMPTY[None], EMPTY[None])],
    ids=["sizes", "probabilities", "bytes", "axes"],
)
def test_bad_masks_are_refused(figure, prediction, truth):
    with pytest.raises(InputError, match="two bool masks"):
        figure(prediction, truth)


@pytest.mark.parametrize("spacing", [(0, 1), (-0.1, 0.1), (float("nan"), 1), (1, 1, 1)])
def test_bad_spacing_is_refused(spacing):
    with pytest.raises(InputError, match="size of a pixel"):
        surface_distances(FULL, FULL, spacing)


@pytest.fixture
def classified() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    scores = np.clip(0.3 * labels + 0.7 * generator.random(300), 0, 1).round(2)  # rounded: ties
    return labels, scores


def test_class_figures_are_those_of_scikit_learn(classified):
    labels, scores = classified
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    for threshold in (0.3, 0.5):
        expected = balanced_accuracy_score(labels, scores >= threshold)
        assert balanced_accuracy(labels, scores, threshold) == pytest.approx(expected)


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_calibration_error_is_that_of_the_reliability_curve(classified, bins):
    labels, scores = classified
    scores = np.clip(scores + 0.0031, 0, 0.9999)  # off the edges, where scikit-learn bins to the other side
    observed, stated = calibration_curve(labels, scores, n_bins=bins)
    counts = np.histogram(scores, np.linspace(0, 1, bins + 1))[0]
    expected = np.sum(counts[counts > 0] / len(labels) * np.abs(observed - stated))
    assert calibration_error(labels, scores, bins) == pytest.approx(expected)


def test_calibration_error_by_hand():
    assert calibration_error([1, 1, 1, 0], [0.75] * 4) == pytest.approx(0)
    assert calibration_error([0, 0], [1.0, 1.0]) == pytest.approx(1)
    assert calibration_error([1, 0], [0.8, 0.4]) == pytest.approx(0.5 * 0.2 + 0.5 * 0.4)


@pytest.mark.parametrize("figure", [auc, balanced_accuracy])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_figure(figure, label):
    assert math.isnan(figure([label] * 3, [0.1, 0.6, 0.9]))


@pytest.mark.parametrize("figure", [auc, balanced_accuracy, calibration_error])
@pytest.mark.parametrize(
    ("labels", "scores"),
    [([0, 1], [0.1]), ([0, 2], [0.1, 0.2]), ([0, -1], [0.1, 0.2]), ([], []), ([0, 1], [0.1, float("nan")])],
)
def test_bad_labels_and_scores_are_refused(figure, labels, scores):
    with pytest.raises(InputError, match="labels"):
        figure(labels, scores)


def test_calibration_wants_probabilities():
    with pytest.raises(InputError, match="probabilities"):
        calibration_error([0, 1], [-2.0, 3.0])


def test_bootstrap_interval_is_that_of_scipy():
    values = np.random.default_rng(3).beta(30, 2, 60)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000).confidence_interval
    assert bootstrap_ci(values, n_resamples=20_000) == pytest.approx(tuple(expected), abs=1e-3)


def test_bootstrap_interval_is_repeatable_and_widens_with_the_level():
    values = np.random.default_rng(3).beta(30, 2, 60)
    assert bootstrap_ci(values, seed=1) == bootstrap_ci(values, seed=1) != bootstrap_ci(values, seed=2)
    (low, high), (lower, higher) = bootstrap_ci(values, level=0.5), bootstrap_ci(values, level=0.99)
    assert lower < low < values.mean() < high < higher
    assert bootstrap_ci([0.9, 0.9, 0.9]) == pytest.approx((0.9, 0.9))


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    draws = generator.beta(30, 2, (400, 50))
    hits = [low <= 30 / 32 <= high for low, high in (bootstrap_ci(v, level=0.9, n_resamples=500) for v in draws)]
    assert 0.84 <= np.mean(hits) <= 0.95


@pytest.mark.parametrize(
    ("values", "level"), [([], 0.95), ([0.9, float("nan")], 0.95), ([0.9, 0.8], 95), ([0.9, 0.8], 0)]
)
def test_bootstrap_refuses_what_has_no_interval(values, level):
    with pytest.raises(InputError, match="bootstrap"):
        bootstrap_ci(values, level=level)


def test_paired_wilcoxon_is_that_of_scipy():
    a = np.random.default_rng(3).beta(30, 2, 60)
    b = a - np.random.default_rng(4).normal(0.003, 0.01, 60)
    b[:5] = a[:5]  # equal pairs carry no sign
    result = paired_wilcoxon(a, b)
    assert result.p == pytest.approx(wilcoxon(a, b).pvalue)
    assert result.median_difference == pytest.approx(np.median(a - b))
    assert result.n == 60
    assert paired_wilcoxon(b, a).median_difference == -result.median_difference


def test_paired_wilcoxon_by_hand():
    """Five pairs, all of one sign: two of the 2^5 sign patterns are as extreme."""
    assert paired_wilcoxon([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]).p == pytest.approx(2 / 32)
    assert paired_wilcoxon([0.9] * 4, [0.9] * 4).p == 1


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, float("nan")], [1.0, 2.0])])
def test_paired_wilcoxon_refuses_what_is_not_paired(a, b):
    with pytest.raises(InputError, match="paired"):
        paired_wilcoxon(a, b)


def test_distances_of_a_mirrored_view_are_those_of_its_copy():
    a, b = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    a[2:5, 2:5], b[2:5, 4:7] = True, True
    assert surface_distances(a[:, ::-1], b) == surface_distances(a[:, ::-1].copy(), b)


def test_a_spacing_of_one_number_is_refused():
    with pytest.raises(InputError, match=r"spacing is 0\.5: expected the row and column size"):
        surface_distances(np.ones((4, 4), bool), np.ones((4, 4), bool), spacing=0.5)
