"""Is the game healthy? What the history of `fit_appaunet` says, in words (floor 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr_tutorial.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """One finding: a name to test for, and what it means and what to try, in words."""

    name: str
    words: str


def diagnose(history: Sequence[dict[str, float]], window: int = 50) -> list[Verdict]:
    """What is wrong with a game, from the last `window` steps of its history; an empty list: nothing was found.

    ===============  ================================================================================
    verdict          when
    ===============  ================================================================================
    `d-wins`         D puts more than 97 % of the pairs on the right side
    `d-blind`        q_K differs by less than .05 between real and predicted pairs
    `s-unheard`      the adversarial slope at S's logits is below 1 % of the supervised one
    `s-drowned`      it is above the supervised one
    ===============  ================================================================================

    The limits are ours (d). A healthy-looking game may still make masks worse: look at validation Dice too.

    Raises
    ------
    InputError : the history is shorter than the window, or not one of `fit_appaunet`.

    Introduced in chapter 8.

    >>> row = {"q_real": 0.02, "q_pred": 0.99, "d_accuracy": 1.0, "slope_seg": 1.0, "slope_adv": 0.1}
    >>> [verdict.name for verdict in diagnose([row] * 50)]
    ['d-wins']
    """
    names = ("q_real", "q_pred", "d_accuracy", "slope_seg", "slope_adv")
    if len(history) < window or window < 1 or any(name not in history[-1] for name in names):
        raise InputError(
            f"diagnose needs {window} steps of fit_appaunet's history, got {len(history)} steps"
            + (f" with {', '.join(history[-1])}" if history else "")
        )
    q_real, q_pred, right, seg, adv = (float(np.mean([row[n] for row in history[-window:]])) for n in names)
    found = []
    if right > 0.97:
        found.append(
            Verdict(
                "d-wins",
                f"D tells real from predicted masks in {right:.0%} of the pairs: it has found something that S cannot "
                "hide, often that true masks are 0 or 1 and predicted ones are not. Show D blurred masks, slow it "
                "down, or lower the adversarial weight.",
            )
        )
    if abs(q_pred - q_real) < 0.05:
        found.append(
            Verdict(
                "d-blind",
                f'D says "predicted" with {q_real:.2f} on real and {q_pred:.2f} on predicted pairs: it cannot tell '
                "them apart. Either S is that good, or D has not learnt: look at its loss, raise its learning rate.",
            )
        )
    if 0 < adv < 0.01 * seg:
        found.append(
            Verdict(
                "s-unheard",
                f"D moves S with {adv / seg:.1%} of the slope of the masks: S does not hear it. Raise the adversarial "
                "weight, or call this run supervised.",
            )
        )
    if adv > seg > 0:
        found.append(
            Verdict(
                "s-drowned",
                f"D moves S {adv / seg:.1f} times as strongly as the masks do: S learns to please D. Lower the "
                "adversarial weight.",
            )
        )
    return found
