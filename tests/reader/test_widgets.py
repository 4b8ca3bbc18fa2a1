"""The live figures: they draw, and a control changes what is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.example import Examples
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import Discriminator, Segmentor
from cxr_tutorial.reader import widgets
from cxr_tutorial.reader.widgets import _spoilt
from cxr_tutorial.train import Recipe, fit_segmentor


@pytest.fixture
def titles(monkeypatch):
    """The titles of the newest drawing."""
    seen: list[str] = []

    def show():
        seen[:] = [ax.get_title() for ax in plt.gcf().axes]

    monkeypatch.setattr(plt, "show", show)
    return seen


@pytest.fixture
def shown(monkeypatch):
    """The lines of the newest drawing, where the outlines are."""
    seen: list[list[float]] = []

    def show():
        drawn = plt.gcf().axes[0].collections
        seen[:] = [[float(v) for path in part.get_paths() for v in path.vertices.ravel()] for part in drawn]

    monkeypatch.setattr(plt, "show", show)
    return lambda: [list(one) for one in seen]


@pytest.fixture(scope="module")
def segmentor(examples):
    torch.manual_seed(0)
    recipe = Recipe(batch_size=3, learning_rate=1e-2, ema=0.5, accelerator="cpu")
    return fit_segmentor(Segmentor((8, 8, 8, 8)), cache(examples, 32), steps=20, recipe=recipe, progress=False).model


def control(panel, name):
    [found] = [child for child in panel.children if getattr(child, "description", "") == name]
    return found


@pytest.fixture(scope="module")
def examples():
    return load_synthetic()[:3]


def test_the_site_changes_the_exposure(titles):
    panel = widgets.explore_exposure(size=64)
    assert titles[0] == "patient 10, site a"
    control(panel, "site").value = "c"
    assert titles[0] == "patient 10, site c"


def test_a_dearer_miss_moves_the_edge_out(titles, examples):
    panel = widgets.explore_prices(examples)
    areas = []
    for price in (0.2, 0.5, 0.9):
        control(panel, "fn weight").value = price
        areas.append(float(titles[0].split()[1]))
    assert areas[0] < areas[1] < areas[2]


def test_r2_does_not_mind_what_is_too_large(titles, examples):
    panel = widgets.explore_readings(examples)
    charges = {}
    for grow in (0, 6):
        control(panel, "grow").value = grow
        charges[grow] = {title.split()[0]: float(title.split()[-1]) for title in titles[1:]}
    assert charges[6]["R1"] > charges[0]["R1"]
    assert charges[6]["R2"] <= charges[0]["R2"]


def test_without_kl_the_sum_is_tversky(titles, examples):
    panel = widgets.explore_forces(examples)
    control(panel, "kl weight").value = 0.0
    values = {title.rsplit(" ", 1)[0]: float(title.rsplit(" ", 1)[1]) for title in titles[1:]}
    assert values["KL, R2"] == 0
    assert values["KLTV"] == values["Tversky"] > 0


def test_a_gate_that_lets_all_through_has_a_map_of_ones(titles, examples, segmentor):
    panel = widgets.explore_gates(segmentor, examples, size=32)
    own = list(titles)
    control(panel, "let through").value = "everything"
    assert titles[1:] == ["map of level 2, mean 1.00", "map of level 3, mean 1.00"]
    control(panel, "let through").value = "their own maps"
    assert titles == own, "the model is as it was"


def test_the_last_pyramid_input_grows_with_the_picture(titles, examples, segmentor):
    panel = widgets.explore_scale(segmentor, examples, size=32)
    assert titles[1] == "x_4, 4 × 4 pixels"
    control(panel, "side").value = 64
    assert titles[1] == "x_4, 8 × 8 pixels"


def test_what_a_blank_pyramid_input_does_is_shown(shown, examples, segmentor):
    panel = widgets.explore_scale(segmentor, examples, size=32)
    first = shown()
    control(panel, "blank").value = "x_2"
    assert shown() != first


def test_without_the_finest_level_the_last_two_sums_are_alike(titles, examples, segmentor):
    panel = widgets.explore_levels(segmentor, examples, size=32)
    assert [title.split(",")[0] for title in titles] == ["level 3", "level 2", "level 1"]
    control(panel, "without").value = "level 1"
    assert titles[-1].split()[-1] == titles[-2].split()[-1]


def test_the_judge_answers_to_the_mask(titles, examples):
    torch.manual_seed(0)
    panel = widgets.explore_judge(Discriminator(widths=(8, 16), norm="none"), examples, size=32)
    first = titles[1]
    control(panel, "confidence").value = 0.55
    assert titles[1] != first


def test_a_budget_is_trained_once_and_its_tries_stay(titles, segmentor, examples, monkeypatch):
    asked = []

    def learn(method, masks, seed):
        asked.append((method, masks, seed))
        return segmentor

    tries: list[int] = []
    show = plt.show
    monkeypatch.setattr(plt, "show", lambda: (show(), tries.append(sum(map(len, _tries())))))
    panel = widgets.explore_budget(learn, ("alone", "teacher"), examples, most=8, size=32)
    control(panel, "masks").value = 2
    control(panel, "method").value = "teacher"
    control(panel, "picture").value = examples.ids[1]
    control(panel, "method").value = "alone"
    assert asked == [("alone", 4, 0), ("alone", 2, 0), ("teacher", 2, 0)]
    assert tries == [1, 2, 3, 3, 3]
    assert titles[1].startswith("mean Dice of 3 pictures")


def _tries():
    return [line.get_xdata() for line in plt.gcf().axes[1].lines if not line.get_label().startswith("_")]


def test_a_segmentor_without_the_idea_is_refused(examples):
    plain = Segmentor((4, 8), pyramid=False, progressive=False, attention=False)
    for explore in (widgets.explore_gates, widgets.explore_scale, widgets.explore_levels):
        with pytest.raises(InputError, match="build it with"):
            explore(plain, examples)


def test_another_picture_can_be_chosen(titles, examples):
    panel = widgets.explore_forces(examples)
    before = list(titles)
    control(panel, "picture").value = examples.ids[1]
    assert titles != before


def test_a_set_without_masks_is_refused():
    with pytest.raises(InputError, match="no example has a mask"):
        widgets.explore_forces(Examples((), read=None, name="none"))


def test_a_budget_that_cannot_be_moved_is_refused(examples, segmentor):
    with pytest.raises(InputError, match="most is 1"):
        widgets.explore_budget(lambda *_: segmentor, ("alone",), examples, most=1)


def test_a_spoilt_mask_is_larger_by_as_many_pixels_as_are_asked_for():
    square = np.zeros((41, 41), bool)
    square[10:31, 10:31] = True
    sides = [int((_spoilt(square, grow, 0.9)[0] > 0).any(0).sum()) for grow in (-2, -1, 0, 1, 2, 3)]
    assert sides == [17, 19, 21, 23, 25, 27]
