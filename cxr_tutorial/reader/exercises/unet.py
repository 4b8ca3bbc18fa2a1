"""Exercises of chapter 5, the attention U-Net (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.nets import WIDTHS, Segmentor, summarize_segmentor
from cxr_tutorial.reader.exercises.arms import compare_arms
from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_DEEPER = Predict(
    "A deeper block",
    {"interval": (-5, 20), "sees further": "three levels"},
    (
        Misconception(
            {"interval": (0, 17)},
            "That is the table's own U, with two convolutions per block. Here each block has three.",
        ),
        Misconception(
            {"interval": (-5, 19)},
            "The left end is right. On the way back through pooling the last pixel is 2 · last + 1: a pooled "
            "pixel comes from two, and the second of them is one further right.",
        ),
        Misconception(
            {"interval": (-1, 17)},
            "You walked nine pixels to each side, as if all convolutions worked at full size. Two of the three "
            "blocks you pass do, the lowest works on pixels twice as wide.",
        ),
        Misconception(
            {"interval": (2, 14)},
            "That is the way over the skip connection, six convolutions. The way through the bottom reaches further.",
        ),
        Misconception(
            {"interval": (-5, 20), "sees further": "three per block"},
            "The interval is right, 26 pixels. For the second part walk back through three levels with two "
            "convolutions per block: that is one convolution more in a row, and a step at the bottom is four "
            "pixels wide.",
        ),
    ),
    (
        "Copy the table of the section and replace each ± 2 by ± 3. The order of the rows stays.",
        "Up: half of each, rounded down. Half of 5 and of 11 are 2 and 5.",
        "[8, 8], [5, 11], [2, 5], [-1, 8], then 2 first and 2 last + 1, then once more ± 3.",
    ),
    "Levels beat depth: one more level doubles the reach of a step, one more convolution adds a step.",
)


def _cost(widths: tuple[int, ...], size: int) -> np.ndarray:
    with torch.device("meta"):  # shapes without numbers
        summary = summarize_segmentor(Segmentor(widths, pyramid=False, progressive=False, attention=False), size)
    return np.array([summary.parameters, summary.flops])


def _factors() -> dict[str, tuple[float, float]]:
    widths = WIDTHS["base"]
    before = _cost(widths, 128)
    changed = {
        "256 px": (widths, 256),
        "half widths": (tuple(c // 2 for c in widths), 128),
        "four levels": (widths[:4], 128),
    }
    return {name: tuple((_cost(*how) / before).round(3).tolist()) for name, how in changed.items()}


_COST = Predict(
    "What does it cost?",
    _factors(),
    (
        Misconception(
            {"256 px": (4, 4)},
            "Convolutions do not know the size of the picture: their kernels are the same, they are only used at "
            "four times as many places.",
        ),
        Misconception(
            {"256 px": (1, 2)},
            "Twice as wide and twice as high: four times as many places, so four times the operations.",
        ),
        Misconception(
            {"half widths": (0.5, 0.5)},
            "A convolution from c to c' channels has 9 c c' weights, and both are halved: a quarter, not a half.",
        ),
        Misconception(
            {"four levels": (_factors()["four levels"][1], _factors()["four levels"][1])},
            "Operations and weights do not live in the same place. Look at the table of levels: how much of the "
            "weights has the lowest level, and how much of the operations?",
        ),
    ),
    (
        "Two of the six numbers are exactly 1 and 4.",
        "9 c c' weights: what becomes of it if both c and c' are halved?",
        "For the lowest level read the table of the section on costs, and add what leads up from it: the "
        "transposed convolution and half of what the decoder above reads. About a fifth of the weights is left, "
        "and most of the operations.",
    ),
    "Channels cost weights, pixels cost operations, and a level more costs weights but hardly any time.",
    tolerance=0.1,
)


def _product_map(x: Tensor, g: Tensor, psi: Tensor, b: float) -> Tensor:
    q = (psi.view(1, -1, 1, 1) * x * g).sum(1, keepdim=True) + b
    return F.interpolate(q, scale_factor=2.0, mode="bilinear").sigmoid()


def _sum_map(x: Tensor, g: Tensor, psi: Tensor, b: float) -> Tensor:
    q = (psi.view(1, -1, 1, 1) * F.relu(x + g)).sum(1, keepdim=True) + b
    return F.interpolate(q, scale_factor=2.0, mode="bilinear").sigmoid()


def _pairs(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    yield {"x": torch.tensor([[[[1.0, -2.0]]]]), "g": torch.tensor([[[[1.0, 1.0]]]]), "psi": torch.ones(1), "b": 0.0}
    for n, inner, h, w in ((1, 2, 2, 2), (2, 3, 3, 4)):
        x, g = (torch.randn(n, inner, h, w, generator=generator) for _ in range(2))
        yield {"x": x, "g": g, "psi": torch.randn(inner, generator=generator), "b": 0.5}


_PRODUCT = Implement(
    "A multiplicative gate",
    _product_map,
    _pairs,
    (
        Misconception(
            _sum_map, "That is the additive gate of the chapter. Replace the ReLU of the sum by the product."
        ),
        Misconception(
            lambda x, g, psi, b: _product_map(F.relu(x * g), torch.ones_like(g), psi, b),
            "A ReLU is left around the product. Without it the map can also say no: where skip and gate disagree, "
            "q goes down.",
        ),
        Misconception(
            lambda x, g, psi, b: F.interpolate(
                ((psi.view(1, -1, 1, 1) * x * g).sum(1, keepdim=True) + b).sigmoid(), scale_factor=2.0, mode="bilinear"
            ),
            "Sigmoid first and then enlarged is Oktay's order. Ours enlarges q and squeezes last, as in the "
            "equation of the gate.",
        ),
        Misconception(
            lambda x, g, psi, b: F.interpolate(
                (psi.view(1, -1, 1, 1) * x * g).sum(1, keepdim=True) + b, scale_factor=2.0, mode="nearest"
            ).sigmoid(),
            "Your map is enlarged in blocks. Up is bilinear here, as in the gate of the chapter.",
        ),
        Misconception(
            lambda x, g, psi, b: F.interpolate(
                psi.view(1, -1, 1, 1) * x * g + b, scale_factor=2.0, mode="bilinear"
            ).sigmoid(),
            "You have one map for each channel. Psi adds the channels up to a single number for each place.",
        ),
    ),
    (
        "Three steps: multiply the two, weigh the channels by psi and add them up, add b. Then enlarge and squeeze.",
        "`psi.view(1, -1, 1, 1)` gives psi a shape that multiplies channels; `.sum(1, keepdim=True)` adds them up.",
        '`F.interpolate(q, scale_factor=2.0, mode="bilinear").sigmoid()` is the last line.',
    ),
    "A product is an 'and', a sum can be large for one of the two alone. Where the gate says 0, the skip's "
    "weights learn nothing.",
)


def _far_false_positives(guess: Tensor, truth: Tensor, far: float) -> float:
    from scipy.ndimage import distance_transform_edt

    distance = torch.tensor(np.array([distance_transform_edt(~one.numpy()) for one in truth]))
    return float((guess & (distance > far)).sum() / len(truth))


def _masks(generator: torch.Generator) -> Iterator[dict[str, Any]]:
    row = torch.tensor([[[True, False, False, False, False, False]]])
    yield {"guess": torch.ones_like(row), "truth": row, "far": 2}
    for n, side in ((1, 9), (3, 16)):
        truth = torch.zeros(n, side, side, dtype=torch.bool)
        for one in truth:
            top, left = torch.randint(0, side - 6, (2,), generator=generator).tolist()
            one[top : top + 6, left : left + 6] = True
        yield {"guess": torch.rand(n, side, side, generator=generator) < 0.6, "truth": truth, "far": 2}


def _with_distance(measure: Any, farther: Any = torch.gt, mean: Any = None) -> Any:
    def wrong(guess: Tensor, truth: Tensor, far: float) -> float:
        from scipy.ndimage import distance_transform_edt

        distance = torch.tensor(measure(distance_transform_edt, truth))
        found = guess & farther(distance, far)
        return float(found.sum() / len(truth) if mean is None else mean(found.float()))

    return wrong


def _each(edt: Any, truth: Tensor) -> np.ndarray:
    return np.array([edt(~one.numpy()) for one in truth])


_FAR = Implement(
    "Far false positives",
    _far_false_positives,
    _masks,
    (
        Misconception(
            _with_distance(_each, torch.ge),
            "A pixel exactly `far` away counts for you. The chapter counts those that are farther.",
        ),
        Misconception(
            _with_distance(lambda edt, truth: np.array([edt(one.numpy()) for one in truth])),
            "`distance_transform_edt` gives each True pixel its distance to the nearest False one. You measured "
            "how deep a pixel lies in the lung; for the distance to it, hand over the background.",
        ),
        Misconception(
            _with_distance(lambda edt, truth: edt(~truth.numpy())),
            "You measured the distance in the whole stack at once. Then the lung of the next picture counts as a "
            "neighbour: take the pictures one by one.",
        ),
        Misconception(
            _with_distance(_each, mean=torch.sum),
            "That is the count over all pictures together. The chapter's figure is per picture.",
        ),
        Misconception(
            _with_distance(_each, mean=torch.mean),
            "That is a share of all pixels. What is asked for is a count, per picture.",
        ),
    ),
    (
        "First the distance of each pixel to the lung, 0 inside. Which of SciPy's functions did the chapter "
        "import for that?",
        "`distance_transform_edt(~one.numpy())` for each picture `one` of `truth`.",
        "Then count `guess & (distance > far)` and divide by the number of pictures.",
    ),
    "A count like this sees one kind of mistake only, which is what makes it good for asking about one idea.",
)

_TEACH = Extend(
    "Teach the gate where to look",
    compare_arms(
        ("U-Net", "open gate", "mine"),
        "Without the U-Net nobody knows whether a gate is worth having, and without the open gate whether it was "
        "the attention.",
        high=64 * 64,
    ),
    (
        {"U-Net": [40.0, 31.0, 35.0], "mine": [20.0, 22.0, 30.0]},
        {"U-Net": [40.0], "open gate": [33.0], "mine": [20.0]},
        {"U-Net": [40.0, 31.0, 35.0], "open gate": [30.0, 31.0, 33.0], "mine": [20.0, -1.0, 30.0]},
        {"U-Net": [40.0, 31.0, 35.0, 38.0], "open gate": [30.0, 31.0, 33.0], "mine": [20.0, 22.0, 30.0]},
    ),
    (
        "Decide first what you count and how many seeds must agree; write it down.",
        "`fit_segmentor` adds the loss of side outputs to that of the mask: a map handed over as one is taught by "
        "the mask.",
    ),
    "Now hold it against the rule that you wrote down. What would have to come out for you to say that it does "
    "not help?",
)

EXERCISES: tuple[Exercise, ...] = (_DEEPER, _COST, _PRODUCT, _FAR, _TEACH)

QUIZ = (
    Question(
        "Why does a U-Net need levels to keep the stomach out of the lung?",
        (
            (
                "Each level adds channels, so there are more weights to remember stomachs with.",
                "The wide network without levels had at least as many weights, and painted far from the lung all "
                "the same.",
            ),
            (
                "On a smaller picture the same convolution reaches twice as far.",
                "Yes: a pixel has to see the chest to know where in it it is, and reach per convolution is what a "
                "level buys.",
            ),
            (
                "Pooling removes dark pixels outside the lung.",
                "Max pooling keeps the largest of four features wherever they are; it knows nothing of lungs.",
            ),
        ),
    ),
    Question(
        "What does the gate see of the place that it opens or shuts?",
        (
            (
                "The skip's own features, and beside them what the coarser level has made of the same place.",
                "Yes: both are added before the ReLU, so the coarser level can ask and the skip can answer.",
            ),
            (
                "The true mask, during training.",
                "No mask enters the gate. It hears of masks only through the gradient of the loss.",
            ),
            (
                "The channels of the skip, each of which it weighs by itself.",
                "There is one map for all channels: the gate says where, not what.",
            ),
        ),
    ),
    Question(
        "A trained attention map is dark inside the lungs. What follows?",
        (
            (
                "The gate has failed: it silences the lung.",
                "A silenced place is a clear signal, too, and the next layer brings a sign and a bias of its own.",
            ),
            (
                "The network decides by what lies outside the lungs.",
                "That reads the map as an explanation. It shows that two places are told apart, not which of them "
                "matters.",
            ),
            (
                "Only that the network tells the two places apart.",
                "Yes: the loss sees what comes out in the end, and forbids neither a map nor its negative.",
            ),
        ),
    ),
)
