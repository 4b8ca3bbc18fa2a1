"""Exercises of chapter 7, the progressive decoder (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.reader.exercises.arms import compare_arms
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_PAPER = Predict(
    "On paper",
    {"logits": (-2, 1, 7, 10), "lung": 3, "lung by probabilities": 2},
    (
        Misconception(
            {"logits": (-2, -2, 10, 10)},
            "Each coarse pixel was only repeated. Bilinear takes a quarter of the nearer neighbour, too.",
        ),
        Misconception(
            {"logits": (-2, 2, 6, 10)},
            "These are four equal steps from -2 to 10, as with `align_corners=True`. Here the centre of a fine "
            "pixel lies a quarter of a coarse pixel off the centre of its own.",
        ),
        Misconception(
            {"logits": (-2, 7, 1, 10)},
            "The weights are swapped: three quarters belong to a fine pixel's own coarse pixel.",
        ),
        Misconception(
            {"lung by probabilities": 3},
            "You enlarged the logits. Take the sigmoid of -2 and of 10 first: the second pixel is then three "
            "quarters of .12 and one quarter of 1.00.",
        ),
    ),
    (
        "The rule of the section: the row (u, v) becomes (u, ¾u + ¼v, ¼u + ¾v, v).",
        "A logit above 0 is lung. For probabilities it is above one half.",
        "The sigmoid of -2 is .12 and that of 10 is 1.00; ¾ · .12 + ¼ · 1.00 is .34.",
    ),
    "One loud coarse pixel has moved the edge into its neighbour. Any correction below -1 takes it back.",
)

_HEARS = Predict(
    "What the coarsest level hears",
    {"each pixel": 64, "all together": 64 * 64, "each pixel, with its own loss": 65},
    (
        Misconception(
            {"each pixel": 1},
            "That would be the mean of what lies below. The transposed Up adds: nothing of the message is lost.",
        ),
        Misconception({"each pixel": 8}, "Twice as wide at each of three steps is 8, but it is twice as high as well."),
        Misconception({"each pixel": 256}, "From level 1 to level 4 there are three steps, not four."),
        Misconception(
            {"all together": 64},
            "There are 8 × 8 pixels at level 4, and each of them hears as much. The sum over all stays the same.",
        ),
        Misconception(
            {"each pixel, with its own loss": 1},
            "Its own loss does not replace what comes down the wire: the two are added, whatever the weights are.",
        ),
    ),
    (
        "Each step down gives a coarse pixel what its fine pixels heard, in full.",
        "A coarse pixel of the next level stands for four fine ones, in sum. How many steps are there from level "
        "1 to 4?",
        "4 · 4 · 4, and one more for its own loss.",
    ),
    "The wire alone is 64 times as loud as a side loss of weight 1 would be here: the sum asks every level, "
    "marked or not.",
)


def _halving(sides: int) -> tuple[float, ...]:
    return tuple(0.5 ** (m + 1) for m in range(sides))


def _sides(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    for sides in (1, 2, 3, 5):
        yield {"sides": sides}


_HALVING = Implement(
    "Halving weights",
    _halving,
    _sides,
    (
        Misconception(
            lambda sides: tuple(0.5**m for m in range(sides)),
            "You begin with 1, the final output's weight. The first side output counts one half.",
        ),
        Misconception(
            lambda sides: _halving(sides)[::-1],
            "These come coarse to fine. Side outputs are listed fine to coarse, so the largest weight is first.",
        ),
        Misconception(
            lambda sides: tuple(w / sum(_halving(sides)) for w in _halving(sides)),
            "You made them add up to 1. Then a single side output would count as much as the final one; here "
            "nothing is divided.",
        ),
        Misconception(
            lambda sides: tuple(1 / (m + 2) for m in range(sides)),
            "One half, one third, one quarter: each weight is to be half of the one before.",
        ),
    ),
    (
        "For three side outputs the answer is (0.5, 0.25, 0.125).",
        "The m-th weight, counted from 0, is one half to the power m + 1.",
        "So it is `tuple(0.5 ** (m + 1) for m in range(sides))`.",
    ),
    "However many levels there are, they add up to less than 1: the final output keeps more than half of the say.",
)


def _up(a: Tensor, times: int = 1, mode: str = "bilinear") -> Tensor:
    for _ in range(times):
        a = F.interpolate(a, scale_factor=2.0, mode=mode)
    return a


def _own(a_hats: list[Tensor], m: int) -> Tensor:
    return a_hats[m - 1] - _up(a_hats[m]) if m < len(a_hats) else a_hats[-1]


def _without(a_hats: list[Tensor], m: int) -> Tensor:
    return a_hats[0] - _up(_own(a_hats, m), m - 1)


def _predictions(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"a_hats": [torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]]), torch.tensor([[[[3.0]]]])], "m": 2}
    for levels, side, m in ((2, 4, 1), (3, 8, 2), (4, 16, 3), (4, 16, 4)):
        yield {"a_hats": [torch.randn(2, 1, side >> k, side >> k, generator=generator) for k in range(levels)], "m": m}


def _wrong(contribution: Callable[[list[Tensor], int], Tensor]) -> Callable[[list[Tensor], int], Tensor]:
    return lambda a_hats, m: a_hats[0] - contribution(a_hats, m)


_WITHOUT = Implement(
    "Leave a level out",
    _without,
    _predictions,
    (
        Misconception(
            _wrong(lambda a_hats, m: _up(a_hats[m - 1], m - 1)),
            "You took the level's whole prediction away, and with it all that the coarser levels had said. Its "
            "own part is what it added to the enlarged prediction below it.",
        ),
        Misconception(
            lambda a_hats, m: _up(_own(a_hats, m), m - 1),
            "That is the level's contribution itself. Asked for is the final logit without it.",
        ),
        Misconception(
            _wrong(lambda a_hats, m: F.interpolate(_own(a_hats, m), size=a_hats[0].shape[-2:], mode="bilinear")),
            "You enlarge in one jump. Up twice is not the same as four times larger at once: the decoder goes "
            "step by step.",
        ),
        Misconception(
            _wrong(lambda a_hats, m: _up(_own(a_hats, m), m - 1, "nearest")),
            "The contribution is enlarged in blocks. Up is bilinear.",
        ),
        Misconception(
            _wrong(
                lambda a_hats, m: (
                    _up(a_hats[m - 1] - (_up(a_hats[m]) if m < len(a_hats) else 0), m - 1) + 0 * a_hats[0]
                    if m < len(a_hats)
                    else torch.zeros_like(a_hats[0])
                )
            ),
            "The coarsest level is left in. It has nothing below it, so its contribution is its whole prediction.",
        ),
    ),
    (
        "Which part of the prediction at level m is new there? Below it lies level m + 1, enlarged once.",
        "Level m is `a_hats[m - 1]`. At the coarsest level nothing lies below.",
        "Enlarge that part m - 1 times by Up and take it from `a_hats[0]`.",
    ),
    "Since Up is linear, one subtraction tells exactly what a level has said. With the concat rule no such line "
    "exists.",
)

_NORM = Extend(
    "Without batch normalisation",
    compare_arms(
        ("U-Net", "sum", "concat"),
        "The U-Net has no coarse heads, the concat rule has them and no wire: only both tell what the wire does.",
        high=1e6,
    ),
    (
        {"sum": [0.5, 0.6, 0.5], "concat": [0.02, 0.01, 0.02]},
        {"U-Net": [0.02], "sum": [0.5], "concat": [0.02]},
        {"U-Net": [0.02, 0.01, 0.03], "sum": [0.5, 0.6, 0.5], "concat": [-0.02, 0.01, 0.02]},
        {"U-Net": [0.02, 0.02, 0.02], "sum": [0.5, 0.5, 0.5], "concat": [0.01, 0.01, 0.01]},
    ),
    (
        '`Segmentor("small", pyramid=False, attention=False, norm="group")` with one seed after the other.',
        "`slope(net, 0.0).norm()` is the size of the gradient at the bottleneck without side losses.",
    ),
    "A size before the first step is a beginning. Whether anybody suffers from it, only training tells.",
)

EXERCISES: tuple[Exercise, ...] = (_PAPER, _HEARS, _HALVING, _WITHOUT, _NORM)

QUIZ = (
    Question(
        "What does a correction of 0 say at a finer level?",
        (
            (
                "That the pixel is as likely lung as not.",
                "That would be a sum of 0. The correction is only what this level adds to the coarser ones.",
            ),
            (
                "That the coarser level had it right.",
                "Yes: the finer level leaves the enlarged prediction as it is.",
            ),
            (
                "That the level is switched off and gets no gradient.",
                "The gradient of the sum with respect to each summand is 1, whatever its value.",
            ),
        ),
    ),
    Question(
        "Side losses make the gradient at the bottleneck much larger. Under AdamW this means",
        (
            (
                "much larger steps there.",
                "AdamW divides each gradient by its own recent size: a message a hundred times as loud gives the "
                "same step.",
            ),
            (
                "that training diverges unless the rate is lowered.",
                "That would be a worry under plain gradient descent, whose step grows with the gradient.",
            ),
            (
                "little by itself; what can matter is the direction.",
                "Yes: and with the running sum the side message at first points the same way as the final one.",
            ),
        ),
    ),
    Question(
        "The records show 'no difference that these runs can show' for a flag. That is",
        (
            (
                "a statement about these runs, together with the margin of error that stands beside it.",
                "Yes: an effect below the margin would have been missed about every second time.",
            ),
            (
                "proof that the flag does nothing.",
                "Few seeds cannot prove that. What they exclude are effects well above the margin of error.",
            ),
            (
                "a refutation of the paper.",
                "Its rule for joining levels and its comparison are not known to us, so it is not the paper that "
                "was tested.",
            ),
        ),
    ),
)
