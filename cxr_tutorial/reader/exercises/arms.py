"""What an open exercise with trained networks must bring: every arm, and enough seeds of each (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

SEEDS = 3


def compare_arms(arms: Sequence[str], why: str, *, low: float = 0.0, high: float = 1.0) -> Callable[[Any], str | None]:
    """A judge for a dictionary that holds one figure for each seed of each arm of a comparison.

    It asks for what makes a comparison fair, not for an outcome.

    Parameters
    ----------
    arms : the keys that must be there; the reader may add others.
    why : one sentence, what the comparison would mean without one of them.
    low, high : what figures of this kind can be.

    Examples
    --------
    >>> judge = compare_arms(["mine", "theirs"], "Against whom?")
    >>> judge({"mine": [0.9, 0.8, 0.9]})
    "there is no arm 'theirs'. Against whom?"
    >>> judge({"mine": [0.9, 0.8, 0.9], "theirs": [0.7, 0.9, 0.8]}) is None
    True
    """

    def judge(answer: Any) -> str | None:
        if not isinstance(answer, Mapping):
            return f"give a dictionary with the arms {', '.join(map(repr, arms))}, each with one figure a seed."
        if missing := [arm for arm in arms if arm not in answer]:
            return f"there is no arm {', '.join(map(repr, missing))}. {why}"
        try:
            figures = {str(arm): np.asarray(values, dtype=float).ravel() for arm, values in answer.items()}
        except (TypeError, ValueError):
            return "each arm wants a list of numbers, one for each seed."
        if few := [arm for arm, values in figures.items() if len(values) < SEEDS]:
            return (
                f"{few[0]!r} has fewer than {SEEDS} seeds. A single run says what can happen, not what does: "
                "seeds differ by as much as the arms often do."
            )
        if len({len(values) for values in figures.values()}) > 1:
            return "the arms have different numbers of seeds. Use the same seeds for all, to compare them in pairs."
        for arm, values in figures.items():
            fine = (values >= low) & (values <= high)
            if not fine.all():
                return f"{arm!r} holds {values[~fine][0]:g}, but such a figure lies between {low:g} and {high:g}."
        if all(np.ptp(values) == 0 for values in figures.values()):
            return "all seeds of every arm have the same figure. Did the seed reach the weights and the batches?"
        return None

    return judge
