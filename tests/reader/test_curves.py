"""The game's two wishes against autograd, and the curves of records against the records."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.curves import adversarial_slopes, budget_curves, stands_of
from cxr_tutorial.results import load_records
from cxr_tutorial.train.objectives import adversarial_loss


@pytest.mark.parametrize("form", ["non-saturating", "saturating"])
def test_losses_and_slopes_are_those_of_the_package(form):
    for frame in adversarial_slopes().frames:
        suspicion = float(frame.name)
        logits = torch.tensor([[0.0, np.log(suspicion / (1 - suspicion))]], requires_grad=True)
        loss = adversarial_loss(logits, torch.tensor([-1]), form).sum()
        (slope,) = torch.autograd.grad(loss, logits)
        tangent, contact, below = frame.data[:3] if form == "non-saturating" else frame.data[3:]
        assert contact.y[0] == pytest.approx(loss.item(), abs=1e-3)
        assert np.diff(tangent.y)[0] / np.diff(tangent.x)[0] == pytest.approx(slope[0, 1].item(), abs=1e-3)
        assert (below.x[0], below.y[0]) == pytest.approx((suspicion, slope[0, 1].item()), abs=1e-5)
        assert contact.text[0] == f"slope {slope[0, 1].item():.2f}"


@pytest.fixture(scope="module")
def records():
    return load_records()


def test_a_stand_is_mean_and_students_interval_of_its_runs(records):
    runs = [
        r.metrics["test"]["dice"]["mean"]
        for r in records
        if r.group == "budget-jsrt" and r.id.startswith("supervised-m1-")
    ]
    stand = stands_of(records)["jsrt", "test"]["supervised"][0]
    half = student.ppf(0.975, len(runs) - 1) * np.std(runs, ddof=1) / len(runs) ** 0.5
    assert stand.runs == len(runs) > 2
    assert (stand.masks, stand.mean, stand.half) == pytest.approx((1, np.mean(runs), half))


def test_both_lists_work_on_what_is_drawn(records):
    figure = budget_curves(records)
    where, which = figure.layout.updatemenus
    names = [trace.name for trace in figure.data]
    assert len(where.buttons) == len(stands_of(records))
    for button in where.buttons:
        restyle = button.args[0]
        assert {len(values) for values in restyle.values()} == {len(names)}
        assert [len(x) for x in restyle["x"]] == [len(half) for half in restyle["error_y.array"]]
    for button in which.buttons:
        assert len(button.args[0]["visible"]) == len(names)
        assert sum(button.args[0]["visible"]) > 1
    assert where.buttons[0].args[0]["y"] == [trace.y for trace in figure.data]


def test_a_single_run_is_hollow_and_has_no_bar(records):
    one = [r for r in records if r.group == "budget-jsrt" and r.id.startswith("supervised-m1-")][:1]
    (trace,) = budget_curves(one).data
    assert trace.marker.symbol == ("square-open",)
    assert trace.error_y.array == (0,)
    assert "single run" in trace.text[0]


def test_a_contestant_of_the_readers_own_is_drawn_too(records):
    ours = [r for r in records if r.group == "budget-jsrt" and r.id.startswith("supervised-m5-")]
    mine = [replace(r, id=r.id.replace("supervised", "mine")) for r in ours]
    assert [trace.name for trace in budget_curves([*mine, *ours]).data] == ["supervised", "mine"]


def test_without_records_it_says_where_they_are(records):
    with pytest.raises(InputError, match=r"load_records\(\)"):
        budget_curves(r for r in records if r.group == "tb")
