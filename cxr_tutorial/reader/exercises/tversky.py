"""Exercises of chapter 2, the Tversky loss (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_tutorial.losses import tversky
from cxr_tutorial.reader.exercises.answers import value_and_gradient
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question


def _bill(fp: float, fn: float, fp_weight: float = 0.3, fn_weight: float = 0.7, lung: float = 100) -> float:
    return 1 - (lung - fn) / ((lung - fn) + fp_weight * fp + fn_weight * fn)


_BILL = Predict(
    "The bill",
    {"loss": _bill(40, 20), "worse": "miss" if _bill(40, 30) > _bill(70, 20) else "invent"},
    (
        Misconception(
            {"loss": 1 - _bill(40, 20)}, "That is the Tversky index, the good share. The loss is what is missing to 1."
        ),
        Misconception(
            {"loss": _bill(40, 20, 0.7, 0.3)},
            "The prices are swapped: `fp_weight` is for what was invented (40), `fn_weight` for what was missed (20).",
        ),
        Misconception(
            {"loss": _bill(40, 20, 0.5, 0.5)}, "That is the Dice loss: here the two mistakes have different prices."
        ),
        Misconception(
            {"loss": 1 - 100 / (100 + 0.3 * 40 + 0.7 * 20)},
            "The missed pixels are on the bill, but they have also left TP: of 100 lung pixels only 80 were found.",
        ),
        Misconception(
            {"loss": _bill(40, 20), "worse": "invent"},
            "Your loss is right. For the second part you probably compared 10 · 0.7 with 30 · 0.3. But a missed pixel "
            "costs "
            "twice: it is on the bill, and it is gone from TP.",
        ),
    ),
    (
        "Start with TP: how many of the 100 lung pixels were found?",
        "The bill is TP + 0.3 FP + 0.7 FN, and the loss is one minus TP over the bill.",
        "TP = 80 and the bill is 80 + 12 + 14. For the second part compute both new losses: TP changes in one of them "
        "only.",
    ),
    "A missed pixel is charged twice, which is why missing gets dearer the worse the mask is.",
)


def salehi(p: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha is the price of a false positive."""
    tp = (p * y).sum()
    return 1 - tp / (tp + alpha * (p * (1 - y)).sum() + beta * ((1 - p) * y).sum())


