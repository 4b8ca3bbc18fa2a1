"""How much an experiment does: a minute on a laptop to see that it works, or what is worth reporting (floor 0)."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_tutorial.errors import InputError


@dataclass(frozen=True)
class Profile:
    """What an experiment notebook does where its parameters leave the choice open.

    Attributes
    ----------
    data, split, size, widths, steps : see `config.Config`.
    seeds : of the trainings, one each.
    """

    data: str
    split: str
    size: int
    widths: str
    steps: int
    seeds: tuple[int, ...]


PROFILES = {
    "quick": Profile("synthetic", "patient", size=64, widths="tiny", steps=40, seeds=(1,)),
    "full": Profile("jsrt", "public", size=128, widths="small", steps=450, seeds=(1, 2, 3)),
}


def get_profile(name: str) -> Profile:
    """The profile of this name.

    >>> get_profile("full").seeds
    (1, 2, 3)

    Raises
    ------
    InputError : there is none.
    """
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
