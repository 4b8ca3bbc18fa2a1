"""The hospital of the capstone: many pictures, few masks, some classes, and tests of its own (floor 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_tutorial.data import CachedSet, Examples, cache
from cxr_tutorial.data.synthetic import lesion_grades, load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.metrics import auc

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
SITE, SIZE = "c", 64
CLEAR = 4  # of 1, extremely subtle, to 5, obvious


@dataclass(frozen=True, eq=False)
class Hospital:
    """What may be seen in training, and other patients of the same hospital with the truth.

    Attributes
    ----------
    data : the training set; what is not revealed is not in it: other masks are blank, other labels -1.
    images, masks, labels : (N, 1, 64, 64) float in [0, 1], (N, 1, 64, 64) bool, (N,) int64.
    """

    data: CachedSet
    images: Tensor
    masks: Tensor
    labels: Tensor


def hospital(seed: int, *, masks: int = 10, labels: int = 40, train: int = 144, test: int = 160) -> Hospital:
    """A synthetic hospital: the first `masks` pictures have their mask, the first `labels` their class.

    Who has a finding at all has one that can be seen at 64 pixels: the subtle ones are sent elsewhere.

    Parameters
    ----------
    seed : draws every patient; the patients of the test are others. masks, labels : how many are revealed.
    train, test : how many pictures.

    Introduced in assignment 6.

    >>> small = hospital(3, masks=2, labels=4, train=8, test=4)
    >>> int(small.data.has_mask.sum()), int((small.data.labels >= 0).sum()), small.images.shape
    (2, 4, torch.Size([4, 1, 64, 64]))
    """
    if not 0 < masks <= train or not 0 <= labels <= train:
        raise InputError(f"masks and labels must be at most the {train} training pictures, got {masks} and {labels}")
    whole = cache(_clear_cases(train, seed), SIZE)
    coverage = np.array(whole.coverage)
    coverage[masks:] = 0
    seen = replace(whole, coverage=coverage).reveal(masks=whole.ids[:masks], labels=whole.ids[:labels])
    others = list(_clear_cases(test, seed + 1))
    images = torch.stack([torch.from_numpy(one.image) for one in others])[:, None]
    truth = torch.stack([torch.from_numpy(one.mask) for one in others])[:, None]
    return Hospital(seen, images, truth, torch.tensor([one.label for one in others]))


def _clear_cases(n: int, seed: int) -> Examples:
    """The first `n` patients without a finding or with one that can be seen at this size."""
    many: dict[str, Any] = {"n": 5 * n // 2 + 40, "seed": seed, "site": SITE, "finding_rate": 0.7}
    clear = [i for i, grade in enumerate(lesion_grades(**many)) if grade == 0 or grade >= CLEAR]
    return load_synthetic(size=SIZE, **many).subset(clear[:n])


def figures(predict: Predict, there: Hospital) -> dict[str, float]:
    """Mean Dice of the masks, cut at one half, and AUC of the scores on the hospital's test patients.

    >>> there = hospital(3, masks=2, labels=4, train=8, test=8)
    >>> figures(lambda images: (torch.ones_like(images), torch.zeros(len(images))), there)["auc"]
    0.5
    """
    with torch.no_grad():
        drawn, scores = predict(there.images.clone())
    hard = drawn > 0.5
    overlap = (hard & there.masks).sum((1, 2, 3)).double()
    dice = 2 * overlap / (hard.sum((1, 2, 3)) + there.masks.sum((1, 2, 3))).clamp(min=1)
    return {"dice": float(dice.mean()), "auc": auc(there.labels.tolist(), scores.double().numpy())}
