"""Exercises of chapter 11: intervals over seeds, curves with runs that never arrive, many verdicts (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cxr_tutorial.reader.exercises.arms import compare_arms
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_DEVIATION = 0.004 / 2**0.5

_TWO_SEEDS = Predict(
    "Two seeds",
    12.71 * _DEVIATION / 2**0.5,
    (
        Misconception(
            1.96 * _DEVIATION / 2**0.5,
            "1.96 is for many cases. From two numbers the spread is hardly known, and Student's 12.71 pays for that.",
        ),
        Misconception(
            12.71 * _DEVIATION,
            "That is how far single differences may scatter. The mean of two is surer by the root of 2.",
        ),
        Misconception(
            12.71 * 0.002 / 2**0.5,
            "You divided the squares by n. With n - 1, as for any sample, the deviation is .00283 and not .002.",
        ),
    ),
    (
        "The deviation first: both differences lie .002 from their mean.",
        "s² = (.002² + .002²) / (2 - 1), so s = .00283.",
        "12.71 · s / √2.",
    ),
    "The half-width is twice the effect: two seeds can show next to nothing.",
)


def _curves(generator: torch.Generator) -> Iterator[Mapping[str, Any]]:
    yield {"curve": [(25, 0.9), (50, 0.95), (75, 0.96)], "threshold": 0.95}
    yield {"curve": [(25, 0.9), (50, 0.96), (75, 0.94)], "threshold": 0.95}
    yield {"curve": [(25, 0.5), (50, 0.6)], "threshold": 0.95}
    for _ in range(6):
        dice = (0.8 + 0.2 * torch.rand(12, generator=generator)).tolist()
        yield {"curve": [(25 * k, one) for k, one in enumerate(dice, 1)], "threshold": 0.95}


def _steps_to(curve: Any, threshold: float) -> float:
    return next((step for step, dice in curve if dice >= threshold), math.inf)


_ARRIVAL = Implement(
    "When it arrives",
    _steps_to,
    _curves,
    (
        Misconception(
            lambda curve, threshold: next((step for step, dice in curve if dice > threshold), math.inf),
            "At least the threshold, says the task: a run that is seen exactly there has arrived.",
        ),
        Misconception(
            lambda curve, threshold: next((step for step, dice in curve if dice >= threshold), curve[-1][0]),
            "A run that never arrives gets the last step from you, and looks as if it had arrived there. The slowest "
            "loss would gain most from that.",
        ),
        Misconception(
            lambda curve, threshold: max((step for step, dice in curve if dice >= threshold), default=math.inf),
            "That is the last time it was seen there. A Dice goes up and down, and the first time was asked for.",
        ),
    ),
    (
        "Go through the curve in order and stop at the first that is good enough.",
        "`next(generator, default)` gives the default if there is none.",
        "`next((step for step, dice in curve if dice >= threshold), math.inf)` is all of it.",
    ),
    "Infinity sorts last and has a place in a median: no run has to be thrown away.",
)


def _scores(generator: torch.Generator) -> Iterator[Mapping[str, Any]]:
    yield {"old": {1: 0.9, 2: 0.8}, "new": {1: 0.92, 2: 0.81}}
    yield {"old": {1: 0.9, 2: 0.8, 3: 0.5}, "new": {2: 0.81, 1: 0.92}}
    for _ in range(4):
        old, new = (0.8 + 0.2 * torch.rand(2, 6, generator=generator)).tolist()
        yield {"old": dict(enumerate(old)), "new": {seed + 2: one for seed, one in enumerate(new)}}


def _paired_effect(old: Mapping[int, float], new: Mapping[int, float]) -> float:
    both = old.keys() & new.keys()
    return sum(new[seed] - old[seed] for seed in both) / len(both)


def _mean(values: Any) -> float:
    return sum(values) / len(values)


_PAIRS = Implement(
    "Only with a partner",
    _paired_effect,
    _scores,
    (
        Misconception(
            lambda old, new: _mean(new.values()) - _mean(old.values()),
            "You averaged each side first. A seed that only one side has then counts as if it were an effect.",
        ),
        Misconception(
            lambda old, new: -_paired_effect(old, new),
            "The sign: new minus old, so that a gain is positive.",
        ),
        Misconception(
            lambda old, new: _mean([b - a for a, b in zip(old.values(), new.values(), strict=False)]),
            "You paired by place and not by seed. The order of two dictionaries says nothing.",
        ),
    ),
    (
        "Which seeds do both have?",
        "`old.keys() & new.keys()` holds them.",
        "The mean of `new[seed] - old[seed]` over those.",
    ),
    "What a seed does to both sides falls out of the difference: that is what pairing is for.",
)

_THIRTY = Predict(
    "Thirty intervals",
    1.5,
    (
        Misconception(
            0, "Each misses with probability .05 although it is honest; thirty of them will not all be lucky."
        ),
        Misconception(1 - 0.95**30, "That is the probability that at least one misses. Asked is how many on average."),
        Misconception(28.5, "So many are expected to contain 0."),
    ),
    ("How often does one honest 95 % interval miss?", "Thirty times .05."),
    "So one or two of thirty intervals miss by chance, and nobody knows which. A verdict on two sets asks both "
    "intervals to miss on one side, which is far rarer; a verdict on one set asks no more than this.",
)

_OVERTURN = Extend(
    "Overturn a verdict",
    compare_arms(("old", "new"), "A figure without the one it is to beat decides nothing."),
    (
        {"new": [0.95, 0.96, 0.95]},
        {"old": [0.95], "new": [0.96]},
        {"old": [0.95, 0.95, 0.95], "new": [0.96, 0.96, 0.96]},
    ),
    (
        "Choose a verdict that you doubt, and write down beforehand what would overturn it.",
        "`cxr-tutorial grid run --plan mine.toml` runs a plan of your own; its records can be read by `RECORDS`.",
    ),
    "Did you write down beforehand what would count? If not, it is a good idea for the next experiment.",
)

EXERCISES: tuple[Exercise, ...] = (_TWO_SEEDS, _ARRIVAL, _PAIRS, _THIRTY, _OVERTURN)

QUIZ = (
    Question(
        "A verdict reads 'not supported'. What has been shown?",
        (
            (
                "That the new thing has no effect.",
                "The interval may hold both 0 and effects that matter. Absence of evidence is what its name says.",
            ),
            (
                "That these runs cannot tell the effect from 0.",
                "Yes. More seeds or a harder task might, in either direction.",
            ),
            ("That the paper is wrong.", "The paper's reading, data and tuning are not known well enough to say so."),
        ),
    ),
    Question(
        "One loss never reaches Dice .975 in two of six runs. How do you average its steps?",
        (
            (
                "Over the four that arrived.",
                "Then the loss is judged by its best runs, and one that hardly ever arrives looks fast.",
            ),
            (
                "Not at all: take the median, with infinity for the two, or draw who is still waiting.",
                "Yes: both keep the runs that never came.",
            ),
            (
                "With the length of the training for the two.",
                "That is a lower bound of what it took, and flatters a slow loss.",
            ),
        ),
    ),
    Question(
        "Nets from three hospitals fail on the same pictures of Shenzhen. What follows?",
        (
            (
                "Something about the pictures or their masks.",
                "Yes, though not which of the two: for that somebody has to look.",
            ),
            ("The three nets are the same.", "They saw different hospitals; only their failures are alike."),
            (
                "Shenzhen's masks are wrong.",
                "Perhaps; but a hard picture fails everywhere too, with the best of masks.",
            ),
        ),
    ),
)
