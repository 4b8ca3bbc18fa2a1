"""Exercises of chapter 9, APPAU-Net (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_tutorial.reader.exercises.arms import compare_arms
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_SHARE = Predict(
    "The share of predicted",
    {"weight 2": (2 / 3, 2.0), "weight 1/4": (1 / 5, 1 / 4)},
    (
        Misconception(
            {"weight 2": (1 / 3, 1 / 2)},
            "You took the share of the real pairs. What pulls at *predicted* is the weight of the predicted ones: "
            "2 of 2 + 1.",
        ),
        Misconception(
            {"weight 2": (2 / 3, 2 / 3)},
            "The suspicion is right. But a class must beat it with its part of what is left: the class has (1 - "
            "q_K) P, so the border is q_K / (1 - q_K).",
        ),
        Misconception(
            {"weight 2": (1 / 2, 1.0)},
            "One half holds for equal weights. Here one kind of pair is charged twice as much as the other.",
        ),
        Misconception(
            {"weight 1/4": (1 / 4, 1 / 3)},
            "The share of one quarter in one quarter and one is a fifth: divide by the sum of both weights.",
        ),
    ),
    (
        "Two terms pull at the suspicion: one with the weight of cls, the other with that of pred. What is the "
        "share of the second?",
        "It is pred / (cls + pred). A class is named if (1 - q_K) times its probability exceeds q_K.",
        "2 / 3 and (1/4) / (5/4); the borders are q_K / (1 - q_K).",
    ),
    "A border of 2 means never, one of a quarter always, with two classes. The raw answer says more about weights "
    "than about lungs.",
)

_HEART = Predict(
    "Knowing the pictures by heart",
    {"first stream": 4 / 20, "never with a mask": 1.0, "first stream, remedy": 0.5},
    (
        Misconception(
            {"first stream": 0.5},
            "Such a picture comes once in each kind of pair, but the terms are means: a real pair weighs 1/4 "
            "here, a predicted one only 1/16.",
        ),
        Misconception(
            {"first stream": 0.25},
            "4 of 16 is the first stream's share of the batch. Asked for is the share of *predicted* in what is "
            "charged at one of its pictures: 1/16 against 1/4 and 1/16.",
        ),
        Misconception({"first stream": 0.8}, "That is the share of *real*. The suspicion is what is missing to 1."),
        Misconception(
            {"never with a mask": 12 / 16},
            "Such a picture comes in predicted pairs only, however many there are of them.",
        ),
        Misconception(
            {"first stream, remedy": 0.2},
            "With the remedy only pictures with a mask are judged: predicted pairs are as many as real ones, and "
            "weigh as much.",
        ),
    ),
    (
        "How often does the picture come in a real pair and how often in a predicted one, and what does each weigh?",
        "A real pair weighs 1/n₁, a predicted one 1/(n₁ + n₂).",
        "(1/16) / (1/4 + 1/16).",
    ),
    "The more pictures without a mask, the wider the gap: this clue grows with just what makes the setting "
    "semi-supervised.",
)


def _name_class(logits: Tensor) -> Tensor:
    return logits[:, :-1].argmax(1)


def _logits(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"logits": torch.tensor([[1.0, 3.0, 9.0], [2.0, -1.0, 0.0]])}
    for n, classes in ((8, 2), (32, 4)):
        yield {"logits": 3 * torch.randn(n, classes + 1, generator=generator)}


_NAME = Implement(
    "Name the class",
    _name_class,
    _logits,
    (
        Misconception(
            lambda s: s.argmax(1),
            "That is the raw answer, in which *predicted* takes part. Take the last class out before you compare.",
        ),
        Misconception(
            lambda s: s[:, 1:].argmax(1),
            "You took out the first class. *Predicted* is the last one, `Discriminator.PREDICTED`.",
        ),
        Misconception(
            lambda s: (s[:, 1] > s[:, 0]).long(),
            "Right for two classes only. The function is to do for any number of them.",
        ),
        Misconception(lambda s: s[:, :-1].argmin(1), "That is the least likely class."),
        Misconception(
            lambda s: s[:, :-1].argmax(0),
            "You went along the pictures: the answer has one entry for each class. `argmax(1)` goes along the classes.",
        ),
    ),
    (
        "Which of softmax, taking out, and dividing changes the order of the real classes?",
        "None of them does. So the order can be read from the logits.",
        "`logits[:, :-1]` are those of the real classes.",
    ),
    "The probability is needed for AUC and calibration, where pictures are compared; for a name it is not.",
)


def _half_interval(gain: Tensor) -> float:
    from scipy.stats import t as student

    of_seed = gain.double().mean(1).numpy()
    return float(student.ppf(0.975, len(of_seed) - 1) * of_seed.std(ddof=1) / len(of_seed) ** 0.5)


def _gains(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"gain": torch.tensor([[0.01, 0.03], [0.00, 0.02]])}
    for seeds, pictures in ((3, 5), (5, 40)):
        of_seed = 0.01 * torch.randn(seeds, 1, generator=generator)
        yield {"gain": 0.02 + of_seed + 0.03 * torch.randn(seeds, pictures, generator=generator)}


def _t(n: int) -> float:
    from scipy.stats import t as student

    return float(student.ppf(0.975, n - 1))


def _std(values: Tensor, ddof: int = 1) -> float:
    return float(np.std(values.double().numpy(), ddof=ddof))


_INTERVAL = Implement(
    "The interval that counts",
    _half_interval,
    _gains,
    (
        Misconception(
            lambda gain: _t(gain.numel()) * _std(gain.flatten()) / gain.numel() ** 0.5,
            "You count every picture of every seed as a case of its own. Pictures of one training share its luck, "
            "so there are only as many cases as seeds: average over the pictures first.",
        ),
        Misconception(
            lambda gain: 1.96 * _std(gain.mean(1)) / len(gain) ** 0.5,
            "1.96 is for many cases. With so few seeds the spread itself is badly known, and Student's t makes up "
            "for it: 12.7 for two seeds, 4.3 for three.",
        ),
        Misconception(
            lambda gain: _t(len(gain)) * _std(gain.mean(1)),
            "That is how far single trainings scatter. The mean of n of them is surer by the root of n.",
        ),
        Misconception(
            lambda gain: _t(len(gain)) * _std(gain.mean(1), 0) / len(gain) ** 0.5,
            "NumPy's `std` divides by n unless it is told `ddof=1`; torch's divides by n - 1. With two seeds that "
            "is a factor of 1.4.",
        ),
        Misconception(
            lambda gain: _t(gain.shape[1]) * _std(gain.mean(0)) / gain.shape[1] ** 0.5,
            "You averaged over the seeds: that interval speaks of new pictures. Asked for is the one that speaks "
            "of new trainings.",
        ),
    ),
    (
        "What is one case here? A training. So first one number for each of them.",
        "`gain.mean(1)` has one number a seed. Its standard deviation, with n - 1, goes into Student's interval.",
        "With torch, which divides by n - 1: `student.ppf(0.975, n - 1) * gain.mean(1).std() / n**0.5`.",
    ),
    "With few seeds this is the wide one of the two intervals, and the one that most papers leave out.",
)

_LOUD = Extend(
    "A louder game",
    compare_arms(
        ("default", "louder", "no D"),
        "Without the default nobody knows what loudness does, and without a run in which S does not hear D, what "
        "D does.",
    ),
    (
        {"default": [0.9, 0.91, 0.89], "louder": [0.91, 0.9, 0.92]},
        {"default": [0.9], "louder": [0.91], "no D": [0.9]},
        {"default": [0.9, 0.9, 0.9], "louder": [0.9, 0.9, 0.9], "no D": [0.9, 0.9, 0.9]},
    ),
    (
        "`replace(game, adversarial=w, adversarial_unlabelled=w)` turns the volume; weight 0 is the run without D.",
        "`diagnose(fit.history)` names `s-drowned` when the adversarial slope exceeds that of the masks.",
    ),
    "Is the best volume the same in every seed? If not, choosing it by these pictures has used them up as a test.",
)

EXERCISES: tuple[Exercise, ...] = (_SHARE, _HEART, _NAME, _INTERVAL, _LOUD)

QUIZ = (
    Question(
        "S has become perfect. What does the raw answer of D name, with equal weights?",
        (
            (
                "The right class, since the masks are right.",
                "The class is known, but it has to share one half with the others, and *predicted* has the other "
                "half alone.",
            ),
            (
                "'Predicted', for every picture.",
                "Yes: the better S, the nearer the suspicion to one half. So *predicted* is taken out before a "
                "class is named.",
            ),
            (
                "A coin's answer.",
                "Only the question real or predicted has become a coin. The class stands in what is left when it "
                "is taken out.",
            ),
        ),
    ),
    Question(
        "Which comparison shows what the adversarial term is worth?",
        (
            (
                "The whole game against supervised training on the few masks.",
                "Between these lie the start, the unlabelled pictures and consistency. A gain could be anyone's.",
            ),
            (
                "The game against a published figure.",
                "Other pictures, another split, another size: a landmark and no contest.",
            ),
            (
                "The game against the same training in which S does not hear D.",
                "Yes: one rung of the ladder at a time, and the rung below is the same in all else.",
            ),
        ),
    ),
    Question(
        "With one mask the interval by seed is far wider than that by picture. Which one counts for a new "
        "hospital that marks one picture?",
        (
            (
                "By seed: it will train once, with another mask than ours.",
                "Yes: which picture is marked is part of the seed, and that is what will differ.",
            ),
            (
                "By picture: there are more pictures than seeds, so it is the surer one.",
                "It is narrower because it asks less: whether it would hold for other pictures under the same "
                "trainings.",
            ),
            (
                "Neither, since both contain 0 or both do not.",
                "They often disagree, and then the difference is one between trainings, not between methods.",
            ),
        ),
    ),
)
