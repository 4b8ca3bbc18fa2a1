"""The explorer: every view shows exactly its group's runs, with where each is from."""

from __future__ import annotations

import pytest

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.explorer import contestant, explorer
from cxr_tutorial.results import load_records


@pytest.fixture(scope="module")
def chart():
    return explorer(load_records())


def test_each_view_holds_the_runs_of_its_group_and_no_other(chart):
    records = load_records()
    views = {button.label: button.args[0] for button in chart.layout.updatemenus[0].buttons}
    for group in ("losses", "kltv", "cross-hospital", "tb-options"):
        shown = {
            text.split(":")[0]
            for view, state in views.items()
            if view.startswith(f"{group} ·")
            for text in state["text"][0]
        }
        assert shown == {f"{r.group}/{r.id}" for r in records if r.group == group}


def test_a_dot_says_where_it_is_from(chart):
    record = next(r for r in load_records() if f"{r.group}/{r.id}" == chart.data[0].text[0].split(":")[0])
    said = chart.data[0].text[0]
    for what in (record.provenance.device, record.provenance.date[:10], record.provenance.commit[:7]):
        assert what in said
    assert chart.data[0].y[0] == contestant(record)


def test_nothing_to_explore_is_said():
    with pytest.raises(InputError, match="nothing to explore"):
        explorer([])


def test_nothing_of_the_validation_part_is_shown(chart):
    assert not [button.label for button in chart.layout.updatemenus[0].buttons if "validation" in button.label]
