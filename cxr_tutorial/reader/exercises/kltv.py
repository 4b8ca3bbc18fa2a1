"""Exercises of chapter 4, KL-Tversky (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_PAPER = Predict(
    "Tipping shares on paper",
    {"R2": 0.3 / 1.1, "R1": 0.4 / 1.2, "nearer": "R2"},
    (
        Misconception(
            {"R2": 0.3 / (1 + 0.05)},
            "A factor 2 is missing: the KL push at p = 1/2 is divided by p (1 - p) = 1/4, half of which its own 1 - p "
            "makes up for.",
        ),
        Misconception(
            {"R2": 0.7 / 1.1},
            "The price in the numerator is the one on false positives, .3: it is what holds the look-alikes down.",
        ),
        Misconception(
            {"R2": 0.3 / (1 + 2 * 0.25)},
            "You took f = .25, the share of the toy. This organ fills a twentieth of the picture.",
        ),
        Misconception(
            {"R1": 0.3 / 1.2},
            "In R1 background pixels push down as well: 2λf stands in the numerator, too.",
        ),
        Misconception(
            {"R2": 0.3 / 1.1, "R1": 0.4 / 1.2, "nearer": "R1"},
            "Both shares are right. Tversky alone tips at .3: compare the two distances from there.",
        ),
    ),
    (
        "Put f = .05, λ = 1 and w = 1 into the table of tipping shares.",
        "R2: .3 / (1 + 2 · .05). R1: (.3 + 2 · .05) / (1 + 4 · .05).",
    ),
    "For a small organ the KL term hardly moves the edge; what is left of it is the strong push on lost lung pixels.",
    tolerance=0.002,
)


def _weights(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"w": 0.75, "f": 0.25}
    for _ in range(5):
        a, b = torch.rand(2, generator=generator).tolist()
        yield {"w": 0.55 + 0.4 * a, "f": 0.05 + 0.3 * b}


_FAIR = Implement(
    "A fair KL weight",
    lambda w, f: (2 * w - 1) / (2 * f),
    _weights,
    (
        Misconception(
            lambda w, f: (2 * w - 1) / f,
            "Twice too much: the equation has 2λf, so divide by 2f.",
        ),
        Misconception(
            lambda w, f: w / (2 * f),
            "You left out the other price, which is 1 - w: λ has to make up for the difference of the two.",
        ),
        Misconception(
            lambda w, f: (1 - 2 * w) / (2 * f),
            "The sign is turned round: KL pulls up, so the price on false positives has to be the larger one.",
        ),
        Misconception(
            lambda w, f: (2 * w - 1) * 2 * f,
            "Multiplied instead of divided: the smaller the organ, the more KL weight it takes.",
        ),
    ),
    (
        "R2 tips at one half when the price on false positives is the other price plus 2λf.",
        "Put w and 1 - w into that equation and solve for λ.",
        "2λf = w - (1 - w).",
    ),
    "For w below one half it is negative: no KL weight makes .3 and .7 fair.",
)

_BATCH = Predict(
    "One empty picture among others",
    {"alone": "none", "batch": "down", "term": "Tversky"},
    (
        Misconception(
            {"alone": "down"},
            "The price on false positives is multiplied by TP, and an empty picture has none. Look at the push on a "
            "background pixel again.",
        ),
        Misconception(
            {"alone": "none", "batch": "none"},
            "With `batch=True` the two pictures count as one large picture, and that one has a TP: the neighbour's.",
        ),
        Misconception(
            {"batch": "up"},
            "All pixels of the empty picture are background, and no term of KLTV pushes background up.",
        ),
        Misconception(
            {"alone": "none", "batch": "down", "term": "KL"},
            "R2 never pushes a background pixel, in a batch or alone. Which term charges false positives?",
        ),
    ),
    (
        "Write down the Tversky push on a background pixel. Which factor is 0 in a picture without lung?",
        "With `batch=True` the sums TP, FP and FN run over both pictures.",
    ),
    "So a batch seen as one picture is one of the two ways out for pictures that may be empty.",
)


def _cuts(answer: Any) -> str | None:
    wanted = ("cut", "at the cut", "at one half", "fair")
    if not isinstance(answer, Mapping) or set(wanted) - set(answer):
        return f"Give a dictionary with the keys {', '.join(map(repr, wanted))}: a logit, and three values of Dice."
    try:
        cut, *scores = (float(answer[key]) for key in wanted)
    except (TypeError, ValueError):
        return "Each entry needs to be one number."
    if not all(0 <= score <= 1 for score in scores):
        return "Dice lies between 0 and 1: divide percentages by 100."
    if cut == 0:
        return (
            "A logit of 0 is the cut at one half, the one that you started from. Choose another on the training "
            "pictures."
        )
    return None


_OPEN = Extend(
    "Is it the net, or the cut?",
    _cuts,
    (
        {"cut": 1.0},
        {"cut": 1.0, "at the cut": 90, "at one half": 85, "fair": 91},
        {"cut": 0.0, "at the cut": 0.85, "at one half": 0.85, "fair": 0.91},
        {"cut": "high", "at the cut": 0.9, "at one half": 0.85, "fair": 0.91},
    ),
    (
        '`fits["KLTV R2"][0].model` is a trained net, `tensors(part)` gives its pictures and masks.',
        "Try cuts on the logits of training pictures, keep the best, and only then look at the held-out ones.",
    ),
    "One seed: repeat it for all three before you believe it.",
)

EXERCISES: tuple[Exercise, ...] = (_PAPER, _FAIR, _BATCH, _OPEN)

QUIZ = (
    Question(
        "A lung pixel is missed with conviction. Which of the two forces brings it back?",
        (
            ("The KL term.", "Yes: its push is 1 - p, largest at p = 0, where that of Tversky has died."),
            ("The Tversky term.", "Its push carries the factor p (1 - p), and that is almost 0 here."),
            ("Both equally.", "Look at both ends of the left panel: one curve dies there."),
        ),
    ),
    Question(
        "One in four look-alike pixels is lung. KLTV in R2, default weights, a quarter of the picture is lung. What "
        "does the mask do?",
        (
            (
                "It leaves them out, as most are background.",
                "That is what cross-entropy would do, with a tipping share of one half.",
            ),
            ("It takes them all in.", "Yes: the tipping share is .2, so the mask comes out too large."),
            ("It takes a quarter of them in.", "They look alike, so the network has to give all of them one answer."),
        ),
    ),
    Question(
        "Suppose that the paper meant R1, the textbook reading. What is KLTV then?",
        (
            ("A new loss, with the bars doing the work.", "In R1 nothing is negative, so the bars are idle."),
            ("The Tversky loss.", "No: a KL term with weight 1 is still there, and under R1 it has a name of its own."),
            ("XE-Tversky under another name.", "Yes, on hard masks in value and gradient, whatever the weights are."),
        ),
    ),
)
