"""Exercises of chapter 3, the KL term (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cxr_tutorial.reader.exercises.answers import value_and_gradient
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_LOG2 = math.log(2)

_PAPER = Predict(
    "On paper",
    {"R2": 8 / 6 * _LOG2, "R3": 5 / 3 * _LOG2, "worse": "R2"},
    (
        Misconception(
            {"R2": 8 / 3 * _LOG2}, "R2 is the mean over all six pixels of the picture, not over the three of the lung."
        ),
        Misconception({"R2": 8 / 6}, "You took logarithms to the base 2. This book takes natural ones: times log 2."),
        Misconception(
            {"R3": (math.log(4 / 3) + 2 * math.log(8 / 3)) / 3},
            "You compared P with p. R3 compares two clouds: divide p by its own sum, 3/2, first.",
        ),
        Misconception(
            {"R2": 8 / 6 * _LOG2, "R3": 5 / 3 * _LOG2, "worse": "R3"},
            "Both values are right, and R3 is the larger one. But it was larger before, too: compare what was added, "
            "not where it ended.",
        ),
    ),
    (
        "The lung pixels now have p = 1/4, 1/8, 1/8. The others do not count in R2, nor in R3.",
        "R2: add -log p over the lung pixels and divide by 6. R3: P = 1/3 on each of them, and Q = p / (3/2).",
        "R2 = (log 4 + log 8 + log 8) / 6, R3 = (log 2 + log 4 + log 4) / 3. Before: log 2 / 2 and log(9/2) / 2.",
    ),
    "R3 divides the strength of the prediction out, so a cloud in the wrong place costs it less than you might expect.",
    tolerance=0.003,
)


def _background_half(logits: Tensor, target: Tensor) -> Tensor:
    return ((1 - target) * F.softplus(logits)).mean()


def _logits(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    for shape, size in (((1, 1, 1, 2), 1), ((2, 1, 2, 3), 2), ((2, 1, 8, 8), 100)):
        target = (torch.rand(shape, generator=generator) < 0.4).float()
        target.view(-1)[0], target.view(-1)[1] = 1, 0
        logits = size * torch.randn(shape, generator=generator)
        logits.view(-1)[1] = size  # a background pixel that is called lung, in the end with conviction
        yield {"logits": logits, "target": target}


_TWIN = Implement(
    "The other half",
    _background_half,
    _logits,
    (
        Misconception(
            lambda s, y: -((1 - y) * (1 - s.sigmoid()).log()).mean(),
            "Right for small logits. At a logit of 100 the sigmoid is 1 to the last digit, and log(1 - 1) is infinite: "
            "take the logarithm from the logit, by `F.softplus`.",
        ),
        Misconception(
            lambda s, y: -((1 - y) * (1 - s.sigmoid() + 1e-7).log()).mean(),
            "The small number inside the logarithm keeps it finite, but a background pixel with a logit of 100 then "
            "costs 16 "
            "where it should cost 100, and is not pushed at all.",
        ),
        Misconception(
            lambda s, y: (y * F.softplus(-s)).mean(),
            "That is the foreground half, which R2 has already. A background pixel costs -log(1 - p).",
        ),
        Misconception(
            lambda s, y: ((1 - y) * F.softplus(s)).sum() / (1 - y).sum(),
            "You took the mean over the background pixels. To add up to the cross-entropy both halves are divided by "
            "all pixels.",
        ),
    ),
    (
        "The cross-entropy of one pixel is -y log p - (1 - y) log(1 - p). Which part has R2 left out?",
        "1 - σ(s) = σ(-s), and -log σ(-s) is a function that torch has.",
        "`((1 - target) * F.softplus(logits))`, and its mean over all pixels.",
    ),
    "Each half is blind where the other sees: together they are the cross-entropy.",
    run=value_and_gradient,
)

_SOFT = Predict(
    "R2 on a soft mask",
    {"least at": 0.3, "push at .2": 0.3 * 0.8, "push at .4": -0.3 * 0.6},
    (
        Misconception(
            {"least at": 1.0},
            "Without the bars it would be 1, because the logarithm goes on falling. With the bars it turns round "
            "where the logarithm is 0.",
        ),
        Misconception(
            {"least at": 0.3, "push at .4": 0.3 * 0.6},
            "Above p = 0.3 the logarithm is negative, and the bars turn its sign: the push points back down.",
        ),
        Misconception(
            {"push at .2": 0.3 - 0.2, "push at .4": 0.3 - 0.4},
            "These are R1's pushes, y - p, which fade as the answer gets right. R2 has y (1 - p), with the sign of y "
            "- p.",
        ),
        Misconception(
            {"push at .2": 0.3 / 0.2, "push at .4": -0.3 / 0.4},
            "That is the slope in p. The push is on the logit: multiply by p (1 - p).",
        ),
    ),
    (
        "When is |0.3 log(0.3 / p)| zero?",
        "For p < 0.3 the bars do nothing. Differentiate -0.3 log p with respect to the logit: dp/ds = p (1 - p).",
        "The push is +0.3 (1 - p) below and -0.3 (1 - p) above.",
    ),
    "The kink means that the push does not fade near the right answer; on soft masks the bars do real work.",
)


def _reading(answer: Any) -> str | None:
    if not callable(answer):
        return "Give a function of y and p that returns one number."
    y = torch.zeros(8, 8)
    good, bad = torch.full((8, 8), 0.1), torch.full((8, 8), 0.6)
    good[2:6, 2:6], bad[2:6, 2:6], y[2:6, 2:6] = 0.9, 0.3, 1.0
    try:
        better, worse, empty = (float(answer(a, b)) for a, b in ((y, good), (y, bad), (torch.zeros(8, 8), bad)))
    except Exception as error:
        return f"Your function should return one number for y and p of shape (8, 8), but: {error}."
    if not all(map(math.isfinite, (better, worse, empty))):
        return "On a hard mask it gives infinity or NaN: what is 0 log 0, and log(1 / 0)? A reading has to answer that."
    if min(better, worse, empty) < 0:
        return (
            "It is negative on some mask, so something in it is not absolute. That is a finding, too: which part "
            "needs the bars?"
        )
    if better >= worse:
        return "A good prediction costs no less than a bad one. Are y and p in the right places?"
    return None


_DETECTIVE = Extend(
    "A fifth reading",
    _reading,
    (
        lambda y, p: (y.clamp(min=1e-7) * (y.clamp(min=1e-7) / p).log()).sum(),
        lambda y, p: (y * (y / p).log()).abs().mean(),
        lambda y, p: y - p,
        lambda y, p: (p * (p / y.clamp(1e-7, 1 - 1e-7)).log()).abs().mean() * 0 + 1,
    ),
    (
        "Start from the recipe in the chapter, clip y at 1e-7, and move the bars somewhere else.",
        "Then ask it about a background pixel with p = 1/2: cost, and the push.",
    ),
    "Now the detective's question: which public clue could tell it from R2?",
)

EXERCISES: tuple[Exercise, ...] = (_PAPER, _TWIN, _SOFT, _DETECTIVE)

QUIZ = (
    Question(
        "Masks are hard, and KL is read pixel by pixel, as coins (R1). How does it differ from cross-entropy?",
        (
            (
                "It is smaller by the entropy of the mask.",
                "In general, yes; but the entropy of a hard mask is 0. What is left of the difference?",
            ),
            (
                "Not at all, neither in value nor in gradient.",
                "Yes, and that is a clue against R1: the authors list the two as different losses.",
            ),
            (
                "It has the same value, but another gradient.",
                "The entropy does not depend on the prediction, so the gradients agree always.",
            ),
        ),
    ),
    Question(
        "What can R2, the foreground reading, not see?",
        (
            ("Lung that was missed.", "On lung it pushes as hard as cross-entropy does."),
            ("A mask that is faint.", "That is R3's blind spot. R2 charges -log p for each lung pixel."),
            (
                "Lung that was invented.",
                "Yes: background pixels cost it nothing, so calling everything lung is as good as the truth.",
            ),
        ),
    ),
    Question(
        "Why is log σ(s) taken from the logit, and not as log(sigmoid(s) + eps)?",
        (
            (
                "The worst pixels would lose their push, or become NaN.",
                "Yes, and these are the pixels that have most to learn.",
            ),
            ("It is faster.", "Perhaps a little, but that is not the point: look at a lung pixel with s = -20."),
            ("Because p may be negative.", "A sigmoid is never negative. It may become exactly 0, though."),
        ),
    ),
)
