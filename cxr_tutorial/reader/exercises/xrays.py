"""Exercises of chapter 1, chest X-rays (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cxr_tutorial import metrics
from cxr_tutorial.reader.exercises.answers import Trouble, unfinished
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question


def _taken(halvings: float) -> float:
    return 1 - 0.5**halvings


_NODULE = Predict(
    "Rib or nodule?",
    {"nodule": _taken(7.5 / 35), "rib": _taken(4 / 12)},
    (
        Misconception(
            {"nodule": _taken(10 / 35)},
            "You gave the nodule 10 mm of new tissue. It replaces lung, and a quarter of that lung was tissue already.",
        ),
        Misconception(
            {"nodule": _taken(2.5 / 35)},
            "You counted the quarter of tissue that was there before. What the nodule adds is the other three "
            "quarters.",
        ),
        Misconception(
            {"nodule": 1 - _taken(7.5 / 35)}, "That is the share of the rays that passes. How much is taken?"
        ),
        Misconception(
            {"nodule": 7.5 * np.log(2) / 35},
            "That is the exponent, μd. The share that is taken is 1 - exp(-μd), a little less.",
        ),
    ),
    (
        "35 mm of tissue are one halving, 12 mm of bone are one halving. How many halvings are the nodule and the rib?",
        "The nodule adds only the tissue that was not there: three quarters of 10 mm.",
        "Behind h halvings a share of 0.5 ** h passes, so 1 - 0.5 ** h is taken: h = 7.5 / 35 and h = 4 / 12.",
    ),
    "The rib casts the deeper shadow, and a chest has many of them.",
)

_SHIFT = Predict(
    "How forgiving is Dice?",
    {"lung": 1 - 2 / 20, "vessel": 0.0},
    (
        Misconception(
            {"lung": 18 / 22},
            "That is Jaccard, the common part over everything. Dice divides by the mean of the two areas.",
        ),
        Misconception(
            {"lung": 1 - 4 / 20},
            "You took off the missed part and the invented part, each in full. Dice counts the common part twice "
            "instead: 2 · 18 / (20 + 20).",
        ),
        Misconception(
            {"lung": 1 - 2 / 40},
            "You divided the shift by both areas together. The numerator of Dice has a factor 2 as well: 2 · 18 / (20 "
            "+ 20).",
        ),
        Misconception(
            {"lung": 1 - 2 / 20, "vessel": 0.5},
            "The lung is right. Now shift two columns by two: which column do they still share?",
        ),
        Misconception(
            {"vessel": 1 - 2 / 20},
            "The same shift costs a thin structure far more: what counts is the shift over the width.",
        ),
    ),
    (
        "How many of the 20 columns do the strip and its shifted copy share?",
        "Dice is twice the common area over the sum of both areas.",
        "Per row: lung 2 · 18 / (20 + 20), vessel 2 · 0 / (2 + 2).",
    ),
    "What a shift costs is its size over the width of the organ, so Dice of different organs cannot be compared.",
)


_TRIED = np.linspace(0.05, 0.95, 19)


def _mean_dice(threshold: float, images: np.ndarray, masks: np.ndarray) -> float:
    return float(np.mean([metrics.dice(x < threshold, y) for x, y in zip(images, masks, strict=True)]))


def _best(score: Callable[[float, np.ndarray, np.ndarray], float]) -> Callable[..., float]:
    return lambda images, masks: float(max(_TRIED, key=lambda t: score(t, images, masks)))


def _exposures(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """Two pixels; a picture with air beside the patient; three pictures, of which the one with most lung is "
    "lightest."""
    jitter = 0.04 * torch.rand(5, generator=generator).numpy()
    yield {"images": np.array([[[0.12, 0.82]]]) + jitter[0], "masks": np.array([[[True, False]]])}
    image, masks = np.full((1, 10, 10), 0.72), np.zeros((4, 10, 10), bool)
    image[0, :3], image[0, 5], masks[0, 5] = 0.22, 0.52, True
    yield {"images": image + jitter[1], "masks": masks[:1]}
    masks[1, :, :8], masks[2, 0, :4], masks[3, 0, 2:5] = True, True, True
    lung, outside = np.array([0.72, 0.32, 0.32]), np.array([0.92, 0.62, 0.62])
    grey = np.where(masks[1:], lung[:, None, None], outside[:, None, None])
    yield {"images": grey + jitter[2:, None, None], "masks": masks[1:]}


