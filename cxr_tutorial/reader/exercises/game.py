"""Exercises of chapter 8, the adversarial game (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cxr_tutorial.reader.exercises.arms import compare_arms
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_ANSWER = Predict(
    "What does D say?",
    {"largest": 2, "real class": 1, "probability": 0.75, "non-saturating": 0.6, "saturating": 0.4},
    (
        Misconception(
            {"real class": 2}, "Class 2 is the extra one, *predicted*, and is no real class. Only 0 and 1 are."
        ),
        Misconception(
            {"probability": 0.3},
            "That is the probability of *real and ill*. Asked for: if the mask were real, which leaves .1 and .3 "
            "of the whole.",
        ),
        Misconception(
            {"non-saturating": 0.4, "saturating": 0.6},
            "The two slopes are swapped. The non-saturating form is loud where D is suspicious: its slope is the "
            "suspicion itself.",
        ),
        Misconception(
            {"non-saturating": 2.5},
            "1 / .4 is the slope with respect to the probability. With respect to the logit the sigmoid's own "
            "slope, q(1 - q), comes in as a factor.",
        ),
        Misconception(
            {"non-saturating": -0.6},
            "The size is right. The wish is small when the suspicion is small, so it rises with the logit *predicted*.",
        ),
    ),
    (
        "The largest of the three is the last. For the real class leave it out.",
        "If the mask were real, .1 and .3 are all that is left: what share of their sum has each?",
        "The slopes are q_K and 1 - q_K; the moving figure of the section shows which is which.",
    ),
    "What L_cp trains, and what chapter 9 uses as the answer, is this share among the real classes.",
)

_SLOPES = Predict(
    "Whose slope goes where?",
    {
        "frozen": (True, False),
        "only eval": (True, True),
        "no_grad around D": (False, False),
        "detached mask": (False, True),
    },
    (
        Misconception(
            {"only eval": (True, False)},
            "`eval()` changes how batch normalisation behaves and freezes no weight: D's gradients fill up with "
            "S's wish.",
        ),
        Misconception(
            {"no_grad around D": (True, False)},
            "`no_grad` also stops the slope that has to pass through D to reach S. Freeze D's weights, not its "
            "computation.",
        ),
        Misconception(
            {"frozen": (False, False)},
            "Frozen weights get no gradient of their own, but the slope still passes through them on its way to "
            "the mask.",
        ),
        Misconception(
            {"detached mask": (True, True)},
            "`detach()` cuts between S and the mask: whatever comes after it, S hears nothing. That is D's move.",
        ),
    ),
    (
        "Draw the chain picture, S, mask, D, loss, and mark where each line cuts it.",
        "`requires_grad_(False)` takes weights out of the account; `no_grad` and `detach` cut the chain itself.",
        "Two of the four let a slope through to S: the first two. Of these only the first leaves D alone.",
    ),
    "In S's move: weights frozen, statistics still, computation open. In D's: the mask detached.",
)


def _matching(f_true: Tensor, f_predicted: Tensor) -> Tensor:
    return (f_true.mean(0) - f_predicted.mean(0)).abs().mean()


def _features(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"f_true": torch.tensor([[1.0, 0.0], [3.0, 0.0]]), "f_predicted": torch.tensor([[2.0, 1.0], [2.0, 3.0]])}
    yield {"f_true": torch.tensor([[1.0, -1.0]]), "f_predicted": torch.zeros(1, 2)}
    f_true, f_predicted = (torch.randn(4, 5, generator=generator) for _ in range(2))
    yield {"f_true": f_true, "f_predicted": f_predicted}


_MATCHING = Implement(
    "Feature matching",
    _matching,
    _features,
    (
        Misconception(
            lambda t, p: (t - p).abs().mean(),
            "You compare pair by pair. The features are to be alike on average: first the mean over the pairs, "
            "then the distance.",
        ),
        Misconception(
            lambda t, p: (t.mean() - p.mean()).abs(),
            "You also average over the features before you compare: then one that is too high makes up for one "
            "that is too low, and the absolute value comes too late.",
        ),
        Misconception(
            lambda t, p: ((t.mean(0) - p.mean(0)) ** 2).mean(),
            "Squared; the bars in the formula are the absolute value.",
        ),
        Misconception(
            lambda t, p: (t.mean(0) - p.mean(0)).abs().sum(),
            "The outer bar is a mean over the features, too, not a sum.",
        ),
    ),
    (
        "Three steps: two means over the pairs, a distance for each feature, a mean over the features.",
        "`f_true.mean(0)` is the mean over the pairs.",
        "It is one line: `(f_true.mean(0) - f_predicted.mean(0)).abs().mean()`.",
    ),
    "Swapping two predicted pairs changes nothing: a single bad mask can hide in the mean of its batch.",
)


def _class_term(logits: Tensor, z: Tensor) -> Tensor:
    known = z >= 0
    return -logits[known, :-1].log_softmax(1)[torch.arange(int(known.sum())), z[known]].mean()


def _class_pairs(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"logits": torch.tensor([[0.125, 0.375, 0.5], [0.25, 0.25, 0.5]]).log(), "z": torch.tensor([1, -1])}
    for n, classes in ((3, 2), (6, 4)):
        z = torch.randint(0, classes, (n,), generator=generator)
        z[-1] = -1
        yield {"logits": torch.randn(n, classes + 1, generator=generator), "z": z}
    yield {"logits": torch.tensor([[0.0, 2.0, 120.0], [1.0, 0.0, 0.0]]), "z": torch.tensor([0, -1])}  # D is sure


def _by_probabilities(logits: Tensor, z: Tensor) -> Tensor:
    q, known = logits.softmax(1)[z >= 0], z >= 0
    return -(q[torch.arange(len(q)), z[known]] / (1 - q[:, -1])).log().mean()


def _over(logits: Tensor, z: Tensor, keep: Callable[[Tensor], Tensor], divide: int | None = None) -> Tensor:
    rows = keep(z)
    said = -logits[rows, :-1].log_softmax(1).gather(1, z[rows].clamp(min=0)[:, None])[:, 0]
    return said.mean() if divide is None else said.sum() / divide


_CLASS = Implement(
    "The class of a predicted pair",
    _class_term,
    _class_pairs,
    (
        Misconception(
            _by_probabilities,
            "Right on paper, and not a number when D is sure: 1 - q_K is then stored as 0. Both can be had from "
            "the logits, where nothing is rounded away: leave the last one out and take log_softmax of the rest.",
        ),
        Misconception(
            lambda s, z: -s.log_softmax(1)[torch.arange(int((z >= 0).sum())), z[z >= 0]].mean(),
            "You ask for *real and of class z*. Then the term also pulls against L_pred. *Predicted* has to be "
            "taken out first.",
        ),
        Misconception(
            lambda s, z: _over(s, z, lambda z: z > -2),
            "Pairs without a class are counted as well. In Python an index of -1 is the last entry, so nothing "
            "complains.",
        ),
        Misconception(
            lambda s, z: _over(s, z, lambda z: z >= 0, len(z)),
            "You divide by all pairs. The bar is a mean over its own pairs, those whose class is known.",
        ),
        Misconception(lambda s, z: -_class_term(s, z), "The sign: a loss is small when D names the class."),
    ),
    (
        "Which pairs count? Those with z >= 0.",
        "The ratio q_z / (1 - q_K) is the softmax over the real classes alone. Why?",
        "`logits[known, :-1].log_softmax(1)`, then the entry of each pair's class, the mean and a minus.",
    ),
    "Only the ratio of the real classes counts, so the term can teach the disease without pulling at the suspicion.",
)

_FIT = Extend(
    "Teach D that a mask must fit",
    compare_arms(
        ("as it is", "taught"),
        "How often a wrong mask is the more suspicious one means little until you know how often it is so without "
        "your change.",
    ),
    (
        {"taught": [0.8, 0.75, 0.9]},
        {"as it is": [0.6], "taught": [0.8]},
        {"as it is": [60.0, 55.0, 58.0], "taught": [80.0, 75.0, 90.0]},
    ),
    (
        "Which pairs with a true mask are wrong although the mask is real? The chapter made them with `roll`.",
        "They need a mask, but any picture's mask will do: a few masks give many such pairs. What should D call them?",
    ),
    "And what does this D say to a picture without a mask whose prediction is right? Ask it before you trust its push.",
)

EXERCISES: tuple[Exercise, ...] = (_ANSWER, _SLOPES, _MATCHING, _CLASS, _FIT)

QUIZ = (
    Question(
        "D finds every predicted mask out. Why can that be bad news for S?",
        (
            (
                "A gradient from a D that is sure is always zero.",
                "That holds for the saturating form. The non-saturating one is loudest just then.",
            ),
            (
                "D may have found a cheap clue, such as grey edges, and then teaches that instead of lungs.",
                "Yes: a push away from a shortcut leads to masks without the shortcut, not to right masks.",
            ),
            (
                "S is then trained on D's masks.",
                "D makes no masks. It judges those that it is shown.",
            ),
        ),
    ),
    Question(
        "Why must real and predicted pairs go through a batch-normalised D as one batch?",
        (
            (
                "Each kind by itself loses what all its members share, which is just what tells it from the other.",
                "Yes: normalisation takes the mean of the batch away.",
            ),
            (
                "It is faster.",
                "It may be, but the reason is that apart D becomes nearly blind.",
            ),
            (
                "Otherwise S would get no gradient.",
                "S's move shows D predicted pairs alone, in eval mode, and gets its gradient there.",
            ),
        ),
    ),
    Question(
        "What does a cosine of .3 between D's push and the hidden mask's push tell?",
        (
            (
                "Dice will rise by 30 %.",
                "A cosine is about direction. A push at pixels that are right already gains nothing.",
            ),
            (
                "D draws 30 % of the lung.",
                "D draws nothing, and a cosine is no share.",
            ),
            (
                "D pushes partly the mask's way; compare it with mere sharpening before you call it teaching.",
                "Yes: sharpening looks at nothing but S's own answer, and it also points partly that way.",
            ),
        ),
    ),
)
