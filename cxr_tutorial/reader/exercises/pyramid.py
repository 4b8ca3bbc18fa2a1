"""Exercises of chapter 6, the image pyramid (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.reader.exercises.arms import compare_arms
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_COUNT = Predict(
    "Count it",
    {"channels": 60, "parameters": 9 * 20**2 + 10 * 20 + 9 * 40**2 + 10 * 40, "factor": 4},
    (
        Misconception(
            {"channels": 20}, "20 is what comes from the level above. The pyramid's own channels are stacked on it."
        ),
        Misconception(
            {"channels": 40}, "40 is what the pyramid brings. The features from the level above come on top."
        ),
        Misconception(
            {"parameters": 10 * (20 + 40)},
            "That is the pyramid's own convolution, 9 c + c. The block that reads its output gets more weights, "
            "too: 9 c · c.",
        ),
        Misconception(
            {"parameters": 9 * (20**2 + 40**2) + 9 * (20 + 40)},
            "Only the constants are missing: each channel of the pyramid has one.",
        ),
        Misconception(
            {"parameters": sum(9 * c**2 + 10 * c for c in (10, 20, 40))},
            "Level 1 has the picture itself already. The pyramid enters at level 2 and below.",
        ),
        Misconception({"factor": 2}, "Twice the side is four times the pixels, and each of them costs the same."),
    ),
    (
        "The first convolution of level k reads c_k channels of the pyramid and c_(k-1) from above.",
        "At levels 2 and 3 the pyramid adds 9 c + c for its own convolution and 9 c · c for the block.",
        "9 · 400 + 10 · 20 at level 2, and the same with 40 at level 3.",
    ),
    "Nearly all of it sits in the blocks: it is the reading that costs, not the looking.",
    tolerance=1e-6,
)

_SWAP = Predict(
    "What may be swapped?",
    (True, True, False, False),
    (
        Misconception(
            (True, True, True, True),
            "Two of the four are wrong for some picture. Try (iii) on the pixels -1 and 1, and (iv) on a row of five.",
        ),
        Misconception(
            (True, True, True, False),
            "ReLU and averages do not swap: -1 and 1 average to 0, but after ReLU they are 0 and 1, and average "
            "to one half.",
        ),
        Misconception(
            (True, True, False, True),
            "Five is odd: the last row and column fall away, and in the mirror image these are others.",
        ),
        Misconception(
            (True, False, False, False),
            "The largest of the largest is the largest of all, so for maxima twice 2 is 4, too.",
        ),
        Misconception((False, True, False, False), "Blocks of equal size: the mean of their means is the mean of all."),
    ),
    (
        "For (i) and (ii) write the 16 pixels of a 4 × 4 block down.",
        "For (iii) two pixels are enough, a positive and a negative one.",
        "For (iv): which row of a 5 × 5 picture belongs to no block of 2 × 2?",
    ),
    "Whatever swaps can be computed in the cheaper order; whatever does not is a choice that should be named.",
)

_WINDOW = Predict(
    "Does it see further?",
    {"window": 12, "features": 16, "further": False},
    (
        Misconception(
            {"window": 3},
            "3 is counted in pixels of the small picture. One of those is four pixels of the large one wide.",
        ),
        Misconception({"window": 6}, "That is level 2. At level 3 the picture has been halved twice."),
        Misconception(
            {"features": 14},
            "14 is what a feature of level 2 sees. Pooling takes four of them, so it is one step of 2 more.",
        ),
        Misconception(
            {"features": 32}, "That is after the block of level 3. Asked is what comes in from above, before it."
        ),
        Misconception(
            {"window": 12, "features": 16, "further": True},
            "Both numbers are right: and the smaller window lies within the larger. What the pyramid adds is not "
            "reach.",
        ),
    ),
    (
        "A pixel of the small picture at level 3 is 4 pixels wide. How many of them does a 3 × 3 convolution read "
        "in a row?",
        "Features: two 3 × 3 convolutions see 5 pixels; pooling adds 1; two more convolutions on pixels of width "
        "2 add 8; pooling adds 2.",
        "3 · 4 and 5 + 1 + 8 + 2.",
    ),
    "The pyramid does not widen the view. It lets the level see the plain picture where it saw only what others "
    "made of it.",
)


def _gauss_half(x: Tensor) -> Tensor:
    return _smoothed(x, "replicate")[..., ::2, ::2]


def _smoothed(x: Tensor, rim: str) -> Tensor:
    w = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode=rim), torch.outer(w, w)[None, None])


def _pictures(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"x": torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]])}
    yield {"x": torch.full((1, 1, 4, 4), 0.3)}
    yield {"x": torch.rand(2, 1, 8, 12, generator=generator)}


_GAUSS = Implement(
    "A Gaussian pyramid",
    _gauss_half,
    _pictures,
    (
        Misconception(
            lambda x: F.avg_pool2d(x, 2),
            "That is average pooling. Burt and Adelson weigh five pixels in each direction, not two.",
        ),
        Misconception(
            lambda x: _smoothed(x, "constant")[..., ::2, ::2],
            "The rim gets darker: outside the picture you take zeros. Repeat the edge instead, so that a grey "
            "picture stays grey.",
        ),
        Misconception(
            lambda x: _smoothed(x[..., ::2, ::2], "replicate"),
            "First smooth, then take every second pixel. The other way round the fine stripes have turned into "
            "coarse ones before you smooth, and nothing can tell them apart any more.",
        ),
        Misconception(
            lambda x: 16 * _gauss_half(x),
            "16 times too bright. There are rows and columns, so the weights are divided by 16 twice.",
        ),
        Misconception(
            lambda x: _smoothed(x, "replicate"),
            "Smoothed, but as large as before: take every second pixel of every second row.",
        ),
        Misconception(
            lambda x: _smoothed(x, "replicate")[..., 1::2, 1::2],
            "You kept the odd rows and columns. Start with the first pixel, as a stride of 2 does.",
        ),
    ),
    (
        "The outer product of (1, 4, 6, 4, 1)/16 with itself is a kernel of 5 × 5 whose entries add up to 1.",
        '`F.pad(x, (2, 2, 2, 2), mode="replicate")`, so that the kernel has neighbours at the rim.',
        "One `F.conv2d` with `stride=2` smooths and takes every second pixel at once.",
    ),
    "At period 3 it lets one sixteenth through, where the mean of two lets one half through.",
)

_CONTRAST = Extend(
    "A pyramid of local contrast",
    compare_arms(
        ("pyramid", "blank pyramid", "contrast"),
        "Without the pyramid nobody knows whether contrast is better than grey, and without the blank one whether "
        "it is the picture.",
    ),
    (
        {"pyramid": [0.91, 0.9, 0.92], "contrast": [0.92, 0.91, 0.93]},
        {"pyramid": [0.91], "blank pyramid": [0.9], "contrast": [0.92]},
        {"pyramid": [91.0, 90.0, 92.0], "blank pyramid": [90.0, 90.5, 91.0], "contrast": [92.0, 91.0, 93.0]},
    ),
    (
        "A hook on each `PyramidInput` can change what it is given: `register_forward_pre_hook`.",
        "The picture's own blurred copy is `F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)`.",
    ),
    "Does it win under the test that you named beforehand, in every seed? If it wins elsewhere only, that is a "
    "new hypothesis.",
)

EXERCISES: tuple[Exercise, ...] = (_COUNT, _SWAP, _WINDOW, _GAUSS, _CONTRAST)

QUIZ = (
    Question(
        "What is the blank pyramid for?",
        (
            (
                "It has the pyramid's parts without the picture, so a gain over it is the picture's.",
                "Yes: it is the control that is missing wherever a part is only compared with its absence.",
            ),
            (
                "It shows that the extra parameters alone do not help.",
                "Nearly, but no: its constants are taken away by the normalisation, so it is no control for capacity.",
            ),
            (
                "It makes training faster, since zeros need no arithmetic.",
                "The convolutions run all the same; it costs what the pyramid costs.",
            ),
        ),
    ),
    Question(
        "Why is a picture halved by averages rather than by taking every second pixel?",
        (
            (
                "Averages keep fine stripes, single pixels lose them.",
                "Neither can keep what is too fine for the small picture. The question is what becomes of it.",
            ),
            (
                "Fine stripes come back as coarse ones that were never there; averages weaken them first.",
                "Yes: that is aliasing, and a mean of two is a mild cure for it.",
            ),
            (
                "Averages make the lungs brighter, which helps the network.",
                "The mean stays the same at every level. It is maxima that brighten.",
            ),
        ),
    ),
    Question(
        "A level's features let a linear reader tell more of the picture than before. What follows?",
        (
            (
                "The network is more accurate.",
                "In the chapter the deepest level gained most in the read-out, and Dice hardly moved.",
            ),
            (
                "The network uses what it knows there.",
                "Whether it does was asked by blanking that level's picture, which is another experiment.",
            ),
            (
                "The information is there, within reach of the next convolution.",
                "Yes, and no more than that: knowing is not using, and using is not needing.",
            ),
        ),
    ),
)
