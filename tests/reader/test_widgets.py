"""The live figures: they draw, and a control changes what is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from cxr_tutorial.data.example import Examples
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.reader import widgets


@pytest.fixture
def titles(monkeypatch):
    """The titles of the newest drawing."""
    seen: list[str] = []

    def show():
        seen[:] = [ax.get_title() for ax in plt.gcf().axes]

    monkeypatch.setattr(plt, "show", show)
    return seen


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


def test_another_picture_can_be_chosen(titles, examples):
    panel = widgets.explore_forces(examples)
    before = list(titles)
    control(panel, "picture").value = examples.ids[1]
    assert titles != before


def test_a_set_without_masks_is_refused():
    with pytest.raises(InputError, match="no example has a mask"):
        widgets.explore_forces(Examples((), read=None, name="none"))