def swapped(p: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha is the price of a false negative."""
    return salehi(p, y, beta, alpha)


def _price_of_alpha(loss: Callable[..., Tensor]) -> str:
    y, invented_one = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    return "fp" if loss(invented_one, y, 0.0, 1.0) == 0 else "fn"


def _two_losses(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"loss": salehi}
    yield {"loss": swapped}


_LETTER = Implement(
    "Which letter is it?",
    _price_of_alpha,
    _two_losses,
    (
        Misconception(
            lambda loss: "fp",
            'Your function says "fp" whatever it is given: that is Salehi\'s convention, and others swap the letters. '
            "Ask the loss.",
        ),
        Misconception(
            lambda loss: "fn",
            'Your function says "fn" for both losses, so your test does not tell them apart. Are the two weights '
            "different, and "
            "is there exactly one kind of mistake in your prediction?",
        ),
        Misconception(
            lambda loss: "fn" if _price_of_alpha(loss) == "fp" else "fp",
            "Just the other way round. If the loss does not react to alpha, alpha is not the price of the mistake you "
            "made.",
        ),
    ),
    (
        "Two pixels are enough: one lung, one background. Make one mistake.",
        "Give the mistake to a loss with alpha = 0 and beta = 1. Whose price is gone?",
        "Predict lung in both pixels: the only mistake is a false positive. If the loss is 0, alpha was its price.",
    ),
    "An asymmetric test like this one is the only kind that can see swapped letters.",
)


def _focal(logits: Tensor, target: Tensor, gamma: float = 4 / 3) -> Tensor:
    return tversky(logits, target, reduction="none").clamp(min=1e-7).pow(1 / gamma).mean()


def _masks(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    for shape in ((1, 1, 1, 2), (2, 1, 2, 3), (3, 1, 8, 8)):
        target = (torch.rand(shape, generator=generator) < 0.5).float()
        target.view(shape[0], -1)[:, 0] = 1  # no empty mask
        yield {"logits": torch.randn(shape, generator=generator), "target": target}
    pair = torch.tensor([[[[9.0, -9.0]]], [[[-2.0, 2.0]]]])  # (2, 1, 1, 2): one good picture, one bad
    yield {"logits": pair, "target": torch.tensor([1.0, 0.0]).expand(2, 1, 1, 2)}
    yield {"logits": 200 * target - 100, "target": target}  # perfect


_FOCAL = Implement(
    "Focal Tversky",
    _focal,
    _masks,
    (
        Misconception(
            lambda s, y: tversky(s, y, reduction="none").pow(3 / 4).mean(),
            "The values are right, but on a perfect mask the gradient is NaN: the slope of the power is infinite at "
            "0, and infinity "
            "times zero is not a number. Keep the base of the power away from 0.",
        ),
        Misconception(
            lambda s, y: tversky(s, y, reduction="none").clamp(min=1e-7).pow(4 / 3).mean(),
            "The exponent is upside down: 1/γ, not γ.",
        ),
        Misconception(
            lambda s, y: tversky(s, y).clamp(min=1e-7).pow(3 / 4),
            "You raise the mean of the batch. The power belongs to each sample, so that a bad picture cannot hide "
            "behind a good one: "
            '`reduction="none"`, power, then mean.',
        ),
        Misconception(
            lambda s, y: (1 - (1 - tversky(s, y, reduction="none")).clamp(min=1e-7).pow(3 / 4)).mean(),
            "You raise the index TI. The power belongs to the loss, 1 - TI.",
        ),
    ),
    (
        '`losses.tversky(..., reduction="none")` gives one loss for each sample; the power comes next and the mean '
        "last.",
        "The slope of L^(1/γ) is (1/γ) L^(1/γ - 1). What is it at L = 0?",
        "`.clamp(min=1e-7)` before `.pow(1 / gamma)` keeps the slope finite.",
    ),
    "Users of the published code met that NaN in trainings that went well; a floor under the base cures it.",
    run=value_and_gradient,
)


def _curve(answer: Any) -> str | None:
    try:
        curve = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        return "Give an array or a list of pairs: precision and sensitivity at each threshold."
    if curve.ndim != 2 or curve.shape[1] != 2:
        return f"Expected the shape (thresholds, 2), got {curve.shape}: one row for each threshold."
    if np.isnan(curve).any():
        return "Some figures are NaN: a threshold at which nothing is called lung has no precision. Leave it out."
    if len(curve) < 5:
        return "A curve wants at least five thresholds."
    if curve.min() < 0 or curve.max() > 1:
        return "Precision and sensitivity are shares, between 0 and 1."
    found = curve[curve[:, 1] >= 0.8 * curve[:, 1].max()]  # where masks are not empty, whose precision counts as 0
    by_sensitivity = found[np.argsort(found[:, 1])]
    if by_sensitivity[0, 0] < by_sensitivity[-1, 0] - 0.05:
        return (
            "Where you find more lung you are also more often right, which is rare: do the pictures and masks belong "
            "together?"
        )
    if np.ptp(curve[:, 1]) < 0.01:
        return (
            "Sensitivity hardly moves with your thresholds: cut probabilities between 0 and 1, not logits or yes and "
            "no."
        )
    return None


_points = np.linspace(0.1, 0.9, 9)
_CURVE = Extend(
    "Prices or thresholds?",
    _curve,
    (
        np.stack([_points, 1 - _points]),
        100 * np.stack([_points, 1 - _points], 1),
        np.full((9, 2), 0.9),
    ),
    (
        '`fits["XE", 0].model(x_val).logits.sigmoid()` are the probabilities.',
        "For each threshold compare `p > t` with the mask of each picture, by `metrics.precision` and "
        "`metrics.sensitivity`.",
    ),
    "Now the question itself: do the three Tversky end points lie on your curve?",
)

EXERCISES: tuple[Exercise, ...] = (_BILL, _LETTER, _FOCAL, _CURVE)

QUIZ = (
    Question(
        "Your network misses the thin tips of the lungs. Which weight do you raise?",
        (
            ("`fp_weight`", "That makes invented lung dearer, and the mask would shrink further."),
            (
                "`fn_weight`",
                "Yes: missing lung gets dearer, and the outline moves out wherever the network is in doubt.",
            ),
            (
                "Both by the same factor.",
                "Then the exchange rate between the mistakes stays almost the same; only true positives weigh less.",
            ),
        ),
    ),
    Question(
        "A lung pixel is missed with great confidence, p near 0. What does the Tversky loss tell its logit?",
        (
            (
                "To rise, louder than any other.",
                "That is what cross-entropy does. Tversky keeps the factor p (1 - p), which is near 0 here.",
            ),
            ("To fall.", "No: the sign is always right. Look at the size."),
            ("To rise, but hardly audibly.", "Yes. That deafness is the reason for adding a second term in chapter 4."),
        ),
    ),
    Question(
        "A picture holds no lung at all, and the network says one half everywhere. What does it learn from the "
        "Tversky loss?",
        (
            (
                "Next to nothing.",
                "Yes: with TP = 0 the loss is 1 whatever is painted, until the last stray pixel is gone.",
            ),
            (
                "To call everything background.",
                "One would hope so, but the slope is many orders of magnitude smaller than that of cross-entropy.",
            ),
            (
                "It stops with a division by zero.",
                "The smoothing constant prevents that; it does not give a slope worth having.",
            ),
        ),
    ),
)