def _score_of(function: Callable[..., Any], images: np.ndarray, masks: np.ndarray) -> dict[str, float] | None:
    threshold = function(images, masks)
    if unfinished(threshold):
        return None
    if np.ndim(threshold) or not 0 <= float(threshold) <= 1:
        raise Trouble("expected one threshold, a number between 0 and 1.")
    return {"mean Dice at your threshold": _mean_dice(float(threshold), images, masks)}


_THRESHOLD = Implement(
    "The dark-is-lung baseline",
    _best(_mean_dice),
    _exposures,
    (
        Misconception(
            _best(lambda t, x, y: float(np.mean((x < t) == y))),
            "You chose the threshold by accuracy. Where little is lung, calling nothing lung is accurate and useless: "
            "choose by Dice.",
        ),
        Misconception(
            _best(lambda t, x, y: metrics.dice((x < t).reshape(1, -1), y.reshape(1, -1))),
            "You took Dice over all pixels of all pictures at once, so that large lungs decide. Take Dice of each "
            "picture, then the mean.",
        ),
        Misconception(
            _best(lambda t, x, y: float(np.mean([metrics.dice(a >= t, b) for a, b in zip(x, y, strict=True)]))),
            "Your threshold calls the light pixels lung. Lungs are full of air and let the rays pass: they are dark, "
            "`image < t`.",
        ),
    ),
    (
        "`max(candidates, key=...)` finds the best of `np.linspace(0.05, 0.95, 19)`, if the key is the mean Dice at a "
        "threshold.",
        "The mean Dice at t: `np.mean([metrics.dice(x < t, y) for x, y in zip(images, masks)])`.",
        "`return max(np.linspace(0.05, 0.95, 19), key=lambda t: ...)` with that mean in place of the dots.",
    ),
    "Choosing on the training part and measuring on the test part is what makes the comparison below fair.",
    run=_score_of,
)


def _removals(answer: Any) -> str | None:
    if not isinstance(answer, Mapping):
        return "Give a dictionary: what you removed, in words, and the share of pictures whose hospital is still told."
    if len(answer) < 3:
        return "Try at least three ways of removing something, so that there is something to compare."
    try:
        shares = np.array([float(value) for value in answer.values()])
    except (TypeError, ValueError):
        return "Each entry needs one number, the share of pictures whose hospital is told rightly."
    if not ((shares >= 0) & (shares <= 1)).all():
        return "Shares lie between 0 and 1: divide percentages by 100."
    return None


_SHORTCUT = Extend(
    "How deep does the shortcut sit?",
    _removals,
    ([0.9, 0.8, 0.5], {"nothing": 0.9}, {"nothing": 95, "crop": 80, "both": 60}, {"a": "b", "c": "d", "e": "f"}),
    (
        "`told_from([frames(images) for images in sites.values()])` is the share with nothing removed.",
        "Cutting is slicing: `images[:, crop:-crop, crop:-crop]`. `standardize` wants a tensor of shape (N, 1, H, W).",
    ),
    "A hospital cannot be washed out of a picture; one can only test on hospitals that were not trained on.",
)

EXERCISES: tuple[Exercise, ...] = (_NODULE, _SHIFT, _THRESHOLD, _SHORTCUT)

QUIZ = (
    Question(
        "Why can no threshold on the grey value tell lung from the rest?",
        (
            (
                "The pictures are too noisy.",
                "No: noise blurs the two histograms a little, but they would overlap without any.",
            ),
            (
                "Air beside the patient is as dark as lung.",
                "Yes. And a rib over the lung is as light as the chest wall: a pixel is a sum of all that lies on its "
                "ray.",
            ),
            (
                "Grey values differ from picture to picture.",
                "They do, but even within one picture both histograms overlap.",
            ),
        ),
    ),
    Question(
        "A test set shares three patients with the training set, by other pictures of them. What happens?",
        (
            (
                "An error is raised.",
                "No. That is what makes it a trap: everything runs, and the figures look better than they are.",
            ),
            (
                "Nothing, since the pictures differ.",
                "The pictures differ, but the ribs, the heart and the habits of the hospital are the same.",
            ),
            ("The test asks in part for what was learnt by heart.", "Yes: patient leakage. Split by patient."),
        ),
    ),
    Question(
        "A mask has one stray pixel in the corner and is else perfect. Which measure tells you?",
        (
            ("The Hausdorff distance.", "Yes: it is the largest distance of all, so one pixel decides it."),
            ("Dice.", "One pixel among thousands changes Dice in the fourth decimal."),
            ("HD95.", "It leaves out the largest twentieth of the distances, and so the stray pixel as well."),
        ),
    ),
)
