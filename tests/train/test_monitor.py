"""The game's health, in words."""

import pytest

from cxr_tutorial.errors import InputError
from cxr_tutorial.train import diagnose

HEALTHY = {"q_real": 0.3, "q_pred": 0.6, "d_accuracy": 0.7, "slope_seg": 1.0, "slope_adv": 0.1}


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"d_accuracy": 0.99, "q_real": 0.01, "q_pred": 0.99}, "d-wins", "99% of the pairs"),
        ({"q_real": 0.5, "q_pred": 0.51}, "d-blind", "0.50 on real and 0.51"),
        ({"slope_adv": 0.001}, "s-unheard", "0.1% of the slope"),
        ({"slope_adv": 3.0}, "s-drowned", "3.0 times as strongly"),
    ],
)
def test_each_illness_is_named_alone_and_explained(change, name, words):
    [verdict] = diagnose([HEALTHY] * 10 + [HEALTHY | change] * 50)
    assert verdict.name == name
    assert words in verdict.words


def test_a_healthy_game_and_one_that_s_does_not_hear_are_not_ill():
    assert diagnose([HEALTHY] * 50) == []
    assert diagnose([HEALTHY | {"slope_adv": 0.0}] * 50) == []


def test_a_short_or_other_history_is_refused():
    with pytest.raises(InputError, match="needs 50 steps"):
        diagnose([HEALTHY] * 9)
    with pytest.raises(InputError, match="with step, seg"):
        diagnose([{"step": 1.0, "seg": 0.1}] * 50)
